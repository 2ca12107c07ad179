"""Checks of the paths in a recipe: whether they exist, are readable, and are of the right type."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from poise.core.config import reject_value
from poise.data.listing import display_name
from poise.errors import DataError

WHERE = "data.path"
COMPRESSED = {".gz": "gunzip", ".tgz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd"}
KINDS = {".zip": "zip", ".npz": "npz", ".tar": "tar", ".parquet": "parquet", ".arrow": "parquet"}


def _without_nul(path: str) -> str:
    if "\0" in path:
        reject_value("a path can't contain a NUL character", found=display_name(path))
    return path


PathText = Annotated[str, Field(min_length=1), AfterValidator(_without_nul)]
"""A path in a recipe; `~` is the home folder, and relative paths start at the current directory."""


def folder_at(path: str) -> Path:
    """The folder at `path`.

    Raises:
        DataError: it does not exist, is not readable, or is a file.
    """
    location = existing(path)
    if not location.is_dir():
        suffix = location.suffix.lower()
        cure = f"give the folder that contains the images, or a file that ends in {' '.join(KINDS)}"
        if suffix in KINDS:
            cure = f'set data.kind = "{KINDS[suffix]}"'
        elif suffix == ".npy":
            cure = "save the images in a .npz file: np.savez(path, images=images)"
        elif suffix in COMPRESSED:
            cure = f"decompress it first ({COMPRESSED[suffix]})"
        raise DataError("this is a file, not a folder", where=WHERE, found=display_name(path), cure=cure)
    return location


def file_at(path: str) -> Path:
    """The regular file at `path`.

    Raises:
        DataError: it does not exist, is not readable, or is a folder, pipe, socket or device.
    """
    location = existing(path)
    if location.is_dir():
        cure = 'set data.kind = "folder"'
        raise DataError("this is a folder, not a file", where=WHERE, found=display_name(path), cure=cure)
    if not location.is_file():
        raise DataError("not a regular file", where=WHERE, found=display_name(path))
    return location


def access_error(path: str, error: OSError, where: str = WHERE) -> DataError:
    """The error to raise if the operating system denies access to an existing path."""
    if isinstance(error, PermissionError):
        return DataError(
            "no permission to read this", where=where, found=display_name(path), cure="change its permissions"
        )
    return DataError(f"can't be read: {error.strerror or error}", where=where, found=display_name(path))


def exists(path: Path, where: str) -> bool:
    """Whether something is at `path`.

    Raises:
        DataError: the operating system does not tell.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise access_error(str(path), error, where) from None
    return True


def located(error: DataError, where: str) -> DataError:
    """The error with the field of the recipe, or the argument, that the path is from."""
    place = (error.where or WHERE).replace(WHERE, where)
    return DataError(error.what, where=place, found=error.found, cure=error.cure)


def existing(path: str) -> Path:
    """The path, with the home folder in place of `~`.

    Raises:
        DataError: nothing is there, or it can't be read.
    """
    location = Path(path)
    try:
        location = location.expanduser()
        location.stat()
    except (FileNotFoundError, NotADirectoryError, RuntimeError):
        base = "" if location.is_absolute() else f"; relative paths start at {display_name(str(Path.cwd()))}"
        cure = f"check the spelling{base}"
        raise DataError("no such file or folder", where=WHERE, found=display_name(path), cure=cure) from None
    except OSError as error:
        raise access_error(path, error) from None
    return location
