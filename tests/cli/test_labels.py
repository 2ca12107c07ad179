"""Conditional runs on the command line: training, `--label`, grids with one row per class, and errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from poise.errors import RecipeError
from poise.runs.run import Run

LABELS = 'conditioning={g={kind="concat", dim=4}, d={kind="projection"}}'
CLASSIFIER = 'tricks=[{kind="auxiliary_classifier"}]'
THIN = ["--set", "data.size=8", "--set", "network.g.width=2", "--set", "network.d.width=2", "--set", "latent.dim=4"]
THIN += ["--set", "batch=8", "--set", "log.sheet=40", "--set", "measure=none"]
GAP, CLASSES = 2, 10


@pytest.fixture(scope="module")
def labelled_run(poise: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps on digits of eight pixels, each player told the digit."""
    out = tmp_path_factory.mktemp("labels") / "run"
    # at this rate the embedding alone makes the classes look different
    result = poise("train", "dcgan", "--steps", 3, "--out", out, *THIN, "--set", LABELS, "--set", "optimizer.g.lr=5e-2")
    assert result.code == 0, result.err
    return out


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as held:
        return {name: held[name] for name in held.files}


def tiles(path: Path, columns: int, rows: int) -> np.ndarray:
    """A sheet's tiles, rows x columns x side x side; fails unless the sheet is that many."""
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet)
    height, width = pixels.shape
    side = (width - GAP) // columns - GAP
    assert (height, width) == (rows * (side + GAP) + GAP, columns * (side + GAP) + GAP)
    assert side % 8 == 0
    step = side + GAP
    return np.stack(
        [[pixels[GAP:, GAP:][r * step :, c * step :][:side, :side] for c in range(columns)] for r in range(rows)]
    )


# ---- sample -------------------------------------------------------------------------------------------


def test_one_class(poise: Any, labelled_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "seven.npz"
    result = poise("sample", labelled_run, "--label", 7, "--n", 12, "--npz", path)
    assert (result.code, result.out) == (0, "")
    found = arrays(path)
    assert set(found) == {"images", "labels", "classes"}
    assert found["classes"].tolist() == list("0123456789")
    assert found["images"].shape == (12, 8, 8, 1)
    assert found["labels"].dtype == np.int64
    assert found["labels"].tolist() == [7] * 12


def test_label_is_passed_to_g(poise: Any, labelled_run: Path, tmp_path: Path) -> None:
    """The same latents for each class; two classes differ, and one is the same wherever it is asked for."""
    made = {}
    for label in (0, 7):
        assert poise("sample", labelled_run, "--label", label, "--n", 20, "--npz", tmp_path / "a.npz").code == 0
        made[label] = arrays(tmp_path / "a.npz")["images"]
    assert (made[0] != made[7]).mean() > 0.1
    assert poise("sample", labelled_run, "--n", 20, "--npz", tmp_path / "all.npz").code == 0
    mixed = arrays(tmp_path / "all.npz")
    for label in (0, 7):
        own = mixed["labels"] == label
        assert own.any()
        assert (mixed["images"][own] == made[label][own]).all()
    run = Run(labelled_run)
    net = run.generator()
    with torch.no_grad():
        expected = net.eval()(run.latents(32), torch.full((32,), 7))
    assert torch.equal(run.sample(20, label=7), expected[:20])


def test_npz_has_the_class_proportions_of_the_data(poise: Any, labelled_run: Path, tmp_path: Path) -> None:
    """As the run folder has them, without the data; and what it holds does not depend on how many are asked for."""
    skewed = Path(shutil.copytree(labelled_run, tmp_path / "skewed"))
    info = json.loads((skewed / "run.json").read_text())
    assert info["data"]["class_counts"] == [400] * CLASSES
    for counts, run in (([400] * CLASSES, labelled_run), ([900, 80, 0, 20, *[0] * 6], skewed)):
        info["data"]["class_counts"] = counts
        (skewed / "run.json").write_text(json.dumps(info))
        for n in (200, 50):
            assert poise("sample", run, "--n", n, "--npz", tmp_path / f"{n}.npz").code == 0
            labels = arrays(tmp_path / f"{n}.npz")["labels"]
            found, wanted = np.bincount(labels, minlength=CLASSES), n * np.array(counts) / sum(counts)
            assert (abs(found - wanted) <= 2).all()
            assert (found[wanted == 0] == 0).all()
        more, fewer = arrays(tmp_path / "200.npz"), arrays(tmp_path / "50.npz")
        assert all((more[key][:50] == fewer[key]).all() for key in ("images", "labels"))


def test_run_folder_without_class_counts_gives_equal_proportions(labelled_run: Path, tmp_path: Path) -> None:
    older = Path(shutil.copytree(labelled_run, tmp_path / "older"))
    info = json.loads((older / "run.json").read_text())
    del info["data"]["class_counts"]
    (older / "run.json").write_text(json.dumps(info))
    labels = Run(older).labels(100)
    assert labels is not None
    assert (abs(labels.bincount(minlength=CLASSES) - 10) <= 2).all()


@pytest.mark.parametrize("n", [10, 12, 64, 99])
def test_grid_shows_all_classes_if_they_fit(labelled_run: Path, n: int) -> None:
    labels = Run(labelled_run).labels_by_row(n)
    assert labels is not None
    assert len(labels) == n
    assert labels.unique().tolist() == list(range(CLASSES))


def called(run: Path, place: Path, *classes: str) -> Path:
    """The same run with other names for its ten classes, or with other classes."""
    named = Path(shutil.copytree(run, place))
    info = json.loads((named / "run.json").read_text())
    info["data"] |= {"classes": list(classes), "class_counts": [1] * len(classes)}
    (named / "run.json").write_text(json.dumps(info))
    return named


def test_class_by_name_or_number(poise: Any, labelled_run: Path, tmp_path: Path) -> None:
    named = called(labelled_run, tmp_path / "named", *"abcdefgh", "nine", "'a\\tb'")
    for word, label in (("nine", 8), ("8", 8), ("0", 0), ("9", 9), ("a\tb", 9)):
        assert poise("sample", named, "--label", word, "--n", 2, "--npz", tmp_path / "a.npz").code == 0
        assert arrays(tmp_path / "a.npz")["labels"].tolist() == [label] * 2
    poise("sample", named, "--label", "nin").assert_error(2, "--label", "no such class", "did you mean 'nine'?")


@pytest.mark.parametrize("classes", [map(str, range(1, 11)), ["3", *"bcdefghij"], ["-1", "1.5", *"cdefghij"]])
def test_numeric_class_names_take_precedence(
    poise: Any, labelled_run: Path, tmp_path: Path, classes: Iterable[str]
) -> None:
    """Folders 1 to 10: 2 is the folder of this name, and 0 and 02 are none."""
    names = list(classes)
    named = called(labelled_run, tmp_path / "named", *names)
    for word in ("0", "02", "77", "+3"):
        result = poise("sample", named, f"--label={word}", "--out", tmp_path / "x.png")
        result.assert_error(2, "--label", "no such class", f"'{word}'", "a number here is a class's name")
    for label, word in enumerate(names):
        assert Run(named).class_number(word, "--label") == label
    assert not (tmp_path / "x.png").exists()


def test_error_lists_only_some_of_many_classes(labelled_run: Path, tmp_path: Path) -> None:
    named = called(labelled_run, tmp_path / "named", *(f"kind of {i}" for i in range(300)))
    with pytest.raises(RecipeError, match="there are 300: kind of 0, ") as raised:
        Run(named).class_number("zzz", "--label")
    assert len(str(raised.value)) < 500


def test_grid_has_one_row_per_class(poise: Any, labelled_run: Path, tmp_path: Path) -> None:
    sheet, held = tmp_path / "sheet.png", tmp_path / "sheet.npz"
    assert poise("sample", labelled_run, "--n", 30, "--out", sheet, "--npz", held).code == 0
    found = tiles(sheet, 3, 10)
    shown = found.reshape(30, 8, found.shape[2] // 8, 8, -1)[:, :, 0, :, 0]
    for label in range(CLASSES):
        assert poise("sample", labelled_run, "--n", 30, "--label", label, "--npz", held).code == 0
        own = slice(3 * label, 3 * label + 3)
        assert (shown[own] == arrays(held)["images"][own, ..., 0]).all()
    assert poise("sample", labelled_run, "--n", 30, "--label", 3, "--out", sheet).code == 0
    tiles(sheet, 6, 5)


@pytest.mark.parametrize("command", ["sample", "interpolate"])
@pytest.mark.parametrize(
    ("word", "cure"),
    [("77", "did you mean '7'?"), ("seven", "known: 0, 1, 2"), ("10", "did you mean '"), ("-1", "'1'")],
)
def test_unknown_class(
    poise: Any, labelled_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, word: str, cure: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = poise(command, labelled_run, f"--label={word}", "--out", "x.png")
    result.assert_error(2, "--label", "no such class", f"'{word}'", cure)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["sample", "interpolate"])
def test_a_run_without_labels(poise: Any, digits_run: Path, tmp_path: Path, command: str) -> None:
    out = tmp_path / "x.png"
    poise(command, digits_run, "--label", 7, "--out", out).assert_error(2, "--label", "takes no labels", "leave it out")
    assert not out.exists()


# ---- interpolate --------------------------------------------------------------------------------------


def test_interpolations_stay_in_their_class(poise: Any, labelled_run: Path, tmp_path: Path) -> None:
    def walk(*options: object) -> np.ndarray:
        out = tmp_path / "walk.png"
        result = poise("interpolate", labelled_run, "--steps", 5, "--rows", 3, "--out", out, *options)
        assert (result.code, result.out) == (0, "")
        return tiles(out, 5, 3)

    seven, mixed = walk("--label", 7), walk()
    assert (seven != walk("--label", 0)).mean() > 0.1
    labels = Run(labelled_run).labels_by_row(3)
    assert labels is not None
    assert len(labels.unique()) == 3, "left out, each walk is of another class"
    for row, label in enumerate(labels.tolist()):
        assert (mixed[row] == walk("--label", label)[row]).all()
        assert (mixed[row] != walk("--label", 9)[row]).any()


def test_gif_of_one_class(poise: Any, labelled_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "walk.gif"
    assert poise("interpolate", labelled_run, "--label", 7, "--steps", 4, "--out", out).code == 0
    with Image.open(out) as film:
        assert getattr(film, "n_frames", 1) == 2 * 4 - 2


# ---- training -----------------------------------------------------------------------------------------


def test_training_grids_have_one_row_per_class(labelled_run: Path) -> None:
    """40 tiles: four latents, the same in every row."""
    sheets = sorted((labelled_run / "samples").iterdir())
    assert [path.name for path in sheets] == ["step-00000000.png", "step-00000003.png"]
    for sheet in sheets:
        tiles(sheet, 4, 10)
    run = Run(labelled_run)
    assert run.classes == tuple("0123456789")
    found = tiles(sheets[-1], 4, 10)
    assert len({row.tobytes() for row in found}) == 10, "what differs is the class"
    assert len({tile.tobytes() for tile in found[0]}) == 4


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["ring", "--set", LABELS], ["conditioning", "no class labels", "one folder per class"]),
        (["ring", "--set", CLASSIFIER, "--set", 'conditioning={g={kind="concat"}}'], ["conditioning", "no class"]),
        (["dcgan", *THIN, "--set", CLASSIFIER], ["conditioning.g", "concat"]),
        (["dcgan", *THIN, "--set", 'conditioning={d={kind="projection"}}'], ["conditioning.g", "concat"]),
        (
            ["dcgan", *THIN, "--set", 'conditioning={g={kind="class_norm"}}', "--set", 'network.g.norm="none"'],
            ["conditioning.g", "network.g.norm"],
        ),
        (["dcgan", *THIN, "--set", 'conditioning={g={kind="concta"}}'], ["conditioning.g", "did you mean 'concat'?"]),
    ],
)
def test_conditioning_that_does_not_fit_is_refused(
    poise: Any, tmp_path: Path, options: list[str], parts: list[str]
) -> None:
    out = tmp_path / "run"
    poise("train", *options, "--steps", 2, "--out", out).assert_error(2, *parts)
    assert not out.exists()


# ---- many classes -------------------------------------------------------------------------------------


def test_grid_of_many_classes_is_limited(poise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred classes: rows for 16 of them, in training and afterwards; nothing is made that is not shown."""
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "p.npz", images=images, labels=np.arange(300) % 100)
    run = tmp_path / "run"
    words = ["--set", LABELS, "--set", "log.sheet=100"]
    result = poise("train", "dcgan", "--data", tmp_path / "p.npz", "--steps", 1, "--out", run, *THIN, *words)
    assert result.code == 0, result.err
    assert "the sample grid shows 16 of 100 classes" in result.err
    tiles(next((run / "samples").iterdir()), 6, 16)
    made: list[int] = []
    whole = Run.sample
    monkeypatch.setattr(Run, "sample", lambda self, n, *args, **more: made.append(n) or whole(self, n, *args, **more))
    sheet = tmp_path / "sheet.png"
    result = poise("sample", run, "--n", 64, "--out", sheet)
    assert "64 samples, one row for each of 16 of the 100 classes" in result.err
    tiles(sheet, 4, 16)
    monkeypatch.setattr("poise.utils.image_grid.MAX_SIDE", 100)
    result = poise("sample", run, "--n", 100_000, "--label", "7", "--out", sheet)
    assert "81 samples, the first of 100,000: no more fit into a grid" in result.err
    result = poise("sample", run, "--n", 100_000, "--out", sheet)
    assert made == [64, 81, 9 * 9]
    with Image.open(sheet) as picture:
        assert max(picture.size) <= 100
    result = poise("interpolate", run, "--steps", 50, "--rows", 20, "--label", "7", "--out", sheet)
    assert "; the grid shows 9 images of 9 interpolations" in result.err
    with Image.open(sheet) as picture:
        assert max(picture.size) <= 100
