"""`torchvision`: a data set by name, from local files or downloaded; its test split is held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import field_validator

from poise.core.config import did_you_mean, reject_value
from poise.data.classes import classes_by_number
from poise.data.config import ImageDataConfig
from poise.data.digits import pad_to
from poise.data.fit import Fit, TargetFormat
from poise.data.listing import display_name
from poise.data.notes import resize_note
from poise.data.source import DataSplits, ImageDataset
from poise.errors import DataError
from poise.utils.images import Bytes
from poise.utils.progress import bars_on_terminals_only, reporting

DATASETS = ["CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "QMNIST", "STL10", "SVHN", "USPS"]
CHARACTERS = ("KMNIST", "MNIST", "QMNIST", "SVHN", "USPS")
"""The data sets of digits, and of Japanese characters (KMNIST)."""

WITH_SPLIT_ARGUMENT = ("STL10", "SVHN")
"""The data sets whose class takes `split` in place of `train`."""

DEFAULT_ROOT = Path("data")
CURE = "give the folder that contains it with --data-root"


class VisionConfig(ImageDataConfig):
    """One of torchvision's labelled data sets; the case of its name does not matter.

    With `fit = "pad"`, greyscale images that are not larger than `size` are padded with black and keep their pixels.
    All other images are resized. All of these data sets are square, so `fit` makes a difference for the others only if
    `size` is not: they are padded with black, cropped or squeezed (`decode.fit_image`). The data set is downloaded only
    if its files are not found.
    """

    kind: Literal["torchvision"] = "torchvision"
    dataset: str
    download: bool = True
    fit: Fit = "pad"

    @field_validator("dataset")
    @classmethod
    def _normalise_name(cls, dataset: str) -> str:
        by_upper_case = {name.upper(): name for name in DATASETS}
        if dataset.upper() not in by_upper_case:
            cure = did_you_mean(dataset.upper(), list(by_upper_case))
            reject_value("no data set of this name", found=display_name(dataset), cure=cure)
        return by_upper_case[dataset.upper()]

    @property
    def uses_root(self) -> bool:
        """True."""
        return True

    def load(self, root: Path | None = None) -> DataSplits:
        """Load the training and the test split from `root`, by default `data` in the current directory.

        Raises:
            DataError: the data set is not found and cannot be downloaded, or its files cannot be read.
        """
        folder = root or DEFAULT_ROOT
        train, held_out = self._load_split(folder, train=True), self._load_split(folder, train=False)
        height, width = train.images.shape[1:3]
        target = self.target_format(train.images.shape[3])
        notes = [] if self._keeps_pixels(train.images) else resize_note(width, height, target)
        train, held_out, class_notes = _drop_empty_classes(train, held_out)
        train, held_out = (
            ImageDataset(self.convert(split.images), split.labels, split.classes) for split in (train, held_out)
        )
        return DataSplits(train=train, held_out=held_out, notes=notes + class_notes)

    def _keeps_pixels(self, images: Bytes) -> bool:
        """Whether the images are padded at most, so that no pixel is changed."""
        (height, width), (rows, columns) = images.shape[1:3], self.height_width
        pads = self.fit == "pad" and images.shape[3] == 1 and height <= rows and width <= columns
        return pads or (height, width) == (rows, columns)

    def target_format(self, channels: int) -> TargetFormat:
        """See the class."""
        return TargetFormat(self.height_width, channels, "black", self.fit)

    def convert(self, images: Bytes) -> Bytes:
        """See the class."""
        return pad_to(images, self.height_width) if self._keeps_pixels(images) else super().convert(images)

    def _load_split(self, folder: Path, train: bool) -> ImageDataset:
        """One split, unconverted."""
        try:
            dataset = self._find_or_download(folder, train)
            images = _channels_last(dataset.data)
            targets = np.asarray(dataset.targets if hasattr(dataset, "targets") else dataset.labels)
        except DataError:
            raise
        except Exception as error:  # torchvision can raise anything on damaged files
            why = f"{type(error).__name__}: {error}"
            raise DataError(f"{self.dataset} can't be read: {why}", where=_describe_path(folder), cure=CURE) from None
        labels = (targets if targets.ndim == 1 else targets[:, 0]).astype(np.int64)
        classes = tuple(getattr(dataset, "classes", None) or map(str, range(int(labels.max()) + 1)))
        return ImageDataset(images, labels, classes)

    def _find_or_download(self, folder: Path, train: bool) -> Any:
        """torchvision's data set, from local files if they exist."""
        try:
            return _open_dataset(self.dataset, folder, train, download=False)
        except (RuntimeError, FileNotFoundError) as error:
            if isinstance(error, RuntimeError) and "not found" not in str(error):
                raise
            missing = error
        if not self.download:
            cure = f"{CURE}, or set data.download = true"
            raise DataError(f"{self.dataset} was not found: {missing}", where=_describe_path(folder), cure=cure)
        try:
            with reporting(f"downloading {self.dataset}"), bars_on_terminals_only():
                return _open_dataset(self.dataset, folder, train, download=True)
        except Exception as error:  # no network, disk space or permission, a wrong checksum, a changed address
            why = f"{type(error).__name__}: {error}"
            what = f"{self.dataset} was not found, and the download failed: {why}"
            raise DataError(what, where=_describe_path(folder), cure=CURE) from None


def _drop_empty_classes(train: ImageDataset, held_out: ImageDataset) -> tuple[ImageDataset, ImageDataset, list[str]]:
    """Both splits without the classes that have no training images, and a note on these classes."""
    assert train.labels is not None
    assert held_out.labels is not None
    present = np.unique(train.labels)
    if len(present) == len(train.classes):
        return train, held_out, []
    classes = classes_by_number(train.labels, train.classes)
    known = np.isin(held_out.labels, present)
    remaining = ImageDataset(held_out.images[known], np.searchsorted(present, held_out.labels[known]), classes.names)
    return ImageDataset(train.images, classes.labels, classes.names), remaining, list(classes.notes)


def _open_dataset(name: str, folder: Path, train: bool, download: bool) -> Any:
    from torchvision import datasets

    by_split = name in WITH_SPLIT_ARGUMENT
    options: dict[str, Any] = {"split": "train" if train else "test"} if by_split else {"train": train}
    return getattr(datasets, name)(str(folder), download=download, **options)


def _channels_last(data: Any) -> Bytes:
    """Convert N x H x W, N x C x H x W or N x H x W x C to N x H x W x C."""
    pixels = np.asarray(data, np.uint8)
    if pixels.ndim == 3:
        return np.ascontiguousarray(pixels[..., None])
    return np.ascontiguousarray(pixels if pixels.shape[3] == 3 else pixels.transpose(0, 2, 3, 1))


def _describe_path(folder: Path) -> str:
    return display_name(str(folder.absolute()))
