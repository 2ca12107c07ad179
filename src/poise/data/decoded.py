"""The result of decoding a list of image files, and its form in the cache."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from poise.data import decode, fit, orientation, pixel_statistics
from poise.data.decode import NO_MEMORY, Header, Trait
from poise.data.decode_cache import Arrays, Entry, Files, key_of
from poise.data.fit import Background, Fit
from poise.data.listing import Item
from poise.data.pixel_statistics import PixelStatistics
from poise.utils.images import Bytes

TRANSIENT = ("unreadable", NO_MEMORY)
"""Prefixes of reasons that may disappear without a change to the file."""

CODE = (decode.__file__, fit.__file__, orientation.__file__, pixel_statistics.__file__)
"""The modules that determine the result."""


@dataclass
class DecodedImages:
    """The result of decoding a list of files.

    Equal headers are one object, and so are equal traits, so that a million of them need little memory.

    Attributes:
        headers: for each file, in the order of names, its header, or the reason why it can't be opened.
        images: N x H x W x C, one row for each file with a header.
        traits: for each row, the traits of the image, or the reason why it can't be decoded.
        statistics: those of each row; they mean nothing for one that can't be decoded.
    """

    headers: list[Header | str]
    images: Bytes
    traits: list[frozenset[Trait] | str]
    statistics: PixelStatistics

    @property
    def rows(self) -> list[int | str]:
        """For each file the row of its image, or the reason why it can't be used."""
        row, rows = -1, list[int | str]()
        for header in self.headers:
            row += isinstance(header, Header)
            found = header if isinstance(header, str) else self.traits[row]
            rows.append(found if isinstance(found, str) else row)
        return rows

    @property
    def lasting(self) -> bool:
        """Whether no file is left out for a reason that may be gone later: disk, permission, memory."""
        reasons = {one for one in (*self.headers, *self.traits) if isinstance(one, str)}
        return not any(reason.startswith(TRANSIENT) for reason in reasons)

    def to_entry(self) -> Entry:
        """Its form in the cache."""
        headers, which_header = _distinct(self.headers)
        traits, which_traits = _distinct(self.traits)
        arrays = {"header": which_header, "traits": which_traits, **self.statistics._asdict()}
        facts = {
            "headers": [one if isinstance(one, str) else list(one) for one in headers],
            "traits": [one if isinstance(one, str) else sorted(one) for one in traits],
        }
        return Entry(self.images, arrays, facts)

    @classmethod
    def from_entry(cls, entry: Entry) -> Self:
        """The result that `to_entry` describes."""
        headers = [Header(*one) if isinstance(one, list) else str(one) for one in entry.facts["headers"]]
        traits = [frozenset(map(Trait, one)) if isinstance(one, list) else str(one) for one in entry.facts["traits"]]
        return cls(
            [headers[i] for i in entry.arrays["header"].tolist()],
            entry.images,
            [traits[i] for i in entry.arrays["traits"].tolist()],
            statistics_of(entry.arrays),
        )


def statistics_of(arrays: Arrays) -> PixelStatistics:
    """The statistics among the arrays of an entry."""
    return PixelStatistics(*(arrays[name] for name in PixelStatistics._fields))


def files_of(
    items: Sequence[Item],
    listed_at: float,
    size: tuple[int, int],
    channels: int | None,
    background: Background,
    fit: Fit,
    *,
    halves: tuple[int | None, int | None] | None = None,
) -> Files:
    """What the cache must know about the files and the format that they are decoded to."""
    options = (size, channels, background, fit, *(() if halves is None else (halves,)))
    key = key_of([(item.name, item.stamp) for item in items], *options, code=CODE)
    return Files(key, max((item.changed for item in items), default=0), listed_at)


def _distinct(values: Sequence[Hashable]) -> tuple[list[Any], npt.NDArray[np.int32]]:
    """The distinct values, and for each value its index among them."""
    index_of: dict[Hashable, int] = {}
    indices = np.fromiter((index_of.setdefault(value, len(index_of)) for value in values), np.int32, len(values))
    return list(index_of), indices
