"""The system calls that change anything on a disk, and their errors.

Everything that poise writes goes through `system` (see `utils/files.py`), so that tests can make any call fail.
"""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from poise.errors import DiskError, PoiseError

T = TypeVar("T")

UNSUPPORTED = frozenset(
    getattr(errno, name)
    for name in ("EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "ENOTTY", "ENOLCK", "EBADF", "EPROTONOSUPPORT")
    if hasattr(errno, name)
)
"""The error numbers of a file system that does not support a call, such as the fsync of a folder, or a lock."""

FOLDER_UNSUPPORTED = UNSUPPORTED | {errno.EACCES, errno.EPERM, errno.EISDIR}
"""The error numbers of a file system that can't open or sync a folder: Windows, CIFS and FUSE add some."""

BINARY = getattr(os, "O_BINARY", 0)


class System:
    """The system calls that write, one method each."""

    def open(self, path: Path, flags: int) -> int:
        """Open a file; returns its descriptor."""
        return os.open(path, flags | BINARY, 0o666)

    def write(self, handle: int, data: bytes | memoryview) -> int:
        """Write to an open file; returns the number of bytes written."""
        return os.write(handle, data)

    def truncate(self, handle: int, size: int) -> None:
        """Truncate an open file."""
        os.ftruncate(handle, size)

    def fsync(self, handle: int) -> None:
        """Flush an open file to the disk."""
        os.fsync(handle)

    def replace(self, old: Path, new: Path) -> None:
        """Rename a file, replacing one of that name."""
        os.replace(old, new)  # noqa: PTH105

    def rename(self, old: Path, new: Path) -> None:
        """Rename a folder."""
        os.rename(old, new)  # noqa: PTH104

    def mkdir(self, path: Path) -> None:
        """Create a folder, unless it exists."""
        path.mkdir(exist_ok=True)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def rmdir(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()

    def lock(self, handle: int) -> bool:
        """Lock an open file; returns False if another process holds the lock."""
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # filelock warns on import if the system has no locks; poise has its own note
            from filelock import lock_descriptor

        return lock_descriptor(handle, blocking=False)


system = System()
"""The system calls in use. Tests replace its methods to inject faults."""


def retry_interrupted(call: Callable[[], T]) -> T:
    """The result of a call, which is repeated if a signal interrupts it."""
    for _ in range(1000):
        with suppress(InterruptedError):
            return call()
    return call()


def refuse_unwritable_folder(folder: Path, where: str) -> None:
    """Check, before any work is done, that files can be created in a folder, or that it can be created itself.

    Args:
        folder: the folder.
        where: what the error names.

    Raises:
        DiskError: the permissions of the folder, or of the first one above it that exists, do not allow it.
    """
    path = folder.absolute()
    existing = next((one for one in (path, *path.parents) if one.exists()), path)
    if not os.access(existing, os.W_OK | os.X_OK):
        cure = "choose another folder, or change the permissions of this one"
        raise DiskError("no files can be created in this folder", where=where, found=f"'{existing}'", cure=cure)


@contextmanager
def disk_errors(path: Path, cure: str = "") -> Iterator[None]:
    """Convert every `OSError` raised in the block into a `DiskError` that names the file.

    Args:
        path: the file or folder to name.
        cure: what to do.

    Raises:
        DiskError: the block raised an `OSError`.
    """
    try:
        yield
    except PoiseError:
        raise
    except OSError as error:
        raise DiskError(f"can't be written: {error.strerror or error}", where=str(path), cure=cure) from None
