"""The scan that folders and archives share: every picture is opened and decoded before step 0.

Two passes: the headers tell how much room and how many channels are needed, then each picture is decoded
straight into its row of the final array. What can't be used is listed with its reason; what was settled on
the way (alpha, frames, sizes) is said once, in notes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
from pydantic import Field

from poise.data.decode import SUFFIXES, Background, Frame, Header, Trait, careful, look, read, reason
from poise.data.listing import Item, Listing, in_order, shown
from poise.data.places import WHERE, PathText
from poise.data.source import Bad, Bytes, Labels, Loaded, PictureEntry
from poise.data.stack import BUDGET, divide, enough, remarks, room
from poise.errors import DataError
from poise.printing import counted

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

    path: PathText
    channels: Literal[1, 2, 3, 4] | None = None
    background: Background = "white"
    held_out: float = Field(default=0.1, ge=0, lt=1)
    max_bad: float = Field(default=0.5, ge=0, le=1)


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
    with careful(), ThreadPoolExecutor(THREADS) as pool:
        seen = _headers(pool, listing.items, bad)
        channels = entry.channels or (1 if all(one.header.grey for one in seen) else 3)
        frame = Frame(entry.size, channels, entry.background)
        images, found = _pixels(pool, seen, frame, budget)
    bad += [Bad(shown(one.item.name), why) for one, why in zip(seen, found, strict=True) if isinstance(why, str)]
    bad.sort(key=lambda one: in_order(one.name))
    usable = np.array([row for row, why in enumerate(found) if not isinstance(why, str)], np.intp)
    _few_enough(bad, len(usable), entry)
    enough(len(usable), counted(len(bad), "bad picture file"))
    good = [seen[row] for row in usable]
    labels, classes, notes = _labels([one.item.group for one in good])
    notes += _of_files(listing, bad, good) + _of_content(good, found, frame) + remarks(images, usable)
    loaded = divide(images, usable, labels, classes, entry.held_out)
    loaded.notes, loaded.bad = notes, bad
    return loaded


def _headers(pool: ThreadPoolExecutor, items: list[Item], bad: list[Bad]) -> list[Seen]:
    """The first pass, in the order of names."""

    def header_of(item: Item) -> Header | str:
        try:
            with item.open() as stream:
                return look(stream)
        except Exception as error:  # a decoder can raise anything, and one file never ends the scan
            return reason(error)

    seen: list[Seen] = []
    items = sorted(items, key=lambda item: in_order(item.name))
    for item, header in zip(items, _spread(pool, header_of, items), strict=True):
        if isinstance(header, Header):
            seen.append(Seen(item, header))
        else:
            bad.append(Bad(shown(item.name), header))
    return seen


def _pixels(
    pool: ThreadPoolExecutor, seen: list[Seen], frame: Frame, budget: int
) -> tuple[Bytes, list[set[Trait] | str]]:
    """The second pass: the array, and for each row the traits of its picture or why there is none."""
    images = room((len(seen), frame.size, frame.size, frame.channels), budget)

    def fill(row: int) -> set[Trait] | str:
        try:
            with seen[row].item.open() as stream:
                images[row], traits = read(stream, frame)
        except Exception as error:  # as above
            return reason(error)
        return traits

    return images, _spread(pool, fill, range(len(seen)))


def _spread(pool: ThreadPoolExecutor, work: Callable[[Thing], Result], things: Sequence[Thing]) -> list[Result]:
    """`pool.map` in chunks: all at once would make a future for each of a million files."""
    results: list[Result] = []
    for start in range(0, len(things), CHUNK):
        results += pool.map(work, things[start : start + CHUNK])
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


def _labels(groups: list[str | None]) -> tuple[Labels | None, tuple[str, ...], list[str]]:
    """Numbers, names, notes: folders are classes if there are several and no picture lies beside them."""
    folders = sorted({group for group in groups if group is not None}, key=in_order)
    if not folders:
        return None, (), []
    if None in groups:
        top = counted(groups.count(None), "picture")
        others = f"{top} at the top and others in {counted(len(folders), 'folder')}"
        return None, (), [f"{others}: the folders are not taken as classes"]
    if len(folders) == 1:
        return None, (), [f"all pictures are in one folder, {shown(folders[0])}: they have no classes"]
    number = {folder: i for i, folder in enumerate(folders)}
    labels = np.array([number[group] for group in groups if group is not None], np.int64)
    return labels, tuple(map(shown, folders)), []


def _of_files(listing: Listing, bad: list[Bad], good: list[Seen]) -> list[str]:
    """Notes on files: left out, passed over, named after another format."""
    notes: list[str] = []
    if bad:
        notes.append(f"{len(bad):,} of {counted(len(bad) + len(good), 'picture file')} left out as bad")
    if listing.ignored:
        notes.append(f"passed over {counted(listing.ignored.total(), 'other file')}: {listing.passed_over}")
    wrong = [one for one in good if _real(one) != SUFFIXES.get(PurePosixPath(one.item.name).suffix.lower())]
    if wrong:
        example = f"{shown(wrong[0].item.name)} is {_real(wrong[0])}"
        notes.append(f"{counted(len(wrong), 'picture')} named after another format ({example}): the content counts")
    return notes


def _real(one: Seen) -> str:
    return "JPEG" if one.header.format == "MPO" else one.header.format


def _of_content(good: list[Seen], found: list[set[Trait] | str], frame: Frame) -> list[str]:
    """Notes on what the pictures were and what they became."""
    traits = Counter(trait for one in found if not isinstance(one, str) for trait in one)
    headers = [one.header for one in good]
    several = sum(header.several for header in headers)
    small = sum(min(header.width, header.height) < frame.size for header in headers)
    alpha = "kept" if frame.channels in (2, 4) else f"laid over {frame.background} (data.background)"
    told = (
        (traits[Trait.ALPHA], f"with transparency: {alpha}"),
        (traits[Trait.DEEP], "with 16-bit grey: the upper 8 bits are taken"),
        (several, "with more frames or pages than one: the first is taken"),
        (small, f"smaller than {frame.size} x {frame.size}: enlarged"),
        (traits[Trait.PROFILE], "with a colour profile that can't be used: taken as sRGB"),
        (traits[Trait.EXIF], "with EXIF data that can't be read: taken as they lie"),
    )
    return _mixture(headers, frame) + [f"{counted(n, 'picture')} {what}" for n, what in told if n]


def _mixture(headers: list[Header], frame: Frame) -> list[str]:
    modes = Counter(header.mode for header in headers)
    sizes = sorted({(header.width, header.height) for header in headers}, key=lambda size: (size[0] * size[1], size))
    if len(modes) == 1 and len(sizes) == 1:
        return []
    kinds = ", ".join(f"{n:,} {mode}" for mode, n in modes.most_common())
    first, last = (f"{width} x {height}" for width, height in (sizes[0], sizes[-1]))
    spread = first if len(sizes) == 1 else f"{counted(len(sizes), 'size')} from {first} to {last}"
    became = f"{frame.size} x {frame.size} x {counted(frame.channels, 'channel')}"
    return [f"the pictures are {kinds}, {spread}; all become {became}"]
