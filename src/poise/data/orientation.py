"""Whether an image that is not decoded yet is shown with its sides exchanged, as its EXIF or XMP data say.

The answer is that of `ImageOps.exif_transpose`, which needs the decoded image.
"""

from __future__ import annotations

import os
import re
from io import BytesIO
from typing import IO, Any

from PIL import Image

ORIENTATION, TRANSPOSED = 0x0112, (5, 6, 7, 8)
"""The EXIF tag of the orientation, and its values for images that are stored with rows as columns."""

RAW_EXIF = "Raw profile type exif"
"""Where Pillow keeps the EXIF data that ImageMagick writes into a PNG as text."""

XMP_KEYS, XMP_ORIENTATION = ("XML:com.adobe.xmp", "xmp"), re.compile(rb'tiff:Orientation(="|>)([0-9])')
"""Where Pillow keeps XMP data, which may have the orientation instead, and how it finds that there."""

PNG_START, TEXT_CHUNKS, MAX_KEYWORD = b"\x89PNG\r\n\x1a\n", (b"tEXt", b"zTXt", b"iTXt"), 80
"""How a PNG starts, the kinds of its chunks that hold text, and the most bytes of a keyword with its end."""


def is_transposed(im: Image.Image) -> bool:
    """Whether the orientation exchanges width and height of an image that is not decoded yet.

    It is found where `ImageOps.exif_transpose` finds it. The size of a TIFF with an orientation of its own is already
    that after the exchange.
    """
    if ORIENTATION in getattr(im, "tag_v2", ()):
        return False
    info, exif = _all_info(im), Image.Exif()
    try:
        if "exif" in info:
            exif.load(info["exif"])
        elif RAW_EXIF in info:
            exif.load(bytes.fromhex("".join(info[RAW_EXIF].split("\n")[3:])))
        orientation = exif.get(ORIENTATION)
    except Exception:  # a broken EXIF block can raise anything, and is ignored when the image is decoded
        return False
    if orientation is not None:
        return orientation in TRANSPOSED
    data = next((info[key] for key in XMP_KEYS if info.get(key)), b"")
    found = XMP_ORIENTATION.search(data.encode("utf-8", "replace") if isinstance(data, str) else data)
    return found is not None and int(found[2]) in TRANSPOSED


def _all_info(im: Image.Image) -> dict[Any, Any]:
    """What is known of an image: its `info`, and for a PNG also what is behind the pixels, where exiftool writes it.

    To know that, Pillow decodes the image, so this is done only if there is something.
    """
    if im.format != "PNG" or im.fp is None:  # type: ignore[missing-attribute]
        return im.info
    stream: IO[bytes] = im.fp  # type: ignore[missing-attribute]
    place = stream.tell()
    try:
        if not _has_orientation_behind_pixels(stream):
            return im.info
        stream.seek(0)
        with Image.open(BytesIO(stream.read()), formats=("PNG",)) as whole:
            whole.load()
            return whole.info
    finally:
        stream.seek(place)


def _has_orientation_behind_pixels(stream: IO[bytes]) -> bool:
    """Whether a PNG has EXIF or XMP data behind its pixels."""
    stream.seek(len(PNG_START))
    behind = False
    while len(head := stream.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if behind and kind == b"eXIf":
            return True
        read = stream.read(min(length, MAX_KEYWORD)) if behind and kind in TEXT_CHUNKS else b""
        if read.split(b"\0")[0].decode("latin-1") in (RAW_EXIF, *XMP_KEYS):
            return True
        behind |= kind == b"IDAT"
        stream.seek(length - len(read) + 4, os.SEEK_CUR)
    return False
