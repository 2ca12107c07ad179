"""The files in a folder or an archive, classified by name: image files, and files that are skipped."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, NamedTuple

from poise.data.decode import SUFFIXES
from poise.data.source import BadFile

HIDDEN = "hidden"
LINK_OUT = "a link out of the folder (data.follow_links)"
WITHOUT_SUFFIX = "without suffix"
LABEL_FILE = "dataset.json"
REPLACED = "replaced by a later one of the same name"
"""Why an entry of an archive is ignored that would be lost if the archive were unpacked."""

SYSTEM_FILES = ("thumbs.db", "desktop.ini", "__macosx")

GRAPHICS = (".svg", ".psd", ".xcf", ".ai", ".pdf", ".eps", ".ps", ".ico", ".tga", ".ppm", ".pgm", ".pnm")
PHOTOS = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf")
SCIENTIFIC = (".fits", ".fit", ".dcm", ".exr", ".hdr")
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv")
UNSUPPORTED = frozenset(GRAPHICS + PHOTOS + SCIENTIFIC + VIDEOS)
"""Image and video formats that are never decoded."""

HAS_CHANGE_TIME = os.name == "posix"
"""Whether the system tells when a file changed. Windows tells when it was created instead."""

DAY = 86_400 * 10**9
"""In nanoseconds: a time that is farther in the future was set, and is not due to clocks that differ."""

MAX_LISTED = 12
"""The largest number of suffixes that a message lists."""


class Item(NamedTuple):
    """An image file, before it is opened.

    Attributes:
        name: its path relative to the root, separated by "/".
        open: opens the file; each call returns a new stream from the start.
        stamp: identifies this version of the file without opening it; empty if that is not possible.
        changed: when its content last changed, in nanoseconds since 1970; for an archive's entry, when the archive did.
    """

    name: str
    open: Callable[[], IO[bytes]]
    stamp: tuple[int, ...] = ()
    changed: int = 0


def stamp_of(status: os.stat_result) -> tuple[int, ...]:
    """A tuple that identifies a version of a file. Unlike the modification time, the change time cannot be set back."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def changed_at(status: os.stat_result) -> int:
    """When a file last changed, in nanoseconds since 1970.

    Without a change time, it is the time of its modification or of its creation. One in the future says nothing.
    """
    if HAS_CHANGE_TIME:
        return status.st_ctime_ns
    latest = time.time_ns() + DAY
    return max((at for at in (status.st_mtime_ns, status.st_ctime_ns) if at <= latest), default=0)


@dataclass
class Listing:
    """The files of a folder or an archive, before any image is opened.

    Attributes:
        items: the image files.
        label_files: the files called `dataset.json`.
        folders: all folders that are not hidden, with or without images.
        bad_files: files that look like images and cannot be used, and folders that cannot be read.
        ignored: the number of other files, by suffix.
        num_runs: the number of poise's run folders, which are skipped because their images are generated.
        labels: the label of each image by its name, for shards; None if they define no classes.
        class_order: the labels in the order of the classes, if it is known.
        listed_at: when the listing began, in seconds since 1970.
    """

    items: list[Item] = field(default_factory=list)
    label_files: list[Item] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    bad_files: list[BadFile] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    num_runs: int = 0
    labels: dict[str, str] | None = None
    class_order: Sequence[str] = ()
    listed_at: float = field(default_factory=time.time)

    @property
    def ignored_summary(self) -> str:
        """The ignored files by suffix, "3 .txt, 1 hidden", and which of them could be used after conversion."""
        suffixes = sorted(self.ignored.items(), key=lambda pair: (-pair[1], pair[0]))
        text = ", ".join(f"{n:,} {display_name(suffix)}" for suffix, n in suffixes[:MAX_LISTED])
        text += f" and {len(suffixes) - MAX_LISTED} other types" if len(suffixes) > MAX_LISTED else ""
        unsupported = ", ".join(sorted(suffix for suffix in self.ignored if suffix in UNSUPPORTED))
        return text + (f" (convert {unsupported} to PNG to use them)" if unsupported else "")


def is_run(names: Collection[str]) -> bool:
    """Whether a folder that contains these names was written by `poise train`."""
    return "run.json" in names and "recipe.toml" in names


def display_name(name: str) -> str:
    """A name for one line of UTF-8 or CSV. Unusual names are quoted and escaped; different names stay different."""
    unusual = not name.isprintable() or any(char in name for char in "\\'\"")
    return repr(name) if unusual else name


def ignored_reason(name: str) -> str | None:
    """Why a file of this name is ignored: "hidden", or its suffix. None for an image file."""
    if name.startswith(".") or name.lower() in SYSTEM_FILES:
        return HIDDEN
    suffix = PurePosixPath(name).suffix.lower()
    return None if suffix in SUFFIXES else suffix or WITHOUT_SUFFIX


def sort_key(name: str) -> bytes:
    """The key by which names are sorted: their bytes, independent of locale and file system."""
    return name.encode("utf-8", "surrogateescape")
