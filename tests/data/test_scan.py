"""The scan of a folder: bad files are skipped with a reason, and no file ends the scan."""

from __future__ import annotations

import io
import os
import re
import socket
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_helpers import NOISE, WriteImages, chunk, encoded, load, pixels, png
from PIL import Image, ImageFile

from poise.data import scan as scan_module
from poise.data.decode import FORMATS, UnusableImage, describe_error
from poise.data.source import BadFile
from poise.errors import DataError


def flip_byte(raw: bytes, offset: int) -> bytes:
    return raw[:offset] + bytes([raw[offset] ^ 255]) + raw[offset + 1 :]


def float_tiff(mode: type) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.linspace(0, 1000, 64).reshape(8, 8).astype(mode)).save(out, "TIFF")
    return out.getvalue()


def boxed(*brands: bytes) -> bytes:
    """The start of a file of the family of MPEG-4."""
    content = b"ftyp" + brands[0] + b"\0" * 4 + b"".join(brands[1:])
    return struct.pack(">I", 4 + len(content)) + content + b"\0\0\0\x20meta avif"


BOMB = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 10**8))
BAD_FILES = {
    "I01-0-bytes": ("x.png", b"", "^an empty file$"),
    "I01-text-named-jpg": ("x.jpg", b"just some words\n" * 9, "^not an image$"),
    "I01-html-named-png": ("x.png", b"<!doctype html><title>404</title>", "^not an image$"),
    "I01-signature-only": ("x.png", b"\x89PNG\r\n\x1a\n", "^not an image$"),
    "I02-jpeg-cut-in-half": ("x.jpg", encoded("JPEG")[: len(encoded("JPEG")) // 2], "^damaged: .*truncated"),
    "I02-jpeg-cut-by-2-bytes": ("x.jpg", encoded("JPEG")[:-2], "^damaged: .*truncated"),
    "I03-png-cut": ("x.png", encoded("PNG")[:-2000], "^damaged: "),
    "I03-png-bad-crc": ("x.png", flip_byte(encoded("PNG"), 60), "^damaged: "),
    "I06-20000-x-20000": ("x.png", png(20_000, 20_000), "^above the limit of 64 megapixels: .*400000000"),
    "I07-10000-x-10000": ("x.png", png(10_000, 10_000), "^100 megapixels .* above the limit of 64"),
    "I07-100M-x-1": ("x.png", png(10**8, 1), "^100 megapixels .* above the limit of 64"),
    "I07-longer-than-20-to-1": ("x.png", png(2100, 100), "^the aspect ratio of 2100 x 100 is above 20:1$"),
    "I08-ztxt-bomb": ("x.png", png(8, 8, BOMB), "^damaged: Decompressed data too large"),
    "I10-float-tiff": ("x.tif", float_tiff(np.float32), "^float pixels"),
    "I10-32-bit-tiff": ("x.tif", float_tiff(np.int32), "^32-bit pixels"),
    "I19-eps-named-png": ("x.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "^PostScript, which is not"),
    "I19-ppm-named-png": ("x.png", b"P6 2 2 255\n" + b"\0" * 12, "^PNM, which is not read: convert it to PNG$"),
    "I19-avif-named-jpg": ("x.jpg", boxed(b"avif", b"mif1", b"miaf"), "^AVIF, which is not read: convert it to PNG$"),
    "I19-avif-by-its-other-brands": ("x.jpg", boxed(b"mif1", b"miaf", b"avif"), "^AVIF, "),
    "I19-heic-named-jpg": ("x.jpg", boxed(b"heic", b"mif1"), "^HEIC, "),
    "I19-mp4-named-jpg": ("x.jpg", boxed(b"isom", b"mp41"), "^not an image$"),
    "I19-jp2-named-png": ("x.png", b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 30, "^JPEG 2000, "),
    "I19-jxl-named-png": ("x.png", b"\xff\x0a" + b"\0" * 30, "^JPEG XL, "),
    "I19-svg-named-png": ("x.png", b'<?xml version="1.0"?>\n<svg width="9"></svg>', "^SVG, "),
    "I19-html-with-svg": ("x.png", b"<!doctype html><HTML><svg></svg>", "^not an image$"),
}


@pytest.mark.parametrize(("name", "raw", "why"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_skipped(tmp_path: Path, write_images: WriteImages, name: str, raw: bytes, why: str) -> None:
    write_images(tmp_path)
    (tmp_path / name).write_bytes(raw)
    loaded = load(tmp_path)
    assert [bad.name for bad in loaded.bad_files] == [name]
    assert re.search(why, loaded.bad_files[0].reason)
    assert len(pixels(loaded)) == 4
    assert "skipped 1 of 5 image files as invalid" in loaded.notes


ERRORS = [
    struct.error("unpack"), SyntaxError("no"), ValueError(""), MemoryError(), ZeroDivisionError("by 0"),
    RecursionError(), AssertionError(), OverflowError(), KeyError("k"), EOFError(), Image.DecompressionBombError("!"),
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=[f"I04-{type(error).__name__}" for error in ERRORS])
@pytest.mark.parametrize("stage", ["read_header", "decode_image"])
def test_any_error_of_a_decoder(
    tmp_path: Path, write_images: WriteImages, monkeypatch: pytest.MonkeyPatch, stage: str, error: Exception
) -> None:
    write_images(tmp_path)
    (tmp_path / "x.png").write_bytes(b"the one that raises")
    original = getattr(scan_module, stage)

    def raising(stream: io.BufferedReader, *more: object) -> object:
        if Path(stream.name).name == "x.png":
            raise error
        return original(stream, *more)

    monkeypatch.setattr(scan_module, stage, raising)
    if stage == "decode_image":
        Image.fromarray(NOISE).save(tmp_path / "x.png")
    loaded = load(tmp_path)
    assert [bad.name for bad in loaded.bad_files] == ["x.png"]
    assert loaded.bad_files[0].reason
    assert "\n" not in loaded.bad_files[0].reason
    assert len(pixels(loaded)) == 4


def test_a_truncated_file_is_bad_even_if_pillow_allows_it(
    tmp_path: Path, write_images: WriteImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I05."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    write_images(tmp_path)
    (tmp_path / "x.jpg").write_bytes(encoded("JPEG")[:-300])
    assert [bad.name for bad in load(tmp_path).bad_files] == ["x.jpg"]
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


ACCEPTED = {
    "I03-png-without-iend": encoded("PNG")[:-12],
    "I03-png-trailing-junk": encoded("PNG") + b"junk" * 100,
    "I02-jpeg-trailing-junk": encoded("JPEG") + b"junk" * 100,
}


@pytest.mark.parametrize("raw", ACCEPTED.values(), ids=ACCEPTED)
def test_harmless_damage_is_accepted(tmp_path: Path, write_images: WriteImages, raw: bytes) -> None:
    write_images(tmp_path)
    (tmp_path / ("x.jpg" if raw.startswith(b"\xff") else "x.png")).write_bytes(raw)
    loaded = load(tmp_path)
    assert loaded.bad_files == []
    assert len(pixels(loaded)) == 5


def _folder(path: Path) -> None:
    path.mkdir()
    Image.fromarray(NOISE).save(path / "inside.png")


def _outside(path: Path) -> None:
    target = path.parent.parent / "outside.png"
    Image.fromarray(NOISE).save(target)
    path.symlink_to(target)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(path.parent)
        listener.bind(path.name)


IRREGULAR_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "I20-folder-named-png": (_folder, "^a folder with the name of an image file$"),
    "I20-broken-link": (lambda path: path.symlink_to("nowhere.png"), "^a broken link$"),
    "I20-link-loop": (lambda path: path.symlink_to(path.name), "^a circular link$"),
    "I20-link-out-of-the-folder": (_outside, "^a link out of the folder"),
    "I21-fifo": (os.mkfifo, "^not a regular file$"),
    "I21-socket": (_socket, "^not a regular file$"),
    "I21-device": (lambda path: path.symlink_to("/dev/zero"), "^not a regular file$"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("make", "why"), IRREGULAR_FILES.values(), ids=IRREGULAR_FILES)
def test_irregular_files_are_not_opened(
    tmp_path: Path, write_images: WriteImages, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pictures"
    write_images(folder)
    make(folder / "x.png")
    opened: list[str] = []
    original = Path.open

    def recording(path: Path, mode: str) -> object:
        opened.append(path.name)
        assert path.name != "x.png", "the irregular file was opened"  # opening a pipe would block
        return original(path, mode)

    monkeypatch.setattr(Path, "open", recording)
    loaded = load(folder)
    assert [bad.name for bad in loaded.bad_files] == ["x.png"]
    assert re.search(why, loaded.bad_files[0].reason)
    assert len(pixels(loaded)) == 4
    assert "good-000.png" in opened
    assert "x.png" not in opened


@pytest.mark.parametrize("when", [pytest.param(1, id="I22-unreadable"), pytest.param(2, id="I22-vanishes-between")])
def test_unreadable_files_are_bad(
    tmp_path: Path, write_images: WriteImages, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    write_images(tmp_path)
    Image.fromarray(NOISE).save(tmp_path / "x.png")
    times, original = [0], Path.open

    def failing(path: Path, mode: str) -> object:
        times[0] += path.name == "x.png"
        if path.name == "x.png" and times[0] == when:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, mode)

    monkeypatch.setattr(Path, "open", failing)
    loaded = load(tmp_path)
    assert loaded.bad_files == [BadFile("x.png", "unreadable: Permission denied")]
    assert len(pixels(loaded)) == 4


def test_bad_rows_are_removed(tmp_path: Path, write_images: WriteImages) -> None:
    """Files whose damage is found only during decoding leave no empty rows."""
    write_images(tmp_path, 5)
    before = pixels(load(tmp_path))
    for name in ("aaa.jpg", "good-002x.jpg", "zzz.jpg"):
        (tmp_path / name).write_bytes(encoded("JPEG")[:-300])
    loaded = load(tmp_path)
    assert [bad.name for bad in loaded.bad_files] == ["aaa.jpg", "good-002x.jpg", "zzz.jpg"]
    assert np.array_equal(pixels(loaded), before)


@pytest.mark.parametrize("n", [pytest.param(0, id="I23-none"), pytest.param(1, id="I23-one")])
def test_too_few_usable_images(tmp_path: Path, write_images: WriteImages, n: int) -> None:
    write_images(tmp_path, n)
    (tmp_path / "x.png").write_bytes(b"")
    message = "none of the images can be used" if n == 0 else "a single image is not enough"
    with pytest.raises(DataError, match=message):
        load(tmp_path, max_bad=1.0)


def test_no_warnings_are_shown(tmp_path: Path, write_images: WriteImages) -> None:
    """Such as Pillow's warnings about large images and transparent palettes, which worker threads raise."""
    write_images(tmp_path)
    (tmp_path / "x.png").write_bytes(png(10_000, 10_000))
    indexed = Image.fromarray(np.zeros((8, 8), np.uint8))
    indexed.putpalette([1, 2, 3, 4, 5, 6])
    indexed.save(tmp_path / "y.png", transparency=b"\x80\xff")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(tmp_path)
    assert caught == []


def test_only_the_listed_decoders_are_used(
    tmp_path: Path, write_images: WriteImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I19."""
    write_images(tmp_path)
    formats_used: list[object] = []
    original = Image.open

    def recording(stream: object, formats: object = None) -> Image.Image:
        formats_used.append(formats)
        return original(stream, formats=formats)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", recording)
    load(tmp_path)
    assert formats_used == [FORMATS] * 8


def test_reasons_are_one_line() -> None:
    assert describe_error(UnusableImage("just so")) == "just so"
    assert describe_error(ValueError("two\nlines \udcff")) == "damaged: two lines \\udcff"
    assert describe_error(KeyError()) == "damaged: KeyError"
