"""The held-out split depends on content and classes, not on file names or their order."""

from __future__ import annotations

import hashlib
import io
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from image_helpers import has_note, train_and_held_out, write_tar
from PIL import Image

from poise.data import lookup, split
from poise.data.folder import FolderConfig
from poise.data.npz import NpzConfig
from poise.data.pixel_statistics import pixel_hashes
from poise.data.source import DataSplits
from poise.data.split import group_hashes, held_out_split, join_flips
from poise.data.zip_archive import ZipConfig

Rng = np.random.Generator


def contents_of(n: int, start: int = 0) -> list[bytes]:
    return [f"image {k}".encode() for k in range(start, start + n)]


def split_counts(
    contents: list[bytes], labels: list[int] | None, fraction: float
) -> tuple[Counter[tuple[bytes, int]], ...]:
    """Counts of (content, class) on both sides; fails unless every index is on exactly one of them."""
    label_array = None if labels is None else np.array(labels)
    hashes = [hashlib.blake2b(content, digest_size=16).digest() for content in contents]
    parts = held_out_split(np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 16), label_array, fraction)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(contents)))
    assert all(part.tolist() == sorted(part) for part in parts)
    class_of = labels or [0] * len(contents)
    return tuple(Counter((contents[index], class_of[index]) for index in part) for part in parts)


@pytest.mark.parametrize(
    ("n", "fraction", "held_out"), [(100, 0.1, 10), (7, 0.1, 0), (7, 0.5, 3), (10, 0.0, 0), (2, 0.99, 1)]
)
def test_the_number_of_held_out_images(n: int, fraction: float, held_out: int) -> None:
    assert split_counts(contents_of(n), None, fraction)[1].total() == held_out


@pytest.mark.parametrize("seed", range(30))
def test_invariants_for_random_data(seed: int) -> None:
    """Copies within a class, copies in two classes, rare classes."""
    rng = np.random.default_rng(seed)
    n, classes, fraction = int(rng.integers(2, 300)), int(rng.integers(1, 12)), float(rng.uniform(0.02, 0.6))
    contents = [b"%d" % k for k in rng.integers(0, max(2, int(n * rng.uniform(0.3, 3))), n)]
    labels = (rng.integers(0, classes, n) * rng.integers(0, 2, n)).tolist()
    train, held_out = split_counts(contents, labels, fraction)
    assert not {content for content, _ in train} & {content for content, _ in held_out}, (
        "equal contents are on one side"
    )
    assert {label for _, label in train} == set(labels), "every class keeps training images"
    assert held_out.total() <= int(n * fraction)
    order = rng.permutation(n)
    again = split_counts([contents[i] for i in order], [labels[i] for i in order], fraction)
    assert again == (train, held_out), "the split does not depend on the order"
    permutation = rng.permutation(classes)
    renamed = split_counts(contents, [int(permutation[label]) for label in labels], fraction)
    assert [{c for c, _ in part} for part in renamed] == [{c for c, _ in part} for part in (train, held_out)]


@pytest.mark.parametrize(
    ("sizes", "fraction", "held_out"),
    [
        ([65, 66, 1], 0.1, [[6, 7], [6, 7], [0]]),
        ([90, 8, 2], 0.1, [[9], [1], [0]]),
        ([9] * 100, 0.1, [[0, 1]] * 100),
        ([1] * 5 + [95], 0.2, [[0]] * 5 + [[20]]),
        ([2, 2], 0.9, [[1], [1]]),
        ([1, 1, 1], 0.5, [[0]] * 3),
    ],
)
def test_each_class_is_held_out_in_proportion(sizes: list[int], fraction: float, held_out: list[list[int]]) -> None:
    labels = [kind for kind, size in enumerate(sizes) for _ in range(size)]
    found = Counter[int]()
    for (_, kind), count in split_counts(contents_of(sum(sizes)), labels, fraction)[1].items():
        found[kind] += count
    for kind, allowed in enumerate(held_out):
        assert found[kind] in allowed
    assert found.total() == min(int(sum(sizes) * fraction), sum(size - 1 for size in sizes))


@pytest.mark.parametrize(("copies", "classes", "held_out"), [(2, 10, 10), (5, 1, 10), (10, 2, 10), (20, 1, 0)])
def test_groups_of_copies_stay_together(copies: int, classes: int, held_out: int) -> None:
    """A hundred images with several copies each; a group that exceeds the total is not held out."""
    contents = [b"%d" % (k // copies) for k in range(100)]
    labels = [k // copies % classes for k in range(100)]
    assert split_counts(contents, labels, 0.1)[1].total() == held_out


def test_a_class_of_identical_images_is_not_held_out() -> None:
    contents, labels = [*contents_of(90), *[b"same"] * 10], [0] * 90 + [1] * 10
    train, held_out = split_counts(contents, labels, 0.2)
    assert train[b"same", 1] == 10
    assert held_out.total() == 20


def test_hashes_depend_on_the_pixels_only() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)
    turned = np.ascontiguousarray(images.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
    assert np.array_equal(pixel_hashes(images), pixel_hashes(turned))
    assert len(np.unique(pixel_hashes(images), axis=0)) == 4


# ---- folders, archives and arrays ---------------------------------------------------------------------------------


def images_by_class(rng: Rng) -> dict[str, list[np.ndarray]]:
    """Images with copies within and between classes; one class has a single image."""
    images = rng.integers(0, 256, (40, 8, 8, 3), np.uint8)
    return {"a": [*images[:30], *images[:10]], "b": [*images[30:39], *images[5:8]], "c": [images[39]]}


@pytest.mark.parametrize("kind", ["folder", "zip", "npz"])
def test_copies_are_on_one_side(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "p"
    for name, images in images_by_class(np.random.default_rng(3)).items():
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
        label_array = images_by_class(np.random.default_rng(3))
        images = np.concatenate([np.stack(images) for images in label_array.values()])
        labels = np.repeat(np.arange(3), [len(images) for images in label_array.values()])
        np.savez(tmp_path / "p.npz", images=images, labels=labels)
        loaded = NpzConfig(path=str(tmp_path / "p.npz"), size=8, held_out=0.2).load()
    train, held_out = train_and_held_out(loaded)
    assert not set(map(bytes, train.images)) & set(map(bytes, held_out.images))
    assert train.class_counts[2] == 1
    assert min(train.class_counts) > 0
    assert 8 <= len(held_out) <= 10
    assert len(train) + len(held_out) == 53


def test_the_split_does_not_depend_on_file_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (30, 8, 8, 3), np.uint8)
    found = []
    for order in (np.arange(30), rng.permutation(30)):
        folder = tmp_path / "p"
        folder.mkdir()
        for k, index in enumerate(order):
            Image.fromarray(images[index]).save(folder / f"{k:03}.png")
        train, held_out = train_and_held_out(FolderConfig(path=str(folder), size=8, held_out=0.3).load())
        found.append([set(map(bytes, part.images)) for part in (train, held_out)])
        shutil.rmtree(folder)
    assert found[0] == found[1]


# ---- flips --------------------------------------------------------------------------------------------------------


def write_set(path: Path, kind: str, images: np.ndarray) -> dict[str, str]:
    """Images as data of a kind with two domains or without; the table `data`. Each b of a pair is a plain colour."""
    files = {}
    for k, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "png")
        files[f"{k:03}.png"] = buffer.getvalue()
    if kind == "npz":
        np.savez(path / "x.npz", images=images)
        return {"kind": kind, "path": str(path / "x.npz")}
    if kind == "tar":
        write_tar(path / "x.tar", files)
        return {"kind": kind, "path": str(path / "x.tar")}
    if kind == "pairs npz":
        np.savez(path / "x.npz", a=images, b=np.broadcast_to(images[:, :1, :1], images.shape))
        return {"kind": "pairs", "path": str(path / "x.npz")}
    for name in {"pairs": ["a", "b"], "domains": ["a", "b"]}.get(kind, [""]):
        (path / "x" / name).mkdir(parents=True)
        for file, content in files.items():
            (path / "x" / name / file).write_bytes(content)
    if kind == "zip":
        shutil.make_archive(str(path / "x"), "zip", path / "x")
    return {"kind": kind, "path": str(path / ("x.zip" if kind == "zip" else "x"))}


def sets_of(splits: DataSplits) -> list[set[bytes]]:
    """The images (of the domain a) on both sides."""
    sides = (splits.train, splits.held_out)
    sources = [side.domain_sources[0] if side.parts else side for side in sides if side is not None]
    return [set(map(bytes, source.gather(torch.arange(len(source))).images.numpy())) for source in sources]  # type: ignore[attr-defined,arg-type]


KINDS = ["folder", "zip", "npz", "tar", "pairs", "pairs npz", "domains"]


@pytest.mark.parametrize("kind", KINDS)
def test_with_mirror_flips_are_on_one_side(tmp_path: Path, kind: str) -> None:
    images = np.random.default_rng(5).integers(0, 256, (30, 8, 8, 3), np.uint8)
    flips = images[:20, :, ::-1]
    table = write_set(tmp_path, kind, np.concatenate([images, flips]))
    flip_of = {bytes(one): bytes(other) for one, other in zip(images, flips, strict=False)}

    plain = lookup.load(table, size=8, held_out=0.2)
    train, held_out = sets_of(plain)
    assert any((one in held_out) != (other in held_out) for one, other in flip_of.items())
    assert not has_note(plain, "flip")
    mirrored = lookup.load(table, size=8, held_out=0.2, mirror=True)
    train, held_out = sets_of(mirrored)
    assert len(held_out) == 10
    assert len(train) == 40
    assert all((one in held_out) == (other in held_out) for one, other in flip_of.items())
    assert has_note(mirrored, r"20 of 50 images are exact copies of others or of their flips \(data\.mirror\)")


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_without_flips_is_split_alike_with_mirror(tmp_path: Path, kind: str) -> None:
    images = np.random.default_rng(6).integers(0, 256, (30, 8, 8, 3), np.uint8)
    images[28] = images[3]  # a copy
    images[29, :, 4:] = images[29, :, 3::-1]  # its own flip
    table = write_set(tmp_path, kind, images)
    plain, mirrored = (lookup.load(table, size=8, held_out=0.2, mirror=mirror) for mirror in (False, True))
    assert mirrored.train.fingerprint == plain.train.fingerprint
    assert sets_of(mirrored) == sets_of(plain)
    assert mirrored.notes == plain.notes


def test_only_flips_share_a_hash() -> None:
    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (6, 4, 5, 2), np.uint8)
    images[4], images[5] = images[1, :, ::-1], images[1]
    hashes = pixel_hashes(images)
    joined = join_flips(hashes, pixel_hashes(images[:, :, ::-1]))
    assert [bytes(row) for row in joined[[1, 4, 5]]] == [min(bytes(hashes[1]), bytes(hashes[4]))] * 3
    assert np.array_equal(joined[[0, 2, 3]], hashes[[0, 2, 3]])


def test_flips_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(8).integers(0, 256, (6, 4, 5, 3), np.uint8)
    images[5] = images[1, :, ::-1]
    rows = np.array([1, 2, 5])
    hashes = pixel_hashes(images[rows])
    file = tmp_path / "x.fingerprints"
    found = group_hashes(images, rows, hashes, mirror=True, fingerprints=file)
    assert [len(np.unique(each, axis=0)) for each in (hashes, found)] == [3, 2]
    monkeypatch.setattr(split, "pixel_hashes", None)
    assert np.array_equal(group_hashes(images, rows, hashes, mirror=True, fingerprints=file), found)
