"""Opening files of the runs directory: never outside of it, never through a link, and only regular files.

Run folders may contain what somebody else has put there. So each folder of a path is opened relative to the one above
it, and neither a folder nor a file may be a symbolic link; nothing can be exchanged for a link in between.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from poise.utils.paths import is_plain

NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
FOLDER = os.O_RDONLY | NO_LINK | getattr(os, "O_DIRECTORY", 0)
FILE = os.O_RDONLY | NO_LINK | getattr(os, "O_NONBLOCK", 0)  # a pipe without a writer would block


def open_below(root: Path, *parts: str) -> BinaryIO:
    """Open a regular file below `root` for reading.

    Args:
        root: the runs directory, which may itself be a link.
        parts: the names of the folders below it and of the file.

    Raises:
        OSError: there is no such file, it can't be read, or a part is a link or not a plain name.
    """
    for part in parts:
        if not _is_name(part):
            raise FileNotFoundError(f"{part!a} is not the name of a file")
    handle = _open_relative(root, parts) if os.open in os.supports_dir_fd else _open_path(root, parts)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileNotFoundError(f"{parts[-1]} is not a regular file")
    return open(handle, "rb")  # noqa: PTH123


def _is_name(part: str) -> bool:
    """Whether a part is a plain name. A backslash may be in one, except on Windows, where it separates names."""
    return is_plain(part if os.name == "nt" else part.replace("\\", "_"))


def read_below(root: Path, *parts: str, limit: int) -> bytes:
    """The contents of a regular file below `root`; see `open_below`.

    Raises:
        OSError: it can't be opened or has more than `limit` bytes.
    """
    with open_below(root, *parts) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise OSError(f"{parts[-1]} has more than {limit:,} bytes")
    return content


def is_link(path: Path) -> bool:
    """Whether there is a symbolic link at `path`, or something else that is neither a file nor a folder."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _open_relative(root: Path, parts: Sequence[str]) -> int:
    folder = os.open(root, os.O_RDONLY)
    try:
        for part in parts[:-1]:
            below = os.open(part, FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
        return os.open(parts[-1], FILE, dir_fd=folder)
    finally:
        os.close(folder)


def _open_path(root: Path, parts: Sequence[str]) -> int:
    """The same on Windows, which can't open relative to a folder: each part is looked at before the file is opened."""
    path = root
    for part in parts:
        path = path / part
        if is_link(path):
            raise FileNotFoundError(f"{part} is a link")
    return os.open(path, FILE)
