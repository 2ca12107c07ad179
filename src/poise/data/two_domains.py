"""What `pairs` and `domains` share: their options, and where the images of the domains a and b are found.

Two sub-folders are the two domains. They may be called `a` and `b`, or anything else, in alphabetical order. Published
sets also have splits: `trainA`, `trainB`, `testA`, `testB` (CycleGAN), or `train`, `val` and `test`, each with the
images of both domains (pix2pix).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from pydantic import BeforeValidator, Field

from poise.core.config import reject_value
from poise.data.classes import SPLITS
from poise.data.config import ImageDataConfig
from poise.data.fit import Background, Fit, TargetFormat, convert_array
from poise.data.folder import FolderConfig, list_folder
from poise.data.listing import Listing, display_name
from poise.data.npz import NpzConfig
from poise.data.paths import KINDS, WHERE
from poise.data.scan import ScannedConfig
from poise.data.source import DataWarning, SkippedFolder
from poise.data.unusable_files import skipped_error
from poise.data.zip_archive import ZipConfig, listing_of, open_archive
from poise.errors import DataError
from poise.utils.images import Bytes
from poise.utils.paths import expand_home
from poise.utils.printing import count_noun

DOMAINS = ("a", "b")

Parts = tuple[int, int]


def _check_channels(value: Any) -> int | Parts | None:
    """A number of channels for both domains, or [a, b] as a tuple; two equal numbers become one."""
    counts = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
    if value is not None and not all(type(count) is int and 1 <= count <= 4 for count in counts):
        reject_value("must be a number from 1 to 4, or two of them for [a, b]", found=repr(value)[:60])
    a, b = counts
    return a if a == b else (a, b)


class TwoDomainsConfig(ImageDataConfig):
    """The options of data with two domains, a and b; they mean what they mean for `folder`, in each domain.

    Without `channels`, a domain has 1 channel if all its images are greyscale, and 3 otherwise.
    """

    alpha: ClassVar[bool] = False

    channels: Annotated[int | Parts | None, BeforeValidator(_check_channels)] = None
    background: Background = "white"
    fit: Fit = "crop"
    held_out: float = Field(default=0.1, ge=0, lt=1)
    max_bad: float = Field(default=0.5, ge=0, le=1)
    follow_links: bool = False

    def domain_channels(self, domain: int) -> Any:
        """The number of channels of domain 0 or 1, if it is given."""
        return self.channels[domain] if isinstance(self.channels, tuple) else self.channels

    def target_format(self, channels: int) -> TargetFormat:
        """See `ImageDataConfig.target_format`."""
        return TargetFormat(self.height_width, channels, self.background, self.fit)

    def convert(self, images: Bytes) -> Bytes:
        """Each channel on its own, as the channels of both domains are stacked."""
        channels = np.split(images, images.shape[3], 3)
        return np.concatenate([convert_array(channel, self.target_format(1)) for channel in channels], 3)

    def scanned(self, domain: int, path: str, **changes: Any) -> ScannedConfig:
        """The config with which the files of one domain, 0 or 1, are read from a folder or a zip archive."""
        scanned = self.ordinary(domain, path, **changes)
        assert isinstance(scanned, ScannedConfig), "an npz is not scanned"
        return scanned

    def ordinary(self, domain: int, path: str, **changes: Any) -> FolderConfig | ZipConfig | NpzConfig:
        """The config of the ordinary kind of data that `path` is, with the options of one domain, 0 or 1.

        Raises:
            DataError: it is a shard.
        """
        _refuse_shards(path)
        cls = ordinary_kind(path)
        options = {name: value for name, value in self if name in cls.model_fields and name not in ("kind", "path")}
        options |= {"channels": self.domain_channels(domain), "path": path} | changes
        return cls.model_validate(options)


def ordinary_kind(path: str) -> type[FolderConfig | ZipConfig | NpzConfig]:
    """The config of the ordinary kind of data that a path is."""
    location = expand_home(path)
    if location.is_dir():
        return FolderConfig
    return {"zip": ZipConfig, "npz": NpzConfig}.get(KINDS.get(location.suffix.lower(), ""), FolderConfig)


def _refuse_shards(path: str) -> None:
    """Refuse what is of a kind of data that has no form with two domains.

    Raises:
        DataError: it is a shard.
    """
    location = expand_home(path)
    if location.is_file() and KINDS.get(location.suffix.lower(), "zip") not in ("zip", "npz"):
        what, cure = "images of two domains can't be read from shards", "unpack it; give a folder, a .zip or an .npz"
        raise DataError(what, where=WHERE, found=display_name(path), cure=cure)


@contextmanager
def listing_at(path: str, follow: bool) -> Iterator[Listing]:
    """The files of a folder or of a zip archive, which is open within the context.

    Raises:
        DataError: it does not exist, or can't be read.
    """
    if ordinary_kind(path) is ZipConfig:
        with open_archive(path) as archive:
            yield listing_of(archive)
    else:
        _refuse_shards(path)
        yield list_folder(path, follow)


class Layout(NamedTuple):
    """The folders that hold the images.

    Attributes:
        train: the folders of a and of b, or the one folder whose images hold both side by side.
        held_out: the same for the split that is held out; empty if there is none.
        notes: sentences that say what was found.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class TopLevel(NamedTuple):
    """What is in a folder, or in the innermost folder that encloses everything in it.

    Attributes:
        base: the path of that folder; empty if nothing encloses everything.
        folders: the names of its sub-folders, sorted without regard to case.
        has_images: whether there are images beside them.
    """

    base: str
    folders: list[str]
    has_images: bool


def top_level(listing: Listing, base: str = "") -> TopLevel:
    """What is in a folder of a listing; a folder that encloses everything is skipped."""
    names, has_images = _content(listing, base)
    if len(names) == 1 and not has_images:
        return top_level(listing, posixpath.join(base, names[0]))
    return TopLevel(base, names, has_images)


def find_layout(listing: Listing, *, side_by_side: bool) -> Layout:
    """Find the images of both domains; a folder that encloses everything is skipped.

    Of the splits, `train` is trained on, and `val`, or else `test`, is held out.

    Args:
        listing: the files.
        side_by_side: whether one folder of images that hold both domains is a layout too.

    Raises:
        DataError: the folders are not two domains, or one of them is skipped; says what was found, and which layouts
            there are.
    """
    base, tops, has_images = top_level(listing)
    skipped = [one for one in listing.bad_files if isinstance(one, SkippedFolder) and "/" not in one.name]
    if skipped and len(tops) < len(DOMAINS):
        raise skipped_error("a folder that may be one of the two domains is skipped", skipped)
    splits = {} if has_images else _find_splits(listing, base, tops, side_by_side)
    if not splits:
        train = _find_domains(listing, base, side_by_side)
        return Layout(train, (), tuple(_name_folders(train)))
    if "train" not in splits:
        cure = "call the folders to train on trainA and trainB, or train"
        raise DataError("there is no split to train on", where=WHERE, found=_join(tops), cure=cure)
    train, held_out = splits.pop("train"), next((splits.pop(name) for name in ("val", "test") if name in splits), ())
    notes = _name_folders(train)
    notes += [f"held out: {_join(held_out)}"] if held_out else []
    unused = [folder for folders in splits.values() for folder in folders]
    notes += [f"not used: {_join(unused)}"] if unused else []
    return Layout(train, held_out, tuple(notes))


def below(listing: Listing, folder: str) -> Listing:
    """The part of a listing that is below a folder; names stay as they are. What was ignored is not known of a part."""
    start = f"{folder}/" if folder else ""
    shown = display_name(start).strip("'\"")
    return Listing(
        [item for item in listing.items if item.name.startswith(start)],
        [item for item in listing.label_files if item.name.startswith(start)],
        [name for name in listing.folders if name.startswith(start)],
        [file for file in listing.bad_files if file.name.lstrip("'\"").startswith(shown)],
        listed_at=listing.listed_at,
    )


def merge_notes(notes: Sequence[Sequence[str]]) -> list[str]:
    """The notes on a and on b, which they are about first; a note on both is given once."""
    a, b = notes
    merged = [f"{'a and b' if note in b else 'a'}: {note}" for note in a]
    return merged + [f"b: {note}" for note in b if note not in a]


def merge_warnings(warnings: Sequence[Sequence[DataWarning]]) -> list[DataWarning]:
    """The warnings about a and about b, which say which domain they are about."""
    named = zip(DOMAINS, warnings, strict=True)
    return [one._replace(message=f"{domain}: {one.message}") for domain, found in named for one in found]


def unused_arrays_note(names: Sequence[str]) -> list[str]:
    """A note on the arrays of an archive that are not used; none without any."""
    return [f"not used: {count_noun(len(names), 'array')}, {', '.join(map(display_name, names[:8]))}"] if names else []


def _content(listing: Listing, base: str) -> tuple[list[str], bool]:
    """The names of the folders in a folder, sorted without regard to case, and whether there are images beside them."""
    start = f"{base}/" if base else ""
    names = {name[len(start) :].split("/")[0] for name in listing.folders if name.startswith(start)}
    below_base = [item.name[len(start) :].split("/") for item in listing.items if item.name.startswith(start)]
    names |= {path[0] for path in below_base if len(path) > 1}
    return sorted(names, key=lambda name: (name.lower(), name)), any(len(path) == 1 for path in below_base)


def split_and_domain(name: str) -> tuple[str, str]:
    """The split and the domain that the name of a folder states, either of which may be empty.

    `a` is ("train", "a"), `testB` is ("test", "b"), and `val` is ("val", "").
    """
    word = name.lower()
    if word in DOMAINS:
        return "train", word
    if word in SPLITS:
        return SPLITS[word], ""
    match = re.fullmatch(r"([a-z]+)[-_ ]?([ab])", word)
    return (SPLITS[match[1]], match[2]) if match is not None and match[1] in SPLITS else ("", "")


def _find_splits(listing: Listing, base: str, tops: list[str], side_by_side: bool) -> dict[str, tuple[str, ...]]:
    """The folders of each split that has both domains; empty if the names of the folders are not those of splits."""
    roles = [split_and_domain(name) for name in tops]
    if len(set(roles)) < len(roles) or not all(split for split, _ in roles):
        return {}
    folders = {role: posixpath.join(base, name) for role, name in zip(roles, tops, strict=True)}
    if all(domain for _, domain in roles):
        found = {split: tuple(folders[split, d] for d in DOMAINS if (split, d) in folders) for split, _ in roles}
        whole = {split: pair for split, pair in found.items() if len(pair) == len(DOMAINS)}
        for folder in (folder for pair in whole.values() for folder in pair):
            _refuse_empty(listing, folder)
        return whole
    if any(domain for _, domain in roles):
        return {}
    return {split: _find_domains(listing, folder, side_by_side) for (split, _), folder in folders.items()}


def _find_domains(listing: Listing, base: str, side_by_side: bool) -> tuple[str, ...]:
    """The two folders in `base`, or `base` itself if its images hold both domains side by side."""
    tops, has_images = _content(listing, base)
    cure = "use two sub-folders, a and b"
    cure += ", with images of the same names, or one folder of images side by side" if side_by_side else ""
    cure += "" if side_by_side else ", or two paths: data.a and data.b"
    where = f"{WHERE}: {base}" if base else WHERE
    if not tops and not has_images:
        raise DataError("there are no images", where=where, cure=cure)
    if side_by_side and not tops:
        return (base,)
    if len(tops) == len(DOMAINS) and not has_images and not any(name.lower() in SPLITS for name in tops):
        folders = tuple(posixpath.join(base, name) for name in tops)
        for folder in folders:
            _refuse_empty(listing, folder)
        return folders
    beside = " and images beside them" if has_images and tops else ""
    found = f"the sub-folders {_join(tops)}{beside}" if tops else "images without sub-folders"
    raise DataError("this is not data of two domains", where=where, found=found, cure=cure)


def _refuse_empty(listing: Listing, folder: str) -> None:
    if not any(item.name.startswith(f"{folder}/") for item in listing.items):
        raise DataError("there are no images of one domain", where=WHERE, found=f"{_join([folder])} has none")


def _name_folders(folders: tuple[str, ...]) -> list[str]:
    """Which folder is a and which is b; nothing for images side by side, and for folders that are called so."""
    if len(folders) < len(DOMAINS) or tuple(posixpath.basename(name).lower() for name in folders) == DOMAINS:
        return []
    a, b = (_join([folder]) for folder in folders)
    return [f"a is the folder {a}, b is {b}"]


def _join(names: Sequence[str]) -> str:
    """Names of folders for a message; the first eight if there are more."""
    listed = ", ".join(display_name(name) if name else "all images" for name in names[:8])
    return listed + (f", ... ({len(names):,} in all)" if len(names) > 8 else "")
