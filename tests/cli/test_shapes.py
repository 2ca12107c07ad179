"""A run on images that are not square, from the command line: trained, resumed, sampled, measured and exported."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from poise.data.npz import NpzConfig
from poise.runs.run import Run
from poise.runs.run_samples import run_samples

HEIGHT, WIDTH = 12, 20
THIN = ["--set", "network.g.width=2", "--set", "network.d.width=2", "--set", "latent.dim=4", "--set", "batch=4"]
SETTINGS = [*THIN, "--set", f"data.size=[{HEIGHT},{WIDTH}]", "--set", "log.sheet=6", "--set", "measure=none"]
PADDED = ["--set", 'data.fit="pad"', "--set", 'data.background="black"']


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images in two shapes, of which one is that of the run, twice as large."""
    path = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(3)
    for k in range(40):
        height, width = (2 * HEIGHT, 2 * WIDTH) if k % 4 else (16, 12)
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(path / f"{k:02}.png")
    return path


@pytest.fixture(scope="module")
def run(poise: Callable, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps on padded images, stopped after two and resumed."""
    out = tmp_path_factory.mktemp("run") / "run"
    result = poise("train", "dcgan", "--data", folder, *SETTINGS, *PADDED, "--out", out, "--steps", 2)
    assert result.code == 0, result.err
    assert "10 images that are not of the aspect ratio 5:3: they are padded with black (data.fit)" in result.err
    resumed = poise("train", "--resume", "--out", out, "--steps", 3)
    assert resumed.code == 0, resumed.err
    return out


def test_the_recipe_holds_both_sides(run: Path) -> None:
    data = tomllib.loads((run / "recipe.toml").read_text())["data"]
    assert (data["size"], data["fit"]) == ([HEIGHT, WIDTH], "pad")
    assert json.loads((run / "run.json").read_text())["data"]["shape"] == [3, HEIGHT, WIDTH]


def test_resuming_changes_nothing(poise: Callable, folder: Path, run: Path, tmp_path: Path) -> None:
    whole = poise("train", "dcgan", "--data", folder, *SETTINGS, *PADDED, "--out", tmp_path / "w", "--steps", 3)
    assert whole.code == 0, whole.err
    tensors, others = Run(run).checkpoint.tensors, Run(tmp_path / "w").checkpoint.tensors
    assert tensors.keys() == others.keys()
    assert all(tensor.equal(others[name]) for name, tensor in tensors.items())


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image file."""
    with Image.open(path) as im:
        return im.size


def test_samples_have_the_shape(poise: Callable, run: Path, tmp_path: Path) -> None:
    assert poise("sample", run, "--n", 5, "--npz", tmp_path / "s.npz").code == 0
    assert np.load(tmp_path / "s.npz")["images"].shape == (5, HEIGHT, WIDTH, 3)
    assert poise("sample", run, "--n", 3, "--dir", tmp_path / "dir").code == 0
    assert {size_of(path) for path in (tmp_path / "dir").rglob("*.png")} == {(WIDTH, HEIGHT)}
    assert poise("sample", run, "--grid", "2x3", "--gap", 0, "--out", tmp_path / "g.png").code == 0
    assert poise("interpolate", run, "--through", 2, "--seconds", 0.2, "--out", tmp_path / "w.gif").code == 0
    for name in ("g.png", "w.gif"):
        width, height = size_of(tmp_path / name)
        columns, rows = (3, 2) if name == "g.png" else (1, 1)
        assert width * HEIGHT * rows == height * WIDTH * columns, name


def test_it_is_measured_and_exported(poise: Callable, run: Path, tmp_path: Path) -> None:
    words = ["--measures", "fid,high_frequencies", "--features", "pixels", "--json"]
    measured = json.loads(poise("measure", run, *words).out)
    assert set(measured["measures"]) == {"fid", "high_frequencies"}
    assert poise("export", run, "--format", "pt2", "--out", tmp_path / "g.pt2").code == 0


def compared(poise: Callable, *words: object) -> tuple[dict[str, Any], str]:
    """The measures, and what is said about them."""
    result = poise("compare", *words, "--measures", "fid", "--features", "pixels", "--json")
    assert result.code == 0, result.err
    output = json.loads(result.out)
    return output["measures"], "\n".join(output["notes"])


def test_a_comparison_with_a_run_is_made_at_its_shape_and_with_its_fit(
    poise: Callable, folder: Path, run: Path, tmp_path: Path
) -> None:
    """The real images are those that the run was trained on, without a split."""
    padded = NpzConfig(path=str(tmp_path / "real.npz"), size=(HEIGHT, WIDTH), held_out=0.0)
    real = Run(run).recipe.data.model_copy(update={"held_out": 0.0}).load()
    np.savez(padded.path, images=real.train.images)  # type: ignore[attr-defined]
    by_folder, by_array = (compared(poise, run, data)[0] for data in (folder, padded.path))
    assert by_folder == by_array
    other_way, said = compared(poise, folder, run)
    assert other_way["fid"]["value"] > 0
    assert (
        f"FAKE: the images are 40 RGB, of 2 sizes from 12 x 16 to 40 x 24; all are converted to {WIDTH} x {HEIGHT}"
        in said
    )


def test_a_common_shape_is_compared_as_it_is(poise: Callable, run: Path, tmp_path: Path) -> None:
    """Samples in a file and in a folder are the same; a square crop of both would be smaller."""
    assert poise("sample", run, "--n", 8, "--npz", tmp_path / "s.npz").code == 0
    assert poise("sample", run, "--n", 8, "--dir", tmp_path / "dir").code == 0
    assert "resized" not in compared(poise, tmp_path / "s.npz", tmp_path / "dir", "--n", 4)[1]
    square = compared(poise, tmp_path / "s.npz", tmp_path / "dir", "--n", 4, "--size", 8)[1]
    assert f"resized from {HEIGHT} x {WIDTH} to 8 pixels" in square
    assert run_samples(Run(run), 2, (8, 6)).train.shape == (3, 8, 6)


def test_a_shape_that_does_not_fit_is_refused_before_anything_is_written(
    poise: Callable, folder: Path, tmp_path: Path
) -> None:
    words = ["--data", folder, *THIN, "--set", "data.size=[50,70]"]
    for command in ("train", "check"):
        out = ["--out", tmp_path / "out"] if command == "train" else []
        result = poise(command, "dcgan", *words, *out)
        assert result.code == 2
        assert re.search(r"network\.g.*50 x 70.*data\.size to \[48, 64\], \[48, 72\] or \[56, 72\]", result.err)
    assert not (tmp_path / "out").exists()
    result = poise("check", "dcgan", "--set", "data.size=[24,40]")
    assert result.code == 2
    assert "the digits are square" in result.err
