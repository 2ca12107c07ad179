"""What the headers of images say about a data set before it is loaded: number, sizes, greyscale or colour."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from statistics import median, median_low
from typing import NamedTuple

from poise.data.config import DataConfig, ImageDataConfig, with_size
from poise.data.decode import Header, read_header, strict_pillow
from poise.data.derived_digits import DerivedDigitsConfig
from poise.data.digits import DigitsConfig
from poise.data.folder import FolderConfig, Walk
from poise.data.listing import Item
from poise.data.npz import NpzConfig, array_shape
from poise.data.pairs import match_names
from poise.data.paths import file_at, folder_at
from poise.data.shards import ShardsConfig
from poise.data.torchvision_data import VisionConfig
from poise.data.two_domains import DOMAINS, TwoDomainsConfig, below, find_layout, listing_at, ordinary_kind
from poise.data.zip_archive import ZipConfig, listing_of
from poise.errors import Stopped
from poise.utils.cache import cache_dir, remembered
from poise.utils.files import make_folder

NUM_HEADERS = 500
"""The number of images that are inspected: at least so many of a larger set, and fewer than twice as many."""

MAX_SIDE = 256


class ImageFacts(NamedTuple):
    """Facts about the images of a data set.

    Attributes:
        count: the number of images, or of pairs; files that turn out to be damaged are counted.
        shapes: height and width of each image that was inspected, at least one.
        grey: whether all of these are greyscale.
        parts: for each of two domains, its number of channels; empty for ordinary images.
    """

    count: int
    shapes: Sequence[tuple[int, int]]
    grey: bool
    parts: tuple[int, ...] = ()

    @property
    def has_one_size(self) -> bool:
        """Whether all of these have the same height and width."""
        return len(set(self.shapes)) == 1

    @property
    def middle_side(self) -> int:
        """The median length of the shorter side, the lower one of two."""
        return median_low(min(shape) for shape in self.shapes)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images; if they differ, a square of the median length of the shorter side."""
        return self.shapes[0] if self.has_one_size else (self.middle_side, self.middle_side)

    @property
    def typical_shape(self) -> tuple[int, int]:
        """The median height and the median width."""
        return round(median(height for height, _ in self.shapes)), round(median(width for _, width in self.shapes))


KNOWN = {
    "MNIST": ImageFacts(60_000, [(28, 28)], grey=True),
    "FashionMNIST": ImageFacts(60_000, [(28, 28)], grey=True),
    "KMNIST": ImageFacts(60_000, [(28, 28)], grey=True),
    "QMNIST": ImageFacts(60_000, [(28, 28)], grey=True),
    "USPS": ImageFacts(7_291, [(16, 16)], grey=True),
    "CIFAR10": ImageFacts(50_000, [(32, 32)], grey=False),
    "CIFAR100": ImageFacts(50_000, [(32, 32)], grey=False),
    "SVHN": ImageFacts(73_257, [(32, 32)], grey=False),
    "STL10": ImageFacts(5_000, [(96, 96)], grey=False),
}
"""The training splits of torchvision's data sets."""

DIGITS = ImageFacts(4_000, [(28, 28)], grey=True)
"""The digits of the package."""


def image_facts(config: DataConfig) -> ImageFacts | None:
    """Facts about a folder, an archive, an npz file or a named data set; None if they are unknown.

    Fewer than 1,000 headers are read, evenly spaced. Errors are left to `DataConfig.load`.
    """
    if isinstance(config, VisionConfig):
        return KNOWN[config.dataset]
    if isinstance(config, DerivedDigitsConfig):
        return DIGITS._replace(parts=(1, 1))
    return DIGITS if isinstance(config, DigitsConfig) else _inspect(config)


def native_size(config: DataConfig, facts: ImageFacts | None = None) -> tuple[int, int] | None:
    """`ImageFacts.size`; None if it is unknown, or if the images are padded to the size of the data.

    Args:
        config: the data.
        facts: what `image_facts` says of it, if that is known already.
    """
    if padded_from(config) is not None:
        return None
    facts = facts or image_facts(config)
    return None if facts is None else facts.size


def padded_from(config: DataConfig) -> int | None:
    """The side of images that are padded to a larger size, such as the digits; None for images that are resized."""
    if isinstance(config, VisionConfig):
        known = KNOWN[config.dataset]
        return known.middle_side if known.grey and config.fit == "pad" else None
    return DIGITS.middle_side if isinstance(config, DigitsConfig | DerivedDigitsConfig) else None


def _inspect(config: DataConfig) -> ImageFacts | None:
    try:
        if isinstance(config, TwoDomainsConfig):
            return _facts_of_domains(config)
        if isinstance(config, NpzConfig):
            return _facts_of_array(config.path)
        if isinstance(config, ShardsConfig):
            return _facts_of_shards(config)
        if isinstance(config, FolderConfig):
            return _facts_of_items(Walk(folder_at(config.path), config.follow_links).listing().items)
        if isinstance(config, ZipConfig):
            with zipfile.ZipFile(file_at(config.path)) as archive:
                return _facts_of_items(listing_of(archive).items)
    except Stopped:
        raise
    except Exception:  # a damaged archive can raise anything
        return None
    return None


def _facts_of_domains(config: TwoDomainsConfig) -> ImageFacts | None:
    """Facts about the images of both domains; the number of images is that of the pairs, or of the larger domain."""
    pairs = None
    if len(config.paths) > 1:
        domains = [_inspect(config.ordinary(k, path)) for k, path in enumerate(config.paths)]
    elif ordinary_kind(config.paths[0]) is NpzConfig:
        domains = [_facts_of_array(config.paths[0], name) for name in DOMAINS]
    else:
        with listing_at(config.paths[0], config.follow_links) as listing:
            folders = find_layout(listing, side_by_side=config.two_domains == "pairs").train
            items = [below(listing, folder).items for folder in folders]
            domains = [_facts_of_items(images) for images in items]
            if config.two_domains == "pairs" and len(items) == len(DOMAINS):
                pairs = len(match_names(items[0], items[1], folders).pairs)
    found = [facts for facts in domains if facts is not None]
    if not found or len(found) < len(domains):
        return None
    halves = len(found) < len(DOMAINS)  # of images side by side
    shapes = [(height, width // 2 if halves else width) for facts in found for height, width in facts.shapes]
    parts = [config.domain_channels(k) or (1 if found[-1 if k else 0].grey else 3) for k in range(len(DOMAINS))]
    count = max(facts.count for facts in found) if pairs is None else pairs
    return ImageFacts(count, shapes, all(facts.grey for facts in found), tuple(parts))


def _facts_of_array(path: str, name: str = "images") -> ImageFacts | None:
    with zipfile.ZipFile(file_at(path)) as archive:
        count, *shape = array_shape(archive, name)
    if len(shape) not in (2, 3) or not count:
        return None
    height, width, *channels = shape
    return ImageFacts(count, [(height, width)], grey=channels in ([], [1], [2]))


def _facts_of_shards(config: ShardsConfig) -> ImageFacts | None:
    """Facts about shards, which are remembered, as a million images take a minute to list."""

    def compute() -> str:
        facts = _facts_of_items(config.listing()[0].items)
        return json.dumps(facts)

    files, folder = config.files(config.shards()[0], time.time()), cache_dir() / "shards"
    if files.cacheable:
        with suppress(OSError):
            make_folder(folder)
        if facts := _parsed(remembered(folder / f"{files.key}.json", "facts", compute)):
            return facts
    return _parsed(compute())


def _parsed(text: str) -> ImageFacts | None:
    """The facts that a JSON text remembers; None if it remembers none, or is damaged."""
    try:
        count, shapes, grey, _ = json.loads(text)
        return ImageFacts(int(count), [(int(height), int(width)) for height, width in shapes], bool(grey))
    except (ValueError, TypeError):
        return None


def _facts_of_items(items: list[Item]) -> ImageFacts | None:
    headers: list[Header] = []
    with strict_pillow():
        for item in items[:: max(1, len(items) // NUM_HEADERS)]:
            try:
                with item.open() as stream:
                    headers.append(read_header(stream))
            except Stopped:
                raise
            except Exception:  # a decoder can raise anything; the scan reports the error
                continue
    if not headers:
        return None
    shapes = [(header.height, header.width) for header in headers]
    return ImageFacts(len(items), shapes, grey=all(header.grey for header in headers))


def limited(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width, scaled down so that neither is above 256 pixels."""
    scale = min(1.0, MAX_SIDE / max(size))
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def at_native_size(
    config: DataConfig, size: tuple[int, int] | None = None, facts: ImageFacts | None = None
) -> DataConfig:
    """The config with `size` as the size of its images, or their native size, if that is known.

    A native size with a side above 256 pixels is scaled down.

    Args:
        config: the data.
        size: height and width.
        facts: see `native_size`.
    """
    native = None if size else native_size(config, facts)
    if native is not None:
        size = limited(native)
    return with_size(config, size) if size and isinstance(config, ImageDataConfig) else config


def without_held_out(config: DataConfig) -> DataConfig:
    """The config without a held-out set."""
    return config.model_copy(update={"held_out": 0.0}) if "held_out" in type(config).model_fields else config
