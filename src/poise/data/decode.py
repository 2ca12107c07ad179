"""One picture file to one square of bytes: what may be opened, and what becomes of colours, alpha and size.

A file that can't be used raises; `reason` says why in words. Nothing here knows about folders.
"""

from __future__ import annotations

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
"""The only decoders that ever run."""

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
"""The names that make a file a picture file. What it really is, its content decides."""

NO_MEMORY = "damaged: asks for more memory than there is"

LARGEST = 64_000_000
LONGEST = 20

SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")
GREY = ("1", "L", "LA", "La", "I", *SIXTEEN_BIT)
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

Background = Literal["white", "black", "grey"]
LEVELS = {"white": 255, "black": 0, "grey": 128}


class UnusableImage(Exception):
    """A picture that is not damaged and still can't be used; the text is the reason."""


class TargetFormat(NamedTuple):
    """What every picture becomes: size x size x channels, alpha over `background` where it is not kept."""

    size: int
    channels: int
    background: Background


class Header(NamedTuple):
    """What a file says of itself before its pixels are read; `several` means more than one frame or page."""

    format: str
    mode: str
    width: int
    height: int
    several: bool

    @property
    def grey(self) -> bool:
        """No colour, with or without alpha."""
        return self.mode in GREY


class Trait(StrEnum):
    """Something in a picture that was settled on the way, and that the user is told about."""

    ALPHA = "alpha"
    CLEAR = "clear"
    DEEP = "16-bit"
    PROFILE = "profile"
    EXIF = "exif"


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Pillow as a scan needs it, for all threads: a cut file is an error, and no warning gets out.

    Each thing that Pillow only warns of has a rule in this file. Filters and Pillow's switch belong to the
    process, so this is entered once around a scan, not once for each file.
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
    """Read the header only, and refuse what should never be decoded."""
    with Image.open(stream, formats=FORMATS) as im:
        _refuse(im)
        several = bool(getattr(im, "is_animated", False))
        return Header(str(im.format), im.mode, im.width, im.height, several)


def decode_image(stream: IO[bytes], frame: TargetFormat) -> tuple[Bytes, set[Trait]]:
    """Decode the first frame, upright and in sRGB, into size x size x channels."""
    traits: set[Trait] = set()
    with Image.open(stream, formats=FORMATS) as im:
        _refuse(im)
        im.load()
        try:
            ImageOps.exif_transpose(im, in_place=True)
        except Exception:  # a broken EXIF block can raise anything, and the pixels are sound
            traits.add(Trait.EXIF)
        plain = _in_srgb(im, _plain(im, traits), traits)
    if plain.mode in ("LA", "RGBA"):
        opacity = plain.getchannel("A").getextrema()
        traits |= {
            trait for trait, met in ((Trait.ALPHA, opacity != (255, 255)), (Trait.CLEAR, opacity == (0, 0))) if met
        }
    return square(plain, frame), traits


def reason(error: Exception) -> str:
    """Why a file can't be used, one line."""
    if isinstance(error, UnusableImage):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, MemoryError):
        return NO_MEMORY
    words = " ".join(str(error).split())[:200].encode("utf-8", "backslashreplace").decode()
    if isinstance(error, Image.DecompressionBombError):
        return f"above the cap of {LARGEST // 10**6} megapixels: {words}"
    if isinstance(error, OSError) and error.strerror:
        return f"unreadable: {error.strerror}"
    return f"damaged: {words or type(error).__name__}"


def square(im: Image.Image, frame: TargetFormat) -> Bytes:
    """The largest centred square of an L, LA, RGB or RGBA picture, resized with Pillow's Lanczos filter.

    Lanczos widens with the shrinking factor, so nothing aliases, and keeps more detail than bicubic or a box.
    Cutting comes first, at whole pixels: the part that is cut off costs no work, and a picture whose shorter
    side already fits keeps its pixels exactly. Pillow multiplies colours by alpha around the resize.
    """
    side = min(im.size)
    left, top = (im.width - side) // 2, (im.height - side) // 2
    cut = im.crop((left, top, left + side, top + side))
    if frame.channels in (1, 3) and cut.mode in ("LA", "RGBA"):
        level = LEVELS[frame.background]
        ground = Image.new("RGBA", cut.size, (level, level, level, 255))
        cut = Image.alpha_composite(ground, cut.convert("RGBA"))
    fitted = cut.convert(MODES[frame.channels]).resize((frame.size, frame.size), Image.Resampling.LANCZOS)
    return np.asarray(fitted).reshape(frame.size, frame.size, frame.channels)


def convert_array(images: Bytes, frame: TargetFormat) -> Bytes:
    """N x H x W x C, C from 1 to 4, to N x size x size x channels, by the same rules as files."""
    if images.shape[1:] == (frame.size, frame.size, frame.channels):
        return images
    fitted = np.empty((len(images), frame.size, frame.size, frame.channels), np.uint8)
    with DelayedProgress() as slow:
        slow.phase("resizing {:,} of {:,} pictures", len(images))
        for row, pixels in enumerate(images):
            flat = pixels[..., 0] if pixels.shape[2] == 1 else pixels
            fitted[row] = square(Image.fromarray(np.ascontiguousarray(flat)), frame)
            slow.step()
    return fitted


def _refuse(im: Image.Image) -> None:
    width, height = im.size
    if min(width, height) < 1:
        raise UnusableImage("has no pixels")
    if width * height > LARGEST:
        millions = width * height / 10**6
        raise UnusableImage(f"{millions:.0f} megapixels ({width} x {height}) are above the cap of {LARGEST // 10**6}")
    if max(width, height) > LONGEST * min(width, height):
        raise UnusableImage(f"{width} x {height} is longer than {LONGEST}:1")
    if im.mode == "F":
        raise UnusableImage("float pixels (mode F) have no stated range; save them as 8 or 16 bits")
    if im.mode == "I" and im.format != "PNG":
        raise UnusableImage("32-bit pixels (mode I) have no stated range; save them as 8 or 16 bits")


def _plain(im: Image.Image, traits: set[Trait]) -> Image.Image:
    """8 bits a channel: L, LA, RGB or RGBA; CMYK stays as it is until its profile was looked at."""
    if im.mode in ("I", *SIXTEEN_BIT):
        traits.add(Trait.DEEP)
        return _upper_bits(im)
    if im.mode == "CMYK":
        return im
    return im.convert(("L" if im.mode in GREY else "RGB") + ("A" if im.has_transparency_data else ""))


def _upper_bits(im: Image.Image) -> Image.Image:
    """16-bit grey to its upper 8 bits; also 12-bit and white-is-zero TIFF, which Pillow hands over raw."""
    tags = getattr(im, "tag_v2", {})
    depth = int(tags.get(258, (16,))[0])
    values = np.asarray(im)
    if tags.get(262) == 0:
        values = (1 << depth) - 1 - values
    grey = Image.fromarray((values >> (depth - 8)).astype(np.uint8))
    see_through = im.info.get("transparency")
    if isinstance(see_through, int):
        opaque = np.where(np.asarray(im) == see_through, 0, 255).astype(np.uint8)
        grey = Image.merge("LA", (grey, Image.fromarray(opaque)))
    return grey


def _in_srgb(im: Image.Image, plain: Image.Image, traits: set[Trait]) -> Image.Image:
    """Colours moved by the file's own profile; without one, or with one that can't be used, as they stand."""
    profile = im.info.get("icc_profile")
    if profile:
        try:
            return _by_profile(plain, profile)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError, ImportError):
            traits.add(Trait.PROFILE)
    return plain.convert("RGB") if plain.mode == "CMYK" else plain


def _by_profile(plain: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    if "sRGB" in (source.profile.profile_description or "") and plain.mode != "CMYK":
        return plain
    alpha = plain.getchannel("A") if plain.mode in ("LA", "RGBA") else None
    colours = plain.convert(plain.mode.removesuffix("A")) if alpha else plain
    moved = ImageCms.profileToProfile(colours, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert moved is not None, "only a transform in place returns nothing"
    moved = moved.convert("L") if colours.mode == "L" else moved
    if alpha:
        moved.putalpha(alpha)
    return moved
