"""The operating system's calls that change anything on a disk, and what it may answer to them.

Everything that poise writes goes through `system` (see `utils/files.py`), so that the fault rig can fail or kill it.
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

Got = TypeVar("Got")

UNSUPPORTED = frozenset(
    getattr(errno, name)
    for name in ("EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "ENOTTY", "ENOLCK", "EBADF", "EPROTONOSUPPORT")
    if hasattr(errno, name)
)
"""What a file system answers that does not have a call: to a folder's fsync, or to a lock."""

CLOSED = UNSUPPORTED | {errno.EACCES, errno.EPERM, errno.EISDIR}
"""What it may answer to opening a folder, besides: Windows, CIFS and FUSE do."""

BINARY = getattr(os, "O_BINARY", 0)


class System:
    """The operating system's calls that write, one method each."""

    def open(self, path: Path, flags: int) -> int:
        """A file descriptor."""
        return os.open(path, flags | BINARY, 0o666)

    def write(self, handle: int, data: bytes | memoryview) -> int:
        """How many bytes were taken."""
        return os.write(handle, data)

    def truncate(self, handle: int, size: int) -> None:
        """Cut an open file."""
        os.ftruncate(handle, size)

    def fsync(self, handle: int) -> None:
        """Make durable what was written."""
        os.fsync(handle)

    def replace(self, old: Path, new: Path) -> None:
        """Rename, over a file that may be there."""
        os.replace(old, new)  # noqa: PTH105

    def rename(self, old: Path, new: Path) -> None:
        """Rename a folder."""
        os.rename(old, new)  # noqa: PTH104

    def mkdir(self, path: Path) -> None:
        """Make a folder; one that is there is fine."""
        path.mkdir(exist_ok=True)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def rmdir(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()

    def lock(self, handle: int) -> bool:
        """Whether the lock on an open file was free, and is ours now."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns, on import, where the system has no locks: we say that ourselves
            from filelock import lock_descriptor

        return lock_descriptor(handle, blocking=False)


system = System()
"""Its methods are replaced by the fault rig."""


def retry_interrupted(call: Callable[[], Got]) -> Got:
    """What a call gives; one that a signal interrupted is made again."""
    for _ in range(1000):
        with suppress(InterruptedError):
            return call()
    return call()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusal into an error that names the file."""
    try:
        yield
    except PoiseError:
        raise
    except OSError as error:
        raise DiskError(f"can't be written: {error.strerror or error}", where=str(path)) from None
