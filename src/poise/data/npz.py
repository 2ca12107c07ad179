"""`npz`: images in a NumPy archive, with optional labels and class names."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from poise.data.classes import Classes, classes_by_number
from poise.data.config import ImageDataConfig
from poise.data.fit import Background, Fit, TargetFormat, convert_array
from poise.data.image_array import check_enough, split_dataset
from poise.data.listing import display_name
from poise.data.notes import alpha_notes, colour_note, grey_note, pixel_notes, range_note, resize_note
from poise.data.paths import WHERE, PathText, access_error, file_at
from poise.data.pixel_statistics import PixelStatistics
from poise.data.source import DataSplits
from poise.data.split import group_hashes
from poise.errors import DataError
from poise.utils.images import Bytes
from poise.utils.printing import count_noun

SAVE = "create one with np.savez(path, images=images, labels=labels)"


class ArrayNames(NamedTuple):
    """The names of the arrays of one set of images in an archive."""

    images: str = "images"
    labels: str = "labels"
    classes: str = "classes"


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
        return load_set(load_arrays(self.path, ArrayNames()), ArrayNames(), self)

    def target_format(self, channels: int) -> TargetFormat:
        """See the class."""
        return TargetFormat(self.height_width, channels, self.background, self.fit)


def load_set(arrays: dict[str, npt.NDArray[Any]], names: ArrayNames, config: NpzConfig) -> DataSplits:
    """One set of images of an archive, converted and split.

    Args:
        arrays: see `load_arrays`.
        names: the names of its arrays.
        config: how the images are converted.

    Raises:
        DataError: the images are missing or too few, or an array has another type or shape.
    """
    if names.images not in arrays:
        keys = ", ".join(map(display_name, arrays)) or "no arrays"
        raise DataError(f"no array is called '{names.images}'", where=WHERE, found=keys, cure=SAVE)
    images = check_images(arrays, names.images)
    classes = find_classes(arrays, names, len(images))
    check_enough(len(images), where=WHERE if names == ArrayNames() else f"{WHERE}: {names.images}")
    converted, notes = convert_images(images, config)
    statistics = PixelStatistics.of(converted)
    rows = np.arange(len(converted))
    groups = group_hashes(converted, rows, statistics.hashes, mirror=config.mirror)
    splits = split_dataset(converted, rows, classes.labels, classes.names, config.held_out, groups)
    splits.notes = [*classes.notes, *notes, *pixel_notes(statistics, groups)]
    splits.notes += grey_note(converted, rows) if config.channels is None else []
    splits.warnings = [*classes.warnings, *range_note(statistics)]
    return splits


def convert_images(images: Bytes, config: NpzConfig) -> tuple[Bytes, list[str]]:
    """Images, N x H x W x C, in the size and channels of `config`, and notes on what was changed."""
    height, width, channels = images.shape[1:]
    target = config.target_format(config.channels or (1 if channels < 3 else 3))
    notes = resize_note(width, height, target) + colour_note(len(images), channels, target)
    notes += alpha_notes(images[..., -1], target) if channels in (2, 4) else []
    return convert_array(images, target), notes


def load_arrays(path: str, needed: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of the archive by name; those that are not needed are not read and are empty here.

    Raises:
        DataError: the file does not exist, is not an archive, or an array that is needed is damaged.
    """
    needed = set(needed)
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
        return {key: _load_array(archive, key) if key in needed else np.empty(0) for key in archive.files}


def array_shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    """The shape of an array of an archive, from its header, so that nothing else is read.

    Raises:
        KeyError: there is no such array.
        ValueError: it is damaged.
    """
    with archive.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape: tuple[int, ...] = read(stream)[0]
        return shape


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


def check_images(arrays: dict[str, npt.NDArray[Any]], name: str) -> Bytes:
    """The images as N x H x W x C, contiguous.

    Raises:
        DataError: the array has another data type or shape.
    """
    array = arrays[name]
    where, found = f"{WHERE}: {name}", _describe(array)
    if array.dtype != np.uint8:
        cure = f"convert it to 0..255: ({name} * 255).round().astype('uint8') if it is 0..1"
        raise DataError("must be uint8", where=where, found=found, cure=cure)
    if array.ndim not in (3, 4) or 0 in array.shape[1:]:
        raise DataError("must be N x H x W x C, or N x H x W for greyscale", where=where, found=found)
    images = array[..., None] if array.ndim == 3 else array
    if images.shape[3] > 4:
        channels_first = images.shape[1] <= 4
        cure = "1 greyscale, 3 colour, 2 or 4 with alpha"
        cure = f"move the channels to the end: {name}.transpose(0, 2, 3, 1)" if channels_first else cure
        raise DataError("must have 1 to 4 channels in the last dimension", where=where, found=found, cure=cure)
    return np.ascontiguousarray(images)


def find_classes(arrays: dict[str, npt.NDArray[Any]], keys: ArrayNames, n: int) -> Classes:
    """The classes of n images, from their labels and class names, both of which are optional.

    Raises:
        DataError: labels or class names are invalid, or a label has no name.
    """
    if keys.labels not in arrays:
        return Classes(None)
    labels = _check_labels(arrays[keys.labels], keys.labels, n)
    if keys.classes not in arrays:
        return classes_by_number(labels)
    names = arrays[keys.classes]
    where = f"{WHERE}: {keys.classes}"
    if names.ndim != 1 or names.dtype.kind not in "USiu" or len(np.unique(names)) != len(names):
        cure = "np.array(['cat', 'dog'])"
        raise DataError("must be a list of distinct names", where=where, found=_describe(names), cure=cure)
    min_, max_ = (int(labels.min()), int(labels.max())) if n else (0, -1)
    if min_ < 0 or max_ >= len(names):
        cure = f"use labels from 0 to {len(names) - 1:,}, or leave out '{keys.classes}'"
        what = f"must name every label, but has {count_noun(len(names), 'name')}"
        raise DataError(what, where=where, found=f"labels from {min_} to {max_}", cure=cure)
    return classes_by_number(labels, [_to_text(name) for name in names])


def _to_text(name: Any) -> str:
    return name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)


def _check_labels(array: npt.NDArray[Any], name: str, n: int) -> npt.NDArray[Any]:
    """The labels of n images.

    Raises:
        DataError: the array is not one of integers, or not of length n.
    """
    where, found = f"{WHERE}: {name}", _describe(array)
    if array.dtype.kind not in "iu":
        cure = f"{name}.astype('int64')"
        if array.dtype.kind in "US":
            cure = f"classes, {name} = np.unique({name}, return_inverse=True), and save both"
        raise DataError("must be integers", where=where, found=found, cure=cure)
    if array.shape != (n,):
        raise DataError(f"must have one label for each of {count_noun(n, 'image')}", where=where, found=found)
    return array
