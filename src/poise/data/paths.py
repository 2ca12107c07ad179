"""Paths that a recipe names: there and of the right sort, or refused with the message that fits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from poise.core.config import reject_value
from poise.data.listing import display_name
from poise.errors import DataError

WHERE = "data.path"
KINDS = {".zip": "zip", ".npz": "npz"}


def _without_nul(path: str) -> str:
    if "\0" in path:
        reject_value("a path has no NUL in it", found=display_name(path))
    return path


PathText = Annotated[str, Field(min_length=1), AfterValidator(_without_nul)]
"""A path in a recipe: `~` is the home folder, and a relative one starts at the current directory."""


def folder_at(path: str) -> Path:
    """The folder at `path`.

    Raises:
        DataError: nothing there, no permission, or a file; says which kind of data a file would be.
    """
    place = _existing(path)
    if not place.is_dir():
        kind = KINDS.get(place.suffix.lower())
        cure = f'take data.kind = "{kind}"' if kind else "name the folder that holds the pictures"
        raise DataError("this is not a folder but a file", where=WHERE, found=display_name(path), cure=cure)
    return place


def file_at(path: str) -> Path:
    """The regular file at `path`.

    Raises:
        DataError: nothing there, no permission, a folder, or a pipe, socket or device.
    """
    place = _existing(path)
    if place.is_dir():
        cure = 'take data.kind = "folder"'
        raise DataError("this is not a file but a folder", where=WHERE, found=display_name(path), cure=cure)
    if not place.is_file():
        raise DataError("not a regular file", where=WHERE, found=display_name(path))
    return place


def access_error(path: str, error: OSError) -> DataError:
    """What to raise when the system refuses a path that is there."""
    if isinstance(error, PermissionError):
        return DataError(
            "no permission to read this", where=WHERE, found=display_name(path), cure="change its permissions"
        )
    return DataError(f"can't be read: {error.strerror or error}", where=WHERE, found=display_name(path))


def _existing(path: str) -> Path:
    place = Path(path)
    try:
        place = place.expanduser()
        place.stat()
    except (FileNotFoundError, NotADirectoryError, RuntimeError):
        cure = "check the spelling" + (
            "" if place.is_absolute() else f"; it is looked up in {display_name(str(Path.cwd()))}"
        )
        raise DataError("there is nothing here", where=WHERE, found=display_name(path), cure=cure) from None
    except OSError as error:
        raise access_error(path, error) from None
    return place
