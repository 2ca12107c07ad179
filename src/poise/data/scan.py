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

from poise.data import decoded
from poise.data.classes import Place
from poise.data.decode import SUFFIXES, Background, Frame, Header, Trait, careful, look, read, reason
from poise.data.listing import Item, Listing, in_order, shown
from poise.data.places import WHERE, PathText
from poise.data.remarks import of_content, of_files, of_pixels, of_range
from poise.data.source import Bad, Bytes, Loaded, PictureEntry
from poise.data.stack import BUDGET, divide, enough, room
from poise.data.table import classes_of
from poise.errors import DataError
from poise.printing import counted
from poise.progress import Slow

THREADS = min(4, os.cpu_count() or 1)
CHUNK = 256

Thing = TypeVar("Thing")
Result = TypeVar("Result")


class ScannedEntry(PictureEntry):
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


class Seen(NamedTuple):
    """A picture whose header is in order."""

    item: Item
    header: Header


def scan(listing: Listing, entry: ScannedEntry, budget: int = BUDGET) -> Loaded:
    """Decode everything on the list.

    Args:
        listing: what there is, in any order.
        entry: what it is made into.
        budget: bytes that may be held in memory; see `room`.

    Raises:
        DataError: no pictures at all, fewer than two usable ones, or too many bad ones.
    """
    if not listing.items and not listing.bad:
        found = f"only {listing.passed_over}" if listing.ignored else "nothing at all"
        cure = f"pictures are files that end in {' '.join(SUFFIXES)}"
        raise DataError(f"there are no pictures in this {entry.place}", where=WHERE, found=found, cure=cure)
    bad = list(listing.bad)
    items = sorted(listing.items, key=lambda item: in_order(item.name))
    headers, images, found = _decoded(items, entry, budget, listing.listed)
    frame = Frame(entry.size, images.shape[3], entry.background)
    both = list(zip(items, headers, strict=True))
    seen = [Seen(item, header) for item, header in both if isinstance(header, Header)]
    bad += [Bad(shown(item.name), header) for item, header in both if isinstance(header, str)]
    bad += [Bad(shown(one.item.name), why) for one, why in zip(seen, found, strict=True) if isinstance(why, str)]
    bad.sort(key=lambda one: in_order(one.name))
    usable = np.array([row for row, why in enumerate(found) if not isinstance(why, str)], np.intp)
    _few_enough(bad, len(usable), entry)
    enough(len(usable), counted(len(bad), "bad picture file"))
    good = [(seen[row].item.name, seen[row].header) for row in usable]
    traits = Counter(trait for one in found if not isinstance(one, str) for trait in one)
    classes = classes_of([name for name, _ in good], listing, Place(entry.inside, entry.outer))
    loaded = divide(images, usable, classes.labels, classes.names, entry.held_out)
    images = images[: len(usable)]  # the others were moved behind them
    loaded.notes = [*classes.notes, *of_files(listing, bad, good)]
    loaded.notes += of_content([header for _, header in good], traits, frame) + of_pixels(images)
    loaded.doubts = [*classes.doubts, *of_range(images, traits[Trait.DEEP])]
    loaded.bad = bad
    return loaded


def _decoded(
    items: list[Item], entry: ScannedEntry, budget: int, listed: float
) -> tuple[list[Header | str], Bytes, list[set[Trait] | str]]:
    """Both passes, or what they gave the last time: for each item its header or why it has none, and see `_pixels`."""
    key = decoded.key(items, entry.size, entry.channels, entry.background)
    kept, began = decoded.load(key, budget) if key else None, time.monotonic()
    if kept is None:
        with careful(), ThreadPoolExecutor(THREADS) as pool, Slow() as slow:
            spread = Spread(pool, slow)
            headers = _headers(spread, items)
            good = [header for header in headers if isinstance(header, Header)]
            channels = entry.channels or (1 if all(header.grey for header in good) else 3)
            with_header = [item for item, header in zip(items, headers, strict=True) if isinstance(header, Header)]
            images, traits = _pixels(spread, with_header, Frame(entry.size, channels, entry.background), budget)
        kept = decoded.Decoded(headers, images, traits)
        decoded.keep(key, items, kept, time.monotonic() - began, listed)
    return kept.headers, kept.images, kept.traits


def _headers(spread: Spread, items: list[Item]) -> list[Header | str]:
    """The first pass: what each file says of itself, or why it can't be used."""

    def header_of(item: Item) -> Header | str:
        try:
            with item.open() as stream:
                return look(stream)
        except Exception as error:  # a decoder can raise anything, and one file never ends the scan
            return reason(error)

    return spread(header_of, items, "looking at {:,} of {:,} pictures")


def _pixels(spread: Spread, items: list[Item], frame: Frame, budget: int) -> tuple[Bytes, list[set[Trait] | str]]:
    """The second pass: the array, and for each row the traits of its picture or why there is none."""
    images = room((len(items), frame.size, frame.size, frame.channels), budget)

    def fill(row: int) -> set[Trait] | str:
        try:
            with items[row].open() as stream:
                images[row], traits = read(stream, frame)
        except Exception as error:  # as above
            return reason(error)
        return traits

    return images, spread(fill, range(len(items)), "reading {:,} of {:,} pictures")


class Spread(NamedTuple):
    """Threads to spread work over, and who says how far it is."""

    pool: ThreadPoolExecutor
    slow: Slow

    def __call__(self, work: Callable[[Thing], Result], things: Sequence[Thing], words: str) -> list[Result]:
        """`pool.map` in chunks: all at once would make a future for each of a million files."""
        self.slow.phase(words, len(things))
        results: list[Result] = []
        for start in range(0, len(things), CHUNK):
            for result in self.pool.map(work, things[start : start + CHUNK]):
                results.append(result)
                self.slow.step()
        return results


def _few_enough(bad: list[Bad], good: int, entry: ScannedEntry) -> None:
    files = len(bad) + good
    if len(bad) > entry.max_bad * files:
        first = ", ".join(f"{one.name} ({one.reason})" for one in bad[:3]) + (", ..." if len(bad) > 3 else "")
        raise DataError(
            f"{len(bad):,} of {counted(files, 'picture file')} can't be used: {first}",
            where=WHERE,
            cure=f"mend or remove them, or raise data.max_bad, which is {entry.max_bad:g}",
        )
