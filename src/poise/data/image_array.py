"""Pictures in one array: room for them, and their order."""

from __future__ import annotations

import os
import tempfile

import numpy as np
import numpy.typing as npt

from poise.data.source import DataSplits, ImageDataset, Labels
from poise.data.split import held_out_split, pixel_hashes
from poise.errors import DataError
from poise.utils.images import Bytes

BUDGET = 2 * 2**30
"""Bytes of pictures that are held in memory; more than that lie in a temporary file."""


def allocate_images(shape: tuple[int, ...], budget: int = BUDGET) -> Bytes:
    """An array to fill: in memory, or above `budget` bytes in a temporary file without a name.

    The file is gone when the array is. Its blocks are reserved at once: a disk that is full raises here
    instead of killing the process at some later write.

    Raises:
        DataError: the temporary folder has too little room.
    """
    needed = int(np.prod(shape))
    if needed <= budget:
        return np.empty(shape, np.uint8)
    try:
        with tempfile.TemporaryFile(prefix="poise-") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, needed)
            return np.memmap(file, np.uint8, "w+", shape=shape)
    except OSError as error:
        raise DataError(
            f"the pictures need {needed / 2**30:.1f} GiB of temporary space: {error.strerror or error}",
            where=tempfile.gettempdir(),
            cure="point TMPDIR to a larger disk, or take a smaller data.size",
        ) from None


def permute_rows(images: Bytes, order: npt.NDArray[np.intp]) -> None:
    """Row i becomes what was row order[i], in place: one row of extra memory, however large the array is."""
    settled = np.zeros(len(order), bool)
    for start in range(len(order)):
        if settled[start] or order[start] == start:
            continue
        first, row = images[start].copy(), start
        while order[row] != start:
            images[row] = images[order[row]]
            settled[row] = True
            row = int(order[row])
        images[row] = first
        settled[row] = True


def split_dataset(
    images: Bytes, usable: npt.NDArray[np.intp], labels: Labels | None, classes: tuple[str, ...], share: float
) -> DataSplits:
    """The usable rows as two sources, views of the same array; the pictures to train on come first.

    Args:
        images: N x S x S x C; its rows are moved.
        usable: the rows that hold a picture, ascending.
        labels: one for each usable row, or None.
        classes: the labels' names.
        share: how much of the data is held out.
    """
    contents = pixel_hashes(images[row] for row in usable) if share else [b""] * len(usable)
    train, held = held_out_split(contents, labels, share)
    rest = np.setdiff1d(np.arange(len(images)), usable)
    permute_rows(images, np.concatenate((usable[train], usable[held], rest)))

    def source(places: npt.NDArray[np.intp], start: int) -> ImageDataset:
        own = None if labels is None else labels[places]
        return ImageDataset(images[start : start + len(places)], own, classes)

    return DataSplits(train=source(train, 0), held_out=source(held, len(train)) if len(held) else None)


def check_enough(n: int, found: str = "") -> None:
    """Raises DataError if n usable pictures are too few to train on at all."""
    if n < 2:
        what = "none of the pictures can be used" if n == 0 else "a single picture is not enough to train on"
        raise DataError(what, where="data.path", found=found, cure="it takes two at the very least, better thousands")
