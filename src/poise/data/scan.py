"""The scan of folders and archives: every image is opened and decoded before the first step.

There are two passes. The first reads all headers, which determine the size of the array and the number of channels; the
second decodes each image into its row of the array. Files that can't be used are listed with the reason, and
conversions (alpha, frames, sizes) are reported in notes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from poise.data.classes import Classes, Container
from poise.data.config import ImageDataConfig
from poise.data.dataset_json import find_classes
from poise.data.decode import SUFFIXES, Header, Trait, decode_image, read_header, strict_pillow
from poise.data.decode_cache import Destination, Entry, Files, cached
from poise.data.decoded import DecodedImages, files_of, statistics_of
from poise.data.fit import Background, Fit, TargetFormat
from poise.data.image_array import MIN_COUNT, check_enough, split_dataset
from poise.data.listing import Item, Listing, display_name, sort_key
from poise.data.notes import content_notes, file_notes, grey_note, pixel_notes, range_note
from poise.data.paths import WHERE, PathText
from poise.data.pixel_statistics import PixelStatistics
from poise.data.source import BadFile, DataSplits, DataWarning
from poise.data.split import group_hashes
from poise.data.unread_formats import explain
from poise.data.unusable_files import check_bad, count_unusable, folder_warning, without_folders
from poise.errors import DataError
from poise.utils.images import Bytes
from poise.utils.progress import DelayedProgress

THREADS = min(4, os.cpu_count() or 1)
CHUNK = 256

HalfChannels = tuple[int | None, int | None]

T = TypeVar("T")
Result = TypeVar("Result")


class ScannedConfig(ImageDataConfig):
    """The options that folders and archives share.

    Without `channels`, the images have 1 channel if all are greyscale, and 3 otherwise. With 2 or 4 channels alpha is
    kept, otherwise it is composited over `background`. `fit` says whether images of another aspect ratio than that of
    `size` are cropped, padded or squeezed (`decode.fit_image`). `held_out` is the fraction of the images that is never
    used for training. If more than the fraction `max_bad` of the image files is bad, the run ends.
    """

    container: ClassVar[str]
    """What contains the images: "folder" or "archive"."""

    outer_levels: ClassVar[int] = 0
    """The number of enclosing folders that need no note."""

    path: PathText
    channels: Literal[1, 2, 3, 4] | None = None
    background: Background = "white"
    fit: Fit = "crop"
    held_out: float = Field(default=0.1, ge=0, lt=1)
    max_bad: float = Field(default=0.5, ge=0, le=1)

    def select_folder(self, folder: str) -> str:
        """The text, for a cure, that says how to select one of its folders as the data."""
        raise NotImplementedError

    def target_format(self, channels: int) -> TargetFormat:
        """See `ImageDataConfig.target_format`."""
        return TargetFormat(self.height_width, channels, self.background, self.fit)


def scan(
    listing: Listing,
    config: ScannedConfig,
    budget: int | None = None,
    *,
    outer_levels: int | None = None,
    least: int = MIN_COUNT,
) -> DataSplits:
    """Decode all images of a listing.

    Args:
        listing: the files, in any order.
        config: how they are converted.
        budget: the largest number of bytes in memory; see `decode_cache.cached`.
        outer_levels: see `ScannedConfig.outer_levels`, the default.
        least: how many usable images there must be.

    Raises:
        DataError: there are no images, too few usable ones, or too many bad files.
        DiskError: the images don't fit into memory, and the disk has too little space.
    """
    items = sorted_items(listing, config)
    files = _files(items, config, listing.listed_at)

    def decode(destination: Destination) -> tuple[Entry, bool]:
        decoded = decode_files(items, config, destination)
        return decoded.to_entry(), decoded.lasting

    entry = cached(files, decode, budget)
    decoded = DecodedImages.from_entry(entry)
    found = describe(decoded, items, listing, config, outer_levels)
    return found.splits(config, least, entry.fingerprints)


def sorted_items(listing: Listing, config: ScannedConfig) -> list[Item]:
    """The image files by name.

    Raises:
        DataError: there are none.
    """
    if not listing.items and not listing.bad_files:
        found = f"only {listing.ignored_summary}" if listing.ignored else "nothing at all"
        cure = f"image files end in {' '.join(SUFFIXES)}"
        raise DataError(f"there are no images in this {config.container}", where=WHERE, found=found, cure=cure)
    return sorted(listing.items, key=lambda item: sort_key(item.name))


@dataclass
class Scanned:
    """What was found in files of images, before they are split.

    Attributes:
        images: N x H x W x C.
        usable: the rows that hold an image, ascending.
        statistics: those of the usable rows.
        classes: their classes.
        notes: on the files and how they were converted, not yet on their pixels.
        warnings: likely mistakes.
        bad: the files that can't be used.
    """

    images: Bytes
    usable: npt.NDArray[np.intp]
    statistics: PixelStatistics
    classes: Classes
    notes: list[str]
    warnings: list[DataWarning]
    bad: list[BadFile]

    def splits(self, config: ScannedConfig, least: int, fingerprints: Path | None) -> DataSplits:
        """The training and held-out images.

        Raises:
            DataError: there are too few usable images, or too many bad files.
        """
        n, labels, names = len(self.usable), self.classes.labels, self.classes.names
        check_bad(self.bad, n, config.max_bad)
        check_enough(n, count_unusable(self.bad), least)
        groups = group_hashes(
            self.images, self.usable, self.statistics.hashes, mirror=config.mirror, fingerprints=fingerprints
        )
        splits = split_dataset(
            self.images, self.usable, labels, names, config.held_out, groups, fingerprints=fingerprints
        )
        splits.notes = [*self.notes, *pixel_notes(self.statistics, groups)]
        splits.warnings, splits.bad_files = self.warnings, self.bad
        return splits

    def to_entry(self) -> Entry:
        """Its form in the cache."""
        labels = {} if self.classes.labels is None else {"labels": self.classes.labels}
        facts = {"names": self.classes.names, "notes": self.notes, "warnings": self.warnings, "bad": self.bad}
        return Entry(self.images, {"usable": self.usable, **labels, **self.statistics._asdict()}, facts)

    @classmethod
    def from_entry(cls, entry: Entry) -> Self:
        """The result that `to_entry` describes."""
        arrays, facts = entry.arrays, entry.facts
        classes = Classes(arrays.get("labels"), tuple(facts["names"]))
        warnings, bad = [DataWarning(*one) for one in facts["warnings"]], [BadFile(*one) for one in facts["bad"]]
        statistics = statistics_of(arrays)
        return cls(entry.images, arrays["usable"], statistics, classes, list(facts["notes"]), warnings, bad)


def describe(
    decoded: DecodedImages,
    items: list[Item],
    listing: Listing,
    config: ScannedConfig,
    outer_levels: int | None = None,
) -> Scanned:
    """What is known of decoded files: their classes, notes and warnings."""
    target = config.target_format(decoded.images.shape[3])
    files = list(zip(items, decoded.headers, decoded.rows, strict=True))
    bad = [
        *listing.bad_files,
        *(BadFile(display_name(item.name), row) for item, _, row in files if isinstance(row, str)),
    ]
    bad.sort(key=lambda file: sort_key(file.name))
    good = [(item.name, header) for item, header, row in files if isinstance(header, Header) and isinstance(row, int)]
    usable = np.array([row for _, _, row in files if isinstance(row, int)], np.intp)
    statistics, trait_counts = decoded.statistics.select(usable), count_traits(decoded, usable)
    container = Container(config.select_folder, config.outer_levels if outer_levels is None else outer_levels)
    classes = find_classes([name for name, _ in good], listing, container)
    notes = [*classes.notes, *file_notes(listing, without_folders(bad), good)]
    if good:
        notes += content_notes([header for _, header in good], trait_counts, target)
    if config.channels is None:
        notes += grey_note(decoded.images, usable)
    warnings = [*folder_warning(bad), *classes.warnings, *range_note(statistics, trait_counts[Trait.SIXTEEN_BIT])]
    return Scanned(decoded.images, usable, statistics, classes, notes, warnings, bad)


def decode_items(
    items: list[Item], config: ScannedConfig, listed_at: float, *, halves: HalfChannels | None = None
) -> DecodedImages:
    """The result of both passes, or the cached one.

    Args:
        items: the files.
        config: how they are converted.
        listed_at: when they were listed.
        halves: see `TargetFormat.halves`; where a number is None it is that of ordinary images.
    """

    def decode(destination: Destination) -> tuple[Entry, bool]:
        decoded = decode_files(items, config, destination, halves=halves)
        return decoded.to_entry(), decoded.lasting

    return DecodedImages.from_entry(cached(_files(items, config, listed_at, halves), decode))


def _files(items: list[Item], config: ScannedConfig, listed_at: float, halves: HalfChannels | None = None) -> Files:
    size, channels = config.height_width, config.channels
    return files_of(items, listed_at, size, channels, config.background, config.fit, halves=halves)


def decode_files(
    items: list[Item], config: ScannedConfig, destination: Destination, *, halves: HalfChannels | None = None
) -> DecodedImages:
    """Both passes; see `decode_items`."""
    with strict_pillow(), ThreadPoolExecutor(THREADS) as pool, DelayedProgress() as progress:
        work = ThreadedWork(pool, progress)
        headers = read_headers(work, items)
        good = [header for header in headers if isinstance(header, Header)]
        channels = config.channels or (1 if all(header.grey for header in good) else 3)
        with_header = [item for item, header in zip(items, headers, strict=True) if isinstance(header, Header)]
        target = config.target_format(channels)
        if halves is not None:
            target = target._replace(halves=(halves[0] or channels, halves[1] or channels))
        images, traits = _read_pixels(work, with_header, target, destination)
    return DecodedImages(headers, images, traits, PixelStatistics.of(images))


def count_traits(decoded: DecodedImages, usable: npt.NDArray[np.intp]) -> Counter[Trait]:
    """How many of the usable images have each trait."""
    found = [decoded.traits[row] for row in usable]
    return Counter(trait for traits in found if not isinstance(traits, str) for trait in traits)


def read_headers(work: ThreadedWork, items: list[Item]) -> list[Header | str]:
    """The first pass: the header of each file, or the reason why it can't be used."""
    known: dict[Header, Header] = {}

    def header_of(item: Item) -> Header | str:
        try:
            with item.open() as stream:
                header = read_header(stream)
                return known.setdefault(header, header)
        except Exception as error:  # a decoder can raise anything, and one file must not end the scan
            return explain(error, item.open)

    return work(header_of, items, "inspecting {:,} of {:,} images")


def _read_pixels(
    work: ThreadedWork, items: list[Item], target: TargetFormat, destination: Destination
) -> tuple[Bytes, list[frozenset[Trait] | str]]:
    """The second pass: the array, and for each row the traits of its image or the reason why it can't be decoded."""
    channels = target.channels if target.halves is None else sum(target.halves)
    images = destination.allocate((len(items), *target.size, channels))
    known: dict[frozenset[Trait], frozenset[Trait]] = {}

    def fill(row: int) -> frozenset[Trait] | str:
        try:
            with items[row].open() as stream:
                images[row], traits = decode_image(stream, target)
        except Exception as error:  # see `read_headers`
            return explain(error, items[row].open)
        found = frozenset(traits)
        return known.setdefault(found, found)

    return images, work(fill, range(len(items)), "reading {:,} of {:,} images")


class ThreadedWork(NamedTuple):
    """A thread pool that reports its progress."""

    pool: ThreadPoolExecutor
    progress: DelayedProgress

    def __call__(self, function: Callable[[T], Result], inputs: Sequence[T], message: str) -> list[Result]:
        """Map `function` over `inputs`, in chunks, so that there is not one future for each of a million files."""
        self.progress.phase(message, len(inputs))
        results: list[Result] = []
        for start in range(0, len(inputs), CHUNK):
            for result in self.pool.map(function, inputs[start : start + CHUNK]):
                results.append(result)
                self.progress.step()
        return results
