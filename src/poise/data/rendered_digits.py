"""Digits that are rendered from fonts, in the format of MNIST: synthetic images whose labels are known.

They are what the recipe `simgan` refines (Shrivastava et al. 2017, arXiv:1612.07828). The fonts are those that come
with Matplotlib, under free licences.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from poise.utils.images import Bytes

FONTS = (
    *(
        f"DejaVu{family}{style}"
        for family in ("Sans", "SansMono")
        for style in ("", "-Bold", "-Oblique", "-BoldOblique")
    ),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmr10", "cmb10", "cmss10", "cmtt10"),
)
"""The names of the files, without suffix."""

BOX = 20
"""The larger side of a digit in pixels, in an image of `SIDE`: as in MNIST."""

SIDE = 28
"""The side of an image."""

CANVAS = 96
"""The side of the image that a digit is drawn in before it is distorted and reduced."""

MAX_ROTATION, MAX_SHEAR, MAX_STRETCH = math.radians(12), 0.3, 0.25
"""The largest rotation in radians, horizontal shift per pixel of height, and log of width / height, either way."""


def render_digits(n: int, random: np.random.Generator) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Render n digits: white on black, n x 28 x 28 x 1, and their labels, 0 to 9 in turn.

    Each one has a random font, rotation, shear and aspect ratio, is scaled so that its larger side is `BOX`, and its
    centre of mass is in the centre of the image.

    Args:
        n: the number of images.
        random: where the random numbers come from.
    """
    labels = np.arange(n) % 10
    fonts = random.integers(len(FONTS), size=n)
    distortions = random.uniform(-1, 1, (n, 3)) * (MAX_ROTATION, MAX_SHEAR, MAX_STRETCH)
    images = [
        _render(str(label), FONTS[font], *distortion)
        for label, font, distortion in zip(labels, fonts, distortions.tolist(), strict=True)
    ]
    return np.stack(images)[..., None] if images else np.zeros((0, SIDE, SIDE, 1), np.uint8), labels


def _render(digit: str, font: str, rotation: float, shear: float, stretch: float) -> Bytes:
    """One digit, 28 x 28."""
    cosine, sine, wide = math.cos(rotation), math.sin(rotation), math.exp(stretch / 2)
    # from coordinates of the result, relative to the centre, to those of the drawing
    turn = np.array([[cosine, sine], [-sine, cosine]])
    matrix = np.array([[1 / wide, shear], [0, wide]]) @ turn
    centre = (CANVAS - 1) / 2
    offset = centre - matrix @ (centre, centre)
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    drawn = _draw(digit, font).transform(
        (CANVAS, CANVAS), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )
    shape = drawn.crop(drawn.getbbox())
    scale = BOX / max(shape.size)
    reduced = shape.resize([max(1, round(side * scale)) for side in shape.size], Image.Resampling.BOX)
    return _centred(np.asarray(reduced))


@cache
def _draw(digit: str, font: str) -> Image.Image:
    """A digit in white on black in the middle of the canvas."""
    from matplotlib import get_data_path  # takes long to import, and few data sets are rendered

    path = Path(get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    canvas = Image.new("L", (CANVAS, CANVAS))
    middle = (CANVAS / 2, CANVAS / 2)
    ImageDraw.Draw(canvas).text(middle, digit, fill=255, font=ImageFont.truetype(str(path), 56), anchor="mm")
    return canvas


def _centred(shape: Bytes) -> Bytes:
    """A shape in an image of `SIDE`, its centre of mass in the centre as far as it fits."""
    mass = shape.astype(np.float64)
    image = np.zeros((SIDE, SIDE), np.uint8)
    corner = []
    for axis, side in enumerate(shape.shape):
        profile = mass.sum(1 - axis)
        middle = (profile * (np.arange(side) + 0.5)).sum() / profile.sum()
        corner.append(min(max(round(SIDE / 2 - middle), 0), SIDE - side))
    y, x = corner
    image[y : y + shape.shape[0], x : x + shape.shape[1]] = shape
    return image
