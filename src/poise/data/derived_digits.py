"""Data of two domains that needs no download: digits beside images that are derived from them.

`digit_pairs` has the outline of each digit as the domain a and the digit itself as b, as pix2pix has edges and
photographs. `digit_domains` has two unpaired domains of different digits: the digits and their twins, which are
inverted and slanted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import field_validator

from poise.data.config import ImageDataConfig
from poise.data.digits import DigitsConfig
from poise.data.domains import TwoDomains
from poise.data.rendered_digits import render_digits
from poise.data.source import DataSplits, ImageDataset
from poise.data.torchvision_data import VisionConfig
from poise.utils.images import Bytes

INSIDE = 96
"""The smallest value, of 255, inside a shape."""

BLUR, GAIN = 1.5, 1.3
"""The standard deviation of the blur of rendered digits, in pixels at `SIDE`, and the factor of its brightness."""

RENDERING_SEED = 20161222
"""The seed of the digits that are rendered from fonts."""

SLANT = 0.35
"""How far the twins are slanted: the shift to the right per pixel upwards."""


def outlines(images: Bytes) -> Bytes:
    """Coarse outlines of white shapes on black, N x H x W x C: 255 on an outline, 0 elsewhere.

    The images are halved by means of 2 x 2 pixels and doubled by bilinear interpolation, in integers, so that the
    result is the same on every machine. A pixel belongs to a shape if its value is then `INSIDE` or more, and to the
    outline if one of its four neighbours does not belong to the shape; the border of the image is outside.
    """
    n, height, width, channels = images.shape
    even = np.pad(images, ((0, 0), (0, height % 2), (0, width % 2), (0, 0))).astype(np.int64)
    blocks = even.reshape(n, -(-height // 2), 2, -(-width // 2), 2, channels).sum((2, 4))  # 4 times the mean
    smooth = _doubled(_doubled(blocks, 1), 2)[:, :height, :width]  # 4 * 4 * 4 times the interpolated mean
    inside = np.pad(smooth >= 64 * INSIDE, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = ((0, 1), (2, 1), (1, 0), (1, 2))
    surrounded = np.all([inside[:, y : y + height, x : x + width] for y, x in shifts], axis=0)
    return np.where(inside[:, 1:-1, 1:-1] & ~surrounded, 255, 0).astype(np.uint8)


def _doubled(values: npt.NDArray[np.int64], axis: int) -> npt.NDArray[np.int64]:
    """Four times the values interpolated linearly to twice as many along an axis; the outermost are repeated."""
    before, after = (np.take(values, indices, axis) for indices in _neighbours(values.shape[axis]))
    pairs = np.stack((3 * values + before, 3 * values + after), axis + 1)
    return pairs.reshape(*values.shape[:axis], -1, *values.shape[axis + 1 :])


def _neighbours(n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The index before and after each of n, itself at the ends."""
    indices = np.arange(n)
    return np.maximum(indices - 1, 0), np.minimum(indices + 1, n - 1)


def slanted(images: Bytes, slant: float = SLANT) -> Bytes:
    """White shapes on black, N x H x W x C, that lean to the right by `slant` pixels per pixel of height.

    Each row is shifted by a multiple of a pixel, with linear interpolation between the two nearest ones; the middle of
    the image stays where it is, and what comes in from outside is black.
    """
    height = images.shape[1]
    shifts = slant * ((height - 1) / 2 - np.arange(height))
    rows: npt.NDArray[np.float64] = images.astype(np.float64)
    out = np.zeros_like(rows)
    for y, shift in enumerate(shifts):
        whole = int(np.floor(shift))
        for offset, weight in ((whole, 1 - (shift - whole)), (whole + 1, shift - whole)):
            out[:, y] += weight * _shifted(rows[:, y], offset)
    return np.round(out).astype(np.uint8)


def _shifted(rows: npt.NDArray[np.float64], offset: int) -> npt.NDArray[np.float64]:
    """Rows, N x W x C, moved to the right by `offset` pixels, filled with zeros."""
    moved = np.zeros_like(rows)
    width = rows.shape[1]
    if offset >= 0:
        moved[:, offset:] = rows[:, : width - offset]
    else:
        moved[:, :offset] = rows[:, -offset:]
    return moved


def inverted(images: Bytes) -> Bytes:
    """Black for white, N x H x W x C."""
    return 255 - images


def blurred(images: Bytes, sigma: float = BLUR, gain: float = GAIN) -> Bytes:
    """Images, N x H x W x C, out of focus: convolved with a Gaussian, and brighter, as a blur makes thin strokes dark.

    Args:
        images: white shapes on black.
        sigma: the standard deviation of the Gaussian in pixels.
        gain: the factor of the brightness, after which values above 255 are cut off.
    """
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0), mode="constant")
    return np.clip(gain * smooth, 0, 255).astype(np.uint8)


class DerivedDigitsConfig(ImageDataConfig):
    """What both kinds have in common.

    `digits` are the built-in ones, or the complete MNIST, which is read as the kind `torchvision` reads it. The former
    are "builtin" or, as in `StackedConfig`, "digits", which is stored as "builtin".
    """

    alpha: ClassVar[bool] = False

    digits: Literal["builtin", "MNIST"] = "builtin"

    @field_validator("digits", mode="before")
    @classmethod
    def _also_digits(cls, value: Any) -> Any:
        return "builtin" if value == "digits" else value

    def convert(self, images: Bytes) -> Bytes:
        """Each channel as the digits are converted; one more channel is that of the other domain."""
        channels = np.split(images, images.shape[3], 3)
        return np.concatenate([self._digits_config.convert(channel) for channel in channels], 3)

    def load_digits(self, root: Path | None) -> tuple[ImageDataset, ImageDataset]:
        """The training digits and the held-out ones, in the size of this data.

        Raises:
            DataError: MNIST was not found.
            RecipeError: the size does not suit the digits.
        """
        splits = self._digits_config.load(root)
        assert isinstance(splits.train, ImageDataset)
        assert isinstance(splits.held_out, ImageDataset)
        return splits.train, splits.held_out

    @property
    def uses_root(self) -> bool:
        """Whether the digits are those of MNIST."""
        return self._digits_config.uses_root

    @property
    def _digits_config(self) -> ImageDataConfig:
        """The config of the digits, by which they and everything beside them are converted."""
        if self.digits == "builtin":
            return DigitsConfig(size=self.size)
        return VisionConfig(dataset="MNIST", size=self.size)


class DigitPairsConfig(DerivedDigitsConfig):
    """The outline of each digit, see `outlines`, and the digit itself."""

    two_domains: ClassVar[Literal["", "pairs", "domains"]] = "pairs"

    kind: Literal["digit_pairs"] = "digit_pairs"

    def load(self, root: Path | None = None) -> DataSplits:
        """See `load_digits`."""
        train, held_out = self.load_digits(root)
        return DataSplits(_with_outlines(train), _with_outlines(held_out))


class DigitDomainsConfig(DerivedDigitsConfig):
    """Two unpaired domains of digits, by `task`.

    `twins`: half of the digits, and the inverted and slanted images of the others (as for CycleGAN). `fonts`: digits
    that are rendered from fonts and out of focus, as many as there are real ones, and the real ones (as for SimGAN).
    """

    two_domains: ClassVar[Literal["", "pairs", "domains"]] = "domains"

    kind: Literal["digit_domains"] = "digit_domains"
    task: Literal["twins", "fonts"] = "twins"

    def load(self, root: Path | None = None) -> DataSplits:
        """See `load_digits`."""
        train, held_out = self.load_digits(root)
        if self.task == "twins":
            return DataSplits(_with_twins(train), _with_twins(held_out))
        random = np.random.default_rng(RENDERING_SEED)
        return DataSplits(self._beside_rendered(train, random), self._beside_rendered(held_out, random))

    def _beside_rendered(self, real: ImageDataset, random: np.random.Generator) -> TwoDomains:
        """Rendered digits, as many as there are real ones, and these."""
        images, labels = render_digits(len(real), random)
        rendered = ImageDataset(self.convert(blurred(images)), labels, tuple("0123456789"))
        return TwoDomains(rendered, real)


def _with_outlines(digits: ImageDataset) -> ImageDataset:
    images = np.concatenate((outlines(digits.images), digits.images), 3)
    return ImageDataset(images, digits.labels, digits.classes, parts=(1, 1))


def _with_twins(digits: ImageDataset) -> TwoDomains:
    """The digits of even index, and the twins of the others."""
    assert digits.labels is not None
    plain = ImageDataset(digits.images[::2], digits.labels[::2], digits.classes)
    twins = inverted(slanted(digits.images[1::2]))
    return TwoDomains(plain, ImageDataset(twins, digits.labels[1::2], digits.classes))
