"""`npz`: pictures in a NumPy archive, `images` and perhaps `labels`."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from poise.data.classes import Classes, classes_by_number
from poise.data.decode import Background, TargetFormat, convert_array
from poise.data.image_array import check_enough, split_dataset
from poise.data.listing import display_name
from poise.data.notes import alpha_notes, pixel_notes, range_note, resize_note
from poise.data.paths import WHERE, PathText, access_error, file_at
from poise.data.source import DataSplits, ImageDataConfig
from poise.errors import DataError
from poise.utils.images import Bytes
from poise.utils.printing import count_noun

KEYS = ("images", "labels", "classes")
SAVE = "make one with np.savez(path, images=images, labels=labels)"


class NpzConfig(ImageDataConfig):
    """`images`: uint8, N x H x W x C or N x H x W; `labels`: whole numbers, N. Pickles are never read.

    Every label that occurs is a class, called by its number, or by its name if `classes` holds the names of 0, 1, ...

    `channels` left out means 1 for grey with or without alpha, else 3; alpha is kept with 2 or 4, otherwise
    laid over `background`. Pictures of another size are cut to the square and resized.
    """

    kind: Literal["npz"] = "npz"
    path: PathText
    channels: Literal[1, 2, 3, 4] | None = None
    background: Background = "white"
    held_out: float = Field(default=0.1, ge=0, lt=1)

    def load(self, root: Path | None = None) -> DataSplits:
        """Read both arrays; `root` is for data sets by name and is not looked at.

        Raises:
            DataError: no such file, no such key, or an array of another kind; says how to convert it.
        """
        arrays = _arrays(self.path)
        if "images" not in arrays:
            keys = ", ".join(map(display_name, arrays)) or "no arrays"
            raise DataError("no array is called 'images'", where=WHERE, found=keys, cure=SAVE)
        images = _images(arrays["images"])
        classes = _classes(arrays, len(images))
        check_enough(len(images), count_noun(len(images), "picture"))
        channels = self.channels or (1 if images.shape[3] < 3 else 3)
        frame = TargetFormat(self.size, channels, self.background)
        height, width, given = images.shape[1:]
        notes = [*classes.notes, *resize_note(width, height, self.size)]
        notes += alpha_notes(images[..., -1], frame) if given in (2, 4) else []
        fitted = convert_array(images, frame)
        loaded = split_dataset(fitted, np.arange(len(fitted)), classes.labels, classes.names, self.held_out)
        loaded.notes = notes + pixel_notes(fitted)
        loaded.warnings = [*classes.warnings, *range_note(fitted)]
        return loaded


def _arrays(path: str) -> dict[str, npt.NDArray[Any]]:
    """`images`, `labels` and `classes` as they are in the archive; other keys with an empty array in their place."""
    try:
        stream = file_at(path).open("rb")
    except OSError as error:
        raise access_error(path, error) from None
    with stream:
        try:
            archive = np.load(stream, allow_pickle=False)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError):
            raise DataError("not an npz archive", where=WHERE, found=display_name(path), cure=SAVE) from None
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError("a single array, not an npz archive", where=WHERE, found=display_name(path), cure=SAVE)
        return {key: _array(archive, key) if key in KEYS else np.empty(0) for key in archive.files}


def _array(archive: np.lib.npyio.NpzFile, key: str) -> npt.NDArray[Any]:
    try:
        return archive[key]
    except MemoryError:
        raise DataError("needs more memory than there is", where=f"{WHERE}: {key}") from None
    except Exception as error:  # whatever a damaged archive or header makes of it
        if "allow_pickle" in str(error):
            cure = "save plain numbers, for example np.stack(images)"
            raise DataError(
                "an array of objects is a pickle and is not read", where=f"{WHERE}: {key}", cure=cure
            ) from None
        raise DataError(f"damaged: {error}", where=f"{WHERE}: {key}") from None


def _images(found: npt.NDArray[Any]) -> Bytes:
    """N x H x W x C, checked."""
    where, what = (
        f"{WHERE}: images",
        f"{found.dtype}, {' x '.join(map(str, found.shape)) or 'a single number'}",
    )
    if found.dtype != np.uint8:
        cure = "convert it to 0..255: (images * 255).round().astype('uint8') if it is 0..1"
        raise DataError("must be uint8", where=where, found=what, cure=cure)
    if found.ndim not in (3, 4) or 0 in found.shape[1:]:
        raise DataError("must be N x H x W x C, or N x H x W for grey", where=where, found=what)
    images = found[..., None] if found.ndim == 3 else found
    if images.shape[3] > 4:
        turned = images.shape[1] <= 4
        cure = "channels go last: images.transpose(0, 2, 3, 1)" if turned else "1 grey, 3 colour, 2 or 4 with alpha"
        raise DataError("must have 1 to 4 channels, last", where=where, found=what, cure=cure)
    return np.ascontiguousarray(images)


def _classes(arrays: dict[str, npt.NDArray[Any]], n: int) -> Classes:
    """By the labels of n pictures, if there are any, and their names, if these are told."""
    if "labels" not in arrays:
        return Classes(None)
    labels = _labels(arrays["labels"], n)
    if "classes" not in arrays:
        return classes_by_number(labels)
    names = arrays["classes"]
    where = f"{WHERE}: classes"
    if names.ndim != 1 or names.dtype.kind not in "USiu" or len(np.unique(names)) != len(names):
        found = f"{names.dtype}, {' x '.join(map(str, names.shape)) or 'a single one'}"
        raise DataError("must be a list of names, each once", where=where, found=found, cure="np.array(['cat', 'dog'])")
    least, most = (int(labels.min()), int(labels.max())) if n else (0, -1)
    if least < 0 or most >= len(names):
        cure = f"number the classes from 0 to {len(names) - 1:,}, or leave their names out"
        what = f"must name every label, and has {count_noun(len(names), 'name')}"
        raise DataError(what, where=where, found=f"labels from {least} to {most}", cure=cure)
    return classes_by_number(labels, [_text(name) for name in names])


def _text(name: Any) -> str:
    return name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)


def _labels(found: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    """One whole number for each picture, checked."""
    where, what = (
        f"{WHERE}: labels",
        f"{found.dtype}, {' x '.join(map(str, found.shape)) or 'a single number'}",
    )
    if found.dtype.kind not in "iu":
        raise DataError("must be whole numbers", where=where, found=what, cure="labels.astype('int64')")
    if found.shape != (n,):
        raise DataError(f"must be one for each of {count_noun(n, 'picture')}", where=where, found=what)
    return found
