"""The classes of common folder layouts, with the notes and warnings about them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_helpers import has_note, load, pixels
from PIL import Image

from poise.data.classes import (
    Classes,
    Container,
    classes_by_folder,
    classes_by_label,
    classes_by_number,
    stored_names,
    summary,
)
from poise.data.npz import NpzConfig
from poise.data.source import DataSplits, ImageDataset
from poise.data.zip_archive import ZipConfig

CONTAINER = Container(lambda folder: f"--data top/{folder}")


def classes_of(*names: str, folders: tuple[str, ...] = (), outer: int = 0) -> Classes:
    """The classes of these paths; a path with a * stands for four images."""
    every = [name.replace("*", f"{i:03}") for name in names for i in range(4 if "*" in name else 1)]
    return classes_by_folder(sorted(every), folders, CONTAINER._replace(outer_levels=outer))


def numbered_parts(
    folders: list[str],
    size: int = 10,
    *,
    last: int = 10,
    start: int = 0,
    name: str = "img{:08}.png",
) -> list[str]:
    """Files whose numbering continues from one folder to the next."""
    sizes = [size] * (len(folders) - 1) + [last]
    first = np.cumsum([start, *sizes])
    return [f"{top}/{name.format(first[k] + i)}" for k, top in enumerate(folders) for i in range(sizes[k])]


# ---- the summary --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ((120, 80, 4), "3 classes: a, b, c; 120, 80, 4 images"),
        ((5, 5), "2 classes: a, b; 5 images each"),
        ((1, 1), "2 classes: a, b; 1 image each"),
        ((3,), "1 class: a; 3 images each"),
        ((1200, *[3] * 9), "10 classes, 3 to 1,200 images each: a, b, c, ..."),
        ([2] * 26, "26 classes, 2 images each: a, b, c, ..."),
    ],
    ids=str,
)
def test_summary(counts: tuple[int, ...], line: str) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    assert summary(labels, [chr(97 + i) for i in range(len(counts))]) == line


def test_a_folder_and_an_archive_report_their_classes(tmp_path: Path, write_images: Callable[..., None]) -> None:
    write_images(tmp_path / "p" / "a", 3)
    write_images(tmp_path / "p" / "é b", 5)
    line = "2 classes: a, é b; 3, 5 images"
    loaded = load(tmp_path / "p", held_out=0.5)
    assert loaded.notes[0] == line
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for file in (tmp_path / "p").rglob("*.png"):
            archive.write(file, file.relative_to(tmp_path))
    assert ZipConfig(path=str(tmp_path / "p.zip"), size=8).load().notes[0] == line


# ---- folders that are classes ------------------------------------------------------------------------


CLASSES = {
    "flat": (["*.jpg"], ()),
    "plain": (["cats/*.jpg", "dogs/*.jpg"], ("cats", "dogs")),
    "imagenet": (["n01440764/n01440764_*.JPEG", "n01443537/n01443537_*.JPEG"], ("n01440764", "n01443537")),
    "tiny imagenet": (["n01/images/*.JPEG", "n02/images/*.JPEG"], ("n01", "n02")),
    "around": (["archive/archive/a/*.png", "archive/archive/b/*.png"], ("a", "b")),
    "one split": (["train/cats/*.png", "train/dogs/*.png"], ("cats", "dogs")),
    "deep": (["a/x/1/*.png", "b/*.png"], ("a", "b")),
    "digits": ([f"{k}/*.png" for k in range(10)], tuple("0123456789")),
    "one to twelve": ([f"{k}/{k}_*.png" for k in range(1, 13)], tuple(sorted(map(str, range(1, 13))))),
    "continuous digits": (numbered_parts(list("0123456789")), tuple("0123456789")),
    "traffic signs": ([f"{k:05}/0000{j}_0000{i}.png" for k in range(3) for j in range(2) for i in range(3)],
                      ("00000", "00001", "00002")),
    "people": ([f"{k:04}/{k:04}_c1s1_*.jpg" for k in (2, 7, 10)], ("0002", "0007", "0010")),
    "birds": (["001.Albatross/A_*.jpg", "002.Auklet/B_*.jpg"], ("001.Albatross", "002.Auklet")),
    "a train among vehicles": (["car/*.png", "train/*.png", "van/*.png"], ("car", "train", "van")),
    "splits below classes": (["male/train/*.png", "male/test/*.png", "female/train/*.png", "female/test/*.png"],
                             ("female", "male")),
    "words with split words in them": (["test tube/*.png", "train station/*.png", "house/*.png"],
                                       ("house", "test tube", "train station")),
    "unicode": (["猫/*.png", "犬/*.png"], ("犬", "猫")),
}  # fmt: skip


@pytest.mark.parametrize(("names", "expected"), CLASSES.values(), ids=CLASSES)
def test_folders_that_are_classes(names: list[str], expected: tuple[str, ...]) -> None:
    classes = classes_of(*names)
    assert sorted(classes.names) == sorted(expected)
    assert classes.warnings == ()
    if expected:
        assert classes.labels is not None
        assert np.unique(classes.labels).tolist() == list(range(len(expected)))
        assert sum("classes" in note and "images" in note for note in classes.notes) >= 1
    else:
        assert classes.labels is None


def test_enclosing_folders_are_reported() -> None:
    assert classes_of("archive/archive/a/*.png", "archive/archive/b/*.png").notes == (
        "2 classes: a, b; 4 images each",
        "all images are below archive/archive: its sub-folders are treated as classes",
    )
    assert classes_of("x/y/*.png").notes == ("all images are in one folder, x/y: they have no classes",)
    assert classes_of("x/y/*.png", outer=1).notes == classes_of("x/y/*.png").notes
    assert classes_of("x/a/*.png", "x/b/*.png", outer=1).notes == ("2 classes: a, b; 4 images each",)


def test_folders_without_usable_images_are_reported() -> None:
    folders = ("a", "b", "c", "c/deep", "a/x", "d")
    classes = classes_of("a/x/*.png", "b/*.png", folders=folders)
    assert classes.names == ("a", "b")
    assert classes.notes[1:] == ("2 folders without a usable image: c, d",)
    single = classes_of("p/a/*.png", folders=("p", "p/a", "p/b", "q"))
    assert single.labels is None
    assert single.notes[1:] == ("2 folders without a usable image: p/b, q",)


def test_a_folder_whose_images_are_all_bad_is_not_a_class(tmp_path: Path, write_images: Callable[..., None]) -> None:
    write_images(tmp_path / "a", 3)
    write_images(tmp_path / "b", 3)
    for name in ("c/x.png", "d/readme.txt", ".hidden/x.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    loaded = load(tmp_path)
    assert loaded.train.classes == ("a", "b")
    assert "2 folders without a usable image: c, d" in loaded.notes


# ---- folders that may not be classes -----------------------------------------------------------------


SPLITS = {
    "kaggle": (["archive/train/cats/*.png", "archive/train/dogs/*.png", "archive/test/cats/*.png",
                "archive/test/dogs/*.png"], "archive/train", "cats, dogs repeat"),
    "flat": (["train/*.png", "test/*.png", "val/*.png"], "train", "look like splits"),
    "long": (["training/0/*.png", "training/1/*.png", "testing/0/*.png", "testing/1/*.png"], "training", "0, 1 repeat"),
    "upper": (["Train/a/*.png", "Validation/a/*.png"], "Train", "look like splits"),
    "unlabelled too": (["train/a/*.png", "test/a/*.png", "unlabeled/*.png"], "train", "look like splits"),
    "two domains": (["trainA/*.jpg", "trainB/*.jpg", "testA/*.jpg", "testB/*.jpg"], "trainA", "look like splits"),
    "two domains to train on": (["trainA/*.jpg", "trainB/*.jpg"], "trainA", "look like splits"),
    "coco": (["images/train2017/*.jpg", "images/val2017/*.jpg"], "images/train2017", "look like splits"),
    "intel": (["seg_train/sea/*.jpg", "seg_train/ice/*.jpg", "seg_test/sea/*.jpg", "seg_test/ice/*.jpg"],
              "seg_train", "ice, sea repeat"),
    "other names": (["day/cats/*.png", "day/dogs/*.png", "night/cats/*.png", "night/dogs/*.png"], "day",
                    "cats, dogs repeat in day, night"),
}  # fmt: skip


@pytest.mark.parametrize(("names", "give", "why"), SPLITS.values(), ids=SPLITS)
def test_splits_give_a_warning(names: list[str], give: str, why: str) -> None:
    """The folders are still treated as classes."""
    classes = classes_of(*names)
    assert len(classes.names) > 1
    (warning,) = classes.warnings
    assert why in warning.message
    assert "treated as classes" in warning.message
    assert f"--data top/{give}" in warning.cure


def test_the_cure_works(tmp_path: Path, write_images: Callable[..., None]) -> None:
    for split in ("train", "test"):
        for kind in ("cats", "dogs"):
            write_images(tmp_path / "my data" / split / kind, 3)
    (warning,) = load(tmp_path / "my data").warnings
    assert f"--data '{tmp_path / 'my data' / 'train'}'" in warning.cure
    assert load(tmp_path / "my data" / "train").warnings == []


NUMBERED_PARTS = {
    "stylegan": numbered_parts(["00000", "00001", "00002"], last=3),
    "two": numbered_parts(["00000", "00001"], last=1),
    "ffhq": [f"{k:05}/{k + i:05}.png" for k in (0, 1000, 2000) for i in range(8)],
    "below": [f"data/{name}" for name in numbered_parts(["000", "001"], start=5)],
    "a hundred": numbered_parts([f"{k:04}" for k in range(100)], size=3, last=3, name="{}.jpg"),
}


@pytest.mark.parametrize("names", NUMBERED_PARTS.values(), ids=NUMBERED_PARTS)
def test_numbered_parts_are_not_classes(names: list[str]) -> None:
    classes = classes_of(*names)
    assert classes.labels is None
    assert any("numbered parts" in note and "not treated as classes" in note for note in classes.notes)


LIKE_NUMBERED_PARTS = {
    "by rest": [f"{k:04}/{1000 * i + k}.jpg" for k in range(10) for i in range(1, 5)],
    "random names": [f"{k:02}/{k * 7919 + i * 104729:x}z.png" for k in range(4) for i in range(5)],
    "hashes": [f"{k:02x}/{k:02x}{i}abc.png" for k in range(256) for i in range(2)],
    "parts": ["images_001/*.png", "images_002/*.png"],
    "shards": ["shard-0/*.png", "shard-1/*.png"],
}


@pytest.mark.parametrize("names", LIKE_NUMBERED_PARTS.values(), ids=LIKE_NUMBERED_PARTS)
def test_folders_like_numbered_parts_give_a_warning(names: list[str]) -> None:
    classes = classes_of(*names)
    assert classes.labels is not None
    (warning,) = classes.warnings
    assert "numbered parts" in warning.message
    assert "one folder" in warning.cure


# ---- dataset.json -------------------------------------------------------------------------------------


def stylegan_dataset(folder: Path, labels: object, raw: bytes | None = None) -> Path:
    """Twelve images in three numbered folders, and StyleGAN's label file."""
    rng = np.random.default_rng(0)
    for i in range(12):
        file = folder / f"{i // 5:05}" / f"img{i:08}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(file)
    (folder / "dataset.json").write_bytes(json.dumps({"labels": labels}).encode() if raw is None else raw)
    return folder


def pairs(labels: list[object]) -> list[list[object]]:
    return [[f"{i // 5:05}/img{i:08}.png", label] for i, label in enumerate(labels)]


LABELS = [i % 3 * 5 for i in range(12)]


def load_zip(folder: Path, relative_to: Path) -> DataSplits:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.rglob("*.*"):
            archive.write(file, file.relative_to(relative_to))
    return ZipConfig(path=str(path), size=8, held_out=0.0).load()


@pytest.mark.parametrize(
    "labels",
    [
        pairs(LABELS),
        dict(pairs(LABELS)),
        pairs([float(label) for label in LABELS]),
        pairs([[float(k == label) for k in range(11)] for label in LABELS]),
        pairs([str(label) for label in LABELS]),
        [[name.replace("/", "\\"), label] for name, label in pairs(LABELS)],  # type: ignore[union-attr]
    ],
    ids=["pairs", "table", "floats", "one-hot", "words", "windows"],
)
def test_labels_of_a_dataset_json(tmp_path: Path, labels: object) -> None:
    folder = stylegan_dataset(tmp_path / "p", labels)
    for loaded in (load(folder), load_zip(folder, folder), load_zip(folder, tmp_path)):
        assert loaded.train.classes == ("0", "5", "10")
        assert isinstance(loaded.train, ImageDataset)
        assert loaded.train.labels is not None
        assert [int(loaded.train.classes[label]) for label in loaded.train.labels] == LABELS
        assert "from dataset.json: 3 classes: 0, 5, 10; 4 images each" in loaded.notes
        assert loaded.warnings == []
        assert not has_note(loaded, "skipped")


def test_a_dataset_json_without_labels(tmp_path: Path) -> None:
    folder = stylegan_dataset(tmp_path / "p", None)
    for loaded in (load(folder), load_zip(folder, folder)):
        assert loaded.train.classes == ()
        assert has_note(loaded, "dataset.json states that there are no labels")
        assert loaded.warnings == []


INVALID = {
    "damaged": b"{nonsense",
    "other": b'{"images": []}',
    "a list": b"[1, 2]",
    "no pairs": b'{"labels": [1, 2]}',
    "vectors": json.dumps({"labels": pairs([[0.25, 0.75]] * 12)}).encode(),
    "no text": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "other lists": json.dumps({"labels": pairs([["cat", 0]] * 12)}).encode(),
    "a null": json.dumps({"labels": pairs([None] * 12)}).encode(),
}


@pytest.mark.parametrize("raw", INVALID.values(), ids=INVALID)
def test_an_invalid_dataset_json_gives_a_warning(tmp_path: Path, raw: bytes) -> None:
    loaded = load(stylegan_dataset(tmp_path / "p", None, raw))
    (warning,) = loaded.warnings
    assert warning.message.startswith("dataset.json can't be used")
    assert "\n" not in warning.message
    assert loaded.train.classes == ()
    assert len(pixels(loaded)) == 12


def test_images_without_a_label_give_a_warning(tmp_path: Path) -> None:
    loaded = load(stylegan_dataset(tmp_path / "p", pairs(LABELS)[:-2]))
    assert loaded.train.classes == ()
    assert loaded.warnings[0].message == "dataset.json has no label for 2 of 12 images, so the images have no classes"


def test_without_an_incomplete_dataset_json_folders_are_classes(
    tmp_path: Path, write_images: Callable[..., None]
) -> None:
    """As the cure says."""
    for name in ("cats", "dogs"):
        write_images(tmp_path / name, 3)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": [["cats/0.png", 0]]}))
    loaded = load(tmp_path)
    assert loaded.train.classes == ()
    assert loaded.warnings[0].message.endswith("images, so the images have no classes")
    assert loaded.warnings[0].cure == "give every image a label, or remove the file: then folders are classes"
    (tmp_path / "dataset.json").unlink()
    assert load(tmp_path).train.classes == ("cats", "dogs")


def test_a_dataset_json_in_another_folder_is_ignored(tmp_path: Path, write_images: Callable[..., None]) -> None:
    write_images(tmp_path / "a", 3)
    write_images(tmp_path / "b", 3)
    (tmp_path / "b" / "dataset.json").write_text(json.dumps({"labels": None}))
    loaded = load(tmp_path)
    assert "skipped 1 other file: 1 .json" in loaded.notes
    assert loaded.train.classes == ("a", "b")
    assert loaded.warnings == []


UNUSUAL = ["women's", 'the "best"', "'quoted'", "a\\b", "a\nb", "caf\udce9", "tab\t'", "", "plain"]


def test_names_of_classes_stay_the_same_if_they_are_stored_and_read_again(tmp_path: Path) -> None:
    """By folder, in words and in npz files, as a run's samples are compared with its data by them."""
    names = stored_names(UNUSUAL)
    assert all(name.isprintable() for name in names)
    assert [name for name, plain in zip(names, UNUSUAL, strict=True) if name == plain] == [
        name for name in UNUSUAL if name.isprintable()
    ]
    assert stored_names(names) == names
    labels = np.arange(18) % 9
    by_word = classes_by_label([UNUSUAL[label] for label in labels], UNUSUAL).names
    assert by_word == names
    paths = [f"{UNUSUAL[label]}/{i}.png" for i, label in enumerate(labels) if UNUSUAL[label]]
    by_folder = classes_by_folder(paths, [], CONTAINER).names
    assert set(by_folder) == {name for name in names if name}
    np.savez(tmp_path / "a.npz", images=np.zeros((18, 4, 4), np.uint8), labels=labels, classes=np.array(names))
    assert NpzConfig(path=str(tmp_path / "a.npz"), size=4).load().train.classes == names


def test_different_classes_have_different_names() -> None:
    assert len(set(stored_names(["a\nb", repr("a\nb"), repr(repr("a\nb"))]))) == 3


def test_classes_that_are_left_out_are_quoted_once() -> None:
    (note,) = [n for n in classes_by_number(np.zeros(2, np.int64), ["a", "it's"]).notes if "left out" in n]
    assert note == """classes without images are left out: "it's\""""
