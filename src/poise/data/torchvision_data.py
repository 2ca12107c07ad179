"""`torchvision`: a data set by name, from files or by download; its own test split is held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import field_validator

from poise.core.config import did_you_mean, reject_value
from poise.data.classes import classes_by_number
from poise.data.decode import TargetFormat, convert_array
from poise.data.digits import pad_to
from poise.data.listing import display_name
from poise.data.notes import resize_note
from poise.data.source import DataSplits, ImageDataConfig, ImageDataset
from poise.errors import DataError
from poise.utils.images import Bytes

SETS = ["CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "QMNIST", "STL10", "SVHN", "USPS"]
BY_SPLIT = ("STL10", "SVHN")
ROOT = Path("data")
CURE = "name the folder that holds it with --data-root"


class VisionConfig(ImageDataConfig):
    """One of torchvision's labelled data sets, upper and lower case alike.

    With `fit = "pad"` grey pictures smaller than `size` get a black margin and keep every pixel; all others,
    and all with "crop", are cut to the square and resized. A download is tried only if the files are not
    there.
    """

    kind: Literal["torchvision"] = "torchvision"
    dataset: str
    download: bool = True
    fit: Literal["pad", "crop"] = "pad"

    @field_validator("dataset")
    @classmethod
    def _as_torchvision_writes_it(cls, dataset: str) -> str:
        exact = {name.upper(): name for name in SETS}
        if dataset.upper() not in exact:
            reject_value(
                "no data set of this name", found=display_name(dataset), cure=did_you_mean(dataset.upper(), list(exact))
            )
        return exact[dataset.upper()]

    def load(self, root: Path | None = None) -> DataSplits:
        """Both splits below `root`, by default `data` in the current directory.

        Raises:
            DataError: not there and not to be had; says where it looked and why the download failed.
        """
        place = root or ROOT
        train, held_out = self._split(place, train=True), self._split(place, train=False)
        height, width = train.images.shape[1:3]
        notes = [] if self._fits(train.images) else resize_note(width, height, self.size)
        train, held_out, gone = _with_pictures(train, held_out)
        return DataSplits(train=self._fitted(train), held_out=self._fitted(held_out), notes=notes + gone)

    def _fits(self, images: Bytes) -> bool:
        """Whether no pixel is changed."""
        side, channels = images.shape[1], images.shape[3]
        return side == self.size or (self.fit == "pad" and channels == 1 and side < self.size)

    def _fitted(self, pictures: ImageDataset) -> ImageDataset:
        images = pictures.images
        if self._fits(images):
            images = pad_to(images, self.size)
        else:
            images = convert_array(images, TargetFormat(self.size, images.shape[3], "white"))
        return ImageDataset(images, pictures.labels, pictures.classes)

    def _split(self, place: Path, train: bool) -> ImageDataset:
        """One split as it is in the files."""
        try:
            found = self._found(place, train)
            images = _bytes(found.data)
            targets = np.asarray(found.targets if hasattr(found, "targets") else found.labels)
        except DataError:
            raise
        except Exception as error:  # somebody else's reader, on files that may be damaged
            why = f"{type(error).__name__}: {error}"
            raise DataError(f"{self.dataset} can't be read: {why}", where=_at(place), cure=CURE) from None
        labels = (targets if targets.ndim == 1 else targets[:, 0]).astype(np.int64)
        classes = tuple(getattr(found, "classes", None) or map(str, range(int(labels.max()) + 1)))
        return ImageDataset(images, labels, classes)

    def _found(self, place: Path, train: bool) -> Any:
        """torchvision's own object: from the files, else by a download."""
        try:
            return _opened(self.dataset, place, train, download=False)
        except (RuntimeError, FileNotFoundError) as error:
            if isinstance(error, RuntimeError) and "not found" not in str(error):
                raise
            missing = error
        if not self.download:
            cure = f"{CURE}, or set data.download = true"
            raise DataError(f"{self.dataset} is not there: {missing}", where=_at(place), cure=cure)
        try:
            return _opened(self.dataset, place, train, download=True)
        except Exception as error:  # no network, no room, no permission, a wrong checksum, a changed address
            why = f"{type(error).__name__}: {error}"
            what = f"{self.dataset} is not there and the download failed: {why}"
            raise DataError(what, where=_at(place), cure=CURE) from None


def _with_pictures(train: ImageDataset, held_out: ImageDataset) -> tuple[ImageDataset, ImageDataset, list[str]]:
    """Both without the classes that there is no picture of to train on, and a note on these."""
    assert train.labels is not None
    assert held_out.labels is not None
    there = np.unique(train.labels)
    if len(there) == len(train.classes):
        return train, held_out, []
    found = classes_by_number(train.labels, train.classes)
    known = np.isin(held_out.labels, there)
    kept = ImageDataset(held_out.images[known], np.searchsorted(there, held_out.labels[known]), found.names)
    return ImageDataset(train.images, found.labels, found.names), kept, list(found.notes)


def _opened(name: str, place: Path, train: bool, download: bool) -> Any:
    from torchvision import datasets

    part: dict[str, Any] = {"split": "train" if train else "test"} if name in BY_SPLIT else {"train": train}
    return getattr(datasets, name)(str(place), download=download, **part)


def _bytes(data: Any) -> Bytes:
    """N x H x W, N x C x H x W or N x H x W x C to N x H x W x C."""
    pixels = np.asarray(data, np.uint8)
    if pixels.ndim == 3:
        return np.ascontiguousarray(pixels[..., None])
    return np.ascontiguousarray(pixels if pixels.shape[3] == 3 else pixels.transpose(0, 2, 3, 1))


def _at(place: Path) -> str:
    return display_name(str(place.absolute()))
