"""`poise compare` matches classes by name, whatever their order, and tells what was done to the images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from poise.data.facts import KNOWN
from poise.data.folder import Walk
from poise.data.npz import NpzConfig
from poise.data.source import ImageDataset
from poise.data.torchvision_data import VisionConfig
from poise.measure.catalogue import select_measures
from poise.measure.compare import compare
from poise.measure.evaluator import Evaluator

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)


def entry(path: Path, images: np.ndarray, labels: np.ndarray, names: list[str]) -> NpzConfig:
    np.savez(path, images=images, labels=labels, classes=names)
    return NpzConfig(path=str(path), size=8, held_out=0.0)


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (["a", "b", "c"], [0, 1, 2]),
        (["c", "a", "b"], [2, 0, 1]),
        (["c", "a"], [2, 0]),
        (["a", "d"], None),
    ],
    ids=str,
)
def test_labels_are_matched_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], asked: list[int] | None
) -> None:
    given: list[Any] = []
    seen = lambda self, samples, measures, labels: given.append((samples(self.n), labels(self.n)))  # noqa: E731
    monkeypatch.setattr(Evaluator, "measure", seen)
    real = entry(tmp_path / "real.npz", IMAGES, np.arange(40) % 3, ["a", "b", "c"]).load()
    own = np.arange(40) % len(names)
    pictures = np.broadcast_to(own[:, None, None, None], (40, 8, 8, 1)).astype(np.uint8)  # each shows its own label
    fake = entry(tmp_path / "fake.npz", pictures, own, names).load()
    compare(fake, real, select_measures("fid"), features="pixels")
    ((images, labels),) = given
    assert (labels is None) is (asked is None)
    if asked is not None:
        assert labels.tolist() == [asked[shown] for shown in images[:, 0, 0, 0].tolist()]


def test_warnings_about_either_side_are_printed(poise: Callable[..., Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "real.npz", images=IMAGES)
    np.savez(tmp_path / "fake.npz", images=IMAGES // 64)
    result = poise("compare", tmp_path / "fake.npz", tmp_path / "real.npz", "--measures", "fid", "--features", "pixels")
    assert result.code == 0
    assert "FAKE: all images are nearly black" in result.err
    assert "REAL: all" not in result.err
    result = poise(
        "compare", tmp_path / "fake.npz", tmp_path / "real.npz", "--measures", "fid", "--features", "pixels", "--json"
    )
    assert any("FAKE: all images are nearly black" in note for note in json.loads(result.out)["notes"])


def test_what_was_skipped_or_converted_is_told(poise: Callable[..., Any], tmp_path: Path) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 3), np.uint8)
    for name, images in (("colour", colours), ("grey", colours[..., 0])):
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    (tmp_path / "grey" / "3.png").write_bytes(b"junk")
    options = "--measures", "fid", "--features", "pixels", "--json"
    notes = json.loads(poise("compare", tmp_path / "colour", tmp_path / "grey", *options).out)["notes"]
    assert "REAL: skipped 1 of 20 image files as invalid" in notes
    assert "FAKE: colour images are converted to grey" in notes
    assert not any("overfit" in note for note in notes)
    notes = json.loads(poise("compare", tmp_path / "grey", tmp_path / "colour", *options).out)["notes"]
    assert "FAKE: skipped 1 of 20 image files as invalid" in notes
    assert "FAKE: grey images get three equal channels" in notes
    notes = json.loads(poise("compare", tmp_path / "grey", tmp_path / "grey", *options).out)["notes"]
    assert not any("grey images" in note for note in notes)
    for name in ("a", "b"):
        shutil.copytree(tmp_path / "colour", tmp_path / "classes" / name)
    assert json.loads(poise("compare", tmp_path / "classes", tmp_path / "classes", *options).out)["notes"] == [
        "compared with only 20 real samples: small differences may be chance",
        *(f"{side}: 20 of 40 images are exact copies of others" for side in ("FAKE", "REAL")),
    ]


def test_an_error_names_the_argument(poise: Callable[..., Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", images=IMAGES[:1])
    np.savez(tmp_path / "many.npz", images=IMAGES)
    options = "--measures", "fid", "--features", "pixels"
    for argument, pair in (("FAKE", ("one", "many")), ("REAL", ("many", "one"))):
        result = poise("compare", *(tmp_path / f"{name}.npz" for name in pair), *options)
        result.assert_error(3, f"{argument}: a single image is not enough")


OPTIONS = ("--measures", "fid", "--features", "pixels", "--n", 10, "--json")


@pytest.fixture
def named_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The named data sets with 40 random images of their sizes."""

    def load(config: VisionConfig, *_: object, **__: object) -> ImageDataset:
        known = KNOWN[config.dataset]
        shape = (40, *known.size, 1 if known.grey else 3)
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        return ImageDataset(images, np.arange(40) % 2, ("a", "b"))

    monkeypatch.setattr(VisionConfig, "_load_split", load)


@pytest.mark.usefixtures("named_sets")
@pytest.mark.parametrize(
    ("real", "side", "size", "fake", "notes"),
    [
        ("STL10", 8, None, "resized from 8 to 96", []),
        ("STL10", 96, None, "", []),
        ("STL10", 8, 16, "resized from 8 to 16", ["REAL was resized from 96 to 16"]),
        ("CIFAR10", 16, None, "resized from 16 to 32", []),
        ("MNIST", 28, None, "", []),  # digits are padded, and fakes keep their pixels
        ("MNIST", 30, None, "", []),
        ("MNIST", 32, None, "", []),
        ("MNIST", 64, None, "resized from 64 to 32", []),
        ("MNIST", 8, None, "resized from 8 to 32", []),
        ("MNIST", 16, 16, "", ["REAL: all images are 28 x 28 and are resized to 16 x 16"]),
        ("digits", 28, None, "", []),
        ("digits", 32, None, "", []),
        ("digits", 20, None, "resized from 20 to 32", []),
    ],
)
def test_named_data_are_compared_at_their_size_and_every_resizing_is_told(
    poise: Callable[..., Any], tmp_path: Path, real: str, side: int, size: int | None, fake: str, notes: list[str]
) -> None:
    np.savez(tmp_path / "fake.npz", images=np.random.default_rng(0).integers(0, 256, (40, side, side, 3), np.uint8))
    options = (*OPTIONS, *(() if size is None else ("--size", size)))
    result = poise("compare", tmp_path / "fake.npz", real, *options)
    assert result.code == 0, result.err
    found = [note for note in json.loads(result.out).get("notes", []) if "resized" in note]
    expected = [*([f"FAKE was {fake}"] if fake else []), *notes]
    assert [note[: len(start)] for note, start in zip(found, expected, strict=True)] == expected


def folder_of(path: Path, sides: Sequence[int]) -> Path:
    path.mkdir()
    for i, side in enumerate(sides):
        pixels = np.random.default_rng(i).integers(0, 256, (side, side + i % 2, 3), np.uint8)
        Image.fromarray(pixels).save(path / f"{i}.png")
    return path


MIXED = [*range(18, 37), 18, 18]
"""The shorter sides of images of many sizes. Their median is 26, the most common one is 18."""


@pytest.mark.parametrize(
    ("fake", "real", "side", "converted"),
    [
        ("run", "mixed", 32, ["REAL"]),
        ("npz", "mixed", 20, ["REAL"]),
        ("mixed", "npz", 20, ["FAKE"]),
        ("mixed", "mixed", 26, ["FAKE", "REAL"]),
    ],
)
def test_images_of_many_sizes_are_compared_at_the_size_of_the_others(
    poise: Callable[..., Any], tmp_path: Path, digits_run: Path, fake: str, real: str, side: int, converted: list[str]
) -> None:
    """Each of them is scaled once, and samples are not scaled at all; the notes say which sizes were converted."""
    np.savez(tmp_path / "npz.npz", images=np.random.default_rng(0).integers(0, 256, (40, 20, 20, 3), np.uint8))
    places = {"run": digits_run, "npz": tmp_path / "npz.npz", "mixed": folder_of(tmp_path / "mixed", MIXED)}
    result = poise("compare", places[fake], places[real], *OPTIONS)
    assert result.code == 0, result.err
    notes = json.loads(result.out)["notes"]
    assert not any("resized" in note for note in notes)
    told = [note.partition(": ") for note in notes if " sizes from " in note]
    assert [name for name, _, _ in told] == converted
    for _, _, text in told:
        assert f"of 20 sizes from 18 x 18 to 36 x 36; all are converted to {side} x {side} x 3 channels" in text


@pytest.mark.usefixtures("named_sets")
def test_a_named_set_that_is_fake_is_resized_to_real(poise: Callable[..., Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "real.npz", images=np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), np.uint8))
    result = poise("compare", "STL10", tmp_path / "real.npz", *OPTIONS)
    assert any(note.startswith("FAKE was resized from 96 to 12") for note in json.loads(result.out)["notes"])


def test_each_argument_is_looked_at_once_before_it_is_loaded(
    poise: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("fake", "real"):
        (tmp_path / name).mkdir()
        for i, image in enumerate(np.random.default_rng(1).integers(0, 256, (20, 8, 8, 3), np.uint8)):
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    walked: list[str] = []
    listing = Walk.listing

    def counted(walk: Walk) -> Any:
        walked.append(walk.top.name)
        return listing(walk)

    monkeypatch.setattr(Walk, "listing", counted)
    assert poise("compare", tmp_path / "fake", tmp_path / "real", *OPTIONS).code == 0
    assert sorted(walked) == ["fake", "fake", "real", "real"], "for the sizes, and to load it"
