"""Images are brought to the size and the channels of a data set: cropped or padded, resized, composited."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from poise.utils.images import Bytes
from poise.utils.progress import DelayedProgress

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

Background = Literal["white", "black", "grey"]
LEVELS = {"white": 255, "black": 0, "grey": 128}

Fit = Literal["crop", "pad", "squeeze"]
"""What happens to an image of another aspect ratio than the target: see `fit_image`."""


class TargetFormat(NamedTuple):
    """The format of the decoded images: height x width x channels.

    Attributes:
        size: height and width.
        channels: 1 to 4; with 2 or 4 alpha is kept, otherwise it is composited over the background.
        background: what is behind transparent pixels, and around images that are padded.
        fit: see `fit_image`.
        halves: if each file holds two square images side by side, the channels of the left and of the right one. Each
            is converted on its own, and both are stacked along the channels, which are these instead of `channels`.
    """

    size: tuple[int, int]
    channels: int
    background: Background
    fit: Fit = "crop"
    halves: tuple[int, int] | None = None

    @property
    def keeps_alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return self.channels in (2, 4)


def fit_image(im: Image.Image, target: TargetFormat) -> Bytes:
    """Convert an L, LA, RGB or RGBA image to height x width x channels, with Pillow's Lanczos filter.

    With `fit = "crop"` the largest centred rectangle of the target's aspect ratio is resized, with `"pad"` the whole
    image, and what is missing on two sides becomes background, or transparent if alpha is kept. With `"squeeze"` the
    whole image is resized without regard to its aspect ratio.

    Pillow's filter is antialiased and keeps more detail than bicubic or box filters. The image is cropped first, at
    whole pixels, so an image whose rectangle has the size of the target keeps its pixels exactly. Pillow premultiplies
    the colours by alpha for resizing.
    """
    if target.fit == "crop":
        width, height = cropped_size(im.width, im.height, target)
        left, top = (im.width - width) // 2, (im.height - height) // 2
        im = im.crop((left, top, left + width, top + height))
    level = LEVELS[target.background]
    if not target.keeps_alpha and im.mode in ("LA", "RGBA"):
        background = Image.new("RGBA", im.size, (level, level, level, 255))
        im = Image.alpha_composite(background, im.convert("RGBA"))
    size = resized_size(im.width, im.height, target)
    fitted = im.convert(MODES[target.channels]).resize(size, Image.Resampling.LANCZOS)
    height, width = target.size
    if size != (width, height):
        fill = (0 if target.keeps_alpha else level,) * target.channels
        padded = Image.new(fitted.mode, (width, height), fill if len(fill) > 1 else fill[0])
        padded.paste(fitted, ((width - size[0]) // 2, (height - size[1]) // 2))
        fitted = padded
    return np.asarray(fitted).reshape(height, width, target.channels)


def cropped_size(width: int, height: int, target: TargetFormat) -> tuple[int, int]:
    """Width and height, in whole pixels, of the largest rectangle of the target's aspect ratio in an image."""
    rows, columns = target.size
    if width * rows > height * columns:
        return max(1, _rounded_ratio(height * columns, rows)), height
    return width, max(1, _rounded_ratio(width * rows, columns))


def resized_size(width: int, height: int, target: TargetFormat) -> tuple[int, int]:
    """Width and height that an image is resized to: those of the target, or less on one side if it is padded."""
    rows, columns = target.size
    if target.fit != "pad":
        return columns, rows
    if width * rows > height * columns:
        return columns, max(1, _rounded_ratio(height * columns, width))
    return max(1, _rounded_ratio(width * rows, height)), rows


def has_other_aspect(width: int, height: int, target: TargetFormat) -> bool:
    """Whether an image is cropped, padded or squeezed, by at least one pixel."""
    if target.fit == "pad":
        return resized_size(width, height, target) != target.size[::-1]
    return cropped_size(width, height, target) != (width, height)


def aspect_text(size: tuple[int, int]) -> str:
    """The aspect ratio of (height, width) as width:height in lowest terms; "square" if they are equal."""
    height, width = size
    factor = math.gcd(height, width)
    return "square" if width == height else f"{width // factor}:{height // factor}"


def _rounded_ratio(numerator: int, denominator: int) -> int:
    return (numerator + denominator // 2) // denominator


def convert_array(images: Bytes, target: TargetFormat) -> Bytes:
    """Convert N x H x W x C, C from 1 to 4, to N x height x width x channels, in the same way as files."""
    if images.shape[1:] == (*target.size, target.channels):
        return images
    converted = np.empty((len(images), *target.size, target.channels), np.uint8)
    with DelayedProgress() as progress:
        progress.phase("resizing {:,} of {:,} images", len(images))
        for row, pixels in enumerate(images):
            squeezed = pixels[..., 0] if pixels.shape[2] == 1 else pixels
            converted[row] = fit_image(Image.fromarray(np.ascontiguousarray(squeezed)), target)
            progress.step()
    return converted


def halves_of(im: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The left and the right half of an image of even width."""
    middle = im.width // 2
    return im.crop((0, 0, middle, im.height)), im.crop((middle, 0, im.width, im.height))
