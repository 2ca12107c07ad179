"""The native size of images, from their headers."""

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

MAX_HEADERS = 500
MAX_SIZE = 256


def native_side(config: DataConfig) -> int | None:
    """The most common length of the shorter side in a folder, an archive or an npz file; None if it is unknown.

    At most about 500 headers are read, evenly spaced. Errors are left to `DataConfig.load`.
    """
    try:
        sides = _sides(config)
    except Stopped:
        raise
    except Exception:  # a damaged archive can raise anything
        return None
    return Counter(sides).most_common(1)[0][0] if sides else None


def _sides(config: DataConfig) -> list[int]:
    if isinstance(config, NpzConfig):
        with file_at(config.path).open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            shape = archive["images"].shape if "images" in archive else ()
        return [min(shape[1:3])] if len(shape) in (3, 4) else []
    if isinstance(config, FolderConfig):
        return _sides_of_items(Walk(folder_at(config.path), config.follow_links).listing().items)
    if isinstance(config, ZipConfig):
        with zipfile.ZipFile(file_at(config.path)) as archive:
            return _sides_of_items(listing_of(archive).items)
    return []


def _sides_of_items(items: list[Item]) -> list[int]:
    sides: list[int] = []
    with strict_pillow():
        for item in items[:: max(1, len(items) // MAX_HEADERS)]:
            try:
                with item.open() as stream:
                    header = read_header(stream)
            except Stopped:
                raise
            except Exception:  # a decoder can raise anything; the scan reports the error
                continue
            sides.append(min(header.width, header.height))
    return sides


def at_native_side(config: DataConfig, side: int | None = None) -> DataConfig:
    """The config with `size` set to `side`, or to the native size of its images, at most 256, if that is known."""
    native = native_side(config)
    size = side or (None if native is None else min(native, MAX_SIZE))
    resizable = size is not None and "size" in type(config).model_fields
    return config.model_copy(update={"size": size}) if resizable else config


def without_held_out(config: DataConfig) -> DataConfig:
    """The config without a held-out set."""
    return config.model_copy(update={"held_out": 0.0}) if "held_out" in type(config).model_fields else config
