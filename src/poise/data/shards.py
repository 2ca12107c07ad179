"""What `tar` and `parquet` share: data sets of many images in few files, the shards, which are read without unpacking.

Each shard is read once from its start to its end to list its images; where they are is then known, so that they can be
decoded like files, by several threads. Images have a label of their own instead of a folder. The cache holds all that
is known of them, so that unchanged shards are not read again.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, NamedTuple

from poise.data.classes import SPLITS
from poise.data.decode_cache import Destination, Entry, Files, cached, key_of
from poise.data.image_array import MIN_COUNT
from poise.data.listing import Listing, changed_at, display_name, ignored_reason, sort_key, stamp_of
from poise.data.paths import WHERE, access_error, existing, file_at
from poise.data.scan import Scanned, ScannedConfig, decode_files, describe, sorted_items
from poise.data.source import DataSplits
from poise.errors import DataError
from poise.utils.paths import expand_home
from poise.utils.printing import count_noun

BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
"""A range of numbers in the path of shards, as in `photos-{000..012}.tar`."""

IMAGES = ("image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "webp")
"""The usual names of columns and of images of samples that are the data; the first one that exists."""

MAX_SHARDS = 100_000
MAX_DEPTH = 3
"""The number of levels of folders that are searched for shards."""

NUMBERED = re.compile(r"(.+?)[-_.]\d+([-_.]of[-_.]\d+)?")
"""The stem of a numbered shard, such as `train-00000-of-00004`."""


class ShardsConfig(ScannedConfig):
    """Shards: one file, a folder of them, or a path with a range of numbers, as in `photos-{000..012}.tar`.

    If the names of the shards or of their folders are those of splits, such as `train-00000-of-00004` and
    `test-00000-of-00001`, only those of `split` are used, and by default those of "train". `label` names what holds the
    label of an image, and `image` which of several images of a row or a sample is used; without them, both are found by
    their usual names.
    """

    container: ClassVar[str] = "set of shards"
    suffixes: ClassVar[tuple[str, ...]]
    """The suffixes of the shards."""

    split: str | None = None
    label: str | None = None
    image: str | None = None

    def select_folder(self, folder: str) -> str:
        """See `ScannedConfig.select_folder`."""
        return f"write a label beside each image, or unpack them, then --data {folder}"

    def list_images(self, shards: Sequence[Shard]) -> tuple[Listing, list[str]]:
        """The images of the shards with their labels, and notes on how these were found.

        Raises:
            DataError: a shard is damaged, or what `label` names does not exist.
        """
        raise NotImplementedError

    def listing(self) -> tuple[Listing, list[str]]:
        """All images of the shards that are used, and notes.

        Raises:
            DataError: there are no shards, or see `list_images`.
        """
        shards, notes = self.shards()
        listing, found = self.list_images(shards)
        return listing, notes + found

    def shards(self) -> tuple[list[Shard], list[str]]:
        """The shards that are used, and notes; see `find_shards`."""
        return find_shards(self.path, self.suffixes, self.split)

    def load(self, root: Path | None = None) -> DataSplits:
        """List and decode the images of all shards, unless they are cached; `root` is not used.

        Raises:
            DataError: there are no shards, or one is damaged, or see `scan`.
            DiskError: see `scan`.
        """
        listed_at = time.time()
        shards, notes = self.shards()

        def decode(destination: Destination) -> tuple[Entry, bool]:
            listing, found = self.list_images(shards)
            items = sorted_items(listing, self)
            decoded = decode_files(items, self, destination)
            scanned = describe(decoded, items, listing, self)
            scanned.notes[:0] = found
            return scanned.to_entry(), decoded.lasting

        entry = cached(self.files(shards, listed_at), decode)
        splits = Scanned.from_entry(entry).splits(self, MIN_COUNT, entry.fingerprints)
        splits.notes[:0] = notes
        return splits

    def files(self, shards: Sequence[Shard], listed_at: float) -> Files:
        """What the cache must know: only the shards themselves, so that they need not be listed again."""
        options = self.model_dump(exclude={"path", "split", "held_out", "max_bad", "mirror"})
        names = [(shard.prefix or shard.path.name, shard.stamp) for shard in shards]
        code = sorted(str(path) for path in Path(__file__).parent.glob("*.py"))
        return Files(key_of(names, options, code=code), max(shard.changed for shard in shards), listed_at)


class Shard(NamedTuple):
    """A shard.

    Attributes:
        path: its path.
        prefix: what the names of its images start with: its name and ":"; empty if it is the only one.
        stamp: identifies this version of the file; see `Item.stamp`.
        changed: see `Item.changed`.
        size: its size in bytes.
    """

    path: Path
    prefix: str
    stamp: tuple[int, ...]
    changed: int
    size: int

    def damaged(self, reason: str, cure: str = "download or write it again, or remove it from the set") -> DataError:
        """The error that this shard is damaged."""
        return DataError("this shard is damaged", where=display_name(str(self.path)), found=reason, cure=cure)


def find_shards(path: str, suffixes: Collection[str], split: str | None) -> tuple[list[Shard], list[str]]:
    """The shards at a path, sorted by name, and notes on which of them are used.

    Args:
        path: a file, a folder, or a path with ranges of numbers.
        suffixes: those of shards.
        split: the split to use; None for "train" if there are splits.

    Raises:
        DataError: there are none, one of the range is missing, or the split does not exist.
    """
    paths, notes = list(expand(path)), list[str]()
    top = paths[0].parent
    if BRACES.search(path):
        if missing := [one for one in paths if not one.exists()]:
            found = f"{count_noun(len(missing), 'missing shard')}: {_names(missing)}"
            raise DataError("not all shards of the range exist", where=WHERE, found=found, cure="correct the range")
        paths = [file_at(str(one)) for one in paths]
        top = Path(os.path.commonpath([one.parent for one in paths]))  # the range may be in the name of a folder
    elif existing(path).is_dir():
        top = existing(path)
        paths = sorted(_below(top, suffixes), key=lambda one: sort_key(one.relative_to(top).as_posix()))
        if not paths:
            what = f"there are no {' or '.join(suffixes)} files in this folder"
            raise DataError(
                what, where=WHERE, found=display_name(path), cure="give the folder that contains the shards"
            )
        paths, notes = _of_split(paths, top, split)
    else:
        paths = [file_at(path)]
    shards = []
    for one in paths:
        try:
            status = one.stat()
        except OSError as error:
            raise access_error(str(one), error) from None
        prefix = f"{one.relative_to(top).as_posix().replace('/', ':')}:" if len(paths) > 1 else ""
        shards.append(Shard(one, prefix, stamp_of(status), changed_at(status), status.st_size))
    return shards, notes


def expand(path: str) -> Iterator[Path]:
    """The paths that one with ranges of numbers stands for: `a-{08..10}` is `a-08`, `a-09` and `a-10`.

    Raises:
        DataError: a range is empty, or they are too many.
    """
    texts = BRACES.split(path)
    ranges = list(zip(texts[1::3], texts[2::3], strict=True))
    number = 1
    for first, last in ranges:
        number *= int(last) - int(first) + 1
        if not 1 <= number <= MAX_SHARDS:
            what = f"the range must have 1 to {MAX_SHARDS:,} numbers"
            raise DataError(what, where=WHERE, found=f"{{{first}..{last}}}", cure="such as photos-{000..012}.tar")
    numbers = ([f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)] for first, last in ranges)
    for chosen in itertools.product(*numbers):
        parts = itertools.zip_longest(texts[::3], chosen, fillvalue="")
        yield expand_home("".join(itertools.chain(*parts)))


class FolderContent(NamedTuple):
    """What a folder and its sub-folders hold, down to the first level with images, and to `MAX_DEPTH` without any.

    Attributes:
        shards: the suffixes of the shards.
        images: whether there are image files.
    """

    shards: frozenset[str]
    images: bool


def content_of(folder: Path, suffixes: Collection[str]) -> FolderContent:
    """What a folder holds that may be data.

    Args:
        folder: its path.
        suffixes: those of shards.
    """
    level, shards, images = [folder], set[str](), False
    for _ in range(MAX_DEPTH):
        below = list[Path]()
        for one in level:
            with suppress(OSError), os.scandir(one) as entries:  # whoever loads it says what is wrong
                for entry in entries:
                    suffix = Path(entry.name).suffix.lower()
                    if _is_left_out(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        below.append(Path(entry.path))
                    elif suffix in suffixes and entry.is_file():
                        shards.add(suffix)
                    else:
                        images |= ignored_reason(entry.name) is None
            if images:
                return FolderContent(frozenset(shards), images=True)
        level = below
    return FolderContent(frozenset(shards), images=False)


def _is_left_out(name: str) -> bool:
    """Whether a file or folder is hidden, or is called cache-*, as the results of `map` of `datasets` are."""
    return name.startswith((".", "cache-"))


def _below(folder: Path, suffixes: Collection[str], depth: int = MAX_DEPTH) -> Iterator[Path]:
    """The shards in a folder and its sub-folders that are not hidden and not called cache-*."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_left_out(entry.name):
                continue
            if Path(entry.name).suffix.lower() in suffixes and entry.is_file():
                yield Path(entry.path)
            elif depth > 1 and entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    yield from _below(Path(entry.path), suffixes, depth - 1)


def _of_split(paths: list[Path], top: Path, split: str | None) -> tuple[list[Path], list[str]]:
    """The shards of a split, and a note on the others."""
    groups: dict[str, list[Path]] = {}
    for one in paths:
        groups.setdefault(split_of(one, top), []).append(one)
    if split is None:
        split = next(iter(groups)) if len(groups) == 1 else next((n for n in groups if SPLITS.get(n) == "train"), None)
        if split is None and not any(name in SPLITS for name in groups):
            return paths, []  # names that are those of no splits
    if split not in groups:
        what = "there is no split to train on" if split is None else f"there is no split '{split}'"
        found, example = ", ".join(display_name(name) or "files without a split" for name in groups), max(groups)
        cure = f'choose one: data.split="{example}"' if example else "leave out data.split"
        raise DataError(what, where="data.split", found=found, cure=cure)
    others = [name or "files without a split" for name in groups if name != split]
    note = f"the split {display_name(split)} is used, and not {', '.join(map(display_name, others))} (data.split)"
    return groups[split], [note] if others else []


def split_of(path: Path, top: Path) -> str:
    """The split that a shard belongs to: the stem of its name without numbers, or else the name of its folder.

    `train-00000-of-00004.parquet` belongs to "train", and so does `train/data-00000-of-00001.arrow`.
    """
    folders = path.relative_to(top).parts[:-1]
    match = NUMBERED.fullmatch(path.stem)
    stem = match[1] if match else path.stem
    words = [word for word in (stem, *reversed(re.split("[-_.]", stem)), *reversed(folders)) if word.lower() in SPLITS]
    if words:
        return words[0].lower()
    return stem if match is not None and match[2] and stem != "data" else ""


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(display_name(one.name) for one in paths[:3]) + (", ..." if len(paths) > 3 else "")
