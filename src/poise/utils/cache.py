"""The cache folder, which keeps trained classifiers, extracted features and decoded images between runs.

It is `$POISE_CACHE`, else `$XDG_CACHE_HOME/poise`, else `~/.cache/poise`. It may be deleted at any time: whatever is
missing or can't be read is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from poise.errors import DiskError
from poise.utils.files import write_json
from poise.utils.temporary import remove, remove_orphans


def cache_key(*parts: object) -> str:
    """A name for a result that depends on `parts`: a hash of their string forms, 16 hexadecimal digits."""
    return hashlib.sha256(repr(tuple(map(str, parts))).encode()).hexdigest()[:16]


def cache_dir() -> Path:
    """The cache folder."""
    configured = os.environ.get("POISE_CACHE")
    if configured:
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "poise"


def mark_used(path: Path) -> None:
    """Set a file's modification time to now, so that `prune` deletes other files first."""
    with suppress(OSError):
        os.utime(path)


def prune(folder: Path, max_bytes: int) -> None:
    """Delete the least recently used files of a folder until the others have at most `max_bytes` bytes in total.

    Leftovers of killed processes are deleted as well.
    """
    remove_orphans(folder)
    with suppress(OSError):
        files = [(path, path.stat()) for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
        total = sum(status.st_size for _, status in files)
        for path, status in sorted(files, key=lambda file: file[1].st_mtime_ns):
            if total <= max_bytes:
                return
            with suppress(OSError):  # a file that can't be deleted does not stop the others
                remove(path)
                total -= status.st_size


def remembered(path: Path, key: str, compute: Callable[[], str]) -> str:
    """A result that the file at `path` remembers under `key`; it is computed, and written there, if it does not.

    A file that can't be read or written is ignored.
    """
    known: dict[str, str] = {}
    with suppress(OSError, ValueError):
        content = json.loads(path.read_bytes())
        known = {str(name): str(value) for name, value in content.items()} if isinstance(content, dict) else {}
    if key not in known:
        known[key] = compute()
        with suppress(OSError, DiskError):
            write_json(path, known)
    return known[key]
