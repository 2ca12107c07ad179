"""`tar`: tar archives of images, such as the shards of WebDataset, read without extracting them.

In a shard of WebDataset, files whose paths are equal up to the first dot of the name are one sample: `000/17.jpg` is an
image, and `000/17.cls` or `000/17.json` has its label. An archive without such labels is read like a folder: its
folders are classes. Source of the layout: https://github.com/webdataset/webdataset, "The WebDataset Format".
"""

from __future__ import annotations

import errno
import json
import posixpath
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from itertools import compress
from pathlib import Path
from typing import IO, ClassVar, Literal

from poise.data.dataset_json import class_name
from poise.data.listing import HIDDEN, LABEL_FILE, REPLACED, Item, Listing, display_name, ignored_reason
from poise.data.paths import access_error
from poise.data.sample_images import choose_images, key_of
from poise.data.shards import Shard, ShardsConfig
from poise.data.source import BadFile
from poise.errors import DataError
from poise.utils.printing import count_noun

CLS, JSON = ".cls", ".json"
"""The suffixes of the files that hold labels."""

LABEL_KEYS = ("label", "cls", "class", "class_name", "class_id")
"""The keys of a .json that are taken for the label if `label` names none; the first one that occurs."""

MAX_LABEL = 2**20
MAX_IMAGE = 2**29
"""The largest files that are read, in bytes."""

CHUNK = 2**20
"""The number of bytes that are looked at together behind the end of an archive."""

COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZ": "bunzip2", b"\xfd7": "unxz", b"\x28\xb5": "unzstd"}
"""How compressed archives start, and what decompresses them."""


class TarConfig(ShardsConfig):
    """Tar archives. The label of an image is in a .cls beside it, or the value of the key `label` of a .json.

    If samples have several images, `image` is the key of those that are used: `seg.png` of `17.seg.png`.
    """

    kind: Literal["tar"] = "tar"
    suffixes: ClassVar[tuple[str, ...]] = (".tar",)

    def list_images(self, shards: Sequence[Shard]) -> tuple[Listing, list[str]]:
        """See `ShardsConfig.list_images`; without labels, the classes are found by folder.

        Raises:
            DataError: an archive is damaged, no .json has the key `label`, or see `choose_images`.
        """
        content = Content()
        for shard in shards:
            content.places.clear()
            for member, label in _read(shard):
                content.add(shard, member, label)
        chosen = content.choose_images(self.image)
        listing, keys = content.listing, ", ".join(map(display_name, sorted(content.keys)[:8]))
        if self.label is not None and self.label not in content.labels:
            what = f"no .json beside an image has a class under the key '{self.label}'"
            cure = "name a key whose value is a number or a word"
            raise DataError(what, where="data.label", found=keys or "no .json with keys", cure=cure)
        wanted = (CLS, *LABEL_KEYS) if self.label is None else (self.label,)
        source = next((one for one in wanted if one in content.labels), None)
        if source is not None or len(shards) > 1:  # a dataset.json is that of one archive
            listing.ignored += Counter({JSON: len(listing.label_files)})
            listing.label_files.clear()
        if source is None:
            listing.folders = sorted({folder for item in listing.items for folder in _folders(item.name)})
            classes = ", ".join(map(display_name, sorted(content.labels)[:8]))
            unless = f", unless data.label names one of {classes}" if classes else ""
            notes = [f"the .json files have no label{unless}"] if keys else []
            return listing, chosen + notes + content.notes()
        content.attach(source)
        note = f"the labels are {'the .cls files' if source == CLS else f'the values of {source} in .json'}"
        return listing, [*chosen, note, *content.notes()]


@dataclass
class Content:
    """What was found in the archives.

    Attributes:
        listing: the images, and other files.
        samples: the sample of each image.
        image_keys: the key of each image; see `sample_images`.
        labels: the label of each sample, by where it is: `CLS`, or the key of a .json.
        keys: all keys of the .json files.
        contradictory: the samples with more than one label, by where these are.
        unreadable: the number of .json files that are not JSON.
        places: where the images of the archive that is read are in the listing, by their paths; None for its labels.
    """

    listing: Listing = field(default_factory=Listing)
    samples: list[str] = field(default_factory=list)
    image_keys: list[str] = field(default_factory=list)
    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    contradictory: dict[str, set[str]] = field(default_factory=dict)
    unreadable: int = 0
    places: dict[str, int | None] = field(default_factory=dict)

    def add(self, shard: Shard, member: tarfile.TarInfo, label: bytes) -> None:
        """Add a member of an archive: an image, a label with its content, or a file that is ignored."""
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if member.isdir() or not parts:
            return
        folder, base, sample = "/".join(parts[:-1]), parts[-1], shard.prefix + sample_of("/".join(parts))
        suffix, name = posixpath.splitext(base)[1].lower(), posixpath.join(folder, shard.prefix + base)
        hidden = any(ignored_reason(part) == HIDDEN for part in parts if part != "..")
        ignored = HIDDEN if hidden else ignored_reason(base)
        path, read = "/".join(parts), partial(_read_member, shard.path, member.offset_data, member.size)
        if ignored != HIDDEN and suffix in (CLS, JSON):
            text = label.decode("utf-8-sig", "replace").strip()
            if base == LABEL_FILE and member.isreg() and (not text or '"labels"' in text):
                self.listing.label_files = [one for one in self.listing.label_files if one.name != name]
                self.listing.label_files.append(Item(name, read))
                return
            self._forget_labels(path, sample, suffix)
            self._add_labels(sample, suffix, text)
        elif ignored is not None:
            self.listing.ignored[ignored] += 1
        elif reason := "its path leads out of the archive" if ".." in parts else _unusable_reason(member):
            self.listing.bad_files.append(BadFile(display_name(name), reason))
        elif (place := self.places.get(path)) is not None:
            self.listing.items[place] = Item(name, read)
            self.listing.ignored[REPLACED] += 1
        else:
            self.places[path] = len(self.listing.items)
            self.listing.items.append(Item(name, read))
            self.samples.append(sample)
            self.image_keys.append(sys.intern(key_of(base)))

    def _forget_labels(self, path: str, sample: str, suffix: str) -> None:
        """Forget what an earlier file of the same path said."""
        if path in self.places:
            for source in self.labels:
                if (source == CLS) == (suffix == CLS):
                    self.labels[source].pop(sample, None)
        self.places[path] = None

    def _add_labels(self, sample: str, suffix: str, text: str) -> None:
        """Add the text of a .cls or a .json; one without a label is left out."""
        if suffix == CLS:
            if text:
                self._add_label(CLS, sample, text)
            return
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            self.unreadable += 1
            return
        for key, value in values.items() if isinstance(values, dict) else ():
            self.keys.add(key)
            with suppress(ValueError):  # no class
                self._add_label(key, sample, class_name(value))

    def _add_label(self, source: str, sample: str, word: str) -> None:
        if self.labels.setdefault(source, {}).setdefault(sample, sys.intern(word)) != word:
            self.contradictory.setdefault(source, set()).add(sample)

    def choose_images(self, wanted: str | None) -> list[str]:
        """Leave out the images of samples that are not the data, with notes; see `choose_images`.

        Raises:
            DataError: see there.
        """
        used, notes = choose_images(self.samples, self.image_keys, wanted)
        self.listing.items = list(compress(self.listing.items, used))
        self.samples = list(compress(self.samples, used))
        return notes

    def notes(self) -> list[str]:
        """A note on .json files that can't be read."""
        return [f"{count_noun(self.unreadable, '.json file')} can't be read"] if self.unreadable else []

    def attach(self, source: str) -> None:
        """Give each image the label of its sample.

        Images without a label or with several ones are bad files, and so are labels without an image.
        """
        labels, items = self.labels[source], self.listing.items
        several = self.contradictory.get(source, set())
        self.listing.labels, self.listing.items = {}, []
        for item, sample in zip(items, self.samples, strict=True):
            if sample in several:
                reason = f"several labels for the sample {display_name(sample)}, which is the name up to the first dot"
                self.listing.bad_files.append(BadFile(display_name(item.name), reason))
            elif sample in labels:
                self.listing.items.append(item)
                self.listing.labels[item.name] = labels[sample]
            else:
                self.listing.bad_files.append(BadFile(display_name(item.name), "no label beside it"))
        missing = sorted(labels.keys() - set(self.samples))
        self.listing.bad_files += [BadFile(display_name(sample), "a label without an image") for sample in missing]


def sample_of(name: str) -> str:
    """The sample that a file belongs to: its path up to the first dot of the name."""
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.split(".")[0])


def _read(shard: Shard) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """The members of an archive in their order; a .cls or .json with its content.

    Raises:
        DataError: the archive is damaged, cut off or compressed, or can't be read.
    """
    count = 0
    try:
        with shard.path.open("rb") as stream:
            start = stream.read(2)
            if command := COMPRESSED.get(start):
                cure = f"decompress it: {command} {display_name(shard.path.name)}"
                raise DataError("this archive is compressed", where=display_name(str(shard.path)), cure=cure)
            stream.seek(0)
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[missing-attribute]  # they would take more memory than everything else
                    count += 1
                    yield member, _label_content(stream, member)
                _check_end(shard, stream, archive.offset, count)
    except OSError as error:
        if error.errno != errno.EINVAL:  # that of a place far behind the end, where a damaged header says a member is
            raise access_error(str(shard.path), error) from None
        raise shard.damaged(f"{error.strerror}, after {count_noun(count, 'file')}") from None
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise shard.damaged(f"{error}, after {count_noun(count, 'file')}") from None


def _check_end(shard: Shard, stream: IO[bytes], offset: int, count: int) -> None:
    """Check that only zeros follow the last member, as `TarFile.next` ends at a damaged header too.

    Args:
        shard: the archive.
        stream: its file.
        offset: where its members end.
        count: the number of its members.

    Raises:
        DataError: it is cut off, or something else follows, such as another archive.
    """
    stream.seek(offset)
    end = stream.read(tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE or any(end):
        raise shard.damaged(f"no header and no end at byte {offset:,}, after {count_noun(count, 'file')}")
    while more := stream.read(CHUNK):
        if more.count(0) < len(more):
            reason = f"something follows the end of the archive at byte {offset:,}, after {count_noun(count, 'file')}"
            raise shard.damaged(reason, "if archives were appended to each other, put them into a folder one by one")


def _label_content(stream: IO[bytes], member: tarfile.TarInfo) -> bytes:
    if not (member.isreg() and member.name.lower().endswith((CLS, JSON)) and member.size <= MAX_LABEL):
        return b""
    stream.seek(member.offset_data)
    return stream.read(member.size)


def _unusable_reason(member: tarfile.TarInfo) -> str | None:
    if not member.isreg() or member.issparse():
        return "a link" if member.islnk() or member.issym() else "not a regular file"
    return f"{member.size:,} bytes, above the limit of {MAX_IMAGE:,}" if member.size > MAX_IMAGE else None


def _read_member(path: Path, offset: int, size: int) -> BytesIO:
    with path.open("rb", buffering=0) as stream:
        stream.seek(offset)
        return BytesIO(stream.read(size))


def _folders(name: str) -> Iterator[str]:
    while name := posixpath.dirname(name):
        yield name
