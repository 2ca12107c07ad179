"""Decoding of one image file to an array: accepted formats, colour conversion, alpha, cropping and resizing.

A file that can't be used raises an exception, which `describe_error` turns into text. Folders are handled elsewhere.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from io import BytesIO
from typing import IO, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from poise.utils.images import Bytes
from poise.utils.progress import DelayedProgress

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

ORIENTATION, TRANSPOSED = 0x0112, (5, 6, 7, 8)
"""The EXIF tag of the orientation, and its values for images that are stored with rows as columns."""

MODES_16_BIT = ("I;16", "I;16B", "I;16L", "I;16N")
GREY_MODES = ("1", "L", "LA", "La", "I", *MODES_16_BIT)
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

Background = Literal["white", "black", "grey"]
LEVELS = {"white": 255, "black": 0, "grey": 128}

Fit = Literal["crop", "pad", "squeeze"]
"""What happens to an image of another aspect ratio than the target: see `fit_image`."""


class UnusableImage(Exception):
    """An image that is not damaged but can't be used; the message is the reason."""


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
        width, height = im.size[::-1] if _is_transposed(im) else im.size
        return Header(str(im.format), im.mode, width, height, multi_frame)


def decode_image(stream: IO[bytes], target: TargetFormat) -> tuple[Bytes, set[Trait]]:
    """Decode the first frame to height x width x channels, in sRGB and with the EXIF orientation applied."""
    traits: set[Trait] = set()
    with Image.open(stream, formats=FORMATS) as im:
        _check_usable(im)
        if target.halves is not None:
            _check_halves(*(im.size[::-1] if _is_transposed(im) else im.size))
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


def halves_of(im: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The left and the right half of an image of even width."""
    middle = im.width // 2
    return im.crop((0, 0, middle, im.height)), im.crop((middle, 0, im.width, im.height))


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


def _is_transposed(im: Image.Image) -> bool:
    """Whether the EXIF orientation exchanges width and height; Pillow itself does so for TIFF.

    Without EXIF data in the header Pillow would decode a PNG to look for some behind the pixels.
    """
    if "exif" not in im.info:
        return False
    try:
        return im.getexif().get(ORIENTATION) in TRANSPOSED
    except Exception:  # a broken EXIF block can raise anything, and is ignored when the image is decoded
        return False


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
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    if "sRGB" in (source.profile.profile_description or "") and im.mode != "CMYK":
        return im
    alpha = im.getchannel("A") if im.mode in ("LA", "RGBA") else None
    colours = im.convert(im.mode.removesuffix("A")) if alpha else im
    converted = ImageCms.profileToProfile(colours, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None, "only an in-place transform returns None"
    converted = converted.convert("L") if colours.mode == "L" else converted
    if alpha:
        converted.putalpha(alpha)
    return converted
