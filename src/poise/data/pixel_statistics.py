"""What the notes and the held-out split need of the pixels of each image, so that these are read once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from poise.utils.images import Bytes

CHUNK_BYTES = 2**25
"""About how many bytes of images are processed at once."""


class PixelStatistics(NamedTuple):
    """The statistics of N images.

    Attributes:
        hashes: N x 16, uint8: a hash of the pixels of each, equal for equal pixels.
        lows: N, uint8: the smallest value in each, alpha left out.
        highs: N, uint8: the largest one.
        uniform: N, bool: whether all pixels are equal, in images of more than one row.
    """

    hashes: Bytes
    lows: Bytes
    highs: Bytes
    uniform: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, images: Bytes) -> Self:
        """The statistics of images, uint8, N x H x W x C; the last of 2 or 4 channels is alpha."""
        n, height, _, channels = images.shape
        found = cls(pixel_hashes(images), np.empty(n, np.uint8), np.empty(n, np.uint8), np.zeros(n, bool))
        colours = channels - (channels in (2, 4))
        for rows in chunks_of_rows(images, n):
            chunk = images[rows]
            found.lows[rows] = chunk[..., :colours].min((1, 2, 3))
            found.highs[rows] = chunk[..., :colours].max((1, 2, 3))
            if height > 1:
                found.uniform[rows] = (chunk.min((1, 2)) == chunk.max((1, 2))).all(1)
        return found

    def select(self, rows: npt.NDArray[np.intp]) -> Self:
        """The statistics of some of the images."""
        return type(self)(self.hashes[rows], self.lows[rows], self.highs[rows], self.uniform[rows])


def chunks_of_rows(images: Bytes, n: int) -> Iterator[slice]:
    """The first n rows of an array in slices of about `CHUNK_BYTES`."""
    step = max(1, CHUNK_BYTES // max(1, int(np.prod(images.shape[1:]))))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def pixel_hashes(images: Bytes) -> Bytes:
    """A hash of the pixels of each image, N x 16, uint8; equal for equal pixels.

    Args:
        images: uint8, N x H x W x C.
    """
    digests = (hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images)
    return np.frombuffer(bytearray().join(digests), np.uint8).reshape(-1, 16)


def as_items(hashes: Bytes) -> npt.NDArray[np.void]:
    """Hashes, N x 16, as N items, which can be compared and sorted."""
    return np.ascontiguousarray(hashes).view("V16").reshape(-1)
