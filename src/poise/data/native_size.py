"""The size that pictures have by themselves, seen from their headers."""

from __future__ import annotations

import zipfile
from collections import Counter

import numpy as np

from poise.data.decode import read_header, strict_pillow
from poise.data.folder import FolderConfig, Walk
from poise.data.listing import Item
from poise.data.npz import NpzConfig
from poise.data.paths import file_at, folder_at
from poise.data.source import DataConfig
from poise.data.zip_archive import ZipConfig, listing_of
from poise.errors import Stopped

ASKED = 500
LARGEST = 256


def native_side(entry: DataConfig) -> int | None:
    """The shorter side that is most common in a folder, an archive or an npz; None if none can be told.

    Of many files every so-manieth is asked, 500 in all. What is wrong with the data, loading it will say.
    """
    try:
        sides = _sides(entry)
    except Stopped:
        raise
    except Exception:  # whatever a damaged archive makes of it
        return None
    return Counter(sides).most_common(1)[0][0] if sides else None


def _sides(entry: DataConfig) -> list[int]:
    if isinstance(entry, NpzConfig):
        with file_at(entry.path).open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            shape = archive["images"].shape if "images" in archive else ()
        return [min(shape[1:3])] if len(shape) in (3, 4) else []
    if isinstance(entry, FolderConfig):
        return _of_items(Walk(folder_at(entry.path), entry.follow_links).listing().items)
    if isinstance(entry, ZipConfig):
        with zipfile.ZipFile(file_at(entry.path)) as archive:
            return _of_items(listing_of(archive).items)
    return []


def _of_items(items: list[Item]) -> list[int]:
    sides: list[int] = []
    with strict_pillow():
        for item in items[:: max(1, len(items) // ASKED)]:
            try:
                with item.open() as stream:
                    header = read_header(stream)
            except Stopped:
                raise
            except Exception:  # a decoder can raise anything; the scan will say what is wrong
                continue
            sides.append(min(header.width, header.height))
    return sides


def at_native_side(entry: DataConfig, side: int | None = None) -> DataConfig:
    """The entry with its pictures' own size, at most 256, or with `side`; as it is where neither is known."""
    own = native_side(entry)
    wanted = side or (None if own is None else min(own, LARGEST))
    known = wanted is not None and "size" in type(entry).model_fields
    return entry.model_copy(update={"size": wanted}) if known else entry


def without_held_out(entry: DataConfig) -> DataConfig:
    """The entry with nothing held out."""
    return entry.model_copy(update={"held_out": 0.0}) if "held_out" in type(entry).model_fields else entry
