"""Pairs and unpaired domains: where the images of a and b are found, what is read, and how samples are drawn."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from poise.core.random_streams import RandomStreams
from poise.data.domains import DomainsConfig, TwoDomains
from poise.data.fit import Fit
from poise.data.folder import FolderConfig
from poise.data.pairs import PairsConfig
from poise.data.source import DataSplits, ImageDataset
from poise.errors import DataError

RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)

Draw = Callable[[str, Any], None]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Writes an image: `draw("a/1.png", 7)` of 8 x 8 pixels, grey for a number and in colour for three of them."""

    def write(name: str, colour: Any, size: tuple[int, int] = (8, 8)) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = "L" if isinstance(colour, int) else "RGB"
        Image.new(mode, size, colour).save(path)

    return write


def pairs(path: Path, **options: Any) -> DataSplits:
    """Pairs of 8 x 8 pixels, none of them held out."""
    return PairsConfig(path=str(path), **{"size": 8, "held_out": 0.0, **options}).load()


def domains(path: Path | None, **options: Any) -> DataSplits:
    """Two domains of 8 x 8 pixels, none of which is held out."""
    place = {} if path is None else {"path": str(path)}
    return DomainsConfig(**{"size": 8, "held_out": 0.0, **place, **options}).load()


def colours(splits: DataSplits) -> list[list[int]]:
    """The channels of the first pixel of each training sample, sorted."""
    assert isinstance(splits.train, ImageDataset)
    return sorted(splits.train.images[:, 0, 0].tolist())


def said(splits: DataSplits, pattern: str) -> bool:
    """Whether a note matches."""
    return any(re.search(pattern, note) for note in splits.notes)


# ---------------------------------------------------------------- pairs in two folders


def test_images_of_the_same_name_are_a_pair_and_each_domain_has_its_channels(tmp_path: Path, draw: Draw) -> None:
    for i in (1, 2, 3):
        draw(f"a/{i}.png", 10 * i)
        draw(f"b/{i}.bmp", (i, 0, 9))
    splits = pairs(tmp_path)
    assert colours(splits) == [[10, 1, 0, 9], [20, 2, 0, 9], [30, 3, 0, 9]]
    assert (splits.train.parts, splits.train.shape) == ((1, 3), (4, 8, 8))
    a, b = splits.train.domain_sources
    assert (a.shape, b.shape) == ((1, 8, 8), (3, 8, 8))
    assert torch.equal(torch.cat([a.preview(3), b.preview(3)], 1), splits.train.preview(3))


@pytest.mark.parametrize("kind", [pairs, domains])
def test_skipped_folders_are_named_with_the_cure(tmp_path: Path, draw: Draw, kind: Callable[..., DataSplits]) -> None:
    for i in range(4):
        for folder in ("set/a", "set/b", "disk/b", "disk"):
            draw(f"{folder}/{i}.png", 10 * i)
    (tmp_path / "set" / "b" / "more").symlink_to(tmp_path / "disk")
    splits = kind(tmp_path / "set")
    (warning,) = [one for one in splits.warnings if "folder" in one.message]
    assert "1 folder is skipped with all that is in it: b/more (a link out" in warning.message
    assert not said(splits, "as invalid")
    shutil.rmtree(tmp_path / "set" / "b")
    (tmp_path / "set" / "b").symlink_to(tmp_path / "disk" / "b")
    with pytest.raises(
        DataError, match=r"one of the two domains is skipped, found 1 skipped folder: b \(a link.*follow_"
    ):
        kind(tmp_path / "set")
    assert not kind(tmp_path / "set", follow_links=True).bad_files


def test_any_two_folders_are_two_domains_in_alphabetical_order(tmp_path: Path, draw: Draw) -> None:
    for i in (1, 2):
        draw(f"sub/photos/x/{i}.png", RED)
        draw(f"sub/Maps/x/{i}.png", BLUE)
    splits = pairs(tmp_path)
    assert colours(splits) == [[*BLUE, *RED]] * 2
    assert said(splits, "^a is the folder sub/Maps, b is sub/photos$")


def test_what_is_in_no_pair_is_named(tmp_path: Path, draw: Draw) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png", "a/4.png", "a/5.png", "b/6.png", "b/7.png"):
        draw(name, 3)
    for name in ("a/8.png", "a/8.bmp", "b/8.png"):
        draw(name, 4)
    splits = pairs(tmp_path)
    assert len(colours(splits)) == 2
    assert said(splits, "^4 images without a partner, not used: a/4.png, a/5.png, b/6.png, ...$")
    assert said(splits, "^2 images with the same name in one domain, not used: a/8.bmp, a/8.png$")


def test_a_bad_half_costs_its_pair_and_is_named(tmp_path: Path, draw: Draw) -> None:
    for i in range(4):
        draw(f"a/{i}.png", i)
        draw(f"b/{i}.png", 50 + i)
    (tmp_path / "a/1.png").write_bytes(b"none")
    (tmp_path / "b/2.png").write_bytes((tmp_path / "b/2.png").read_bytes()[:40])
    splits = pairs(tmp_path)
    assert colours(splits) == [[0, 50], [3, 53]]
    assert [file.name for file in splits.bad_files] == ["a/1.png", "b/2.png"]
    assert said(splits, "^skipped 2 of 8 image files as invalid, and with them 2 pairs$")
    with pytest.raises(DataError, match=r"2 of 8 image files can't be used: a/1\.png \(not an image\)"):
        pairs(tmp_path, max_bad=0.2)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("layout", ["two folders", "side by side"])
def test_a_split_without_a_usable_pair_is_an_error_that_names_it(
    tmp_path: Path, draw: Draw, split: str, layout: str
) -> None:
    sides = ("a/", "b/") if layout == "two folders" else ("",)
    for folder in [f"{each}/{side}" for each in ("train", "val") for side in sides]:
        for i in range(4):
            draw(f"{folder}{i}.png", i, (8, 8) if len(sides) == 2 else (16, 8))
            if folder.startswith(split):
                (tmp_path / f"{folder}{i}.png").write_bytes(b"junk")
    found = f"{4 * len(sides)} bad image files in {split}" + ("/a and val/b".replace("val", split) if sides[1:] else "")
    with pytest.raises(DataError, match=f"none of the images can be used, found {found};"):
        pairs(tmp_path, max_bad=1.0)


def test_bad_files_that_are_not_opened_are_counted_in_the_total(tmp_path: Path, draw: Draw) -> None:
    for i in range(6):
        draw(f"set/a/{i}.png", i)
        draw(f"set/b/{i}.png", i)
    draw("elsewhere.png", 1)
    for i in range(10):
        (tmp_path / "set" / "a" / f"link-{i}.png").symlink_to(tmp_path / "elsewhere.png")
    assert said(pairs(tmp_path / "set"), "skipped 10 of 22 image files as invalid$")


def test_the_held_out_pairs_share_no_source_with_the_training_pairs(tmp_path: Path) -> None:
    """Otherwise G would be evaluated on images that it has been trained to translate."""
    a = np.repeat(np.arange(10, dtype=np.uint8), 4)[:, None, None] * np.ones((8, 8), np.uint8)
    b = np.arange(40, dtype=np.uint8)[:, None, None] * np.ones((8, 8), np.uint8)
    np.savez(tmp_path / "d.npz", a=a, b=b)
    splits = pairs(tmp_path / "d.npz", held_out=0.3)
    train, held_out = splits.train, splits.held_out
    assert isinstance(train, ImageDataset)
    assert isinstance(held_out, ImageDataset)
    assert (len(train), len(held_out), held_out.parts) == (28, 12, (1, 1))
    assert not set(train.images[:, 0, 0, 0].tolist()) & set(held_out.images[:, 0, 0, 0].tolist())


def test_pairs_of_an_archive_may_have_labels(tmp_path: Path) -> None:
    images = np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((8, 8), np.uint8)
    np.savez(tmp_path / "d.npz", a=images, b=images, labels=np.arange(6) % 2, classes=np.array(["no", "yes"]), more=1)
    splits = pairs(tmp_path / "d.npz", held_out=0.4)
    assert isinstance(splits.train, ImageDataset)
    assert (splits.train.classes, splits.train.class_counts) == (("no", "yes"), (2, 2))
    assert splits.train.labels is not None
    assert (splits.train.labels == splits.train.images[:, 0, 0, 0] % 2).all()
    assert said(splits, "^2 classes: no, yes")
    assert said(splits, "^not used: 1 array, more$")


@pytest.mark.parametrize(
    ("mode", "expected"), [("P", (3, 3)), ("I;16", (1, 3)), ("LA", (1, 3)), ("RGBA", (3, 3)), ("1", (1, 3))]
)
def test_every_mode_of_images_is_read_as_in_ordinary_folders(
    mode: str, expected: tuple[int, int], tmp_path: Path, draw: Draw
) -> None:
    for i in range(2):
        draw(f"b/{i}.png", RED)
        (tmp_path / "a").mkdir(exist_ok=True)
        image = Image.new("RGB", (8, 8), GREEN)
        pixels = np.full((8, 8), 0x8000, np.uint16)
        (Image.fromarray(pixels) if mode == "I;16" else image.convert(mode)).save(tmp_path / f"a/{i}.png")
    splits = pairs(tmp_path)
    assert splits.train.parts == expected
    assert mode != "I;16" or (colours(splits)[0] == [128, *RED] and said(splits, "a: .*16-bit"))


def test_the_channels_of_each_domain_can_be_given(tmp_path: Path, draw: Draw) -> None:
    for i in range(2):
        draw(f"a/{i}.png", RED)
        draw(f"b/{i}.png", RED)
        draw(f"both/{i}.png", RED, (16, 8))  # type: ignore[call-arg]
    (tmp_path / "two").mkdir()
    for name in "ab":
        (tmp_path / name).rename(tmp_path / "two" / name)
    assert colours(pairs(tmp_path / "two", channels=[1, 3])) == [[76, *RED]] * 2
    assert pairs(tmp_path / "two", channels=1).train.parts == (1, 1)
    assert colours(pairs(tmp_path / "both", channels=(1, 3))) == [[76, *RED]] * 2
    assert colours(pairs(tmp_path / "both", channels=(1, 3), source="right")) == [[76, *RED]] * 2


# ---------------------------------------------------------------- pairs side by side


def side_by_side(path: Path, left: Any, right: Any, side: int = 8) -> None:
    """Writes an image whose halves have these colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (2 * side, side), left)
    image.paste(right, (side, 0, 2 * side, side))
    image.save(path)


@pytest.mark.parametrize(("source", "expected"), [("left", [*RED, *BLUE]), ("right", [*BLUE, *RED])])
def test_images_side_by_side_are_cut_and_the_source_can_be_either_half(
    source: str, expected: list[int], tmp_path: Path
) -> None:
    for i in range(3):
        side_by_side(tmp_path / f"{i}.png", RED, BLUE)
    splits = pairs(tmp_path, source=source)
    assert colours(splits) == [expected] * 3
    assert said(splits, f"^each image is cut into two halves: the {source} one is a, .* \\(data.source\\)$")


def test_an_image_that_is_not_twice_as_wide_as_high_is_no_pair(tmp_path: Path, draw: Draw) -> None:
    for i in range(3):
        side_by_side(tmp_path / f"{i}.png", RED, BLUE)
    draw("odd.png", RED, (17, 8))  # type: ignore[call-arg]
    draw("square.png", RED)
    splits = pairs(tmp_path)
    assert len(colours(splits)) == 3
    assert [file.name for file in splits.bad_files] == ["odd.png", "square.png"]
    assert splits.bad_files[0].reason.startswith("17 x 8 is not twice as wide as high")


@pytest.mark.parametrize("name", ["val", "test"])
def test_of_the_splits_of_pix2pix_one_is_held_out(name: str, tmp_path: Path) -> None:
    for split, colour in (("train", 10), ("test", 20), (name, 30)):
        for i in range(2):
            side_by_side(tmp_path / split / f"{i}.png", (colour, i, 0), BLUE)
    splits = pairs(tmp_path)
    assert {row[0] for row in colours(splits)} == {10}
    assert isinstance(splits.held_out, ImageDataset)
    assert set(splits.held_out.images[:, 0, 0, 0].tolist()) == {30}
    assert said(splits, f"^held out: {name}$")
    assert said(splits, "^not used: test$") == (name == "val")


@pytest.mark.parametrize("fit", ["crop", "pad", "squeeze"])
def test_both_images_of_a_pair_have_the_same_geometry(fit: Fit, tmp_path: Path) -> None:
    """In two folders, side by side and in an npz, a pair of equal images stays one."""
    random = np.random.default_rng(0)
    wide = random.integers(0, 256, (2, 12, 20, 3), dtype=np.uint8)
    square = random.integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    (tmp_path / "both").mkdir()
    for i in range(2):
        for name in "ab":
            (tmp_path / "two" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(wide[i]).save(tmp_path / "two" / name / f"{i}.png")
        Image.fromarray(np.concatenate([square[i]] * 2, 1)).save(tmp_path / f"both/{i}.png")
    np.savez(tmp_path / "d.npz", a=wide, b=wide)
    for path in ("two", "both", "d.npz"):
        loaded = pairs(tmp_path / path, fit=fit, size=(6, 8)).train
        a, b = loaded.domain_sources
        assert np.array_equal(a.images, b.images)
        assert loaded.shape == (6, 6, 8)


# ---------------------------------------------------------------- what is refused

REFUSED = {
    "one sub-folder is empty": (("a/1.png", "a/2.png", "b/"), "no images of one domain, found b has none"),
    "three sub-folders": (("a/1.png", "b/1.png", "c/1.png"), "not data of two domains, found the sub-folders a, b, c;"),
    "images beside them": (("a/1.png", "b/1.png", "1.png"), "sub-folders a, b and images beside them"),
    "nothing": ((), "there are no images"),
    "a split and something else": (("train/1.png", "masks/1.png"), "sub-folders masks, train;"),
    "no split to train on": (("testA/1.png", "testB/1.png"), "no split to train on, found testA, testB"),
}


@pytest.mark.parametrize(("names", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("load", [pairs, domains])
def test_other_layouts_are_refused(
    load: Callable[[Path], DataSplits], names: tuple[str, ...], message: str, tmp_path: Path, draw: Draw
) -> None:
    for name in names:
        (tmp_path / name).mkdir(parents=True) if name.endswith("/") else draw(name, 3)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_folders_without_common_names_are_no_pairs(tmp_path: Path, draw: Draw) -> None:
    for i in range(3):
        draw(f"a/x{i}.png", 1)
        draw(f"b/y{i}.png", 2)
    with pytest.raises(DataError, match=r'no image of a .* found such as a/x0.png and b/y0.png; .*"domains"'):
        pairs(tmp_path)
    assert len(domains(tmp_path).train.domain_sources[0]) == 3


BAD_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "other lengths": ({"a": (4, 8, 8), "b": (5, 8, 8)}, 'same number of images, found 4 and 5; .* kind "domains"'),
    "only one": ({"a": (4, 8, 8)}, "no array is called 'b', found a; "),
    "channels first": ({"a": (4, 8, 8), "b": (4, 3, 8, 8)}, r"data.path: b: .*b.transpose\(0, 2, 3, 1\)"),
    "one pair": (
        {"a": (1, 8, 8), "b": (1, 8, 8)},
        "data.path: a single pair is not enough, found 1 pair;",
    ),
}


@pytest.mark.parametrize(("shapes", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_arrays_that_are_no_pairs(shapes: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **{name: np.ones(shape, np.uint8) for name, shape in shapes.items()})
    with pytest.raises(DataError, match=message):
        pairs(tmp_path / "d.npz")


# ---------------------------------------------------------------- unpaired domains


def write_domains(tmp_path: Path, draw: Draw, *, prefix: str = "") -> Path:
    """Five grey images, of two classes, and seven in colour."""
    for i in range(5):
        draw(f"{prefix}a/{'even' if i % 2 == 0 else 'odd'}/{i}.png", i)
    for i in range(7):
        draw(f"{prefix}b/{i}.png", (100 + i, 0, 0))
    return tmp_path / prefix


def test_a_domain_keeps_its_classes_and_a_sample_has_none(tmp_path: Path, draw: Draw) -> None:
    splits = domains(write_domains(tmp_path, draw))
    assert isinstance(splits.train, TwoDomains)
    a, b = splits.train.domain_sources
    assert (len(a), len(b), len(splits.train)) == (5, 7, 7)
    assert (a.classes, a.class_counts, b.classes) == (("even", "odd"), (3, 2), ())
    assert splits.train.classes == ()
    assert (splits.train.shape, splits.train.parts) == ((4, 8, 8), (1, 3))
    assert said(splits, "^a: 5 images, b: 7 images$")
    assert said(splits, "^a: 2 classes: even, odd; 3, 2 images$")


def test_the_same_domains_from_folders_an_archive_and_two_paths(tmp_path: Path, draw: Draw) -> None:
    folder = write_domains(tmp_path, draw, prefix="set/")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(tmp_path))
    np.savez(tmp_path / "b.npz", images=np.array(Image.new("RGB", (8, 8)))[None] + np.zeros((7, 1, 1, 1), np.uint8))
    from_folder = domains(folder)
    assert domains(tmp_path / "set.zip").train.fingerprint == from_folder.train.fingerprint
    apart = domains(None, a=str(folder / "a"), b=str(folder / "b"))
    assert apart.train.fingerprint == from_folder.train.fingerprint
    mixed = domains(None, a=str(folder / "a"), b=str(tmp_path / "b.npz"))
    assert [len(source) for source in mixed.train.domain_sources] == [5, 7]
    with pytest.raises(DataError, match=r"^data\.b: no such file or folder"):
        domains(None, a=str(folder / "a"), b=str(folder / "nothing"))


def test_the_test_folders_of_cyclegan_are_held_out(tmp_path: Path, draw: Draw) -> None:
    for name, n in (("trainA", 3), ("trainB", 4), ("testA", 1), ("testB", 2)):
        for i in range(n):
            draw(f"{name}/{i}.png", n)
    splits = domains(tmp_path)
    assert splits.held_out is not None
    counts = [[len(domain) for domain in source.domain_sources] for source in (splits.train, splits.held_out)]
    assert counts == [[3, 4], [1, 2]]
    assert said(splits, "^held out: testA, testB$")


CLASSES = {"cat": 0, "dog": 1, "horse": 2, "newt": 9}
HELD_OUT_CLASSES = {
    "the same": ("cat dog horse", "cat dog horse", "^held out: testA"),
    "without the first": ("dog horse", "dog horse", "^held out: testA"),
    "with a new one": ("cat dog newt", "cat dog", "^a: held out: 2 images of classes that training lacks, .*: newt$"),
    "only new ones": ("newt pig", "", "^a: held out: its classes are not used, as no training image has one of them$"),
    "a flat folder": ("", "", "^a: held out: its images have no classes, unlike those of training$"),
}


@pytest.mark.parametrize(("folders", "labelled", "note"), HELD_OUT_CLASSES.values(), ids=HELD_OUT_CLASSES)
def test_held_out_images_have_the_labels_that_their_classes_have_in_training(
    tmp_path: Path, draw: Draw, folders: str, labelled: str, note: str
) -> None:
    for split, names in (("trainA", "cat dog horse"), ("testA", folders)):
        for name in names.split() or [""]:
            draw(f"{split}/{name}/1.png", 10 * CLASSES.get(name, 5))
            draw(f"{split}/{name}/2.png", 10 * CLASSES.get(name, 5) + 1)
    for name in ("trainB", "testB"):
        draw(f"{name}/1.png", 3)
        draw(f"{name}/2.png", 4)
    splits = domains(tmp_path)
    assert splits.held_out is not None
    train, held_out = (split.domain_sources[0] for split in (splits.train, splits.held_out))
    assert isinstance(held_out, ImageDataset)
    batch = held_out.gather(torch.arange(len(held_out)))
    assert said(splits, note)
    if labelled:
        assert held_out.classes == train.classes == ("cat", "dog", "horse")
        assert batch.labels is not None
        assert (batch.images[:, 0, 0, 0] // 10).tolist() == batch.labels.tolist()
        assert sorted(set(batch.labels.tolist())) == [CLASSES[name] for name in labelled.split()]
    else:
        assert (held_out.classes, batch.labels, len(held_out)) == ((), None, 2 * max(1, len(folders.split())))
    assert len(held_out.fingerprint) == 16


def test_a_bad_file_of_a_domain_is_named_with_its_folder(tmp_path: Path, draw: Draw) -> None:
    write_domains(tmp_path, draw)
    (tmp_path / "b/3.png").write_bytes(b"")
    splits = domains(tmp_path)
    assert [file.name for file in splits.bad_files] == ["b/3.png"]
    assert said(splits, "^b: skipped 1 of 7 image files as invalid$")


def test_arrays_of_different_lengths_with_labels(tmp_path: Path) -> None:
    labels = {"a_labels": np.array([3, 3, 5, 5]), "b_labels": np.arange(6) % 2, "b_classes": np.array(["no", "yes"])}
    images = {"a": np.arange(4)[:, None, None] + np.zeros((4, 8, 8)), "b": np.ones((6, 8, 8, 3))}
    np.savez(tmp_path / "d.npz", **{name: array.astype(np.uint8) for name, array in images.items()}, **labels, c=1)
    splits = domains(tmp_path / "d.npz")
    assert [source.classes for source in splits.train.domain_sources] == [("3", "5"), ("no", "yes")]
    assert said(splits, "^not used: 1 array, c$")


@pytest.mark.parametrize("given", [(), ("path", "a"), ("a",), ("path", "a", "b")])
def test_one_place_is_given(given: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="either path, or both a and b"):
        DomainsConfig(**dict.fromkeys(given, "x"))  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["folders", "npz", "paths"])
def test_a_domain_that_is_too_small_to_hold_images_out_leaves_those_of_the_other_to_training(
    tmp_path: Path, draw: Draw, place: str
) -> None:
    for i in range(30):
        draw(f"a/{i}.png", i)
    for i in range(9):
        draw(f"b/{i}.png", i)
    arrays = {name: np.arange(n)[:, None, None] + np.zeros((n, 8, 8)) for name, n in (("a", 30), ("b", 9))}
    np.savez(tmp_path / "d.npz", **{name: array.astype(np.uint8) for name, array in arrays.items()})
    given: dict[str, tuple[Path | None, dict[str, str]]] = {
        "folders": (tmp_path, {}),
        "npz": (tmp_path / "d.npz", {}),
        "paths": (None, {name: str(tmp_path / name) for name in "ab"}),
    }
    path, options = given[place]
    (tmp_path / "d.npz").rename(tmp_path.parent / "d.npz") if place == "folders" else None
    splits = domains(path, held_out=0.1, **options)
    assert splits.held_out is None
    assert [len(source) for source in splits.train.domain_sources] == [30, 9]
    assert said(splits, "^a: 30 images, b: 9 images$")
    assert said(splits, "^nothing is held out, as b has too few images$")
    assert domains(path, **options).train.fingerprint == splits.train.fingerprint


@pytest.mark.parametrize("place", ["folders", "npz", "paths", "pairs", "one folder"])
def test_too_few_images_are_an_error_that_names_the_domain_and_what_was_found(
    tmp_path: Path, draw: Draw, place: str
) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        draw(name, 3)
    np.savez(tmp_path.parent / "few.npz", a=np.ones((2, 8, 8), np.uint8), b=np.ones((1, 8, 8), np.uint8))
    loads: dict[str, tuple[Callable[[], Any], str]] = {
        "folders": (lambda: domains(tmp_path), "data.path: b: a single image is not enough, found 1 image;"),
        "npz": (lambda: domains(tmp_path.parent / "few.npz"), "data.path: b: a single image .*, found 1 image;"),
        "paths": (
            lambda: domains(None, a=str(tmp_path / "a"), b=str(tmp_path / "b")),
            "data.b: a single image is not enough, found 1 image;",
        ),
        "pairs": (lambda: pairs(tmp_path), "data.path: a single pair is not enough, found 1 pair;"),
        "one folder": (
            lambda: FolderConfig(path=str(tmp_path / "b"), size=8, max_bad=0.9).load(),
            "data.path: a single image is not enough, found 1 image and 1 bad image file;",
        ),
    }
    if place == "one folder":
        (tmp_path / "b/2.png").write_bytes(b"junk")
    load, message = loads[place]
    with pytest.raises(DataError, match=f"^{message}"):
        load()


# ---------------------------------------------------------------- the order of two domains


def numbered(n: int, m: int) -> TwoDomains:
    """Two domains of one pixel; image i has the value i."""
    a, b = (ImageDataset(np.arange(count, dtype=np.uint8)[:, None, None, None]) for count in (n, m))
    return TwoDomains(a, b)


def values(images: torch.Tensor) -> list[list[int]]:
    """The values of samples of one pixel."""
    return images.flatten(1).tolist()


def test_domains_of_equal_length_are_not_secretly_paired() -> None:
    source = numbered(100, 100)
    drawn = torch.cat([source.batch(i, 20, RandomStreams(3)).images for i in range(5)]).flatten(1)
    assert sorted(drawn[:, 0].tolist()) == sorted(drawn[:, 1].tolist()) == list(range(100)), "an epoch visits all"
    assert (drawn[:, 0] == drawn[:, 1]).sum() < 8
    fixed = source.gather(torch.arange(100)).images.flatten(1)
    assert (fixed[:, 0] == fixed[:, 1]).sum() < 8
    other = torch.cat([source.batch(i, 20, RandomStreams(4)).images for i in range(5)]).flatten(1)
    in_order = {seed: order[order[:, 0].argsort()][:, 1].tolist() for seed, order in ((3, drawn), (4, other))}
    assert in_order[3] != in_order[4], "another seed pairs other images"


def test_an_epoch_has_the_larger_set_once_and_repeats_the_smaller_one() -> None:
    source = numbered(4, 12)
    assert len(source) == 12
    drawn = torch.cat([source.batch(i, 3, RandomStreams(0)).images for i in range(4)]).flatten(1)
    for samples in (drawn, source.gather(torch.arange(12)).images.flatten(1)):
        assert sorted(samples[:, 1].tolist()) == list(range(12))
        assert torch.bincount(samples[:, 0].long()).tolist() == [3, 3, 3, 3]


def test_a_batch_is_a_function_of_seed_and_index_and_a_draw_of_the_generator() -> None:
    source, again = numbered(9, 5), numbered(9, 5)
    assert torch.equal(source.batch(7, 4, RandomStreams(1)).images, again.batch(7, 4, RandomStreams(1)).images)
    drawn = source.draw(2000, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again.draw(2000, torch.Generator().manual_seed(0)))
    assert len({tuple(pair) for pair in values(drawn)}) == 45, "every combination occurs"
    preview = ((source.preview(5) + 1) * 127.5).round().long()
    assert values(preview) == [[0, 0], [2, 1], [4, 2], [6, 3], [8, 4]]
    assert source.batch(0, 4, RandomStreams(0)).labels is None
    assert source.batch_labels(0, 4, RandomStreams(0)) is None
    with pytest.raises(ValueError, match="no common index"):
        source.batch_indices(0, 4, RandomStreams(0))


def test_a_fingerprint_depends_on_both_domains_and_on_how_channels_are_divided() -> None:
    assert len({numbered(4, 5).fingerprint, numbered(5, 4).fingerprint, numbered(4, 6).fingerprint}) == 3
    images = np.zeros((3, 4, 4, 4), np.uint8)
    divided = [ImageDataset(images, parts=parts).fingerprint for parts in ((), (1, 3), (3, 1))]
    assert len(set(divided)) == 3


@pytest.mark.parametrize("suffix", [".tar", ".parquet", ".arrow"])
def test_shards_are_no_domains_and_no_other_kind_is_advised(tmp_path: Path, draw: Draw, suffix: str) -> None:
    for i in range(4):
        draw(f"b/{i}.png", i)
    shard = tmp_path / f"x{suffix}"
    shard.write_bytes(b"unread")
    refused = r"images of two domains can't be read from shards, found .*; unpack it; give a folder, a .zip or an .npz"
    with pytest.raises(DataError, match=f"data.a: {refused}"):
        domains(None, a=str(shard), b=str(tmp_path / "b"))
    for load in (domains, pairs):
        with pytest.raises(DataError, match=f"data.path: {refused}"):
            load(shard)
    with pytest.raises(DataError, match=r"data.b: no such file or folder"):
        domains(None, a=str(tmp_path / "b"), b=str(tmp_path / f"y{suffix}"))
