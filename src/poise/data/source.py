"""What every kind of data becomes: a source with an endless feed whose order is a function of (seed, index).

`Pictures` holds uint8 in memory (or memory-mapped) and hands out batches in a new order each epoch, `Stacked`
(`stacked.py`) puts such pictures together as it goes; `Points` (`toys.py`) draws from a distribution in the plane.
`to_signed` and `to_bytes` are the only two places that know how bytes and [-1, 1] belong together.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from poise.core.config import ComponentConfig
from poise.core.random_streams import RandomStreams, derive_seed
from poise.core.types import Batch, DataSpec, Shape
from poise.errors import memory_errors
from poise.utils.images import Bytes, to_float

FEW, COUNTED = 64, 1 << 20

Labels = npt.NDArray[np.int64]


class BadFile(NamedTuple):
    """A file that could not be used, and why."""

    name: str
    reason: str


class Source(ABC):
    """Real samples without end.

    Attributes:
        shape: (C, H, W), or (2,).
        classes: the labels' names, by number; empty where the data has none.
    """

    shape: Shape
    classes: tuple[str, ...] = ()

    @abstractmethod
    def batch(self, index: int, size: int, streams: RandomStreams) -> Batch:
        """Batch `index` of the endless feed, on the host; pictures still as uint8, B x H x W x C."""

    def batch_labels(self, index: int, size: int, streams: RandomStreams) -> Tensor | None:
        """The labels of batch `index` alone, B, or None where the data has none."""
        return self.batch(index, size, streams).labels

    @abstractmethod
    def preview(self, n: int) -> Tensor:
        """n samples in [-1, 1], always the same ones, to look at beside G's."""

    @property
    def class_counts(self) -> tuple[int, ...]:
        """How many samples there are of each class; empty where the data has none."""
        return ()

    def spec(self) -> DataSpec:
        """What networks must know of it before they are built."""
        return DataSpec(self.shape, len(self.classes), self.preview(FEW))

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash that tells this data from other data."""


class SizedSource(Source):
    """A source with a last sample; every epoch goes through all of them in a new order."""

    _orders: dict[int, Tensor]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def gather(self, places: Tensor) -> Batch:
        """The samples at `places`, int64, B: uint8, B x H x W x C, with their labels."""

    @abstractmethod
    def gather_labels(self, places: Tensor) -> Tensor | None:
        """Their labels alone, B, or None where the data has none."""

    def epoch_order(self, epoch: int, streams: RandomStreams) -> Tensor:
        """The order of one epoch: a permutation that depends on (seed, epoch) alone."""
        if epoch not in self._orders:
            # numpy's permutation knows no device, and the order must not depend on one
            shuffled = np.random.Generator(np.random.Philox(derive_seed(streams.seed, "data", epoch))).permutation(
                len(self)
            )
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1}
            self._orders[epoch] = torch.from_numpy(shuffled)
        return self._orders[epoch]

    def batch(self, index: int, size: int, streams: RandomStreams) -> Batch:
        """Samples index * size, ... of all epochs laid end to end, so that none is left over."""
        return self.gather(self.batch_indices(index, size, streams))

    @cached_property
    def class_counts(self) -> tuple[int, ...]:
        """See `Source.class_counts`."""
        counts = torch.zeros(len(self.classes), dtype=torch.int64)
        for start in range(0, len(self) if self.classes else 0, COUNTED):
            labels = self.gather_labels(torch.arange(start, min(start + COUNTED, len(self))))
            assert labels is not None, "classes have labels"
            counts += torch.bincount(labels, minlength=len(counts))
        return tuple(counts.tolist())

    def spec(self) -> DataSpec:
        """The same, and how many there are."""
        return super().spec()._replace(num_samples=len(self))

    def batch_labels(self, index: int, size: int, streams: RandomStreams) -> Tensor | None:
        """The same without touching the samples."""
        return self.gather_labels(self.batch_indices(index, size, streams))

    def evenly_spaced(self, n: int) -> Tensor:
        """Up to n places, spread evenly over the data."""
        return torch.from_numpy(np.linspace(0, len(self) - 1, min(n, len(self))).astype(np.int64))

    def preview(self, n: int) -> Tensor:
        """n samples spread evenly over the data."""
        return to_float(self.gather(self.evenly_spaced(n)).images)

    def batch_indices(self, index: int, size: int, streams: RandomStreams) -> Tensor:
        """Where batch `index` is taken from, int64, B."""
        places: list[Tensor] = []
        start, stop = index * size, (index + 1) * size
        while start < stop:
            epoch, at = divmod(start, len(self))
            taken = self.epoch_order(epoch, streams)[at : at + stop - start]
            places.append(taken)
            start += len(taken)
        return places[0] if len(places) == 1 else torch.cat(places)


class ImageDataset(SizedSource):
    """Pictures in memory.

    Args:
        images: uint8, N x H x W x C, C from 1 to 4; may be memory-mapped.
        labels: int64, N, numbers below len(classes).
        classes: the labels' names.
    """

    def __init__(self, images: Bytes, labels: Labels | None = None, classes: tuple[str, ...] = ()) -> None:
        self.images, self.labels, self.classes = images, labels, classes
        _, height, width, channels = images.shape
        self.shape = (channels, height, width)
        self._pool = torch.from_numpy(images)
        self._labels = None if labels is None else torch.from_numpy(labels)
        self._orders = {}

    def __len__(self) -> int:
        return len(self.images)

    def gather(self, places: Tensor) -> Batch:
        """See `Finite.take`."""
        return Batch(self._pool.index_select(0, places), self.gather_labels(places))

    def gather_labels(self, places: Tensor) -> Tensor | None:
        """See `Finite.labels_at`."""
        return None if self._labels is None else self._labels[places]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of sizes, bytes and labels, 16 hex digits."""
        digest = hashlib.sha256(repr((self.images.shape, self.classes)).encode())
        for start in range(0, len(self), 4096):
            digest.update(self.images[start : start + 4096].tobytes())
        if self.labels is not None:
            digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()[:16]


class DataWarning(NamedTuple):
    """What is likely to be a mistake about the data, what would mend it, and the tip that it goes back to."""

    message: str
    cure: str
    tip: str


@dataclass
class DataSplits:
    """Data, ready: what to train on, what to hold out, and what there is to say about it.

    Attributes:
        train: the feed.
        held_out: pictures that are never trained on, or None.
        notes: sentences that the user should read once.
        bad_files: files left out, with the reason.
        warnings: what is likely to be a mistake; said at the start of a run and by the check, as warnings.
    """

    train: Source
    held_out: Source | None = None
    notes: list[str] = field(default_factory=list)
    bad_files: list[BadFile] = field(default_factory=list)
    warnings: list[DataWarning] = field(default_factory=list)


class DataConfig(ComponentConfig):
    """Data in a recipe."""

    def load(self, root: Path | None = None) -> DataSplits:
        """Read and check everything. `root` is where data sets by name are looked for (`--data-root`).

        Raises:
            DataError: nothing usable is there; says what, where and what to do.
        """
        raise NotImplementedError


class ImageDataConfig(DataConfig):
    """What all picture data shares: the side of the square picture that the players see.

    Attributes:
        alpha: whether the second of two channels, and the fourth of four, is how opaque a pixel is.
    """

    alpha: ClassVar[bool] = True

    size: int = Field(default=32, ge=1, le=4096)


class ToyConfig(DataConfig):
    """A distribution in the plane; its shape is known before it is loaded."""

    shape: ClassVar[Shape] = (2,)


def loading_memory(entry: DataConfig) -> AbstractContextManager[None]:
    """Turn "out of memory" while data is loaded into an error with a cure.

    Raises:
        OutOfMemory: it was raised within.
    """
    size = getattr(entry, "size", None)
    cure = "bring fewer pictures" + (f", or smaller ones: --set data.size={size // 2}" if size else "")
    return memory_errors("there is too little memory for the data", f"{size} pixels" if size else "", cure)
