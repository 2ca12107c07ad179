"""Decoding of one image file to an array: accepted formats, colour conversion and alpha; `fit` crops and resizes.

A file that can't be used raises an exception, which `describe_error` turns into text. Folders are handled elsewhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import lru_cache
from io import BytesIO
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from poise.data.fit import TargetFormat, fit_image, halves_of
from poise.data.orientation import is_transposed
from poise.utils.images import Bytes

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""The only decoders of Pillow that are used."""

SUFFIXES = {
    ".png": "PNG",
    ".apng": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""The suffixes of image files. The decoder is chosen by the content."""

NO_MEMORY = "damaged: needs more memory than is available"

MAX_PIXELS = 64_000_000
MAX_ASPECT_RATIO = 20

KEY_SCALES = {"L;2": 85, "L;4": 17, "RGB;16B": 1 / 256}
"""What the transparent value of a PNG with these raw modes is multiplied by, as Pillow scales the pixels only."""

MAX_SRGB_ERROR = 2
"""The largest difference, in levels of 255, between the colours of a profile and those of sRGB that is neglected."""

MODES_16_BIT = ("I;16", "I;16B", "I;16L", "I;16N")
GREY_MODES = ("1", "L", "LA", "La", "I", *MODES_16_BIT)


class UnusableImage(Exception):
    """An image that is not damaged but can't be used; the message is the reason."""


class Header(NamedTuple):
    """The header of an image file, with the size that it is shown with, its orientation applied.

    `multi_frame` means that it has more than one frame or page.
    """

    format: str
    mode: str
    width: int
    height: int
    multi_frame: bool

    @property
    def grey(self) -> bool:
        """Whether the image is greyscale, with or without alpha."""
        return self.mode in GREY_MODES


class Trait(StrEnum):
    """A property of an image that a note reports.

    Attributes:
        ALPHA: not all pixels are opaque.
        FULLY_TRANSPARENT: all pixels are transparent.
        SIXTEEN_BIT: greyscale with more than 8 bits.
        BAD_PROFILE: the colour profile cannot be used.
        BAD_EXIF: the EXIF data cannot be read.
    """

    ALPHA = "alpha"
    FULLY_TRANSPARENT = "clear"
    SIXTEEN_BIT = "16-bit"
    BAD_PROFILE = "profile"
    BAD_EXIF = "exif"


@contextmanager
def strict_pillow() -> Iterator[None]:
    """A context in which Pillow raises an error for truncated files and shows no warnings, in all threads.

    Everything that Pillow warns about is checked in this module. Warning filters and Pillow's setting are global to the
    process, so this context is entered once around a scan, not once for each file.
    """
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def read_header(stream: IO[bytes]) -> Header:
    """Read the header only.

    Raises:
        UnusableImage: the image must not be decoded: it is too large, or of a mode without a defined range.
    """
    with Image.open(stream, formats=FORMATS) as im:
        _check_usable(im)
        multi_frame = bool(getattr(im, "is_animated", False))
        width, height = im.size[::-1] if is_transposed(im) else im.size
        mode = "LA" if _raw_mode(im) == "LA;16B" else im.mode  # Pillow decodes it to RGBA
        return Header(str(im.format), mode, width, height, multi_frame)


def decode_image(stream: IO[bytes], target: TargetFormat) -> tuple[Bytes, set[Trait]]:
    """Decode the first frame to height x width x channels, in sRGB and with the EXIF orientation applied."""
    traits: set[Trait] = set()
    with Image.open(stream, formats=FORMATS) as im:
        _check_usable(im)
        if target.halves is not None:
            _check_halves(*(im.size[::-1] if is_transposed(im) else im.size))
        _scale_transparent_value(im)
        im.load()
        try:
            ImageOps.exif_transpose(im, in_place=True)
        except Exception:  # a broken EXIF block can raise anything, while the pixels are valid
            traits.add(Trait.BAD_EXIF)
        converted = _convert_to_srgb(im, _convert_to_8_bit(im, traits), traits)
    if converted.mode in ("LA", "RGBA"):
        opacity = converted.getchannel("A").getextrema()
        traits |= {Trait.ALPHA} if opacity != (255, 255) else set()
        traits |= {Trait.FULLY_TRANSPARENT} if opacity == (0, 0) else set()
    if target.halves is None:
        return fit_image(converted, target), traits
    halves = zip(halves_of(converted), target.halves, strict=True)
    return np.concatenate([fit_image(half, target._replace(channels=channels)) for half, channels in halves], 2), traits


def describe_error(error: Exception) -> str:
    """The reason why a file can't be used, in one line."""
    if isinstance(error, UnusableImage):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, MemoryError):
        return NO_MEMORY
    message = " ".join(str(error).split())[:200].encode("utf-8", "backslashreplace").decode()
    if isinstance(error, Image.DecompressionBombError):
        return f"above the limit of {MAX_PIXELS // 10**6} megapixels: {message}"
    if isinstance(error, OSError) and error.strerror:
        return f"unreadable: {error.strerror}"
    return f"damaged: {message or type(error).__name__}"


def _raw_mode(im: Image.Image) -> str:
    """How the pixels of a PNG that is not decoded yet are stored; empty for other formats."""
    tiles = getattr(im, "tile", [])
    return str(tiles[0][3]) if im.format == "PNG" and tiles else ""


def _scale_transparent_value(im: Image.Image) -> None:
    """Scale the value of transparent pixels like the pixels.

    Of 16 bits for each colour, Pillow keeps the upper 8, so all colours with these are transparent.
    """
    value, scale = im.info.get("transparency"), KEY_SCALES.get(_raw_mode(im))
    if scale is not None and isinstance(value, int):
        im.info["transparency"] = int(value * scale)
    elif scale is not None and isinstance(value, tuple):
        im.info["transparency"] = tuple(int(part * scale) for part in value)


def _check_usable(im: Image.Image) -> None:
    width, height = im.size
    if min(width, height) < 1:
        raise UnusableImage("has no pixels")
    if width * height > MAX_PIXELS:
        megapixels, limit = width * height / 10**6, MAX_PIXELS // 10**6
        raise UnusableImage(f"{megapixels:.0f} megapixels ({width} x {height}) are above the limit of {limit}")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise UnusableImage(f"the aspect ratio of {width} x {height} is above {MAX_ASPECT_RATIO}:1")
    if im.mode == "F":
        raise UnusableImage("float pixels (mode F) have no defined range; save them with 8 or 16 bits")
    if im.mode == "I" and im.format != "PNG":
        raise UnusableImage("32-bit pixels (mode I) have no defined range; save them with 8 or 16 bits")


def _check_halves(width: int, height: int) -> None:
    if width != 2 * height:
        raise UnusableImage(f"{width} x {height} is not twice as wide as high, so it is no pair of images side by side")


def _convert_to_8_bit(im: Image.Image, traits: set[Trait]) -> Image.Image:
    """Convert to 8 bits per channel: L, LA, RGB or RGBA. CMYK is left to `_convert_to_srgb`."""
    if im.mode in ("I", *MODES_16_BIT):
        traits.add(Trait.SIXTEEN_BIT)
        return _upper_bits(im)
    if im.mode == "CMYK":
        return im
    return im.convert(("L" if im.mode in GREY_MODES else "RGB") + ("A" if im.has_transparency_data else ""))


def _upper_bits(im: Image.Image) -> Image.Image:
    """The upper 8 bits of 16-bit greyscale, and of 12-bit and white-is-zero TIFF, which Pillow does not convert."""
    tags = getattr(im, "tag_v2", {})
    depth = int(tags.get(258, (16,))[0])
    values = np.asarray(im)
    if tags.get(262) == 0:
        values = (1 << depth) - 1 - values
    grey = Image.fromarray((values >> (depth - 8)).astype(np.uint8))
    transparent = im.info.get("transparency")
    if isinstance(transparent, int):
        opaque = np.where(np.asarray(im) == transparent, 0, 255).astype(np.uint8)
        grey = Image.merge("LA", (grey, Image.fromarray(opaque)))
    return grey


def _convert_to_srgb(im: Image.Image, converted: Image.Image, traits: set[Trait]) -> Image.Image:
    """Convert to sRGB by the file's colour profile; without a usable profile, the values are taken as sRGB."""
    profile = im.info.get("icc_profile")
    if profile:
        try:
            return _apply_profile(converted, profile)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError, ImportError):
            traits.add(Trait.BAD_PROFILE)
    return converted.convert("RGB") if converted.mode == "CMYK" else converted


def _apply_profile(im: Image.Image, profile: bytes) -> Image.Image:
    if im.mode != "CMYK" and _is_srgb(profile):
        return im
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    alpha = im.getchannel("A") if im.mode in ("LA", "RGBA") else None
    colours = im.convert(im.mode.removesuffix("A")) if alpha else im
    converted = ImageCms.profileToProfile(colours, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None, "only an in-place transform returns None"
    converted = converted.convert("L") if colours.mode == "L" else converted
    if alpha:
        converted.putalpha(alpha)
    return converted


@lru_cache(maxsize=64)
def _is_srgb(profile: bytes) -> bool:
    """Whether a colour profile leaves a grid of colours as they are: that of sRGB, whatever its name says."""
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    if source.profile.xcolor_space.strip() == "GRAY":
        colours = np.repeat(np.arange(256, dtype=np.uint8)[None], 3, 0).T[None]
        grid = Image.fromarray(colours[:, :, 0])
    elif source.profile.xcolor_space.strip() == "RGB":
        colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
        grid = Image.fromarray(colours)
    else:
        return False
    converted = ImageCms.profileToProfile(grid, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return bool(np.abs(np.asarray(converted).astype(int) - colours).max() <= MAX_SRGB_ERROR)
