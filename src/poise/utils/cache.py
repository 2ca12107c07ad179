"""Where results that can be worked out again are kept between runs: classifiers, features, decoded pictures.

In `$POISE_CACHE`, else `$XDG_CACHE_HOME/poise`, else `~/.cache/poise`. It may be deleted at any time, and whatever
can't be read or written there is worked out anew: nothing depends on it but time.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from poise.utils.temporary import remove, remove_orphans


def cache_key(*parts: object) -> str:
    """A name for what depends on `parts`: a hash of their words, 16 hexadecimal digits."""
    return hashlib.sha256(repr(tuple(map(str, parts))).encode()).hexdigest()[:16]


def cache_dir() -> Path:
    """The folder."""
    told = os.environ.get("POISE_CACHE")
    if told:
        return Path(told)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "poise"


def mark_used(path: Path) -> None:
    """Set a file's time to now, so that `prune` lets go of others first."""
    with suppress(OSError):
        os.utime(path)


def prune(folder: Path, most: int) -> None:
    """Remove the files of a folder that were not used for the longest time, until the rest has at most `most` bytes.

    What killed processes left half written goes as well.
    """
    remove_orphans(folder)
    with suppress(OSError):
        files = [(path, path.stat()) for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
        total = sum(status.st_size for _, status in files)
        for path, status in sorted(files, key=lambda file: file[1].st_mtime_ns):
            if total <= most:
                return
            with suppress(OSError):  # one that can't be removed does not keep the others
                remove(path)
                total -= status.st_size
