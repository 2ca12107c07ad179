"""The scan that folders and archives share: every picture is opened and decoded before step 0.

Two passes: the headers tell how much room and how many channels are needed, then each picture is decoded
straight into its row of the final array. What can't be used is listed with its reason; what was settled on
the way (alpha, frames, sizes) is said once, in notes.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
from pydantic import Field

from poise.data import decode_cache
from poise.data.classes import Container
from poise.data.dataset_json import classes_of
from poise.data.decode import (
    SUFFIXES,
    Background,
    Header,
    TargetFormat,
    Trait,
    decode_image,
    read_header,
    reason,
    strict_pillow,
)
from poise.data.image_array import MEMORY_BUDGET, allocate_images, check_enough, split_dataset
from poise.data.listing import Item, Listing, display_name, sort_key
from poise.data.notes import content_notes, file_notes, pixel_notes, range_note
from poise.data.paths import WHERE, PathText
from poise.data.source import BadFile, DataSplits, ImageDataConfig
from poise.errors import DataError
from poise.utils.images import Bytes
from poise.utils.printing import count_noun
from poise.utils.progress import DelayedProgress

THREADS = min(4, os.cpu_count() or 1)
CHUNK = 256

Thing = TypeVar("Thing")
Result = TypeVar("Result")


class ScannedConfig(ImageDataConfig):
    """What a folder and an archive share.

    `channels` left out means 1 where all pictures are grey, else 3; with 2 or 4 alpha is kept, otherwise it
    is laid over `background`. `held_out` is the share that is never trained on. If more than the share
    `max_bad` of the picture files is bad, the run ends.
    """

    place: ClassVar[str]
    """What holds the pictures, in a word."""

    outer: ClassVar[int] = 0
    """How many folders around everything go without saying."""

    path: PathText
    channels: Literal[1, 2, 3, 4] | None = None
    background: Background = "white"
    held_out: float = Field(default=0.1, ge=0, lt=1)
    max_bad: float = Field(default=0.5, ge=0, le=1)

    def inside(self, folder: str) -> str:
        """How to name a folder in it as the data, in words for a cure."""
        raise NotImplementedError


class ScannedImage(NamedTuple):
    """A picture whose header is in order."""

    item: Item
    header: Header


def scan(listing: Listing, entry: ScannedConfig, budget: int = MEMORY_BUDGET) -> DataSplits:
    """Decode everything on the list.

    Args:
        listing: what there is, in any order.
        entry: what it is made into.
        budget: bytes that may be held in memory; see `room`.

    Raises:
        DataError: no pictures at all, fewer than two usable ones, or too many bad ones.
    """
    if not listing.items and not listing.bad_files:
        found = f"only {listing.describe_ignored}" if listing.ignored else "nothing at all"
        cure = f"pictures are files that end in {' '.join(SUFFIXES)}"
        raise DataError(f"there are no pictures in this {entry.place}", where=WHERE, found=found, cure=cure)
    bad = list(listing.bad_files)
    items = sorted(listing.items, key=lambda item: sort_key(item.name))
    headers, images, found = _decoded(items, entry, budget, listing.listed)
    frame = TargetFormat(entry.size, images.shape[3], entry.background)
    both = list(zip(items, headers, strict=True))
    seen = [ScannedImage(item, header) for item, header in both if isinstance(header, Header)]
    bad += [BadFile(display_name(item.name), header) for item, header in both if isinstance(header, str)]
    bad += [
        BadFile(display_name(one.item.name), why) for one, why in zip(seen, found, strict=True) if isinstance(why, str)
    ]
    bad.sort(key=lambda one: sort_key(one.name))
    usable = np.array([row for row, why in enumerate(found) if not isinstance(why, str)], np.intp)
    _few_enough(bad, len(usable), entry)
    check_enough(len(usable), count_noun(len(bad), "bad picture file"))
    good = [(seen[row].item.name, seen[row].header) for row in usable]
    traits = Counter(trait for one in found if not isinstance(one, str) for trait in one)
    classes = classes_of([name for name, _ in good], listing, Container(entry.inside, entry.outer))
    loaded = split_dataset(images, usable, classes.labels, classes.names, entry.held_out)
    images = images[: len(usable)]  # the others were moved behind them
    loaded.notes = [*classes.notes, *file_notes(listing, bad, good)]
    loaded.notes += content_notes([header for _, header in good], traits, frame) + pixel_notes(images)
    loaded.warnings = [*classes.warnings, *range_note(images, traits[Trait.DEEP])]
    loaded.bad_files = bad
    return loaded


def _decoded(
    items: list[Item], entry: ScannedConfig, budget: int, listed: float
) -> tuple[list[Header | str], Bytes, list[set[Trait] | str]]:
    """Both passes, or what they gave the last time: for each item its header or why it has none, and see `_pixels`."""
    key = decode_cache.key(items, entry.size, entry.channels, entry.background)
    kept, began = decode_cache.load(key, budget) if key else None, time.monotonic()
    if kept is None:
        with strict_pillow(), ThreadPoolExecutor(THREADS) as pool, DelayedProgress() as slow:
            spread = ThreadedWork(pool, slow)
            headers = _headers(spread, items)
            good = [header for header in headers if isinstance(header, Header)]
            channels = entry.channels or (1 if all(header.grey for header in good) else 3)
            with_header = [item for item, header in zip(items, headers, strict=True) if isinstance(header, Header)]
            images, traits = _pixels(spread, with_header, TargetFormat(entry.size, channels, entry.background), budget)
        kept = decode_cache.DecodedImages(headers, images, traits)
        decode_cache.keep(key, items, kept, time.monotonic() - began, listed)
    return kept.headers, kept.images, kept.traits


def _headers(spread: ThreadedWork, items: list[Item]) -> list[Header | str]:
    """The first pass: what each file says of itself, or why it can't be used."""

    def header_of(item: Item) -> Header | str:
        try:
            with item.open() as stream:
                return read_header(stream)
        except Exception as error:  # a decoder can raise anything, and one file never ends the scan
            return reason(error)

    return spread(header_of, items, "looking at {:,} of {:,} pictures")


def _pixels(
    spread: ThreadedWork, items: list[Item], frame: TargetFormat, budget: int
) -> tuple[Bytes, list[set[Trait] | str]]:
    """The second pass: the array, and for each row the traits of its picture or why there is none."""
    images = allocate_images((len(items), frame.size, frame.size, frame.channels), budget)

    def fill(row: int) -> set[Trait] | str:
        try:
            with items[row].open() as stream:
                images[row], traits = decode_image(stream, frame)
        except Exception as error:  # as above
            return reason(error)
        return traits

    return images, spread(fill, range(len(items)), "reading {:,} of {:,} pictures")


class ThreadedWork(NamedTuple):
    """Threads to spread work over, and who says how far it is."""

    pool: ThreadPoolExecutor
    slow: DelayedProgress

    def __call__(self, work: Callable[[Thing], Result], things: Sequence[Thing], words: str) -> list[Result]:
        """`pool.map` in chunks: all at once would make a future for each of a million files."""
        self.slow.phase(words, len(things))
        results: list[Result] = []
        for start in range(0, len(things), CHUNK):
            for result in self.pool.map(work, things[start : start + CHUNK]):
                results.append(result)
                self.slow.step()
        return results


def _few_enough(bad: list[BadFile], good: int, entry: ScannedConfig) -> None:
    files = len(bad) + good
    if len(bad) > entry.max_bad * files:
        first = ", ".join(f"{one.name} ({one.reason})" for one in bad[:3]) + (", ..." if len(bad) > 3 else "")
        raise DataError(
            f"{len(bad):,} of {count_noun(files, 'picture file')} can't be used: {first}",
            where=WHERE,
            cure=f"mend or remove them, or raise data.max_bad, which is {entry.max_bad:g}",
        )
