"""Locks on files, which let only one process at a time write to a folder and end with that process."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from poise.errors import DiskError, RecipeError
from poise.utils.files import make_folder
from poise.utils.printing import print_line
from poise.utils.system import UNSUPPORTED, disk_errors, retry_interrupted, system

UNKNOWN_HOLDER = "another process"

WRITING = "another run is writing to this folder"

POLL = 0.2
"""How often a process that waits for a lock asks for it, in seconds."""


@contextmanager
def claimed_folder(folder: Path, lock: Path, where: str, what: str = WRITING, cure: str = "") -> Iterator[str]:
    """Create a folder and hold the lock that keeps other writers away; yields a note on the lock, which may be empty.

    Args:
        folder: the folder, which may exist.
        lock: the lock file.
        where: what an error names.
        what: what the process that has the lock is doing, for the error.
        cure: what to do about it.

    Raises:
        DiskError: the folder can't be created.
        RecipeError: another process has the lock; says which.
    """
    with disk_errors(folder):
        make_folder(folder)
    with file_lock(lock, where, what, cure) as note:
        yield note


@contextmanager
def file_lock(path: Path, where: str, what: str = WRITING, cure: str = "") -> Iterator[str]:
    """Hold the lock on the file at `path`, which is created if necessary and records the process that holds it.

    If the file system does not support locks, the block is entered anyway, with a note.

    Args:
        path: the lock file.
        where: what an error names.
        what: what the process that holds it is doing, for the error.
        cure: what to do about it.

    Yields:
        A note for the user, empty if the lock is held.

    Raises:
        RecipeError: another process holds the lock; names it.
        DiskError: the file can't be created or locked.
    """
    with disk_errors(path):
        handle = retry_interrupted(lambda: system.open(path, os.O_RDWR | os.O_CREAT))
    try:
        note = _acquire(handle, path)
        if note is None:
            raise RecipeError(what, where=where, found=_holder(handle), cure=cure)
        with suppress(OSError):  # the name of the holder is only informative
            system.truncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
            system.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield note
    finally:
        os.close(handle)


@contextmanager
def waiting_lock(path: Path, why: str, cure: str = "") -> Iterator[None]:
    """Hold the lock on the file at `path`; if another process holds it, say so in a line and wait until it doesn't.

    If the file system does not support locks, the block is entered anyway.

    Args:
        path: the lock file, which is created if necessary.
        why: what the other process is doing, for the line.
        cure: what an error says to do.

    Raises:
        DiskError: the file can't be created.
    """
    with disk_errors(path, cure):
        handle = retry_interrupted(lambda: system.open(path, os.O_RDWR | os.O_CREAT))
    try:
        told = False
        while not _is_ours(handle):
            if not told:
                print_line(f"note: {why}: waiting for it", err=True)
                told = True
            time.sleep(POLL)
        yield
    finally:
        os.close(handle)


def _is_ours(handle: int) -> bool:
    try:
        return retry_interrupted(lambda: system.lock(handle))
    except OSError:  # not supported
        return True


def is_held(path: Path) -> bool:
    """Whether a process holds the lock on the file at `path`; True if that can't be found out, False if there is none.

    The lock is taken for a moment, so ask only where a holder is expected.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return not system.lock(handle)
    except OSError:
        return True
    finally:
        os.close(handle)


def _acquire(handle: int, path: Path) -> str | None:
    """Take the lock: a note for the user, empty if it is held, or None if another process holds it."""
    try:
        acquired = retry_interrupted(lambda: system.lock(handle))
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno not in UNSUPPORTED:
            raise DiskError(f"can't be locked: {reason}", where=str(path)) from None
        return f"this file system does not support locks ({reason}), so a second run could write to {path.parent}"
    return "" if acquired else None


def _holder(handle: int) -> str:
    """The process that holds a lock."""
    try:
        return os.read(handle, 200).decode(errors="replace").strip() or UNKNOWN_HOLDER
    except OSError:  # Windows does not allow reading a locked file
        return UNKNOWN_HOLDER
