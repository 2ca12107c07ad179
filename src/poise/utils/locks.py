"""One process at a time: a lock on a file, which the system lets go of when its process ends, however it ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from poise.errors import DiskError, RecipeError
from poise.utils.system import UNSUPPORTED, disk_errors, retry_interrupted, system

SILENT = "another process"


@contextmanager
def file_lock(path: Path, where: str) -> Iterator[str]:
    """Hold the lock on the file at `path`, which is made if need be and says who holds it.

    Only a lock that somebody holds is a rival. Where the file system has no locks the block is entered all the same,
    and a sentence says so.

    Args:
        path: of the lock file.
        where: what an error names.

    Yields:
        A note for the user; empty if all is well.

    Raises:
        RecipeError: another process holds it; says which.
        DiskError: the file can't be made.
    """
    with disk_errors(path):
        handle = retry_interrupted(lambda: system.open(path, os.O_RDWR | os.O_CREAT))
    try:
        note = _taken(handle, path, where)
        with suppress(OSError):  # it only helps a rival to name us
            system.truncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
            system.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield note
    finally:
        os.close(handle)


def _taken(handle: int, path: Path, where: str) -> str:
    try:
        free = retry_interrupted(lambda: system.lock(handle))
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno not in UNSUPPORTED:
            raise DiskError(f"can't be locked: {why}", where=str(path)) from None
        return f"this file system has no locks ({why}): nothing keeps a second run out of {path.parent}"
    if free:
        return ""
    try:
        holder = os.read(handle, 200).decode(errors="replace").strip()
    except OSError:  # Windows lets nobody read what is locked
        holder = ""
    raise RecipeError("another run is writing here", where=where, found=holder or SILENT)
