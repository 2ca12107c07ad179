"""Writing: everything that poise leaves on a disk is written here, in one of two ways.

A whole file (or folder of files) is put beside its place under a temporary name, synced, and renamed: whoever looks
finds the old one or the new one, never half of either. A line is appended whole. What a killed process left behind is
known by its name, `.tmp-HOST-PROCESS-NAME`, and removed at the next start.

All calls to the operating system that change anything go through `system`: the fault rig fails or kills any of them.
"""

from __future__ import annotations

import errno
import io
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from poise.utils.system import BINARY, CLOSED, disk_errors, retry_interrupted, system
from poise.utils.temporary import remove, remove_leftovers, temporary_name


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file, or leave the old one as it was.

    Raises:
        DiskError: the disk refused.
    """
    with open_atomic(path) as stream:
        stream.write(data)


def write_text(path: Path, text: str) -> None:
    """The same for text, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """The same for a value as JSON, which knows only finite numbers."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


@contextmanager
def open_atomic(path: Path) -> Iterator[io.BufferedWriter]:
    """A stream whose content becomes the file once the block ends without an error.

    What is no regular file (a pipe, a device) is written to directly.

    Raises:
        DiskError: the disk refused; the old file stays.
    """
    with disk_errors(path):
        place = path.resolve() if path.is_symlink() else path
        if place.exists() and not place.is_file():
            with _stream(place, os.O_WRONLY, durable=False) as stream:
                yield stream
            return
        remove_leftovers(place.parent, place.name)
        temporary = place.with_name(temporary_name(place.name))
        try:
            with _stream(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as stream:
                yield stream
            retry_interrupted(lambda: system.replace(temporary, place))
        except BaseException:
            with suppress(OSError):
                system.unlink(temporary)
            raise
        sync_folder(place.parent)


class _Raw(io.RawIOBase):
    """A file that is written through `system`. It has no `fileno`, by which a library could write past that."""

    def __init__(self, path: Path, flags: int) -> None:
        super().__init__()
        self.handle = retry_interrupted(lambda: system.open(path, flags))

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return stat.S_ISREG(os.fstat(self.handle).st_mode)

    def seek(self, offset: int, whence: int = 0) -> int:
        return os.lseek(self.handle, offset, whence)

    def write(self, data: Any) -> int:
        return retry_interrupted(lambda: system.write(self.handle, data))

    def truncate(self, size: int | None = None) -> int:
        size = self.tell() if size is None else size
        retry_interrupted(lambda: system.truncate(self.handle, size))
        return size

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self.handle)


@contextmanager
def _stream(path: Path, flags: int, *, durable: bool = True) -> Iterator[io.BufferedWriter]:
    """An open file, synced at the end if it is to be durable."""
    raw = _Raw(path, flags)
    stream: io.BufferedWriter = io.BufferedWriter(raw, 1 << 20)
    try:
        yield stream
        stream.flush()
        if durable:
            retry_interrupted(lambda: system.fsync(raw.handle))
    finally:
        with suppress(OSError):  # it has been flushed, or it was said that it can't be
            stream.close()


def write_folder(place: Path, contents: Mapping[str, bytes]) -> None:
    """Write a folder of files in one go, in place of one that may be there.

    Raises:
        OSError: the disk refused; no half of it is left at its place.
    """
    make_folder(place.parent)
    remove_leftovers(place.parent, place.name)
    temporary = place.with_name(temporary_name(place.name))
    if temporary.exists():
        remove(temporary)
    try:
        retry_interrupted(lambda: system.mkdir(temporary))
        for name, data in contents.items():
            with _stream(temporary / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as stream:
                stream.write(data)
        sync_folder(temporary)
        if place.exists():
            remove_folder(place)
        retry_interrupted(lambda: system.rename(temporary, place))
        sync_folder(place.parent)
    finally:
        if temporary.exists():
            with suppress(OSError):
                remove(temporary)


def make_folder(path: Path) -> None:
    """Make a folder, with those above it.

    Raises:
        OSError: the disk refused.
    """
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    if not path.exists():
        make_folder(path.parent)
        retry_interrupted(lambda: system.mkdir(path))


def remove_folder(place: Path) -> None:
    """Let go of a folder: it is renamed first, so that nobody finds half of it.

    Raises:
        OSError: the disk refused.
    """
    doomed = place.with_name(temporary_name(f"{place.name}.old"))
    if doomed.exists():
        remove(doomed)
    retry_interrupted(lambda: system.rename(place, doomed))
    remove(doomed)


def remove_file(path: Path) -> None:
    """Let go of a file.

    Raises:
        OSError: the disk refused.
    """
    retry_interrupted(lambda: system.unlink(path))


def append_line(path: Path, value: Any) -> None:
    """Add a line of JSON, whole or not at all; a line that a killed process left half written is mended first.

    Raises:
        DiskError: the disk refused.
    """
    _append(path, json.dumps(value, allow_nan=False).encode() + b"\n", _mended)


def append_bytes(path: Path, data: bytes) -> None:
    """Add bytes, all of them or none.

    Raises:
        DiskError: the disk refused.
    """
    _append(path, data, lambda handle: os.fstat(handle).st_size)


def _append(path: Path, data: bytes, end_of: Callable[[int], int]) -> None:
    """Add `data` where `end_of` says that an open file ends; if that fails, cut it there."""
    with disk_errors(path):
        handle = retry_interrupted(lambda: system.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND))
        try:
            end = end_of(handle)
            try:
                left = memoryview(data)
                while left:
                    taken = retry_interrupted(lambda part=left: system.write(handle, part))  # type: ignore[misc]
                    left = left[taken:]
            except BaseException:
                with suppress(OSError):
                    system.truncate(handle, end)
                raise
        finally:
            os.close(handle)


def _mended(handle: int) -> int:
    """The size of a file of lines whose last one is whole: half a line is cut off, only a missing line end is added."""
    size = os.fstat(handle).st_size
    if size == 0:
        return 0
    os.lseek(handle, size - 1, os.SEEK_SET)
    if os.read(handle, 1) == b"\n":
        return size
    os.lseek(handle, 0, os.SEEK_SET)
    with io.FileIO(handle, "r", closefd=False) as file:
        whole = file.readall()
    start = whole.rfind(b"\n") + 1
    try:
        json.loads(whole[start:])
    except ValueError:
        retry_interrupted(lambda: system.truncate(handle, start))
        return start
    retry_interrupted(lambda: system.write(handle, b"\n"))
    return size + 1


def sync_file(path: Path) -> None:
    """Make durable what was appended to a file, if it is there.

    Raises:
        OSError: the disk refused.
    """
    if path.is_file():
        handle = os.open(path, os.O_RDWR | BINARY)
        try:
            retry_interrupted(lambda: system.fsync(handle))
        finally:
            os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable, on file systems that know how to.

    Raises:
        OSError: the disk refused.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno not in CLOSED:
            raise
        return
    try:
        retry_interrupted(lambda: system.fsync(handle))
    except OSError as error:
        if error.errno not in CLOSED:
            raise
    finally:
        os.close(handle)
