"""Decoded pictures, kept for the next time that the same files are read: for `check`, resuming and measuring.

What is kept is what decoding gave (headers, pixels, reasons), under a hash of the files' names and stamps (size, times
and inode of a file; checksum, sizes and place of an archive's entry), of the size and channels that were asked for, and
of the decoder itself. All that is said and decided about the pictures is worked out anew, so that it is the same either
way. A file whose content changed has another stamp even if somebody set its time back: the time of that can't be set.
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
from poise.data.decode import NO_MEMORY, Background, Header, Trait
from poise.data.image_array import allocate_images
from poise.data.listing import Item
from poise.errors import DiskError
from poise.utils.cache import cache_dir, cache_key, mark_used, prune
from poise.utils.files import make_folder, open_atomic
from poise.utils.images import Bytes
from poise.utils.progress import DelayedProgress

WORTH = 0.5
"""Seconds of decoding from which on its result is kept."""

RECENT = 2.0
"""A file that changed within so many seconds before it was read may change again without a later time being seen."""

MOST = 10 * 2**30
"""Bytes that all kept pictures may take; those that were not used for the longest time go first."""

SPARE = 2
"""The disk must have room for that many times the pictures, or they are not kept."""

PASSING = ("unreadable", NO_MEMORY)
"""How reasons begin that have nothing to do with the file."""

CHUNK = 2**24


@dataclass
class DecodedImages:
    """What decoding a list of files gave.

    Attributes:
        headers: for each file, in the order of names, what it says of itself, or why it can't be opened.
        images: N x S x S x C, a row for each file with a header.
        traits: for each row what was settled on the way, or why there is no picture.
    """

    headers: list[Header | str]
    images: Bytes
    traits: list[set[Trait] | str]


def key(items: Sequence[Item], size: int, channels: int | None, background: Background) -> str:
    """A name for what decoding these files gives; empty if nothing tells a file from a later state of it."""
    if not all(item.stamp for item in items):
        return ""
    try:
        version = hashlib.sha256(Path(decode.__file__).read_bytes()).hexdigest()
    except OSError:  # poise lies in an archive
        return ""
    files = hashlib.sha256(repr([(item.name, item.stamp) for item in items]).encode()).hexdigest()
    return cache_key(version, PIL.__version__, np.__version__, files, size, channels, background)


def load(key: str, budget: int) -> DecodedImages | None:
    """What was kept under `key`, or None; a damaged file is as good as none.

    Args:
        key: see there.
        budget: bytes that may be held in memory; see `room`.
    """
    path = _path(key)
    try:
        with path.open("rb") as file:
            line = file.readline()
            told = json.loads(line)
            size = len(line) + math.prod(told["shape"]) + hashlib.sha256().digest_size
            if size != os.fstat(file.fileno()).st_size:
                return None  # before room is made for it
            images = allocate_images(tuple(told["shape"]), budget)
            if _filled(file, images, line) != file.read():
                return None
            headers = [Header(*one) if isinstance(one, list) else str(one) for one in told["headers"]]
            traits = [set(map(Trait, one)) if isinstance(one, list) else str(one) for one in told["traits"]]
    except Exception:  # whatever a damaged file makes of it
        return None
    mark_used(path)
    return DecodedImages(headers, images, traits)


def keep(key: str, items: Sequence[Item], decoded: DecodedImages, seconds: float, listed: float) -> None:
    """Keep what took so many seconds to decode, if it is worth it and a change is sure to be seen.

    A disk that refuses, or has little room left, is no error.

    Args:
        key: see there.
        items: the files.
        decoded: what they gave. Reasons that may pass (the disk, a permission, the memory) are not kept.
        seconds: how long that took.
        listed: when the files' stamps were taken. What changed just before that may have changed again after it, while
            it was being decoded, without getting another stamp.
    """
    newest = max((item.changed for item in items), default=0) / 1e9
    reasons = [one for one in (*decoded.headers, *decoded.traits) if isinstance(one, str)]
    passing = any(reason.startswith(PASSING) for reason in reasons)
    needed = decoded.images.nbytes
    if not key or passing or seconds < WORTH or needed > MOST or listed - newest < RECENT:
        return
    told: dict[str, Any] = {
        "shape": decoded.images.shape,
        "headers": [one if isinstance(one, str) else list(one) for one in decoded.headers],
        "traits": [one if isinstance(one, str) else sorted(one) for one in decoded.traits],
    }
    line = json.dumps(told).encode() + b"\n"
    digest = hashlib.sha256(line)
    with suppress(OSError, DiskError):
        make_folder(_path(key).parent)
        prune(_path(key).parent, MOST - needed)
        if shutil.disk_usage(_path(key).parent).free < SPARE * needed:
            return
        with open_atomic(_path(key)) as stream:
            stream.write(line)
            for part in _parts(decoded.images):
                stream.write(part)
                digest.update(part)
            stream.write(digest.digest())


def _path(key: str) -> Path:
    return cache_dir() / "pictures" / f"{key}.pixels"


def _parts(images: Bytes) -> Iterator[memoryview]:
    flat = images.reshape(-1).data
    for start in range(0, len(flat), CHUNK):
        yield flat[start : start + CHUNK]


def _filled(file: IO[bytes], images: Bytes, line: bytes) -> bytes:
    """Fill an array from a file; the checksum of the line before it and of all that was read."""
    digest = hashlib.sha256(line)
    with DelayedProgress() as slow:
        slow.phase("reading {:,} of {:,} MiB that were decoded before", images.nbytes >> 20)
        for part in _parts(images):
            if file.readinto(part) != len(part):  # type: ignore[attr-defined]
                raise ValueError("cut")
            digest.update(part)
            slow.step(len(part) >> 20)
    return digest.digest()
