"""A cache of decoded images, so that the same files are not decoded again by `check`, resumed runs and evaluation.

It holds the result of decoding (headers, pixels, reasons). The key is a hash of the files' names and stamps (size,
times and inode of a file; checksum, sizes and offset of an archive's entry), of the requested format, and of the
decoder itself. Notes and warnings are computed anew each time, so that they are the same with and without the
cache. A file whose content changed has another stamp even if its modification time was set back, because the change
time cannot be set.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL

from poise.data import decode
from poise.data.decode import NO_MEMORY, Background, Fit, Header, Trait
from poise.data.image_array import allocate_images
from poise.data.listing import Item
from poise.errors import DiskError
from poise.utils.cache import cache_dir, cache_key, mark_used, prune
from poise.utils.files import make_folder, open_atomic
from poise.utils.images import Bytes
from poise.utils.progress import DelayedProgress

MIN_SECONDS = 0.5
"""The shortest decoding time, in seconds, whose result is cached."""

MIN_AGE = 2.0
"""A file that changed within this many seconds before it was listed may change again without a new change time."""

MAX_BYTES = 10 * 2**30
"""The largest size of all cached images, in bytes; the least recently used are deleted first."""

MIN_FREE_FACTOR = 2
"""Images are cached only if the free disk space is at least this many times their size."""

TRANSIENT = ("unreadable", NO_MEMORY)
"""Prefixes of reasons that may disappear without a change to the file."""

CHUNK = 2**24


@dataclass
class DecodedImages:
    """The result of decoding a list of files.

    Attributes:
        headers: for each file, in the order of names, its header, or the reason why it can't be opened.
        images: N x H x W x C, one row for each file with a header.
        traits: for each row, the traits of the image, or the reason why it can't be decoded.
    """

    headers: list[Header | str]
    images: Bytes
    traits: list[set[Trait] | str]

    @property
    def rows(self) -> list[int | str]:
        """For each file the row of its image, or the reason why it can't be used."""
        row, rows = -1, list[int | str]()
        for header in self.headers:
            row += isinstance(header, Header)
            found = header if isinstance(header, str) else self.traits[row]
            rows.append(found if isinstance(found, str) else row)
        return rows


def key(
    items: Sequence[Item],
    size: tuple[int, int],
    channels: int | None,
    background: Background,
    fit: Fit,
    *,
    halves: tuple[int | None, int | None] | None = None,
) -> str:
    """The cache key for decoding these files; empty if a file's version cannot be identified."""
    if not all(item.stamp for item in items):
        return ""
    try:
        version = hashlib.sha256(Path(decode.__file__).read_bytes()).hexdigest()
    except OSError:  # poise is imported from an archive
        return ""
    files = hashlib.sha256(repr([(item.name, item.stamp) for item in items]).encode()).hexdigest()
    options = (size, channels, background, fit, *(() if halves is None else (halves,)))
    return cache_key(version, PIL.__version__, np.__version__, files, *options)


def load(key: str, budget: int) -> DecodedImages | None:
    """The result that is cached under `key`; None if there is none or it is damaged.

    Args:
        key: see `key`.
        budget: the largest number of bytes in memory; see `allocate_images`.
    """
    path = _path(key)
    try:
        with path.open("rb") as file:
            line = file.readline()
            header = json.loads(line)
            size = len(line) + math.prod(header["shape"]) + hashlib.sha256().digest_size
            if size != os.fstat(file.fileno()).st_size:
                return None  # before memory is allocated for it
            images = allocate_images(tuple(header["shape"]), budget)
            if _read_into(file, images, line) != file.read():
                return None
            headers = [Header(*one) if isinstance(one, list) else str(one) for one in header["headers"]]
            traits = [set(map(Trait, one)) if isinstance(one, list) else str(one) for one in header["traits"]]
    except Exception:  # a damaged file can raise anything
        return None
    mark_used(path)
    return DecodedImages(headers, images, traits)


def store(key: str, items: Sequence[Item], decoded: DecodedImages, seconds: float, listed_at: float) -> None:
    """Cache a result, if it took long enough and later changes to the files are certain to be detected.

    Write errors and a lack of disk space are ignored.

    Args:
        key: see `key`.
        items: the files.
        decoded: their decoding result. It is not cached if a reason may be transient (disk, permission, memory).
        seconds: the time that decoding took.
        listed_at: when the stamps of the files were taken. A file that changed shortly before may have changed again
            while it was decoded, without getting a new stamp.
    """
    newest = max((item.changed for item in items), default=0) / 1e9
    reasons = [one for one in (*decoded.headers, *decoded.traits) if isinstance(one, str)]
    transient = any(reason.startswith(TRANSIENT) for reason in reasons)
    needed = decoded.images.nbytes
    if not key or transient or seconds < MIN_SECONDS or needed > MAX_BYTES or listed_at - newest < MIN_AGE:
        return
    header: dict[str, Any] = {
        "shape": decoded.images.shape,
        "headers": [one if isinstance(one, str) else list(one) for one in decoded.headers],
        "traits": [one if isinstance(one, str) else sorted(one) for one in decoded.traits],
    }
    line = json.dumps(header).encode() + b"\n"
    digest = hashlib.sha256(line)
    with suppress(OSError, DiskError):
        make_folder(_path(key).parent)
        prune(_path(key).parent, MAX_BYTES - needed)
        if shutil.disk_usage(_path(key).parent).free < MIN_FREE_FACTOR * needed:
            return
        with open_atomic(_path(key)) as stream:
            stream.write(line)
            for chunk in _chunks(decoded.images):
                stream.write(chunk)
                digest.update(chunk)
            stream.write(digest.digest())


def _path(key: str) -> Path:
    return cache_dir() / "pictures" / f"{key}.pixels"


def _chunks(images: Bytes) -> Iterator[memoryview]:
    flat = images.reshape(-1).data
    for start in range(0, len(flat), CHUNK):
        yield flat[start : start + CHUNK]


def _read_into(file: IO[bytes], images: Bytes, line: bytes) -> bytes:
    """Fill an array from a file; returns the checksum of the header line and of the pixels."""
    digest = hashlib.sha256(line)
    with DelayedProgress() as progress:
        progress.phase("reading {:,} of {:,} MiB of cached images", images.nbytes >> 20)
        for chunk in _chunks(images):
            if file.readinto(chunk) != len(chunk):  # type: ignore[attr-defined]
                raise ValueError("the file is truncated")
            digest.update(chunk)
            progress.step(len(chunk) >> 20)
    return digest.digest()
