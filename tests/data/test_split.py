"""What is held out: by content and by class, wherever the pictures lie and whatever they are called."""

from __future__ import annotations

import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poise.data.folder import FolderConfig
from poise.data.npz import NpzConfig
from poise.data.source import DataSplits, ImageDataset
from poise.data.split import held_out_split, pixel_hashes
from poise.data.zip_archive import ZipConfig

Rng = np.random.Generator


def names(n: int, start: int = 0) -> list[bytes]:
    return [f"picture {k}".encode() for k in range(start, start + n)]


def sides(contents: list[bytes], labels: list[int] | None, share: float) -> tuple[Counter[tuple[bytes, int]], ...]:
    """(content, class) on both sides; fails unless every place is on one of them."""
    told = None if labels is None else np.array(labels)
    parts = held_out_split(contents, told, share)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(contents)))
    assert all(part.tolist() == sorted(part) for part in parts)
    kinds = labels or [0] * len(contents)
    return tuple(Counter((contents[place], kinds[place]) for place in part) for part in parts)


@pytest.mark.parametrize(("n", "share", "held"), [(100, 0.1, 10), (7, 0.1, 0), (7, 0.5, 3), (10, 0.0, 0), (2, 0.99, 1)])
def test_as_many_as_are_asked_for(n: int, share: float, held: int) -> None:
    assert sides(names(n), None, share)[1].total() == held


@pytest.mark.parametrize("seed", range(30))
def test_the_rules_hold_for_any_mixture(seed: int) -> None:
    """Copies within a class, copies in two classes, rare classes."""
    rng = np.random.default_rng(seed)
    n, classes, share = int(rng.integers(2, 300)), int(rng.integers(1, 12)), float(rng.uniform(0.02, 0.6))
    contents = [b"%d" % k for k in rng.integers(0, max(2, int(n * rng.uniform(0.3, 3))), n)]
    labels = (rng.integers(0, classes, n) * rng.integers(0, 2, n)).tolist()
    train, held = sides(contents, labels, share)
    assert not {content for content, _ in train} & {content for content, _ in held}, "equal content on one side"
    assert {kind for _, kind in train} == set(labels), "every class keeps something to train on"
    assert held.total() <= int(n * share)
    order = rng.permutation(n)
    again = sides([contents[i] for i in order], [labels[i] for i in order], share)
    assert again == (train, held), "the order of the files does not matter"
    names = rng.permutation(classes)
    renamed = sides(contents, [int(names[kind]) for kind in labels], share)
    assert [{c for c, _ in part} for part in renamed] == [{c for c, _ in part} for part in (train, held)]


@pytest.mark.parametrize(
    ("sizes", "share", "held"),
    [
        ([65, 66, 1], 0.1, [[6, 7], [6, 7], [0]]),
        ([90, 8, 2], 0.1, [[9], [1], [0]]),
        ([9] * 100, 0.1, [[0, 1]] * 100),
        ([1] * 5 + [95], 0.2, [[0]] * 5 + [[20]]),
        ([2, 2], 0.9, [[1], [1]]),
        ([1, 1, 1], 0.5, [[0]] * 3),
    ],
)
def test_each_class_gives_its_share(sizes: list[int], share: float, held: list[list[int]]) -> None:
    labels = [kind for kind, size in enumerate(sizes) for _ in range(size)]
    found = Counter[int]()
    for (_, kind), count in sides(names(sum(sizes)), labels, share)[1].items():
        found[kind] += count
    for kind, allowed in enumerate(held):
        assert found[kind] in allowed
    assert found.total() == min(int(sum(sizes) * share), sum(size - 1 for size in sizes))


@pytest.mark.parametrize(("copies", "classes", "held"), [(2, 10, 10), (5, 1, 10), (10, 2, 10), (20, 1, 0)])
def test_groups_of_copies_are_held_out_whole(copies: int, classes: int, held: int) -> None:
    """A hundred pictures, each there several times; a group larger than the share stays with the others."""
    contents = [b"%d" % (k // copies) for k in range(100)]
    labels = [k // copies % classes for k in range(100)]
    assert sides(contents, labels, 0.1)[1].total() == held


def test_a_class_that_is_one_picture_many_times_is_not_held_out() -> None:
    contents, labels = [*names(90), *[b"same"] * 10], [0] * 90 + [1] * 10
    train, held = sides(contents, labels, 0.2)
    assert train[b"same", 1] == 10
    assert held.total() == 20


def test_digests_are_of_the_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)
    turned = np.ascontiguousarray(images.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
    assert pixel_hashes(images) == pixel_hashes(turned)
    assert len(set(pixel_hashes(images))) == 4


# ---- the three kinds of data ---------------------------------------------------------------------------------


def pictures(rng: Rng) -> dict[str, list[np.ndarray]]:
    """Classes with copies in them and between them, and one with a single picture."""
    some = rng.integers(0, 256, (40, 8, 8, 3), np.uint8)
    return {"a": [*some[:30], *some[:10]], "b": [*some[30:39], *some[5:8]], "c": [some[39]]}


def both(loaded: DataSplits) -> tuple[ImageDataset, ImageDataset]:
    train, held = loaded.train, loaded.held_out
    assert isinstance(train, ImageDataset)
    assert isinstance(held, ImageDataset)
    return train, held


@pytest.mark.parametrize("kind", ["folder", "zip", "npz"])
def test_no_copy_stands_on_both_sides(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "p"
    for name, images in pictures(np.random.default_rng(3)).items():
        (folder / name).mkdir(parents=True)
        for k, image in enumerate(images):
            Image.fromarray(image).save(folder / name / f"{k:03}.png")
    if kind == "folder":
        loaded = FolderConfig(path=str(folder), size=8, held_out=0.2).load()
    elif kind == "zip":
        with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
            for file in sorted(folder.rglob("*.png")):
                archive.write(file, file.relative_to(folder))
        loaded = ZipConfig(path=str(tmp_path / "p.zip"), size=8, held_out=0.2).load()
    else:
        told = pictures(np.random.default_rng(3))
        images = np.concatenate([np.stack(some) for some in told.values()])
        labels = np.repeat(np.arange(3), [len(some) for some in told.values()])
        np.savez(tmp_path / "p.npz", images=images, labels=labels)
        loaded = NpzConfig(path=str(tmp_path / "p.npz"), size=8, held_out=0.2).load()
    train, held = both(loaded)
    assert not set(map(bytes, train.images)) & set(map(bytes, held.images))
    assert train.class_counts[2] == 1
    assert min(train.class_counts) > 0
    assert 8 <= len(held) <= 10
    assert len(train) + len(held) == 53


def test_other_file_names_make_the_same_split(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (30, 8, 8, 3), np.uint8)
    found = []
    for order in (np.arange(30), rng.permutation(30)):
        folder = tmp_path / "p"
        folder.mkdir()
        for k, place in enumerate(order):
            Image.fromarray(images[place]).save(folder / f"{k:03}.png")
        train, held = both(FolderConfig(path=str(folder), size=8, held_out=0.3).load())
        found.append([set(map(bytes, part.images)) for part in (train, held)])
        shutil.rmtree(folder)
    assert found[0] == found[1]
