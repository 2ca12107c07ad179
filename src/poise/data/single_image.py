"""Reads one image file in the way in which the images of a data set are read, to compare it with them."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from poise.core.types import Shape
from poise.data.config import ImageDataConfig
from poise.data.decode import Header, Trait, decode_image, read_header, strict_pillow
from poise.data.fit import TargetFormat, aspect_text, cropped_size, has_other_aspect
from poise.data.listing import display_name
from poise.data.unread_formats import explain
from poise.errors import DataError
from poise.utils.images import Bytes


class SingleImage(NamedTuple):
    """A decoded image file.

    Attributes:
        pixels: uint8, H x W x C, writable.
        changes: what was changed, as phrases such as "cropped from 640 x 480 to 480 x 480"; empty if nothing was.
    """

    pixels: Bytes
    changes: list[str]


def read_image(path: Path, config: ImageDataConfig, shape: Shape) -> SingleImage:
    """Decode a file to the shape of a data set, in the way in which the data's own images are converted.

    Args:
        path: the file.
        config: the config of the data.
        shape: the shape of the data's images, C x H x W.

    Raises:
        DataError: the file does not exist or can't be used.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise DataError(what, where="IMAGE", found=display_name(str(path)), cure="give the path of one image file")
    channels = shape[0]
    drops_blue = channels == 2 and not config.alpha  # two channels that are not grey with alpha are red and green
    target = config.target_format(channels)
    try:
        raw = path.read_bytes()
        with strict_pillow():
            header = read_header(BytesIO(raw))
            unchanged = target._replace(size=(header.height, header.width), channels=3 if drops_blue else channels)
            pixels, traits = decode_image(BytesIO(raw), unchanged)
    except Exception as error:  # a decoder can raise anything
        cure = "give a PNG, JPEG, WebP, BMP, GIF or TIFF file"
        raise DataError(
            "can't be used as an image",
            where=display_name(str(path)),
            found=explain(error, partial(path.open, "rb")),
            cure=cure,
        ) from None
    converted = config.convert(pixels[None, ..., :2] if drops_blue else pixels[None])
    return SingleImage(converted[0].copy(), _describe_changes(header, traits, target))


def _describe_changes(header: Header, traits: set[Trait], target: TargetFormat) -> list[str]:
    """See `SingleImage.changes`."""
    height, width = target.size
    original = cropped = header.width, header.height
    other_aspect = has_other_aspect(*original, target)
    if target.fit == "crop":
        cropped = cropped_size(*original, target)
    aspect = aspect_text(target.size).replace("square", "a square")
    composited = Trait.ALPHA in traits and target.channels in (1, 3)
    changes = (
        (header.multi_frame, "reduced to its first frame"),
        (Trait.SIXTEEN_BIT in traits, "reduced to 8 bits"),
        (Trait.BAD_PROFILE in traits, "taken as sRGB, as its colour profile is unusable"),
        (Trait.BAD_EXIF in traits, "not turned upright, as its EXIF data is unreadable"),
        (cropped != original, f"cropped from {_text(original)} to {_text(cropped)}"),
        (other_aspect and target.fit == "pad", f"padded to {aspect}"),
        (other_aspect and target.fit == "squeeze", f"squeezed to {aspect}"),
        (composited, f"composited over {target.background}"),
        (target.channels <= 2 and not header.grey, "converted to greyscale"),
        (cropped != (width, height), f"converted from {_text(cropped)} to {width} x {height} like the data"),
    )
    return [text for applies, text in changes if applies]


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
