"""Where a path is in relation to others, and which paths are URLs of folders in an object store."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from poise.errors import RecipeError

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)")
"""A URL, also as pathlib writes it. Two characters before the colon at least, as Windows has drives of one letter."""

LOCAL_PROTOCOLS = ("file", "local")


def expand_home(path: str | Path) -> Path:
    """The path with the home folder in place of a `~` at its start; as it is if there is no such user."""
    with suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def folder_around(paths: Iterable[str], location: Path) -> Path | None:
    """The first of the paths that is a folder in which `location` is, resolved; None if there is none."""
    for path in paths:
        folder = expand_home(path).resolve()
        if folder.is_dir() and location.resolve().is_relative_to(folder):
            return folder
    return None


def is_plain(name: str) -> bool:
    """Whether a name is that of an entry of a folder, and not a path."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0") and not (os.name == "nt" and ":" in name)


def url_of(path: str | Path) -> str | None:
    """The URL that a path stands for, such as `s3://bucket/runs/x`; None for a path on this machine.

    pathlib makes `s3:/bucket/runs/x` of it, which is undone here.
    """
    match = URL.fullmatch(path.as_posix() if isinstance(path, Path) else path)
    if match is None:
        return None
    protocol, rest = match[1].lower(), match[2].rstrip("/")
    return f"{protocol}:///{rest}" if protocol in LOCAL_PROTOCOLS else f"{protocol}://{rest}"


def without_login(text: str) -> str:
    """A text with URLs without the user names, passwords and queries in them."""
    text = re.sub(r"(?<=://)[^/@\s]+@", "", text)
    return re.sub(r"(://[^\s\"'?]*)\?[^\s\"']*", r"\1", text)


def refuse_url(path: str | Path, where: str = "--out") -> None:
    """Refuse to write to an object store.

    Args:
        path: where something is to be written.
        where: the option that says so.

    Raises:
        RecipeError: it is the URL of an object store.
    """
    if (url := url_of(path)) is not None:
        cure = "name a folder on this machine, and copy it there with the store's own program, such as aws s3 sync"
        what = "poise reads object stores and does not write to them"
        raise RecipeError(what, where=where, found=f"'{without_login(url)}'", cure=cure)
