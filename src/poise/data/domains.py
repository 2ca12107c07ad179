"""`domains`: two sets of images that do not belong together one by one, such as photographs and paintings.

A sample is an image of the domain a on top of one of the domain b, which is drawn independently of it.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import model_validator
from torch import Tensor

from poise.core.config import reject_value
from poise.core.random_streams import RandomStreams, derive_seed
from poise.core.ranks import Ranks
from poise.core.types import Batch
from poise.data.classes import MAX_NAMED
from poise.data.image_array import MIN_COUNT
from poise.data.listing import Listing, display_name
from poise.data.notes import file_notes
from poise.data.npz import ArrayNames, NpzConfig, load_arrays, load_set
from poise.data.paths import WHERE, PathText, located
from poise.data.scan import scan
from poise.data.source import DataSplits, ImageDataset, SizedSource
from poise.data.two_domains import (
    DOMAINS,
    Layout,
    TwoDomainsConfig,
    below,
    find_layout,
    listing_at,
    merge_notes,
    merge_warnings,
    ordinary_kind,
    unused_arrays_note,
)
from poise.data.unusable_files import folder_warning, without_folders
from poise.errors import DataError
from poise.utils.images import to_float
from poise.utils.printing import count_noun

SEED = 20170330
"""The seed of the fixed combinations, see `TwoDomains`."""

ARRAYS = tuple(ArrayNames(name, f"{name}_labels", f"{name}_classes") for name in DOMAINS)
"""The names of the arrays of each domain in an npz file."""


class TwoDomains(SizedSource):
    """Two sets of images, each of which has an order of its own, so that sets of equal length are not secretly paired.

    A batch has the next images of each set. There are as many samples as images in the larger set, as in CycleGAN's
    code, so an epoch visits each of its images once, and those of the smaller set more than once. For what needs a
    fixed list of samples (measures, the search for copies), sample i is image i of a with a fixed random one of b, if a
    is at least as large as b; otherwise both are fixed random ones, of which each image of b is in one sample.

    Args:
        a: the images of the domain a; their labels are kept there, but a sample has none.
        b: those of the domain b, of the same height and width.
    """

    def __init__(self, a: ImageDataset, b: ImageDataset) -> None:
        self._sources = (a, b)
        for name, source in zip(DOMAINS, self._sources, strict=True):
            source.order_stream = f"data/{name}"
        self.parts = (a.shape[0], b.shape[0])
        self.shape = (sum(self.parts), *a.shape[1:])
        self._orders = {}
        self._fixed = [torch.from_numpy(_fixed_order(k, len(source), len(self))) for k, source in enumerate((a, b))]

    @property
    def domain_sources(self) -> tuple[ImageDataset, ...]:
        """See `Source`."""
        return self._sources

    def __len__(self) -> int:
        return max(map(len, self._sources))

    def batch(self, index: int, size: int, streams: RandomStreams) -> Batch:
        """Batch `index` of each domain, in an order of its own."""
        return _stack([source.batch(index, size, streams).images for source in self._sources])

    def part_of_batch(self, index: int, size: int, streams: RandomStreams, ranks: Ranks) -> Batch:
        """See `Source.part_of_batch`."""
        return _stack([source.part_of_batch(index, size, streams, ranks).images for source in self._sources])

    def batch_labels(self, index: int, size: int, streams: RandomStreams) -> None:
        """None."""
        return

    def batch_indices(self, index: int, size: int, streams: RandomStreams) -> NoReturn:
        """Refused: the images of a sample have an index each, see `domain_sources`.

        Raises:
            ValueError: always. `check_players` refuses recipes that need indices, with a cure.
        """
        raise ValueError("the images of two domains have no common index")

    def gather(self, indices: Tensor) -> Batch:
        """The fixed samples at `indices`, see the class."""
        images = [
            source.gather(order[indices]).images for source, order in zip(self._sources, self._fixed, strict=True)
        ]
        return _stack(images)

    def gather_labels(self, indices: Tensor) -> None:
        """None."""
        return

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """See `Source.draw`; each domain is drawn independently."""
        return _stack([source.draw(n, generator) for source in self._sources]).images

    def preview(self, n: int) -> Tensor:
        """Up to n samples, evenly spaced over both domains."""
        n = min(n, len(self))
        spaced = [torch.from_numpy(np.linspace(0, len(source) - 1, n).astype(np.int64)) for source in self._sources]
        images = [source.gather(indices).images for source, indices in zip(self._sources, spaced, strict=True)]
        return to_float(_stack(images).images)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the fingerprints of both domains."""
        return hashlib.sha256("/".join(source.fingerprint for source in self._sources).encode()).hexdigest()[:16]


def _fixed_order(domain: int, n: int, length: int) -> npt.NDArray[np.int64]:
    """Which of n images of a domain is in each of `length` fixed samples: each image about equally often."""
    if n == length and domain == 0:
        return np.arange(n)
    random = np.random.Generator(np.random.Philox(derive_seed(SEED, DOMAINS[domain])))
    return np.concatenate([random.permutation(n) for _ in range(-(-length // n))])[:length]


def _stack(images: list[Tensor]) -> Batch:
    """Images of both domains, B x H x W x C each, on top of each other."""
    return Batch(torch.cat(images, 3))


class DomainsConfig(TwoDomainsConfig):
    """Two unpaired sets: a `path` with two sub-folders or an npz with `a` and `b`, or two paths, `a` and `b`.

    Each of the two paths is a folder, a zip archive or an npz file that is a set of images on its own. Sub-folders
    within a domain are classes of its images, as are `a_labels` and `b_labels` of an npz file; measures use them.
    """

    two_domains: ClassVar[Literal["", "pairs", "domains"]] = "domains"

    kind: Literal["domains"] = "domains"
    path: PathText | None = None
    a: PathText | None = None
    b: PathText | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        given = [name for name in ("path", *DOMAINS) if getattr(self, name) is not None]
        if given not in (["path"], [*DOMAINS]):
            found = ", ".join(given) or "none of them"
            reject_value("give either path, or both a and b", key="path", found=found)
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """See `DataConfig.paths`."""
        return tuple(path for path in (self.path, self.a, self.b) if path is not None)

    def load(self, root: Path | None = None) -> DataSplits:
        """Read the images of both domains; `root` is not used.

        Raises:
            DataError: the data does not exist, can't be read, or is not two sets of images.
        """
        domains, notes = self._load_domains()
        too_few = [name for name, splits in zip(DOMAINS, domains, strict=True) if splits.held_out is None]
        if len(too_few) == 1:  # what is held out of the other domain alone is of no use, so it is trained on
            domains, notes = self.model_copy(update={"held_out": 0.0})._load_domains()
        return _combine(domains, notes, too_few[0] if len(too_few) == 1 else "")

    def _load_domains(self) -> tuple[list[DataSplits], list[str]]:
        """Both domains, with notes on where they were found."""
        if self.path is None:
            return [self._load_path(k, path) for k, path in enumerate(self.paths)], []
        if ordinary_kind(self.path) is NpzConfig:
            return self._load_npz(self.path)
        with listing_at(self.path, self.follow_links) as listing:
            layout = find_layout(listing, side_by_side=False)
            domains = [self._scan(k, self.path, listing, layout) for k in range(len(DOMAINS))]
        return domains, [*layout.notes, *file_notes(listing, [], [])]

    def _load_path(self, domain: int, path: str) -> DataSplits:
        """One domain from a path of its own."""
        try:
            splits = self.ordinary(domain, path).load()
            splits.bad_files = [file._replace(name=f"{DOMAINS[domain]}: {file.name}") for file in splits.bad_files]
            return splits
        except DataError as error:
            raise located(error, f"data.{DOMAINS[domain]}") from None

    def _load_npz(self, path: str) -> tuple[list[DataSplits], list[str]]:
        arrays = load_arrays(path, (name for names in ARRAYS for name in names))
        domains = []
        for k, names in enumerate(ARRAYS):
            config = self.ordinary(k, path)
            assert isinstance(config, NpzConfig)
            domains.append(load_set(arrays, names, config))
        known = {name for names in ARRAYS for name in names}
        return domains, unused_arrays_note([name for name in arrays if name not in known])

    def _scan(self, domain: int, path: str, listing: Listing, layout: Layout) -> DataSplits:
        """One domain from its folder, and from that of the held-out split if there is one."""

        def read(folder: str, least: int = MIN_COUNT, **changes: Any) -> DataSplits:
            config, levels = self.scanned(domain, path, **changes), len(folder.split("/"))
            try:
                return scan(below(listing, folder), config, outer_levels=levels, least=least)
            except DataError as error:
                raise located(error, f"{WHERE}: {display_name(folder)}") from None

        if not layout.held_out:
            return read(layout.train[domain])
        splits = read(layout.train[domain], held_out=0.0)
        held_out = read(layout.held_out[domain], 1, held_out=0.0, channels=splits.train.shape[0])
        assert isinstance(splits.train, ImageDataset)
        assert isinstance(held_out.train, ImageDataset)
        splits.held_out, notes = with_classes_of(splits.train, held_out.train)
        splits.notes += notes
        if bad := without_folders(held_out.bad_files):
            splits.notes.append(f"held out: skipped {count_noun(len(bad), 'image file')} as invalid")
        found = folder_warning(held_out.bad_files)
        splits.warnings += [one._replace(message=f"held out: {one.message}") for one in found]
        splits.bad_files += held_out.bad_files
        return splits


def with_classes_of(train: ImageDataset, held_out: ImageDataset) -> tuple[ImageDataset, list[str]]:
    """Held-out images from a folder of their own, labelled as the training images are, and notes on what was changed.

    Each folder numbers the classes that it has by itself. Images of classes that no training image has are left out;
    if that would be all of them, they are kept without labels, as are those of folders without classes.
    """
    if held_out.classes == train.classes:
        return held_out, []
    if held_out.labels is None:
        return held_out, ["held out: its images have no classes, unlike those of training"]
    number = {name: label for label, name in enumerate(train.classes)}
    labels = np.array([number.get(name, -1) for name in held_out.classes], np.int64)[held_out.labels]
    known = np.flatnonzero(labels >= 0)
    if not len(known):
        what = "its classes are not used, as no training image has one of them"
        return held_out.select(np.arange(len(held_out))), [f"held out: {what}"]
    lacking = [name for name in held_out.classes if name not in number]
    left_out = count_noun(len(held_out) - len(known), "image")
    more = ", ..." if len(lacking) > MAX_NAMED else ""
    what = f"held out: {left_out} of classes that training lacks, not used: {', '.join(lacking[:MAX_NAMED])}{more}"
    return held_out.select(known, labels[known], train.classes), [what] if lacking else []


def _combine(domains: list[DataSplits], notes: list[str], too_few: str) -> DataSplits:
    """The splits of both domains as one.

    Args:
        domains: those of each.
        notes: on where they were found.
        too_few: the domain because of which nothing is held out, if it is because of one.
    """
    both = TwoDomains(*(splits.train for splits in domains if isinstance(splits.train, ImageDataset)))
    held = [splits.held_out for splits in domains if isinstance(splits.held_out, ImageDataset)]
    counts = [f"{name}: {_counts(splits)}" for name, splits in zip(DOMAINS, domains, strict=True)]
    notes = [*notes, ", ".join(counts)]
    notes += [f"nothing is held out, as {too_few} has too few images"] if too_few else []
    notes += merge_notes([splits.notes for splits in domains])
    warnings = merge_warnings([splits.warnings for splits in domains])
    bad = [file for splits in domains for file in splits.bad_files]
    return DataSplits(both, TwoDomains(*held) if len(held) == len(DOMAINS) else None, notes, bad, warnings)


def _counts(splits: DataSplits) -> str:
    """The numbers of images of a domain."""
    train, held_out = ([s] if isinstance(s, ImageDataset) else [] for s in (splits.train, splits.held_out))
    return " and ".join([*(count_noun(len(s), "image") for s in train), *(f"{len(s):,} held out" for s in held_out)])
