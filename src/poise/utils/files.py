"""Writing files: everything that poise leaves on a disk is written atomically by these functions.

A file, or a folder of files, is written under a temporary name beside its destination, synced and renamed, so that a
reader sees either the old version or the new one. A line is appended completely or not at all. Only a file whose parts
have checksums is overwritten in place. The leftovers of a killed process are recognised by their names,
`.tmp-HOST-PROCESS-NAME`, and removed at the next start.

All system calls that change anything go through `system`, so that tests can make any of them fail.
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

from poise.utils.paths import refuse_url
from poise.utils.system import BINARY, FOLDER_UNSUPPORTED, disk_errors, retry_interrupted, system
from poise.utils.temporary import remove, remove_leftovers, temporary_name


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: if this fails, the old version stays.

    Raises:
        DiskError: it can't be written.
    """
    with open_atomic(path) as stream:
        stream.write(data)


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, as `write_bytes` does. Its numbers must be finite."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


@contextmanager
def open_atomic(path: Path) -> Iterator[io.BufferedWriter]:
    """A stream whose content becomes the file when the block ends without an error.

    Pipes and devices are written to directly.

    Raises:
        DiskError: the file can't be written; the old version stays.
    """
    with disk_errors(path):
        target = path.resolve() if path.is_symlink() else path
        if target.exists() and not target.is_file():
            with synced_stream(target, os.O_WRONLY, durable=False) as stream:
                yield stream
            return
        remove_leftovers(target.parent, target.name)
        temporary = target.with_name(temporary_name(target.name))
        try:
            with synced_stream(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as stream:
                yield stream
            retry_interrupted(lambda: system.replace(temporary, target))
        except BaseException:
            with suppress(OSError):
                system.unlink(temporary)
            raise
        sync_folder(target.parent)


class _Raw(io.RawIOBase):
    """A file that is written through `system`. It has no `fileno`, with which a library could bypass that."""

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
def synced_stream(path: Path, flags: int, *, durable: bool = True) -> Iterator[io.BufferedWriter]:
    """A new or existing file, opened for writing with `flags` of `os.open`; synced at the end if `durable`."""
    raw = _Raw(path, flags)
    stream: io.BufferedWriter = io.BufferedWriter(raw, 1 << 20)
    try:
        yield stream
        stream.flush()
        if durable:
            retry_interrupted(lambda: system.fsync(raw.handle))
    finally:
        with suppress(OSError):  # it has been flushed, or flushing has raised already
            stream.close()


def write_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write a folder of files, which appears at once and complete, replacing a folder of this name.

    A folder can't be replaced in a single operation: one that is there is renamed, and deleted when the new one is in
    its place. If the process is killed between the two, the old folder is left beside it under a temporary name.

    Args:
        path: the folder.
        contents: the content of each file by its name.

    Raises:
        OSError: the folder can't be written; what was at `path` before is still there.
    """
    make_folder(path.parent)
    remove_leftovers(path.parent, path.name)
    temporary = path.with_name(temporary_name(path.name))
    if temporary.exists():
        remove(temporary)
    try:
        retry_interrupted(lambda: system.mkdir(temporary))
        for name, data in contents.items():
            with synced_stream(temporary / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as stream:
                stream.write(data)
        sync_folder(temporary)
        _replace_folder(path, temporary)
    finally:
        if temporary.exists():
            with suppress(OSError):
                remove(temporary)


def _replace_folder(path: Path, new: Path) -> None:
    """Rename the folder `new` to `path`, and delete the one that was there."""
    old = path.with_name(temporary_name(f"{path.name}.old")) if path.exists() else None
    if old is not None:
        if old.exists():
            remove(old)
        retry_interrupted(lambda: system.rename(path, old))
    try:
        retry_interrupted(lambda: system.rename(new, path))
    except BaseException:
        if old is not None:
            retry_interrupted(lambda: system.rename(old, path))
        raise
    sync_folder(path.parent)
    if old is not None:
        remove(old)


def make_folder(path: Path) -> None:
    """Create a folder and its parents.

    Raises:
        OSError: it can't be created.
        RecipeError: it is the URL of an object store.
    """
    refuse_url(path, str(path))
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    if not path.exists():
        make_folder(path.parent)
        retry_interrupted(lambda: system.mkdir(path))


def remove_folder(path: Path) -> None:
    """Delete a folder with its contents. It is renamed first, so that no reader sees a part of it.

    Raises:
        OSError: it can't be deleted.
    """
    doomed = path.with_name(temporary_name(f"{path.name}.old"))
    if doomed.exists():
        remove(doomed)
    retry_interrupted(lambda: system.rename(path, doomed))
    remove(doomed)


def remove_file(path: Path) -> None:
    """Delete a file.

    Raises:
        OSError: it can't be deleted.
    """
    retry_interrupted(lambda: system.unlink(path))


def create_reserved(path: Path, size: int) -> None:
    """Create a file of `size` bytes that is to be mapped into memory; see `reserve`.

    Raises:
        OSError: it can't be created, or the disk has too little space, in which case there is no file.
    """
    handle = retry_interrupted(lambda: system.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC))
    try:
        reserve(handle, size)
    except BaseException:
        with suppress(OSError):
            system.unlink(path)
        raise
    finally:
        os.close(handle)


def reserve(handle: int, size: int) -> None:
    """Reserve all blocks of an open file, so that a full disk raises here, and not kills the process at a write.

    Raises:
        OSError: the disk has too little space.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        retry_interrupted(lambda: system.truncate(handle, size))


def append_line(path: Path, value: Any) -> None:
    """Append a line of JSON atomically, after repairing an incomplete last line that a killed process has left.

    Raises:
        DiskError: the file can't be written.
    """
    _append(path, json.dumps(value, allow_nan=False).encode() + b"\n", _repaired_size)


def append_bytes(path: Path, data: bytes) -> None:
    """Append bytes atomically.

    Raises:
        DiskError: the file can't be written.
    """
    _append(path, data, lambda handle: os.fstat(handle).st_size)


def overwrite(path: Path, parts: Mapping[int, bytes]) -> None:
    """Overwrite parts of an existing file, which grows if they exceed its end.

    This is not atomic. It is for files whose parts have checksums, so that a reader skips one that is written in part.

    Args:
        path: the file.
        parts: the new content at each offset, in bytes.

    Raises:
        DiskError: the file can't be written; any of the parts may have been.
    """
    with disk_errors(path), synced_stream(path, os.O_WRONLY, durable=False) as stream:
        for offset, data in parts.items():
            stream.seek(offset)
            stream.write(data)


def _append(path: Path, data: bytes, end_of: Callable[[int], int]) -> None:
    """Append `data` to a file whose valid end is given by `end_of`; if this fails, truncate the file to that end."""
    with disk_errors(path):
        handle = retry_interrupted(lambda: system.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND))
        try:
            end = end_of(handle)
            try:
                remaining = memoryview(data)
                while remaining:
                    written = retry_interrupted(lambda part=remaining: system.write(handle, part))  # type: ignore[misc]
                    remaining = remaining[written:]
            except BaseException:
                with suppress(OSError):
                    system.truncate(handle, end)
                raise
        finally:
            os.close(handle)


def _repaired_size(handle: int) -> int:
    """The size of a file of JSON lines after its end is repaired.

    An incomplete last line is cut off; a complete one that only lacks its newline gets it.
    """
    size = os.fstat(handle).st_size
    if size == 0:
        return 0
    os.lseek(handle, size - 1, os.SEEK_SET)
    if os.read(handle, 1) == b"\n":
        return size
    os.lseek(handle, 0, os.SEEK_SET)
    with io.FileIO(handle, "r", closefd=False) as file:
        content = file.readall()
    start = content.rfind(b"\n") + 1
    try:
        json.loads(content[start:])
    except ValueError:
        retry_interrupted(lambda: system.truncate(handle, start))
        return start
    retry_interrupted(lambda: system.write(handle, b"\n"))
    return size + 1


def sync_file(path: Path) -> None:
    """Flush a file to the disk, if it exists.

    Raises:
        OSError: it can't be flushed.
    """
    if path.is_file():
        handle = os.open(path, os.O_RDWR | BINARY)
        try:
            retry_interrupted(lambda: system.fsync(handle))
        finally:
            os.close(handle)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, if the file system supports that.

    Raises:
        OSError: they can't be flushed.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno not in FOLDER_UNSUPPORTED:
            raise
        return
    try:
        retry_interrupted(lambda: system.fsync(handle))
    except OSError as error:
        if error.errno not in FOLDER_UNSUPPORTED:
            raise
    finally:
        os.close(handle)
