"""What a file is that holds no image of a known format, by its first bytes.

These reasons are not part of `decode`, whose text is part of the keys of cached images (`decoded.CODE`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import IO

from PIL import UnidentifiedImageError

from poise.data.decode import describe_error

HEAD = 512
"""The number of bytes that are looked at."""

SIGNATURES = {
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"8BPS": "PSD",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\0\0\1\0": "ICO",
    **{b"P%d" % kind + space: "PNM" for kind in range(1, 7) for space in (b" ", b"\n", b"\r", b"\t")},
}
"""How files of other formats start."""

HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
BRANDS = {b"avif": "AVIF", b"avis": "AVIF", **dict.fromkeys(HEIC, "HEIC")}
"""Formats that share a container: the brands that its first box lists, of which the first one here decides."""


def explain(error: Exception, reopen: Callable[[], IO[bytes]]) -> str:
    """The reason why a file can't be used, in one line; see `describe_error` and `describe_start`.

    Args:
        error: what decoding it raised.
        reopen: opens the file at its start.
    """
    if isinstance(error, UnidentifiedImageError):
        with suppress(Exception), reopen() as stream:  # what can't be read again is described by the error
            return describe_start(stream.read(HEAD)) or describe_error(error)
    return describe_error(error)


def describe_start(start: bytes) -> str:
    """What is wrong with a file that starts with these bytes, up to `HEAD` of them; empty if it is not known."""
    if not start:
        return "an empty file"
    name = next((name for signature, name in SIGNATURES.items() if start.startswith(signature)), "")
    if start[4:8] == b"ftyp":
        box = start[8 : int.from_bytes(start[:4], "big")]
        listed = [box[at : at + 4] for at in range(0, len(box), 4)]
        name = next((name for brand, name in BRANDS.items() if brand in listed), "")
    if b"<svg" in start and b"<html" not in start.lower():
        name = "SVG"
    return f"{name}, which is not read: convert it to PNG" if name else ""
