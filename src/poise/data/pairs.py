"""`pairs`: images of two domains that belong together, such as a map and the photograph of the same place.

A sample is the image of the domain a on top of that of the domain b, stacked along the channels, so that pairs are
images like any others: one order, and one decision for each flip.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from poise.data.classes import Classes
from poise.data.decode import Header, Trait
from poise.data.image_array import allocate_images, check_enough, split_dataset
from poise.data.listing import Item, Listing, display_name, sort_key
from poise.data.notes import content_notes, file_notes, pixel_notes, range_note
from poise.data.npz import ArrayNames, NpzConfig, check_images, convert_images, find_classes, load_arrays
from poise.data.paths import WHERE, PathText
from poise.data.pixel_statistics import PixelStatistics
from poise.data.scan import HalfChannels, count_traits, decode_items
from poise.data.source import BadFile, DataSplits, DataWarning, ImageDataset
from poise.data.split import group_hashes
from poise.data.two_domains import (
    DOMAINS,
    Layout,
    Parts,
    TwoDomainsConfig,
    below,
    find_layout,
    listing_at,
    merge_notes,
    merge_warnings,
    ordinary_kind,
    unused_arrays_note,
)
from poise.data.unusable_files import check_bad, count_unusable, folder_warning, without_folders
from poise.errors import DataError
from poise.utils.images import Bytes
from poise.utils.printing import agree, count_noun

NUM_NAMED = 3
"""How many images without a partner are named."""

CHUNK = 1024

LABELS = ("labels", "classes")
"""The arrays of an npz file that label the pairs."""


class PairsConfig(TwoDomainsConfig):
    """Pairs: two sub-folders whose images have the same names, images side by side, or an npz with `a` and `b`.

    Names are compared without suffix. Images side by side are twice as wide as high and are cut into halves; `source`
    says which half is the image of a. The path is a folder, a zip archive or an npz file, which may have `labels` and
    `classes` too, as in `npz`.
    """

    two_domains: ClassVar[Literal["", "pairs", "domains"]] = "pairs"

    kind: Literal["pairs"] = "pairs"
    path: PathText
    source: Literal["left", "right"] = "left"

    def load(self, root: Path | None = None) -> DataSplits:
        """Read all pairs; `root` is not used.

        Raises:
            DataError: the data does not exist, can't be read, or is not pairs of images.
        """
        if ordinary_kind(self.path) is NpzConfig:
            pairs = _read_arrays(self)
            return _split(self, pairs)
        with listing_at(self.path, self.follow_links) as listing:
            layout = find_layout(listing, side_by_side=True)
            pairs = _read_files(self, listing, layout.train)
            check_enough(len(pairs.images), count_unusable(pairs.bad), noun="pair")
            held_out = None
            if layout.held_out:
                same = self.model_copy(update={"channels": pairs.parts})
                held_out = _read_files(same, listing, layout.held_out)
        splits = _split(self, pairs, held_out)
        splits.notes = [*_layout_notes(layout, self.source), *file_notes(listing, [], []), *splits.notes]
        return splits


class Pairs(NamedTuple):
    """Decoded pairs.

    Attributes:
        images: N x H x W x (Ca + Cb).
        parts: Ca and Cb.
        bad: the files that can't be used.
        missing: notes on what is not used.
        notes: notes on the images.
        warnings: likely mistakes.
        groups: N x 16, equal for pairs that stay on the same side of the split: those whose images a are equal, so that
            no held-out image is translated that G has been trained to translate. See `group_hashes`.
        classes: the classes of the pairs.
    """

    images: Bytes
    parts: Parts
    bad: list[BadFile]
    missing: list[str]
    notes: list[str]
    warnings: list[DataWarning]
    groups: Bytes
    classes: Classes = Classes(None)


class _Domain(NamedTuple):
    """The decoded images of one domain: M x H x W x C, the rows that are used, and for each its name and header."""

    images: Bytes
    rows: npt.NDArray[np.intp]
    files: list[tuple[str, Header]]
    traits: Counter[Trait]


class Matches(NamedTuple):
    """Which files of two domains belong together.

    Attributes:
        pairs: the files of a and of b with the same name.
        alone: the names of the files without a partner.
        shared: the names of files that share a name with another file of their domain, such as x.png and x.jpg. They
            are not used, because it is not clear which one is meant.
    """

    pairs: list[tuple[Item, ...]]
    alone: list[str]
    shared: list[str]


def match_names(a: Sequence[Item], b: Sequence[Item], folders: Sequence[str]) -> Matches:
    """Match the files of two domains by their paths below their folders, without suffix.

    Args:
        a: the files of the domain a.
        b: the files of the domain b.
        folders: the folders of a and of b.
    """
    by_stem: list[dict[str, list[Item]]] = []
    for items, folder in zip((a, b), folders, strict=True):
        stems: dict[str, list[Item]] = {}
        for item in sorted(items, key=lambda item: sort_key(item.name)):
            stems.setdefault(posixpath.splitext(item.name[len(folder) + 1 :])[0], []).append(item)
        by_stem.append(stems)
    stems_a, stems_b = by_stem
    unique = [stem for stem in stems_a if stem in stems_b and len(stems_a[stem]) == len(stems_b[stem]) == 1]
    shared = [item.name for stems in by_stem for found in stems.values() if len(found) > 1 for item in found]
    used = {*unique, *(stem for stems in by_stem for stem, found in stems.items() if len(found) > 1)}
    alone = [item.name for stems in by_stem for stem, found in stems.items() if stem not in used for item in found]
    return Matches([(stems_a[stem][0], stems_b[stem][0]) for stem in unique], alone, shared)


def _read_files(config: PairsConfig, listing: Listing, folders: tuple[str, ...]) -> Pairs:
    """Decode the pairs of one split.

    Raises:
        DataError: nothing matches, there are too many bad files, or no pair can be used.
    """
    parts = [below(listing, folder) for folder in folders]
    if len(folders) == 1:
        items = sorted(parts[0].items, key=lambda item: sort_key(item.name))
        matches = Matches([(item,) for item in items], [], [])
    else:
        matches = match_names(parts[0].items, parts[1].items, folders)
        _check_matched(matches, folders)
    decoded = [
        decode_items(
            [pair[k] for pair in matches.pairs],
            config.scanned(k, config.path),
            listing.listed_at,
            halves=_half_channels(config) if len(folders) == 1 else None,
        )
        for k in range(len(folders))
    ]
    rows = list(zip(*(found.rows for found in decoded), strict=True))
    reasons = [
        BadFile(display_name(item.name), row)
        for pair, found in zip(matches.pairs, rows, strict=True)
        for item, row in zip(pair, found, strict=True)
        if isinstance(row, str)
    ]
    bad = sorted([*(file for part in parts for file in part.bad_files), *reasons], key=lambda file: sort_key(file.name))
    usable = [index for index, found in enumerate(rows) if not any(isinstance(row, str) for row in found)]
    num_good = sum(map(len, matches.pairs)) - len(reasons)
    check_bad(bad, num_good, config.max_bad)
    check_enough(len(usable), f"{count_unusable(bad)} in {_named(folders)}", least=1)
    domains = []
    for k, found in enumerate(decoded):
        used = np.array([rows[index][k] for index in usable], np.intp)
        files = [(matches.pairs[index][k].name, found.headers[index]) for index in usable]
        files = [(name, header) for name, header in files if isinstance(header, Header)]
        domains.append(_Domain(found.images, used, files, count_traits(found, used)))
    if len(folders) == 1:
        domains = _cut(domains[0], config)
    missing = [*_match_notes(matches), *_bad_notes(without_folders(bad), num_good, len(rows) - len(usable))]
    return _describe(_stack(domains), domains, config, bad, missing)


def _named(folders: Sequence[str]) -> str:
    return " and ".join(display_name(folder) if folder else "the folder" for folder in folders)


def _half_channels(config: PairsConfig) -> HalfChannels:
    """The channels of the left and of the right half, where they are given."""
    a, b = (config.domain_channels(k) for k in range(len(DOMAINS)))
    return (a, b) if config.source == "left" else (b, a)


def _cut(both: _Domain, config: PairsConfig) -> list[_Domain]:
    """The halves of images side by side as the domains a and b."""
    left = _half_channels(config)[0] or both.images.shape[3] // 2
    halves = [both.images[..., :left], both.images[..., left:]]
    files = [(name, header._replace(width=header.width // 2)) for name, header in both.files]
    domains = [both._replace(images=half, files=files) for half in halves]
    return domains if config.source == "left" else domains[::-1]


def _stack(domains: Sequence[_Domain]) -> Bytes:
    """The used rows of both domains on top of each other."""
    a, b = domains
    n, ends = len(a.rows), (a.images.shape[3], a.images.shape[3] + b.images.shape[3])
    stacked = allocate_images((n, *a.images.shape[1:3], ends[1]))
    for start in range(0, n, CHUNK):
        chunk = slice(start, start + CHUNK)
        stacked[chunk, ..., : ends[0]] = a.images[a.rows[chunk]]
        stacked[chunk, ..., ends[0] :] = b.images[b.rows[chunk]]
    return stacked


def _describe(
    images: Bytes, domains: Sequence[_Domain], config: PairsConfig, bad: list[BadFile], missing: list[str]
) -> Pairs:
    """The pairs with the notes and warnings on each domain."""
    parts = (domains[0].images.shape[3], domains[1].images.shape[3])
    views = (images[..., : parts[0]], images[..., parts[0] :])
    found_notes, found_warnings, found_groups = [], [], []
    for view, domain in zip(views, domains, strict=True):
        target = config.target_format(view.shape[3])
        headers = [header for _, header in domain.files]
        suffixes = file_notes(Listing(), [], domain.files)
        statistics = PixelStatistics.of(view)
        found_groups.append(_groups(view, statistics, config))
        notes = content_notes(headers, domain.traits, target) + pixel_notes(statistics, found_groups[-1])
        found_notes.append(suffixes + notes)
        found_warnings.append(range_note(statistics, domain.traits[Trait.SIXTEEN_BIT]))
    warnings = [*folder_warning(bad), *merge_warnings(found_warnings)]
    return Pairs(images, parts, bad, missing, merge_notes(found_notes), warnings, found_groups[0])


def _groups(images: Bytes, statistics: PixelStatistics, config: PairsConfig) -> Bytes:
    return group_hashes(images, np.arange(len(images)), statistics.hashes, mirror=config.mirror)


def _read_arrays(config: PairsConfig) -> Pairs:
    """The pairs of an npz file.

    Raises:
        DataError: an array is missing, or has another type or shape, or they have different lengths.
    """
    arrays = load_arrays(config.path, (*DOMAINS, *LABELS))
    if missing := [name for name in DOMAINS if name not in arrays]:
        keys = ", ".join(map(display_name, arrays)) or "no arrays"
        cure = "create one with np.savez(path, a=images, b=images)"
        raise DataError(f"no array is called '{missing[0]}'", where=WHERE, found=keys, cure=cure)
    originals = [check_images(arrays, name) for name in DOMAINS]
    a, b = map(len, originals)
    if a != b:
        cure = 'for images that do not belong together use data kind "domains"'
        raise DataError("a and b must have the same number of images", where=WHERE, found=f"{a:,} and {b:,}", cure=cure)
    check_enough(a, noun="pair")
    domains, notes, warnings, groups = [], [], [], []
    for k, images in enumerate(originals):
        sub_config = config.ordinary(k, config.path)
        assert isinstance(sub_config, NpzConfig)
        converted, changes = convert_images(images, sub_config)
        domains.append(_Domain(converted, np.arange(a), [], Counter()))
        statistics = PixelStatistics.of(converted)
        groups.append(_groups(converted, statistics, config))
        notes.append(changes + pixel_notes(statistics, groups[-1]))
        warnings.append(range_note(statistics))
    stacked, parts = _stack(domains), (domains[0].images.shape[3], domains[1].images.shape[3])
    classes = find_classes(arrays, ArrayNames("", *LABELS), a)
    missing = unused_arrays_note([name for name in arrays if name not in (*DOMAINS, *LABELS)])
    order = 'image i of a and image i of b are a pair; for images that do not belong together use data kind "domains"'
    found = [*classes.notes, *merge_notes(notes)]
    likely = [*classes.warnings, *merge_warnings(warnings)]
    return Pairs(stacked, parts, [], [order, *missing], found, likely, groups[0], classes)


def _split(config: PairsConfig, pairs: Pairs, held_out: Pairs | None = None) -> DataSplits:
    """The pairs for training and those that are held out: a part of them, or a split of their own."""
    if held_out is None:
        rows = np.arange(len(pairs.images))
        labels, names = pairs.classes.labels, pairs.classes.names
        splits = split_dataset(pairs.images, rows, labels, names, config.held_out, pairs.groups, pairs.parts)
    else:
        train, other = (ImageDataset(each.images, parts=pairs.parts) for each in (pairs, held_out))
        splits = DataSplits(train, other)
    held_out_missing = [] if held_out is None else [f"held out: {note}" for note in held_out.missing]
    splits.notes = [*pairs.missing, *held_out_missing, *pairs.notes]
    found = [] if held_out is None else folder_warning(held_out.bad)
    splits.warnings = [*pairs.warnings, *(one._replace(message=f"held out: {one.message}") for one in found)]
    splits.bad_files = [*pairs.bad, *(held_out.bad if held_out is not None else [])]
    return splits


def _layout_notes(layout: Layout, source: Literal["left", "right"]) -> list[str]:
    if len(layout.train) != 1:
        return ["files with the same name in a and b are a pair", *layout.notes]
    sides = ("left", "right") if source == "left" else ("right", "left")
    cut = f"each image is cut into two halves: the {sides[0]} one is a, the {sides[1]} one is b (data.source)"
    return [cut, *layout.notes]


def _check_matched(matches: Matches, folders: Sequence[str]) -> None:
    if matches.pairs:
        return
    examples = [next((n for n in (*matches.alone, *matches.shared) if n.startswith(f"{f}/")), "") for f in folders]
    found = " and ".join(display_name(name) for name in examples if name)
    cure = 'give partners the same name, or use data kind "domains" for images that do not belong together'
    raise DataError("no image of a has the same name as one of b", where=WHERE, found=f"such as {found}", cure=cure)


def _match_notes(matches: Matches) -> list[str]:
    """Notes on images that are in no pair."""
    notes = []
    for names, reason in ((matches.alone, "without a partner"), (matches.shared, "with the same name in one domain")):
        if names:
            more = ", ..." if len(names) > NUM_NAMED else ""
            listed = ", ".join(map(display_name, names[:NUM_NAMED])) + more
            notes.append(f"{count_noun(len(names), 'image')} {reason}, not used: {listed}")
    return notes


def _bad_notes(bad: Sequence[BadFile], num_good: int, num_lost: int) -> list[str]:
    if not bad:
        return []
    num_files = len(bad) + num_good
    lost = f", and with {agree(len(bad), 'it', 'them')} {count_noun(num_lost, 'pair')}" if num_lost else ""
    return [f"skipped {len(bad):,} of {count_noun(num_files, 'image file')} as invalid{lost}"]
