"""Allocation of the array that holds all images, and its split into training and held-out images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from poise.data.paths import WHERE
from poise.data.source import DataSplits, ImageDataset, Labels
from poise.data.split import held_out_split
from poise.errors import DataError, DiskError
from poise.utils.files import create_reserved, reserve
from poise.utils.images import Bytes
from poise.utils.printing import count_noun

MEMORY_BUDGET = 2 * 2**30
"""The largest size of an image array in memory, in bytes; larger ones are mapped to a temporary file."""

MIN_COUNT = 2
"""The smallest number of images that can be trained on."""


def allocate_images(shape: tuple[int, ...], budget: int = MEMORY_BUDGET) -> Bytes:
    """An uninitialised uint8 array: in memory, or mapped to an unnamed temporary file if it exceeds `budget` bytes.

    The file is deleted with the array.

    Raises:
        DiskError: the temporary folder has too little space.
    """
    if int(np.prod(shape)) <= budget:
        return np.empty(shape, np.uint8)
    with _space_errors(shape, tempfile.gettempdir(), "TMPDIR"), tempfile.TemporaryFile(prefix="poise-") as file:
        reserve(file.fileno(), int(np.prod(shape)))
        return np.memmap(file, np.uint8, "w+", shape=shape)


def map_new_file(path: Path, shape: tuple[int, ...]) -> Bytes:
    """An uninitialised uint8 array that is mapped to a new file.

    Raises:
        DiskError: the disk has too little space, or the file can't be created.
    """
    with _space_errors(shape, str(path.parent), "POISE_CACHE"):
        create_reserved(path, int(np.prod(shape)))
        return np.memmap(path, np.uint8, "r+", shape=shape)


@contextmanager
def _space_errors(shape: tuple[int, ...], folder: str, variable: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        needed = int(np.prod(shape)) / 2**30
        raise DiskError(
            f"the images need {needed:.1f} GiB of disk space: {error.strerror or error}",
            where=folder,
            cure=f"set {variable} to a folder on a larger disk, or reduce data.size",
        ) from None


def permute_rows(images: Bytes, order: npt.NDArray[np.intp]) -> None:
    """Permute the rows in place: row i becomes the former row order[i]. Needs the memory of one extra row."""
    done = np.zeros(len(order), bool)
    for start in range(len(order)):
        if done[start] or order[start] == start:
            continue
        first, row = images[start].copy(), start
        while order[row] != start:
            images[row] = images[order[row]]
            done[row] = True
            row = int(order[row])
        images[row] = first
        done[row] = True


def split_dataset(
    images: Bytes,
    usable: npt.NDArray[np.intp],
    labels: Labels | None,
    classes: tuple[str, ...],
    fraction: float,
    groups: Bytes,
    parts: tuple[int, ...] = (),
    fingerprints: Path | None = None,
) -> DataSplits:
    """Split the usable rows into training and held-out images, which share the array `images`.

    Args:
        images: N x H x W x C. Its rows are permuted in place: training images, held-out images, unusable rows. If
            it can't be written to, the data sets select their rows instead.
        usable: the indices of the rows that hold an image, ascending.
        labels: the label of each usable row, or None.
        classes: the class names by label.
        fraction: the fraction of the images that is held out.
        groups: M x 16, equal for the usable rows that stay on the same side; see `group_hashes`.
        parts: see `Source.parts`.
        fingerprints: see `ImageDataset`.
    """
    train, held_out = held_out_split(groups, labels, fraction)
    moved = images.flags.writeable
    if moved:
        unusable = np.setdiff1d(np.arange(len(images)), usable)
        permute_rows(images, np.concatenate((usable[train], usable[held_out], unusable)))

    def dataset(indices: npt.NDArray[np.intp], start: int) -> ImageDataset:
        subset = None if labels is None else labels[indices]
        if moved:
            return ImageDataset(images[start : start + len(indices)], subset, classes, parts)
        return ImageDataset(images, subset, classes, parts, rows=usable[indices], fingerprints=fingerprints)

    return DataSplits(train=dataset(train, 0), held_out=dataset(held_out, len(train)) if len(held_out) else None)


def check_enough(n: int, bad: str = "", least: int = MIN_COUNT, *, where: str = WHERE, noun: str = "image") -> None:
    """Raise a DataError if n usable images, or pairs, are too few.

    Args:
        n: how many there are.
        bad: what can't be used, such as "3 bad image files"; empty if nothing.
        least: how many there must be.
        where: what the error names.
        noun: what they are.
    """
    if n < least:
        what = f"none of the {noun}s can be used" if n == 0 else f"a single {noun} is not enough"
        found = " and ".join([count_noun(n, noun)] * (n > 0 or not bad) + [bad] * bool(bad))
        raise DataError(what, where=where, found=found, cure="use at least two, preferably thousands")
