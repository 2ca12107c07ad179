"""`poise sample --dir`: one PNG file per sample, in blocks, resumable, and of one origin."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from poise.measure.fid import fid
from poise.recipe.decode import decode
from poise.runs import sample_folder
from poise.runs.run import Run
from poise.runs.sample_folder import class_folders
from poise.training.train import train
from poise.utils.files import write_json
from poise.utils.images import to_bytes

MLP = {"kind": "mlp", "width": 8, "depth": 1}
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def trained(folder: Path, channels: int, *, labels: bool = False) -> Path:
    """A run of two steps on 8 x 8 images with `channels` channels."""
    rng = np.random.default_rng(channels)
    images = rng.integers(0, 256, (40, 8, 8, channels), np.uint8)
    names = {"labels": np.arange(40) % 4 % 3, "classes": np.array(["cats", "a/b", "dogs"])} if labels else {}
    np.savez(folder / "data.npz", images=images, **names)
    table: dict[str, Any] = {
        "data": {"kind": "npz", "path": str(folder / "data.npz"), "size": 8, "channels": channels},
        "network": {"g": MLP, "d": MLP},
        "latent": {"kind": "gaussian", "dim": 3},
        "batch": 8,
        "steps": 2,
        "objective": {"kind": "non_saturating"},
        "optimizer": {"g": {"kind": "adam"}, "d": {"kind": "adam"}},
        "tempo": {"kind": "ratio"},
    }
    table |= {"conditioning": {"g": {"kind": "concat", "dim": 2}}} if labels else {}
    return train(decode(table), folder / "run").path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("rgb"), 3)


def entries(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def arrays(poise: Any, run: Path, out: Path, n: int, *more: object) -> Any:
    assert poise("sample", run, "--n", n, "--npz", out, *more).code == 0
    return np.load(out)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_files_are_the_samples_in_their_mode(poise: Any, tmp_path: Path, channels: int) -> None:
    run, out = trained(tmp_path, channels), tmp_path / "out"
    result = poise("sample", run, "--dir", out, "--n", 70, "--seed", 3)
    assert (result.code, result.out) == (0, "")
    assert "70 samples of seed 3 from step 2" in result.last
    images = arrays(poise, run, tmp_path / "a.npz", 70, "--seed", 3)["images"]
    assert sorted(entries(out)) == [*(f"{i:08d}.png" for i in range(70)), "samples.json"]
    for index, image in enumerate(images):
        with Image.open(out / f"{index:08d}.png") as opened:
            assert opened.mode == MODES[channels]
            assert np.array_equal(np.asarray(opened).reshape(image.shape), image)


def test_only_missing_files_are_generated(
    poise: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, blocks = tmp_path / "out", list[int]()
    assert poise("sample", run, "--dir", out, "--n", 100).code == 0
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    before = (out / "00000002.png").stat().st_mtime_ns
    for index in (1, 70, 71):
        (out / f"{index:08d}.png").unlink()
    generate = Run.sample_block

    def counted(self: Run, number: int, *more: Any, **others: Any) -> Any:
        blocks.append(number)
        return generate(self, number, *more, **others)

    monkeypatch.setattr(Run, "sample_block", counted)
    result = poise("sample", run, "--dir", out, "--n", 100)
    assert result.code == 0
    assert "97 of them were there already" in result.last
    assert blocks == [0, 2]
    assert (out / "00000002.png").stat().st_mtime_ns == before
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
    assert poise("sample", run, "--dir", out, "--n", 105).code == 0  # more of the same
    assert blocks == [0, 2, 3]


def test_classes_have_folders(poise: Any, tmp_path: Path) -> None:
    run, out = trained(tmp_path, 1, labels=True), tmp_path / "out"
    assert poise("sample", run, "--dir", out, "--n", 40).code == 0
    found = arrays(poise, run, tmp_path / "a.npz", 40)
    folders = ["cats", "a_b", "dogs"]
    assert sorted(entries(out)) == ["a_b", "cats", "dogs", "samples.json"]
    for index, (image, label) in enumerate(zip(found["images"], found["labels"], strict=True)):
        with Image.open(out / folders[label] / f"{index:08d}.png") as opened:
            assert np.array_equal(np.asarray(opened), image[..., 0])
    (out / "dogs" / "00000999.png").write_bytes(b"")
    misplaced = next((out / "cats").iterdir())
    assert poise("sample", run, "--dir", out, "--label", "dogs").code == 2
    misplaced.rename(out / "dogs" / misplaced.name)
    poise("sample", run, "--dir", out, "--n", 40).assert_error(2, "other files", misplaced.name)


@pytest.mark.parametrize("name", ["thesis.txt", "1.png", "01000000.png", "cats"])
@pytest.mark.parametrize("started", [False, True])
def test_other_files_are_refused(poise: Any, run: Path, tmp_path: Path, name: str, started: bool) -> None:
    out = tmp_path / "out"
    if started:
        assert poise("sample", run, "--dir", out, "--n", 2).code == 0
    out.mkdir(exist_ok=True)
    (out / name).write_text("dear")
    before = sorted(entries(out))
    poise("sample", run, "--dir", out, "--n", 3).assert_error(2, "--dir", "other files", name, "empty folder")
    assert sorted(entries(out)) == before


def test_hidden_files_are_tolerated(poise: Any, run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".DS_Store").touch()
    assert poise("sample", run, "--dir", tmp_path / "out", "--n", 2).code == 0


def test_samples_of_two_origins_are_not_mixed(poise: Any, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert poise("sample", run, "--dir", out, "--n", 2).code == 0
    poise("sample", run, "--dir", out, "--n", 3, "--seed", 1).assert_error(2, "another seed", "0 instead of 1")
    (tmp_path / "other").mkdir()
    poise("sample", trained(tmp_path / "other", 1), "--dir", out, "--n", 3).assert_error(2, "another run", "'run'")
    record = json.loads((out / "samples.json").read_text())
    write_json(out / "samples.json", record | {"step": 1})
    poise("sample", run, "--dir", out, "--n", 3).assert_error(2, "another step", "1 instead of 2")
    moved = Path(shutil.copytree(run, tmp_path / "moved"))
    write_json(out / "samples.json", record)
    assert poise("sample", moved, "--dir", out, "--n", 3).code == 0  # the same run elsewhere
    (out / "samples.json").write_text("[")
    poise("sample", run, "--dir", out, "--n", 3).assert_error(2, "samples.json can't be read")


def test_a_signal_leaves_complete_files(poise: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, write = tmp_path / "out", sample_folder.write_files

    def struck(contents: Any) -> None:
        write(contents)
        if len(entries(out)) > 60:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(sample_folder, "write_files", struck)
    words = ("sample", run, "--dir", out, "--n", 200)
    poise(*words).assert_error(75, "stopped by SIGINT", "the same command")
    names = [path for path in out.iterdir() if path.suffix == ".png"]
    assert len(names) == 64
    for path in names:
        with Image.open(path) as opened:
            opened.load()
    monkeypatch.undo()
    result = poise(*words)
    assert result.code == 0
    assert "64 of them were there already" in result.last
    assert not list(out.glob(".*"))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--dir", "out", "--out", "a.png"], ["--out", "--dir"]),
        (["--dir", "out", "--npz", "a.npz"], ["--npz", "--dir"]),
        (["--dir", "out", "--grid", "2x2"], ["--grid", "--dir"]),
        (["--dir", "out", "--gap", "0"], ["--gap", "--dir"]),
        (["--dir", "data.npz"], ["--dir", "is a file"]),
        (["--npz", "a.npz", "--grid", "2x2"], ["--grid", "--out"]),
        (["--npz", "a.npz", "--gap", "2"], ["--gap", "--out"]),
        (["--grid", "8"], ["--grid", "rows x columns", "'8'"]),
        (["--grid", "0x8"], ["--grid", "rows x columns"]),
        (["--grid", "8x8", "--n", "10"], ["--grid", "64 samples", "--n 10"]),
        (["--grid", "999x2"], ["--grid", "4,096 pixels", "--dir"]),
        (["--gap", "-1"], ["--gap", "0"]),
    ],
    ids=str,
)
def test_arguments_that_contradict_each_other(
    poise: Any, run: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(run.parent)
    before = sorted(run.parent.rglob("*"))
    poise("sample", run, *words).assert_error(2, *parts)
    assert sorted(run.parent.rglob("*")) == before


def test_grid_of_given_rows_and_columns(poise: Any, run: Path, tmp_path: Path) -> None:
    assert poise("sample", run, "--grid", "3x5", "--gap", 0, "--out", tmp_path / "a.png").code == 0
    images = arrays(poise, run, tmp_path / "a.npz", 15)["images"]
    with Image.open(tmp_path / "a.png") as opened:
        grid = np.asarray(opened)
    scale = grid.shape[0] // 24
    assert grid.shape == (24 * scale, 40 * scale, 3)
    tiles = grid[::scale, ::scale].reshape(3, 8, 5, 8, 3).swapaxes(1, 2).reshape(15, 8, 8, 3)
    assert np.array_equal(tiles, images)


@pytest.mark.parametrize(("rows", "classes"), [(4, [0, 0, 1, 2]), (3, [0, 1, 2]), (2, [0, 2])])
def test_rows_of_a_grid_have_one_class_each(poise: Any, tmp_path: Path, rows: int, classes: list[int]) -> None:
    run = trained(tmp_path, 1, labels=True)
    words = ("--grid", f"{rows}x5", "--gap", 0, "--out", tmp_path / "a.png")
    result = poise("sample", run, *words)
    assert result.code == 0
    assert ("2 of the 3 classes" in result.last) == (rows == 2)
    labels = torch.tensor(classes).repeat_interleave(5)
    images = to_bytes(Run(run).sample(rows * 5, labels=labels))[..., 0]
    with Image.open(tmp_path / "a.png") as opened:
        grid = np.asarray(opened)
    scale = grid.shape[0] // (rows * 8)
    assert np.array_equal(grid[::scale, ::scale].reshape(rows, 8, 5, 8).swapaxes(1, 2).reshape(-1, 8, 8), images)
    assert poise("sample", run, *words, "--label", "dogs").code == 0
    with Image.open(tmp_path / "a.png") as opened:
        assert np.array_equal(
            np.asarray(opened)[::scale, ::scale][:8, :8], to_bytes(Run(run).sample(1, label=2))[0, ..., 0]
        )


def test_names_of_class_folders() -> None:
    names = ["cats", "Cats", "a/b", "a_b", "..", ".x", "con", "", "x" * 300, "ok ", "samples.json"]
    folders = class_folders(names)
    assert folders[0] == "cats"
    assert folders[3] == "a_b"
    assert len({name.casefold() for name in folders}) == len(names)
    for name in folders:
        assert not set(name) & set('/\\:*?"<>|')
        assert not name.startswith(".")
        assert 0 < len(name) < 80
    assert class_folders([str(digit) for digit in range(10)]) == [str(digit) for digit in range(10)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("n", "labels"),
    [(40, False), (40, True), pytest.param(10_000, False, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
    ids=["folder", "class folders", "10,000 samples"],
)
def test_clean_fid_of_the_folder_is_that_of_the_samples(poise: Any, tmp_path: Path, n: int, labels: bool) -> None:
    """clean-fid lists the files itself, decodes and resizes them; only its Inception network is replaced."""
    clean = pytest.importorskip("cleanfid.fid")
    resize = importlib.import_module("cleanfid.resize").build_resizer("clean")
    run, folders = trained(tmp_path, 3, labels=labels), [tmp_path / "a", tmp_path / "b"]
    assert poise("sample", run, "--dir", folders[0], "--n", n).code == 0
    assert poise("sample", run, "--dir", folders[1], "--n", 40, "--seed", 1).code == 0

    def mean_colours(batch: torch.Tensor) -> torch.Tensor:
        """The mean colours of the upper and the lower half, from N x 3 x 299 x 299 with values from 0 to 255."""
        return torch.nn.functional.adaptive_avg_pool2d(batch.double(), (2, 1)).flatten(1)

    value = clean.compute_fid(
        *map(str, folders),
        custom_feat_extractor=mean_colours,
        num_workers=0,
        batch_size=100,
        device=torch.device("cpu"),
        use_dataparallel=False,
        verbose=False,
    )
    features = []
    for size, seed in ((n, 0), (40, 1)):
        images = to_bytes(Run(run).sample(size, seed))
        resized = (torch.from_numpy(resize(image)).permute(2, 0, 1)[None] for image in images)
        features.append(torch.cat([mean_colours(image) for image in resized]))
    assert value > 0
    assert value == pytest.approx(fid(*features), rel=1e-4)
