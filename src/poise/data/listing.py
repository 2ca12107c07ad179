"""What a folder or an archive holds, told by names alone: picture files, and what is passed over."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, NamedTuple

from poise.data.decode import SUFFIXES
from poise.data.source import BadFile

HIDDEN = "hidden"
TABLE = "dataset.json"
SYSTEM = ("thumbs.db", "desktop.ini", "__macosx")

DRAWN = (".svg", ".psd", ".xcf", ".ai", ".pdf", ".eps", ".ps", ".ico", ".tga", ".ppm", ".pgm", ".pnm")
TAKEN = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf")
MEASURED = (".fits", ".fit", ".dcm", ".exr", ".hdr")
FILMED = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")
FOREIGN = frozenset(DRAWN + TAKEN + MEASURED + FILMED)
"""Pictures and films whose decoders never run."""

MOST = 12


class Item(NamedTuple):
    """A picture file that is worth opening.

    Attributes:
        name: where it is below the root, with "/" between the parts.
        open: gives its bytes as a stream, from the start, each time.
        stamp: what tells this state of the file from any other without opening it; empty if nothing does.
        changed: when its content changed last, in nanoseconds; of an entry, when its archive did.
    """

    name: str
    open: Callable[[], IO[bytes]]
    stamp: tuple[int, ...] = ()
    changed: int = 0


def stamp_of(status: os.stat_result) -> tuple[int, ...]:
    """What tells this state of a file from any other: the time of a change can't be set back, as the other one can."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@dataclass
class Listing:
    """What there is before any picture is opened; `ignored` counts by suffix.

    `folders` are all that are not hidden, with or without pictures; `tables` are files called `dataset.json`; `runs`
    counts run folders, whose pictures are G's own; `listed` is when the listing began, in seconds since 1970.
    """

    items: list[Item] = field(default_factory=list)
    tables: list[Item] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    bad_files: list[BadFile] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    listed: float = field(default_factory=time.time)

    @property
    def describe_ignored(self) -> str:
        """The ignored files by suffix, "3 .txt, 1 hidden", and which of them could be used if converted."""
        sorts = sorted(self.ignored.items(), key=lambda pair: (-pair[1], pair[0]))
        told = ", ".join(f"{n:,} {display_name(kind)}" for kind, n in sorts[:MOST])
        told += f" and {len(sorts) - MOST} other sorts" if len(sorts) > MOST else ""
        foreign = ", ".join(sorted(kind for kind in self.ignored if kind in FOREIGN))
        return told + (f" (convert {foreign} to PNG to use them)" if foreign else "")


def is_run(names: Collection[str]) -> bool:
    """Whether a folder with these names in it is one that `poise train` wrote."""
    return "run.json" in names and "recipe.toml" in names


def display_name(name: str) -> str:
    """A name on one line, fit for UTF-8 and CSV: odd ones are quoted and escaped, and no two look alike."""
    odd = not name.isprintable() or any(sign in name for sign in "\\'\"")
    return repr(name) if odd else name


def ignored_reason(name: str) -> str | None:
    """What a file of this name is counted as when passed over: "hidden" or its suffix. None for a picture."""
    if name.startswith(".") or name.lower() in SYSTEM:
        return HIDDEN
    suffix = PurePosixPath(name).suffix.lower()
    return None if suffix in SUFFIXES else suffix or "without suffix"


def sort_key(name: str) -> bytes:
    """The key that names are sorted by: their bytes, whatever the locale and the file system say."""
    return name.encode("utf-8", "surrogateescape")
