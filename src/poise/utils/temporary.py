"""Names of temporary files, and the removal of those that killed processes have left behind."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from poise.utils.system import retry_interrupted, system

PREFIX = ".tmp-"
"""The prefix of temporary names, `.tmp-HOST-PROCESS-NAME`."""

MAX_AGE = 86400.0
"""Seconds after which a temporary file of another machine counts as a leftover."""


def _host_id() -> str:
    """This machine, as a hash of four hexadecimal digits."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:4]


def temporary_name(name: str) -> str:
    """The name under which this process writes the file `name`: it keeps the suffix and never becomes too long."""
    if len(os.fsencode(name)) > 200:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32] + Path(name).suffix[-16:]
    return f"{PREFIX}{_host_id()}-{os.getpid()}-{name}"


def is_temporary(name: str) -> bool:
    """Whether `name` is the temporary name of a file, of this version or an earlier one."""
    old_style = name.rpartition(".")[2].isdecimal() and name.startswith((".run.json.", ".recipe.toml.", ".rows.jsonl."))
    return name.startswith(PREFIX) or old_style


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove temporary files that killed processes of this machine have left behind, as far as they can be removed.

    Args:
        folder: the folder to clean.
        name: the file that was being written. If None, all temporary files are removed, which requires that no other
            process writes to the folder (a lock).
    """
    try:
        entries = [entry for entry in folder.iterdir() if is_temporary(entry.name)]
    except OSError:
        return
    for entry in entries:
        if name is None or (_is_for(entry.name, name) and _orphaned(entry)):
            with suppress(OSError):
                remove(entry)


def remove_orphans(folder: Path) -> None:
    """Remove leftovers of killed processes in a folder to which other processes may be writing."""
    with suppress(OSError):
        for entry in list(folder.iterdir()):
            if entry.name.startswith(PREFIX) and _orphaned(entry):
                with suppress(OSError):
                    remove(entry)


def _is_for(temporary: str, name: str) -> bool:
    """Whether a temporary name stands for the file `name`, or for its old version."""
    expected = temporary_name(name).split("-", 3)[-1]
    return temporary.split("-", 3)[-1] in (expected, f"{expected}.old")


def _orphaned(entry: Path) -> bool:
    """Whether the process that wrote it has ended, or is this one, which is not writing at the moment."""
    _, host, process, *_ = [*entry.name.split("-", 3), "", ""]
    if host == _host_id() and process.isdecimal():
        return int(process) == os.getpid() or not is_process_alive(int(process))
    with suppress(OSError):
        return time.time() - entry.lstat().st_mtime > MAX_AGE
    return False


def is_process_alive(process: int) -> bool:
    """Whether there is a process of this number on this machine; on Windows always True."""
    if sys.platform == "win32":
        return True  # on Windows, signal 0 is Ctrl-C
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def remove(path: Path) -> None:
    """Remove a file, or a folder with its contents.

    Raises:
        OSError: it can't be removed.
    """
    if path.is_symlink() or not path.is_dir():
        retry_interrupted(lambda: system.unlink(path))
        return
    for inner in path.iterdir():
        remove(inner)
    retry_interrupted(lambda: system.rmdir(path))
