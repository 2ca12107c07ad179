"""Helpers that write test images, among them files that Pillow cannot write, and load them."""

from __future__ import annotations

import io
import re
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from poise.data.folder import FolderConfig
from poise.data.source import DataSplits, ImageDataset

WriteImages = Callable[..., None]


def chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG of the given size with black pixels (a few rows at most), with chunks between header and pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    rows = b"\0" * ((width * depth // 8 + 1) * min(height, 8))
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def tiff(width: int, height: int, pixels: bytes, bits: int, photometric: int) -> bytes:
    """A little-endian grey TIFF of one uncompressed strip."""
    tags = [
        (256, width),
        (257, height),
        (258, bits),
        (259, 1),
        (262, photometric),
        (273, 8),
        (277, 1),
        (278, height),
        (279, len(pixels)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    table = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return struct.pack("<2sHI", b"II", 42, 8 + len(pixels)) + pixels + table


def _s15(values: Iterable[float]) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def profile(
    space: bytes, gamma: float, primaries: Iterable[Iterable[float]] = (), called: bytes = b"a test profile"
) -> bytes:
    """An ICC version 2 profile: grey with a gamma, or RGB with a gamma and three D50 primaries."""
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + b"\0\0"
    name = called + b"\0"
    title = b"desc" + struct.pack(">II", 0, len(name)) + name + b"\0" * (78 + (-len(name) - 90) % 4)
    tags = [
        (b"desc", title),
        (b"cprt", b"text\0\0\0\0none\0\0\0\0"),
        (b"wtpt", b"XYZ \0\0\0\0" + _s15((0.9642, 1, 0.8249))),
    ]
    if space == b"GRAY":
        tags.append((b"kTRC", curve))
    else:
        tags += [(letter + b"TRC", curve) for letter in (b"r", b"g", b"b")]
        tags += [
            (c + b"XYZ", b"XYZ \0\0\0\0" + _s15(xyz)) for c, xyz in zip((b"r", b"g", b"b"), primaries, strict=True)
        ]
    at, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for tag, data in tags:
        table += struct.pack(">4sII", tag, at + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"\0\0\0\0", 0x02400000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H4s", 2020, 1, 1, 0, 0, 0, b"acsp") + b"\0" * 28 + _s15((0.9642, 1, 0.8249))
    return head.ljust(128, b"\0") + table + body


NOISE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    """A tar archive of the files, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def noise_png(seed: int, side: int = 8) -> bytes:
    """A PNG of random colours."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def load(folder: Path | str, **fields: object) -> DataSplits:
    return FolderConfig(path=str(folder), **{"size": 8, "held_out": 0.0, **fields}).load()  # type: ignore[arg-type]


def train_and_held_out(loaded: DataSplits) -> tuple[ImageDataset, ImageDataset]:
    assert isinstance(loaded.train, ImageDataset)
    assert isinstance(loaded.held_out, ImageDataset)
    assert loaded.train.classes == loaded.held_out.classes
    return loaded.train, loaded.held_out


def pixels(loaded: DataSplits) -> np.ndarray:
    assert isinstance(loaded.train, ImageDataset)
    return loaded.train.images


def encoded(kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(NOISE).save(out, kind, **options)
    return out.getvalue()


def has_note(loaded: DataSplits, pattern: str) -> bool:
    return any(re.search(pattern, note) for note in loaded.notes)
