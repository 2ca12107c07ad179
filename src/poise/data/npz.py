"""`npz`: images in a NumPy archive, with optional labels and class names."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from poise.data.classes import Classes, classes_by_number
from poise.data.decode import Background, Fit, TargetFormat, convert_array
from poise.data.image_array import check_enough, split_dataset
from poise.data.listing import display_name
from poise.data.notes import alpha_notes, pixel_notes, range_note, resize_note
from poise.data.paths import WHERE, PathText, access_error, file_at
from poise.data.source import DataSplits, ImageDataConfig
from poise.errors import DataError
from poise.utils.images import Bytes
from poise.utils.printing import count_noun

KEYS = ("images", "labels", "classes")
SAVE = "create one with np.savez(path, images=images, labels=labels)"


class NpzConfig(ImageDataConfig):
    """A NumPy archive: `images`, uint8, N x H x W x C or N x H x W, and optional `labels`, integers, N.

    Every label that occurs is a class, named by its number, or by its name if `classes` holds the names of 0, 1, ...
    Pickled arrays are never loaded.

    Without `channels`, the images have 1 channel if they are greyscale, with or without alpha, and 3 otherwise. With 2
    or 4 channels alpha is kept, otherwise it is composited over `background`. Images of another size are resized;
    `fit` says whether those of another aspect ratio are cropped, padded or squeezed (`decode.fit_image`).
    """

    kind: Literal["npz"] = "npz"
    path: PathText
    channels: Literal[1, 2, 3, 4] | None = None
    background: Background = "white"
    fit: Fit = "crop"
    held_out: float = Field(default=0.1, ge=0, lt=1)

    def load(self, root: Path | None = None) -> DataSplits:
        """Read the arrays; `root` is not used.

        Raises:
            DataError: the file or the array does not exist, or the array has another type or shape.
        """
        arrays = _load_arrays(self.path)
        if "images" not in arrays:
            keys = ", ".join(map(display_name, arrays)) or "no arrays"
            raise DataError("no array is called 'images'", where=WHERE, found=keys, cure=SAVE)
        images = _check_images(arrays["images"])
        classes = _find_classes(arrays, len(images))
        check_enough(len(images), count_noun(len(images), "image"))
        channels = self.channels or (1 if images.shape[3] < 3 else 3)
        target = self.target_format(channels)
        height, width, original_channels = images.shape[1:]
        notes = [*classes.notes, *resize_note(width, height, target)]
        notes += alpha_notes(images[..., -1], target) if original_channels in (2, 4) else []
        converted = convert_array(images, target)
        splits = split_dataset(converted, np.arange(len(converted)), classes.labels, classes.names, self.held_out)
        splits.notes = notes + pixel_notes(converted)
        splits.warnings = [*classes.warnings, *range_note(converted)]
        return splits

    def target_format(self, channels: int) -> TargetFormat:
        """See the class."""
        return TargetFormat(self.height_width, channels, self.background, self.fit)


def _load_arrays(path: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays `images`, `labels` and `classes` of the archive; an empty array for any other key."""
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
        return {key: _load_array(archive, key) if key in KEYS else np.empty(0) for key in archive.files}


def _load_array(archive: np.lib.npyio.NpzFile, key: str) -> npt.NDArray[Any]:
    try:
        return archive[key]
    except MemoryError:
        raise DataError("needs more memory than is available", where=f"{WHERE}: {key}") from None
    except Exception as error:  # a damaged archive or header can raise anything
        if "allow_pickle" in str(error):
            cure = "save a numeric array, for example np.stack(images)"
            what = "an object array is pickled and is not loaded"
            raise DataError(what, where=f"{WHERE}: {key}", cure=cure) from None
        raise DataError(f"damaged: {error}", where=f"{WHERE}: {key}") from None


def _describe(array: npt.NDArray[Any]) -> str:
    """Data type and shape."""
    return f"{array.dtype}, {' x '.join(map(str, array.shape)) or 'a scalar'}"


def _check_images(array: npt.NDArray[Any]) -> Bytes:
    """The images as N x H x W x C, contiguous.

    Raises:
        DataError: the array has another data type or shape.
    """
    where, found = f"{WHERE}: images", _describe(array)
    if array.dtype != np.uint8:
        cure = "convert it to 0..255: (images * 255).round().astype('uint8') if it is 0..1"
        raise DataError("must be uint8", where=where, found=found, cure=cure)
    if array.ndim not in (3, 4) or 0 in array.shape[1:]:
        raise DataError("must be N x H x W x C, or N x H x W for greyscale", where=where, found=found)
    images = array[..., None] if array.ndim == 3 else array
    if images.shape[3] > 4:
        channels_first = images.shape[1] <= 4
        cure = "1 greyscale, 3 colour, 2 or 4 with alpha"
        cure = "move the channels to the end: images.transpose(0, 2, 3, 1)" if channels_first else cure
        raise DataError("must have 1 to 4 channels in the last dimension", where=where, found=found, cure=cure)
    return np.ascontiguousarray(images)


def _find_classes(arrays: dict[str, npt.NDArray[Any]], n: int) -> Classes:
    """The classes of n images, from `labels` and `classes`, both of which are optional.

    Raises:
        DataError: labels or class names are invalid, or a label has no name.
    """
    if "labels" not in arrays:
        return Classes(None)
    labels = _check_labels(arrays["labels"], n)
    if "classes" not in arrays:
        return classes_by_number(labels)
    names = arrays["classes"]
    where = f"{WHERE}: classes"
    if names.ndim != 1 or names.dtype.kind not in "USiu" or len(np.unique(names)) != len(names):
        cure = "np.array(['cat', 'dog'])"
        raise DataError("must be a list of distinct names", where=where, found=_describe(names), cure=cure)
    min_, max_ = (int(labels.min()), int(labels.max())) if n else (0, -1)
    if min_ < 0 or max_ >= len(names):
        cure = f"use labels from 0 to {len(names) - 1:,}, or leave out 'classes'"
        what = f"must name every label, but has {count_noun(len(names), 'name')}"
        raise DataError(what, where=where, found=f"labels from {min_} to {max_}", cure=cure)
    return classes_by_number(labels, [_to_text(name) for name in names])


def _to_text(name: Any) -> str:
    return name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)


def _check_labels(array: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    """The labels of n images.

    Raises:
        DataError: the array is not one of integers, or not of length n.
    """
    where, found = f"{WHERE}: labels", _describe(array)
    if array.dtype.kind not in "iu":
        raise DataError("must be integers", where=where, found=found, cure="labels.astype('int64')")
    if array.shape != (n,):
        raise DataError(f"must have one label for each of {count_noun(n, 'image')}", where=where, found=found)
    return array
