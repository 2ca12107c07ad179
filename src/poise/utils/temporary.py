"""Temporary names, and what killed processes left behind under them."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from poise.utils.system import retry_interrupted, system

MARK = ".tmp-"
"""How the names of temporary files begin: `.tmp-HOST-PROCESS-NAME`."""

DAY = 86400.0
"""Seconds after which a temporary file of another machine counts as left over."""


def _here() -> str:
    """This machine in four hexadecimal digits."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:4]


def temporary_name(name: str) -> str:
    """Where this process puts together the file called `name`: the ending is kept, and no name becomes too long."""
    if len(os.fsencode(name)) > 200:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32] + Path(name).suffix[-16:]
    return f"{MARK}{_here()}-{os.getpid()}-{name}"


def is_temporary(name: str) -> bool:
    """Whether it is the name of a file that was being written, now or by an earlier version."""
    old = name.rpartition(".")[2].isdecimal() and name.startswith((".run.json.", ".recipe.toml.", ".rows.jsonl."))
    return name.startswith(MARK) or old


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes of this machine left half written; nothing is left over that can't be removed.

    Args:
        folder: where to look.
        name: the file that was being written; left out, everything: only for who has the folder to itself (a lock).
    """
    try:
        found = [entry for entry in folder.iterdir() if is_temporary(entry.name)]
    except OSError:
        return
    for entry in found:
        if name is None or (_meant(entry.name, name) and _orphaned(entry)):
            with suppress(OSError):
                remove(entry)


def remove_orphans(folder: Path) -> None:
    """Remove what killed processes left half written in a folder that others may be writing to."""
    with suppress(OSError):
        for entry in list(folder.iterdir()):
            if entry.name.startswith(MARK) and _orphaned(entry):
                with suppress(OSError):
                    remove(entry)


def _meant(temporary: str, name: str) -> bool:
    wanted = temporary_name(name).split("-", 3)[-1]
    return temporary.split("-", 3)[-1] in (wanted, f"{wanted}.old")


def _orphaned(entry: Path) -> bool:
    """Whether its process is gone (or this one: nothing is being written at this moment)."""
    _, host, process, *_ = [*entry.name.split("-", 3), "", ""]
    if host == _here() and process.isdecimal():
        return int(process) == os.getpid() or not _alive(int(process))
    with suppress(OSError):
        return time.time() - entry.lstat().st_mtime > DAY
    return False


def _alive(process: int) -> bool:
    if sys.platform == "win32":
        return True  # there, signal 0 is Ctrl-C
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it.

    Raises:
        OSError: the disk refused.
    """
    if path.is_symlink() or not path.is_dir():
        retry_interrupted(lambda: system.unlink(path))
        return
    for inner in path.iterdir():
        remove(inner)
    retry_interrupted(lambda: system.rmdir(path))
