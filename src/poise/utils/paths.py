"""Where a path is in relation to others."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def folder_around(paths: Iterable[str], location: Path) -> Path | None:
    """The first of the paths that is a folder in which `location` is, resolved; None if there is none."""
    for path in paths:
        folder = Path(path).expanduser().resolve()
        if folder.is_dir() and location.resolve().is_relative_to(folder):
            return folder
    return None
