"""What is seen of the samples of a G that translates: which images are side by side, in grids, arrays and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from poise.core.random_streams import RandomStreams
from poise.engine.batches import sampling_latent
from poise.errors import RecipeError
from poise.recipe.decode import decode
from poise.recipe.shipped import load_table
from poise.runs.run import Run
from poise.runs.sample_view import SampleView
from poise.training.listener import NullListener
from poise.training.train import train
from poise.utils.image_grid import GAP, MAX_SIDE, grid_capacity, image_grid, side_by_side
from poise.utils.images import to_bytes
from two_domains import PARTS, SIDE, splits, trained, translating, use_data

GROUPS = {
    ("a_to_b", "pairs"): [["source", "output", "target"]],
    ("a_to_b", "domains"): [["source", "output"]],
    ("both_ways", "domains"): [["source_a", "output_b", "cycle_a"], ["source_b", "output_a", "cycle_b"]],
    ("same", "same"): [["source", "output"]],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """A run of each kind; the data must be chosen again by whoever opens one."""
    folders = {}
    for direction, kind in GROUPS:
        out = tmp_path_factory.mktemp(direction) / kind
        with pytest.MonkeyPatch.context() as patch:
            use_data(patch, kind)
            trained(out, direction)
        folders[direction, kind] = out
    return folders


@pytest.mark.parametrize(("direction", "kind"), GROUPS)
def test_each_image_of_a_sample_is_what_its_name_says(
    runs: dict[tuple[str, str], Path], direction: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = use_data(monkeypatch, kind)
    run = Run(runs[direction, kind])
    images = run.sample_images(20, seed=3)
    assert [list(names) for names in run.view.groups] == GROUPS[direction, kind]
    assert list(images) == [name for names in GROUPS[direction, kind] for name in names]
    latent = sampling_latent(run.recipe.latent, data, torch.device("cpu"))
    first = latent.block(0, 32, RandomStreams(3), "sample")[:20]
    net = run.generator().eval()
    with torch.no_grad():
        output = net(first)
        again = net(output)
    if direction == "same":
        expected = {"source": first, "output": output}
    else:
        (a, b), (to_a, to_b), (back_a, back_b) = (both.split(PARTS, 1) for both in (first, output, again))
        expected = {"source": a, "output": to_b, "target": b}
        expected |= {"source_a": a, "output_b": to_b, "cycle_a": back_a}
        expected |= {"source_b": b, "output_a": to_a, "cycle_b": back_b}
    for name, found in images.items():
        torch.testing.assert_close(found, expected[name], msg=name)
    assert torch.equal(run.sample(20, 3), images["output_b" if direction == "both_ways" else "output"])
    assert torch.equal(run.sample_block(0, 3)[:20], run.sample(20, 3))
    assert run.generated_shape == (1 if direction == "same" else 3, SIDE, SIDE)


def test_the_grids_of_training_show_progress_from_the_same_held_out_images(
    runs: dict[tuple[str, str], Path],
) -> None:
    """24 images are 8 samples of 3; the columns of the sources and targets are equal in every grid."""
    grids = [np.asarray(Image.open(path)) for path in sorted((runs["a_to_b", "pairs"] / "samples").iterdir())]
    assert len(grids) == 3
    assert {grid.shape for grid in grids} == {grids[0].shape}
    scale = (grids[0].shape[0] - 5 * GAP) // (4 * SIDE)  # two samples in each of four rows
    assert scale > 1
    groups = [image_at(grid, 0, column, scale) for grid in grids for column in range(3)]
    sources, outputs, targets = groups[::3], groups[1::3], groups[2::3]
    held_out = splits("pairs").held_out.images  # type: ignore[union-attr]
    assert np.array_equal(sources[0], sources[2])
    assert np.array_equal(targets[0], targets[2])
    assert not np.array_equal(outputs[0], outputs[2])
    shown = np.concatenate((sources[0][..., :1], targets[0]), 2)
    assert any(np.array_equal(shown, image) for image in held_out), "a held-out pair, grey beside colour"


def image_at(grid: np.ndarray, row: int, column: int, scale: int, group: int = 3) -> np.ndarray:
    """The image at a position of a grid of enlarged images, in its own size."""
    side = SIDE * scale
    top, left = row * (side + GAP) + GAP, column * (side + GAP) + GAP + column // group * 2 * GAP
    return grid[top : top + side : scale, left : left + side : scale]


@pytest.mark.parametrize(("direction", "kind"), [("a_to_b", "pairs"), ("both_ways", "domains")])
def test_sample_writes_grids_arrays_and_files(
    poise: Any,
    runs: dict[tuple[str, str], Path],
    direction: str,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    use_data(monkeypatch, kind)
    folder = runs[direction, kind]
    result = poise("sample", folder, "--n", 6, "--out", tmp_path / "grid.png", "--npz", tmp_path / "x.npz")
    assert result.code == 0, result.err
    names = [name for group in GROUPS[direction, kind] for name in group]
    images = Run(folder).sample_images(6)
    with np.load(tmp_path / "x.npz") as arrays:
        assert list(arrays) == names
        for name in names:
            assert np.array_equal(arrays[name], to_bytes(images[name]))
    assert " | ".join(name.replace("_", " ") for name in GROUPS[direction, kind][-1]) in result.err
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert grid.shape[2] == 3
    assert poise("sample", folder, "--grid", "2x1", "--out", tmp_path / "two.png").code == 0
    two = np.asarray(Image.open(tmp_path / "two.png"))
    scale = (two.shape[0] - 3 * GAP) // (2 * SIDE)
    for row in range(2):
        for column, name in enumerate(names):
            shown = to_bytes(images[name])[row]
            assert np.array_equal(image_at(two, row, column, scale), np.broadcast_to(shown, (SIDE, SIDE, 3))), name

    files = tmp_path / "files"
    result = poise("sample", folder, "--n", 3, "--dir", files)
    assert result.code == 0, result.err
    assert result.last.endswith("an image of each domain, in a and b") is (direction == "both_ways")
    outputs = {"a": "output_a", "b": "output_b"} if direction == "both_ways" else {"": "output"}
    for place, name in outputs.items():
        for index in range(3):
            found = np.asarray(Image.open(files / place / f"{index:08d}.png")).reshape((*images[name].shape[2:], -1))
            assert np.array_equal(found, to_bytes(images[name])[index])
    record = json.loads((files / "samples.json").read_text())
    assert record.get("domains") == (["a", "b"] if direction == "both_ways" else None)


def test_a_folder_of_both_domains_is_continued_and_has_nothing_else(
    poise: Any, runs: dict[tuple[str, str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_data(monkeypatch, "domains")
    words = ("sample", runs["both_ways", "domains"], "--n", 4, "--dir", tmp_path / "out")
    assert poise(*words).code == 0
    whole = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.png")}
    assert len(whole) == 8
    (tmp_path / "out" / "a" / "00000001.png").unlink()
    (tmp_path / "out" / "b" / "00000003.png").unlink()
    assert "2 of them were there already" in poise(*words).last
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.png")} == whole
    for name in ("a/thesis.txt", "c", "00000001.png"):
        (tmp_path / "out" / name).write_text("dear")
        poise(*words).assert_error(2, "has other files in it", name)
        (tmp_path / "out" / name).unlink()


def test_samples_of_a_gan_of_two_domains_are_a_file_for_each(
    poise: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The channels of both domains must not become one image with an alpha channel."""
    use_data(monkeypatch, "pairs")
    table = translating("a_to_b").canonical()
    mlp = {"kind": "mlp", "width": 8, "depth": 1}
    table |= {"network": {"g": mlp, "d": mlp}, "latent": {"kind": "gaussian", "dim": 3}}
    run = train(decode(table), tmp_path / "run")
    result = poise("sample", run.path, "--n", 2, "--dir", tmp_path / "out")
    assert result.code == 0, result.err
    images = run.sample_images(2)
    for name in ("a", "b"):
        found = np.asarray(Image.open(tmp_path / "out" / name / "00000001.png")).reshape(SIDE, SIDE, -1)
        assert np.array_equal(found, to_bytes(images[name])[1])


def test_what_has_no_space_of_latents_is_refused_with_a_cure(
    poise: Any, runs: dict[tuple[str, str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_data(monkeypatch, "pairs")
    run, image = runs["a_to_b", "pairs"], tmp_path / "x.png"
    Image.new("L", (SIDE, SIDE)).save(image)
    for words in (("interpolate", run), ("interpolate", run, "--through", 3, "--out", tmp_path / "x.gif")):
        poise(*words).assert_error(2, "no latent space to move in", f"poise translate {run} --data DIR --out DIR")
    poise("project", run, image).assert_error(2, f"poise translate {run} --data DIR --out DIR")
    poise("sample", run, "--truncation", 0.5).assert_error(2, "can't be truncated", "sample without truncation")
    with pytest.raises(RecipeError, match="generates no images of a"):
        Run(run).sample(2, domain="a")
    assert not (tmp_path / "x.gif").exists()


def test_the_cure_is_a_command_that_takes_such_a_run(
    poise: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Vectors can't be translated as images are, and a G that takes labels needs one."""
    table = load_table("align") | {"steps": 1, "batch": 8, "data": {"kind": "clouds", "count": 60, "dim": 4}}
    vectors = train(decode(table), tmp_path / "vectors").path
    result = poise("interpolate", vectors)
    result.assert_error(2, "no latent space to move in", f"see what it makes of them: poise sample {vectors}")
    assert poise("sample", vectors, "--n", 4).code == 0
    for direction in ([], ["--direction", "b_to_a"]):
        result = poise("translate", vectors, "--data", tmp_path, "--out", tmp_path / "out", *direction)
        result.assert_error(2, "translates vectors, not images", "poise align SRC TGT")
    use_data(monkeypatch, "labelled pairs")
    told: list[str] = []

    class Listener(NullListener):
        def on_message(self, sentence: str) -> None:
            told.append(sentence)

    conditioned = translating("a_to_b", conditioning={"g": {"kind": "channels", "dim": 4}})
    labelled = train(conditioned, tmp_path / "labelled", listener=Listener()).path
    assert f"to translate images: poise translate {labelled} --data DIR --out DIR --label CLASS" in told
    poise("interpolate", labelled).assert_error(2, f"poise translate {labelled} --data DIR --out DIR --label CLASS")


def test_a_gan_of_two_domains_is_drawn_as_two_images() -> None:
    view = SampleView(None, (1, 3))
    samples = torch.rand(4, 4, 8, 8) * 2 - 1
    assert view.split(samples).keys() == {"a", "b"}
    assert view.draw(view.split(samples)).shape[2] == 3


@pytest.mark.parametrize(("side", "groups"), [(300, 1), (700, 2), (1400, 2)])
def test_no_grid_is_larger_than_4096_pixels_unless_a_group_is(side: int, groups: int) -> None:
    view = SampleView("both_ways" if groups == 2 else "a_to_b", (1, 1), paired=True)
    names = [name for group in view.groups for name in group]
    n = view.capacity((2, side, side)) + 3
    images = {name: torch.full((n, 1, side, side), (k + 1) / 10) for k, name in enumerate(names)}
    grid = view.draw(images)
    least = 3 * side + 4 * GAP
    assert grid.shape[0] <= MAX_SIDE
    assert grid.shape[1] <= max(MAX_SIDE, least)
    shown = {int(value) for value in np.unique(grid)} - {128}
    assert len(shown) == len(names), "every image of a sample is seen"


def test_images_of_other_colours_are_converted_side_by_side() -> None:
    grey, colour = torch.rand(2, 1, 4, 4), torch.rand(2, 3, 4, 4)
    both = side_by_side([grey, colour])
    assert torch.equal(both[0], grey[0].expand(3, 4, 4))
    assert torch.equal(both[3], colour[1])
    assert torch.equal(side_by_side([grey, -grey]), torch.stack((grey, -grey), 1).flatten(0, 1))
    alpha = torch.cat((colour, torch.full((2, 1, 4, 4), -1.0)), 1)
    assert torch.equal(side_by_side([grey, alpha])[1], torch.ones(3, 4, 4)), "what is transparent is white"


def test_the_gap_between_groups_is_wider() -> None:
    grid = image_grid(torch.ones(6, 1, 100, 200), 6, group=3)
    white = (grid[GAP, :, 0] == 255).astype(int)
    starts = np.flatnonzero(np.diff(white) == 1) + 1
    assert np.diff(starts).tolist() == [202, 202, 206, 202, 202]
    assert grid_capacity((1, 10, 400), GAP, 3)[1] == 9
    assert grid_capacity((1, 10, 4096), GAP, 3)[1] == 3
