"""Data sources: what every kind of data is loaded into.

A `Source` returns batches without end, and the order of the samples is a function of (seed, index). `ImageDataset`
holds uint8 images in memory (or memory-mapped) and returns them in a new order each epoch, `StackedDigits`
(`stacked_digits.py`) assembles its images on demand, `TwoDomains` (`domains.py`) puts unrelated images of two sets
together, and `ToySource` (`toys.py`) draws points in the plane. Images are
converted between uint8 and [-1, 1] by `utils/images.py` only.
"""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poise.core.random_streams import RandomStreams, derive_seed
from poise.core.ranks import Ranks
from poise.core.types import Batch, DataSpec, Shape
from poise.data.pixel_statistics import chunks_of_rows, pixel_hashes
from poise.errors import DataError
from poise.utils.cache import remembered
from poise.utils.images import Bytes, read_ahead, to_float

CALIBRATION_SAMPLES = 64
"""The number of samples from which virtual batch norm takes its statistics."""

LABEL_CHUNK = 1 << 20
"""The number of labels that are counted at once."""

Labels = npt.NDArray[np.int64]


class BadFile(NamedTuple):
    """A file that cannot be used, and the reason."""

    name: str
    reason: str


class SkippedFolder(BadFile):
    """A folder that cannot be read, so that all images in it are lost, and the reason."""

    __slots__ = ()


class UnusableFilesError(DataError):
    """Too little of the data can be used.

    Attributes:
        bad_files: all files and folders that can't.
    """

    def __init__(self, what: str, bad_files: Sequence[BadFile], *, where: str, found: str = "", cure: str = "") -> None:
        super().__init__(what, where=where, found=found, cure=cure)
        self.bad_files = bad_files


class Source(ABC):
    """An endless sequence of batches of real samples.

    Attributes:
        shape: the shape of a sample: (C, H, W), or (2,).
        classes: the class names by label; empty if the data has no labels.
        parts: the number of channels (or vector entries) of each domain in a sample; empty for ordinary data.
        domain_sources: the images (or vectors) of each domain on their own, as many as `parts`.
        contents: what endless data consists of, in words.
    """

    shape: Shape
    contents: str = "points in the plane"
    classes: tuple[str, ...] = ()
    parts: tuple[int, ...] = ()

    @property
    def domain_sources(self) -> tuple[Source, ...]:
        """See the class."""
        return ()

    @abstractmethod
    def batch(self, index: int, size: int, streams: RandomStreams) -> Batch:
        """Batch `index` of the sequence, on the host. Images are uint8, B x H x W x C."""

    def batch_labels(self, index: int, size: int, streams: RandomStreams) -> Tensor | None:
        """The labels of batch `index`, B, or None if the data has no labels."""
        return self.batch(index, size, streams).labels

    def part_of_batch(self, index: int, size: int, streams: RandomStreams, ranks: Ranks) -> Batch:
        """The samples of batch `index` that belong to a rank, B / number of ranks."""
        return self.batch(index, size, streams).map(ranks.part)

    @abstractmethod
    def preview(self, n: int) -> Tensor:
        """n samples in [-1, 1], the same ones in every call, to compare with generated samples."""

    @abstractmethod
    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n samples at random, with replacement, on the host: in the form of `batch`.

        Args:
            n: the number of samples.
            generator: a generator of the host.
        """

    @property
    def class_counts(self) -> tuple[int, ...]:
        """The number of samples of each class; empty if the data has no labels."""
        return ()

    @property
    def paired(self) -> bool:
        """Whether the images of a sample belong together, so that one of them is the true translation of the other."""
        return False

    def spec(self) -> DataSpec:
        """What networks must know about the data before they are built."""
        return DataSpec(self.shape, len(self.classes), self.preview(CALIBRATION_SAMPLES), parts=self.parts)

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash that identifies the data."""


class SizedSource(Source):
    """A source with a finite number of samples; each epoch visits all of them in a new order.

    Attributes:
        order_stream: the random stream of the orders.
    """

    order_stream: str = "data"
    _orders: dict[tuple[int, int], Tensor]
    """The orders of the last two epochs, by seed and epoch."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def gather(self, indices: Tensor) -> Batch:
        """The samples at `indices` (int64, B) with their labels; images are uint8, B x H x W x C."""

    @abstractmethod
    def gather_labels(self, indices: Tensor) -> Tensor | None:
        """The labels at `indices`, B, or None if the data has no labels."""

    def epoch_order(self, epoch: int, streams: RandomStreams) -> Tensor:
        """The order of an epoch: a permutation that depends on (seed, epoch) only."""
        key = (streams.seed, epoch)
        if key not in self._orders:
            # drawn with numpy, so that the order does not depend on the device
            seed = derive_seed(streams.seed, self.order_stream, epoch)
            shuffled = np.random.Generator(np.random.Philox(seed)).permutation(len(self))
            self._orders = {k: order for k, order in self._orders.items() if k == (streams.seed, epoch - 1)}
            self._orders[key] = torch.from_numpy(shuffled)
        return self._orders[key]

    def batch(self, index: int, size: int, streams: RandomStreams) -> Batch:
        """Samples index * size to (index + 1) * size of the concatenated epochs, so that no sample is dropped."""
        return self.gather(self.batch_indices(index, size, streams))

    def part_of_batch(self, index: int, size: int, streams: RandomStreams, ranks: Ranks) -> Batch:
        """See `Source.part_of_batch`; reads only these samples."""
        if ranks.size == 1:
            return self.batch(index, size, streams)
        return self.gather(ranks.part(self.batch_indices(index, size, streams)))

    @cached_property
    def class_counts(self) -> tuple[int, ...]:
        """See `Source.class_counts`."""
        counts = torch.zeros(len(self.classes), dtype=torch.int64)
        for start in range(0, len(self) if self.classes else 0, LABEL_CHUNK):
            labels = self.gather_labels(torch.arange(start, min(start + LABEL_CHUNK, len(self))))
            assert labels is not None, "data with classes has labels"
            counts += torch.bincount(labels, minlength=len(counts))
        return tuple(counts.tolist())

    def spec(self) -> DataSpec:
        """See `Source.spec`; includes the number of samples."""
        return super().spec()._replace(num_samples=len(self))

    def batch_labels(self, index: int, size: int, streams: RandomStreams) -> Tensor | None:
        """See `Source.batch_labels`; does not read the samples."""
        return self.gather_labels(self.batch_indices(index, size, streams))

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """See `Source.draw`."""
        return self.gather(torch.randint(len(self), (n,), generator=generator)).images

    def evenly_spaced(self, n: int) -> Tensor:
        """The indices of up to n samples, evenly spaced over the data."""
        return torch.from_numpy(np.linspace(0, len(self) - 1, min(n, len(self))).astype(np.int64))

    def preview(self, n: int) -> Tensor:
        """Up to n samples, evenly spaced over the data."""
        return to_float(self.gather(self.evenly_spaced(n)).images)

    def batch_indices(self, index: int, size: int, streams: RandomStreams) -> Tensor:
        """The indices of the samples of batch `index`, int64, B."""
        parts: list[Tensor] = []
        start, stop = index * size, (index + 1) * size
        while start < stop:
            epoch, offset = divmod(start, len(self))
            part = self.epoch_order(epoch, streams)[offset : offset + stop - start]
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class ImageDataset(SizedSource):
    """Images in memory.

    Args:
        images: uint8, N x H x W x C, C from 1 to 4; may be memory-mapped.
        labels: int64, N, from 0 to len(classes) - 1.
        classes: the class names by label.
        parts: the number of channels of each domain, if an image is a pair; see `Source.parts`.
        rows: the rows of `images` that are the samples, ascending, if these are not all; M instead of N samples.
        fingerprints: the file that remembers the fingerprints of these images, which then must not change.
    """

    def __init__(
        self,
        images: Bytes,
        labels: Labels | None = None,
        classes: tuple[str, ...] = (),
        parts: tuple[int, ...] = (),
        *,
        rows: npt.NDArray[np.intp] | None = None,
        fingerprints: Path | None = None,
    ) -> None:
        self.images, self.labels, self.classes, self.parts = images, labels, classes, parts
        self._rows, self._fingerprints = rows, fingerprints
        _, height, width, channels = images.shape
        self.shape = (channels, height, width)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor is it written to
            self._image_tensor = torch.from_numpy(images)
        self._row_tensor = None if rows is None else torch.from_numpy(rows)
        self._label_tensor = None if labels is None else torch.from_numpy(labels)
        self._orders = {}

    def __len__(self) -> int:
        return len(self.images if self._rows is None else self._rows)

    @cached_property
    def domain_sources(self) -> tuple[ImageDataset, ...]:
        """The images of each domain, in the order of the pairs: views of the same array."""
        ends = np.cumsum(self.parts).tolist()
        slices = [slice(end - part, end) for end, part in zip(ends, self.parts, strict=True)]
        images = [self.images[..., channels] for channels in slices]
        return tuple(ImageDataset(each, self.labels, self.classes, rows=self._rows) for each in images)

    def gather(self, indices: Tensor) -> Batch:
        """See `SizedSource.gather`."""
        rows = indices if self._row_tensor is None else self._row_tensor[indices]
        if self._row_tensor is not None and isinstance(self.images, np.memmap):
            read_ahead(self.images, rows.tolist())
        return Batch(self._image_tensor.index_select(0, rows), self.gather_labels(indices))

    def gather_labels(self, indices: Tensor) -> Tensor | None:
        """See `SizedSource.gather_labels`."""
        return None if self._label_tensor is None else self._label_tensor[indices]

    def select(
        self, indices: npt.NDArray[np.intp], labels: Labels | None = None, classes: tuple[str, ...] = ()
    ) -> ImageDataset:
        """Some of the samples, with labels and classes of their own.

        Args:
            indices: which ones, ascending.
            labels: int64, one for each of them, from 0 to len(classes) - 1.
            classes: the class names by label.
        """
        rows = indices if self._rows is None else self._rows[indices]
        return ImageDataset(self.images, labels, classes, self.parts, rows=rows, fingerprints=self._fingerprints)

    @property
    def paired(self) -> bool:
        """See `Source.paired`: true if there are two parts."""
        return len(self.parts) > 1

    @cached_property
    def fingerprint(self) -> str:
        """The first 16 hex digits of the SHA-256 of shape, class names, parts, pixels and labels; computed once."""
        shape = (len(self), *self.images.shape[1:])
        described = repr((shape, self.classes, *((self.parts,) if self.parts else ()))).encode()
        labels = b"" if self.labels is None else self.labels.astype("<i8").tobytes()

        def compute() -> str:
            digest = hashlib.sha256(described)
            for images in self._chunks():
                digest.update(np.ascontiguousarray(images).reshape(-1).data)
            digest.update(labels)
            return digest.hexdigest()[:16]

        if self._fingerprints is None or self._rows is None:
            return compute()
        key = hashlib.sha256(described + self._rows.astype("<i8").tobytes() + labels).hexdigest()[:16]
        return remembered(self._fingerprints, key, compute)

    def pixel_hashes(self) -> Bytes:
        """See `pixel_statistics.pixel_hashes`."""
        return np.concatenate([pixel_hashes(images) for images in self._chunks()])

    def _chunks(self) -> Iterator[Bytes]:
        """All samples, a few at a time."""
        for part in chunks_of_rows(self.images, len(self)):
            yield self.images[part if self._rows is None else self._rows[part]]


class DataWarning(NamedTuple):
    """A likely mistake in the data, how to correct it, and the tip that explains it."""

    message: str
    cure: str
    tip: str


@dataclass
class DataSplits:
    """Loaded data: the training and held-out samples, with notes and warnings.

    Attributes:
        train: the training samples.
        held_out: samples that are never used for training, or None.
        notes: sentences to show to the user once.
        bad_files: the files and folders that were skipped, with the reasons.
        warnings: likely mistakes, which `poise check` and the start of a run report.
    """

    train: Source
    held_out: Source | None = None
    notes: list[str] = field(default_factory=list)
    bad_files: list[BadFile] = field(default_factory=list)
    warnings: list[DataWarning] = field(default_factory=list)

    def domain(self, index: int) -> DataSplits:
        """The images of one domain of data with several, as data of its own."""
        held_out = None if self.held_out is None else self.held_out.domain_sources[index]
        return DataSplits(self.train.domain_sources[index], held_out)
