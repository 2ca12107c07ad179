"""NumPy archives: pixels, labels, class names, and errors that say how to convert other arrays."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from poise.data.fit import TargetFormat, convert_array
from poise.data.npz import NpzConfig
from poise.data.pixel_statistics import pixel_hashes
from poise.data.source import DataSplits, ImageDataset
from poise.data.split import held_out_split
from poise.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8)


def load(path: Path, **fields: object) -> DataSplits:
    return NpzConfig(path=str(path), **{"size": 8, "held_out": 0.0, **fields}).load()  # type: ignore[arg-type]


def save(tmp_path: Path, **arrays: object) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def training_set(loaded: DataSplits) -> ImageDataset:
    assert isinstance(loaded.train, ImageDataset)
    return loaded.train


def test_pixels_are_unchanged_at_the_native_size(tmp_path: Path) -> None:
    loaded = load(save(tmp_path, images=IMAGES))
    assert np.array_equal(training_set(loaded).images, IMAGES)
    assert training_set(loaded).labels is None
    assert loaded.notes == []


def test_split_and_labels(tmp_path: Path) -> None:
    labels = np.arange(60) % 7
    loaded = load(save(tmp_path, images=IMAGES, labels=labels.astype(np.uint8)), held_out=0.25)
    train, held_out = held_out_split(pixel_hashes(IMAGES), labels, 0.25)
    assert len(held_out) == 15
    assert isinstance(loaded.held_out, ImageDataset)
    for dataset, indices in ((training_set(loaded), train), (loaded.held_out, held_out)):
        assert np.array_equal(dataset.images, IMAGES[indices])
        assert dataset.labels is not None
        assert dataset.labels.dtype == np.int64
        assert np.array_equal(dataset.labels, labels[indices])
        assert dataset.classes == tuple("0123456")


def test_images_of_another_size_are_cropped_and_resized(tmp_path: Path) -> None:
    loaded = load(save(tmp_path, images=IMAGES[:, :, :6]), size=4)
    assert np.array_equal(
        training_set(loaded).images, convert_array(IMAGES[:, 1:7, :6], TargetFormat((4, 4), 3, "white"))
    )
    assert "all images are 6 x 8 and are resized to 4 x 4" in loaded.notes
    assert "the images are not square: the centred square is used (data.fit)" in loaded.notes


@pytest.mark.parametrize(("array_channels", "channels", "expected"), [
    (0, None, 1), (1, None, 1), (2, None, 1), (3, None, 3), (4, None, 3),
    (0, 3, 3), (3, 1, 1), (2, 2, 2), (4, 4, 4), (4, 2, 2), (3, 4, 4),
])  # fmt: skip
def test_channels(tmp_path: Path, array_channels: int, channels: int | None, expected: int) -> None:
    images = np.random.default_rng(1).integers(0, 256, (60, 8, 8, max(array_channels, 1)), np.uint8)
    loaded = load(save(tmp_path, images=images if array_channels else images[..., 0]), channels=channels)
    assert np.array_equal(training_set(loaded).images, convert_array(images, TargetFormat((8, 8), expected, "white")))
    assert training_set(loaded).images.shape[3] == expected
    handling = "kept" if expected in (2, 4) else "composited over white"
    assert any(f"60 images with transparency: {handling}" in note for note in loaded.notes) is (
        array_channels in (2, 4)
    )


INVALID = {
    "other-keys": ({"x": IMAGES, "y": IMAGES}, "no array is called 'images', found x, y; create one with np.savez"),
    "float": ({"images": IMAGES / 255}, r"images: must be uint8, found float64, 60 x 8 x 8 x 3; .*images \* 255"),
    "signed": ({"images": IMAGES.astype(np.int64)}, "must be uint8, found int64"),
    "flat": ({"images": IMAGES.reshape(60, -1)}, "must be N x H x W x C, .* found uint8, 60 x 192"),
    "single": ({"images": np.uint8(3)}, "must be N x H x W x C, .* found uint8, a scalar"),
    "channels-first": (
        {"images": IMAGES.transpose(0, 3, 1, 2)},
        r"move the channels to the end: images.transpose\(0, 2, 3, 1\)",
    ),
    "five-channels": (
        {"images": np.zeros((9, 8, 8, 5), np.uint8)},
        "1 to 4 channels in the last dimension, found .* 1 greyscale",
    ),
    "no-width": ({"images": np.zeros((9, 8, 0, 3), np.uint8)}, "must be N x H x W x C"),
    "I23-none": ({"images": IMAGES[:0]}, "none of the images can be used, found 0 images"),
    "I23-one": ({"images": IMAGES[:1]}, "a single image is not enough"),
    "objects": ({"images": np.array([IMAGES[0], None], object)}, "an object array is pickled and is not loaded"),
    "labels-short": ({"images": IMAGES, "labels": np.arange(59)}, "one label for each of 60 images, found int64, 59"),
    "labels-wide": (
        {"images": IMAGES, "labels": np.zeros((60, 2), int)},
        "one label for each of .* found int64, 60 x 2",
    ),
    "labels-words": (
        {"images": IMAGES, "labels": np.array(["a", "b"] * 30)},
        r"labels: must be integers, found <U1, 60; classes, labels = np.unique\(labels, return_inverse=True\)",
    ),
    "classes-short": (
        {"images": IMAGES, "labels": np.arange(60) % 3, "classes": ["a", "b"]},
        "classes: must name every label, but has 2 names, found labels from 0 to 2; use labels from 0 to 1",
    ),
    "classes-negative": ({"images": IMAGES, "labels": -np.arange(60) % 2 - 1, "classes": ["a"]}, "must name every"),
    "classes-twice": (
        {"images": IMAGES, "labels": np.arange(60) % 2, "classes": ["a", "a"]},
        "a list of distinct names",
    ),
    "classes-wide": ({"images": IMAGES, "labels": np.arange(60) % 2, "classes": [["a", "b"]]}, "found <U1, 1 x 2"),
    "classes-objects": (
        {"images": IMAGES, "labels": np.arange(60) % 2, "classes": np.array(["a", None])},
        "classes: an object array is pickled",
    ),
    "labels-float": ({"images": IMAGES, "labels": np.zeros(60)}, "must be integers, found float64"),
    "labels-objects": ({"images": IMAGES, "labels": np.array([None] * 60)}, "labels: an object array"),
}


@pytest.mark.parametrize(("arrays", "why"), INVALID.values(), ids=INVALID)
def test_invalid_arrays_are_rejected(tmp_path: Path, arrays: dict[str, object], why: str) -> None:
    with pytest.raises(DataError) as raised:
        load(save(tmp_path, **arrays))
    assert re.search(why, str(raised.value))
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        pytest.param(b"", "not an npz archive", id="empty"),
        pytest.param(b"words", "not an npz archive", id="text"),
        pytest.param(b"\x80\x04\x95pickle.", "not an npz archive", id="pickle"),
        pytest.param(b"PK\3\4 and nothing else", "not an npz archive", id="cut-zip"),
    ],
)
def test_files_that_are_not_archives(tmp_path: Path, raw: bytes, why: str) -> None:
    (tmp_path / "data.npz").write_bytes(raw)
    with pytest.raises(DataError, match=why):
        load(tmp_path / "data.npz")


def test_damage_is_detected(tmp_path: Path) -> None:
    path = save(tmp_path, images=IMAGES)
    raw = bytearray(path.read_bytes())
    raw[5000] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="images: damaged: Bad CRC-32"):
        load(path)


def test_a_single_array_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", IMAGES)
    with pytest.raises(DataError, match="a single array, not an npz archive"):
        load(tmp_path / "data.npy")
    with pytest.raises(DataError, match="a folder, not a file"):
        load(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        load(tmp_path / "none.npz")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = save(tmp_path, images=IMAGES)
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(DataError, match="no permission to read this"):
        load(path)


def test_notes(tmp_path: Path) -> None:
    loaded = load(save(tmp_path, images=np.concatenate((IMAGES[:10], IMAGES[:10]))))
    assert "10 of 20 images are exact copies of others" in loaded.notes
    assert any("will soon overfit" in note for note in loaded.notes)


# ---- classes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "gap"),
    [
        ((1, 2, 3), "as 0,"),
        ((0, 1, 7), "as 2,"),
        ((-1, 0, 1), ""),
        ((-5, 3), "as -4,"),
        ((10**9, 2**62), "as 0,"),
        ((4,), "as 0,"),
        ((0, 1, 2), None),
    ],
    ids=str,
)
def test_labels_that_occur_are_the_classes(tmp_path: Path, numbers: tuple[int, ...], gap: str | None) -> None:
    """Each is named by its number; numbers without images are not classes."""
    integers = np.array(numbers)[np.arange(60) % len(numbers)]
    loaded = load(save(tmp_path, images=IMAGES, labels=integers))
    assert loaded.train.classes == tuple(map(str, sorted(numbers)))
    labels = training_set(loaded).labels
    assert labels is not None
    assert [int(loaded.train.classes[label]) for label in labels] == integers.tolist()
    assert np.unique(labels).tolist() == list(range(len(numbers)))
    notes = [note for note in loaded.notes if "named by their labels" in note]
    assert len(notes) == (gap is not None)
    assert gap is None or (gap in notes[0] if gap else "without" not in notes[0])


def test_unsigned_labels_beyond_int64(tmp_path: Path) -> None:
    integers = np.array([0, 2**64 - 1], np.uint64)[np.arange(60) % 2]
    assert load(save(tmp_path, images=IMAGES, labels=integers)).train.classes == ("0", str(2**64 - 1))


@pytest.mark.parametrize("names", [["cat", "dog", "eel"], [b"cat", b"dog", b"eel"], [7, 8, 9]], ids=str)
def test_class_names_are_read(tmp_path: Path, names: list[object]) -> None:
    loaded = load(save(tmp_path, images=IMAGES, labels=np.arange(60) % 3, classes=names))
    assert loaded.train.classes == tuple(n.decode() if isinstance(n, bytes) else str(n) for n in names)
    assert loaded.notes[0] == f"3 classes: {', '.join(loaded.train.classes)}; 20 images each"


def test_names_without_images_are_not_classes(tmp_path: Path) -> None:
    loaded = load(save(tmp_path, images=IMAGES, labels=np.arange(60) % 2 * 2, classes=["cat", "dog", "eel", "fox"]))
    assert loaded.train.classes == ("cat", "eel")
    assert "classes without images are left out: dog, fox" in loaded.notes
