"""`zip`: a zip archive of pictures, read entry by entry; nothing is ever unpacked to the disk."""

from __future__ import annotations

import os
import shlex
import stat
import zipfile
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import ClassVar, Literal

from poise.data.listing import HIDDEN, TABLE, Item, Listing, display_name, ignored_reason, is_run, stamp_of
from poise.data.paths import WHERE, access_error, file_at
from poise.data.scan import ScannedConfig, scan
from poise.data.source import BadFile, DataSplits
from poise.errors import DataError

RATIO = 100
SMALL = 2**20
LARGEST_ENTRY = 2**29
LARGEST_TOTAL = 2**36
DEEP = 10
"""Caps against bombs. Entries up to `SMALL` bytes may be packed tighter than `RATIO`: blank pictures are.
Folders are listed down to the depth `DEEP`."""


class ZipConfig(ScannedConfig):
    """An archive; a single folder around everything is not taken as a class."""

    place: ClassVar[str] = "archive"
    outer: ClassVar[int] = 1
    kind: Literal["zip"] = "zip"

    def inside(self, folder: str) -> str:
        """See `ScannedEntry.inside`."""
        return f"unpack it, then --data {shlex.quote(folder)}"

    def load(self, root: Path | None = None) -> DataSplits:
        """List, then scan; `root` is for data sets by name and is not looked at.

        Raises:
            DataError: no such file, no zip archive, no pictures, or the scan's reasons.
        """
        place = file_at(self.path)
        try:
            archive = zipfile.ZipFile(place)
        except OSError as error:
            raise access_error(self.path, error) from None
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            cure = 'make it anew, or unpack it and take data.kind = "folder"'
            raise DataError(
                f"not a zip archive: {error}", where=WHERE, found=display_name(self.path), cure=cure
            ) from None
        with archive:
            listing = listing_of(archive)
            return scan(listing, self)


def listing_of(archive: zipfile.ZipFile, largest_total: int = LARGEST_TOTAL) -> Listing:
    """The archive's entries, by its table of contents alone."""
    runs = _runs(archive)
    listing, total = Listing(runs=len(runs)), 0
    around, changed = _state_of(archive)
    usable: list[tuple[tuple[str, ...], zipfile.ZipInfo]] = []
    folders: set[str] = set()
    for info in archive.infolist():
        parts = _parts(info)
        if any(parts[:end] in runs for end in range(1, len(parts) + 1)):
            continue
        ignored = _ignored(parts) if parts else HIDDEN
        if ignored != HIDDEN and ".." not in parts:
            folders.update("/".join(parts[:end]) for end in range(1, min(len(parts) + info.is_dir(), DEEP)))
        if info.is_dir() or not parts:
            continue
        why = _unfit(info, parts)
        if ignored is not None and (ignored == HIDDEN or parts[-1] != TABLE or why):
            listing.ignored[ignored] += 1
            continue
        total += 0 if why else info.file_size
        if why is None and total > largest_total:
            why = f"beyond the cap of {largest_total:,} bytes for all pictures of an archive"
        if why is None:
            usable.append((parts, info))
        else:
            listing.bad_files.append(BadFile(display_name(info.filename), why))
    for parts, info in usable:
        stamp = (info.CRC, info.file_size, info.compress_size, info.header_offset, *around)
        item = Item("/".join(parts), partial(_entry, archive, info), stamp if around else (), changed)
        (listing.tables if parts[-1] == TABLE else listing.items).append(item)
    listing.folders = sorted(folders)
    return listing


def _parts(info: zipfile.ZipInfo) -> tuple[str, ...]:
    return tuple(part for part in info.filename.replace("\\", "/").split("/") if part not in ("", "."))


def _runs(archive: zipfile.ZipFile) -> set[tuple[str, ...]]:
    """The outermost run folders in an archive."""
    inside: dict[tuple[str, ...], set[str]] = {}
    for *folder, name in filter(None, map(_parts, archive.infolist())):
        if name in ("run.json", "recipe.toml"):
            inside.setdefault(tuple(folder), set()).add(name)
    found = {folder for folder, names in inside.items() if folder and is_run(names)}
    return {folder for folder in found if not any(folder[:end] in found for end in range(1, len(folder)))}


def _state_of(archive: zipfile.ZipFile) -> tuple[tuple[int, ...], int]:
    """The stamp of the open archive and when it changed: an entry that was damaged or mended keeps its own numbers."""
    try:
        assert archive.fp is not None
        status = os.fstat(archive.fp.fileno())
    except OSError:  # it lies in memory
        return (), 0
    return stamp_of(status), max(status.st_mtime_ns, status.st_ctime_ns)


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> BytesIO:
    """The whole entry, its checksum verified, and never more than the bytes it says it has.

    Reading without a number would inflate everything first and then cut it off.
    """
    with archive.open(info) as stream:
        return BytesIO(stream.read(info.file_size + 1))


def _ignored(parts: tuple[str, ...]) -> str | None:
    if any(ignored_reason(part) == HIDDEN for part in parts if part != ".."):
        return HIDDEN
    return ignored_reason(parts[-1])


def _unfit(info: zipfile.ZipInfo, parts: tuple[str, ...]) -> str | None:
    if ".." in parts:
        return "its name leads out of the archive"
    if info.filename.startswith(("/", "\\")) or parts[0].endswith(":"):
        return "its name is an absolute path"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a link"
    if info.flag_bits & 1:
        return "encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "packed in another way than stored or deflated"
    if info.file_size > LARGEST_ENTRY:
        return f"unpacks to {info.file_size:,} bytes, above the cap of {LARGEST_ENTRY:,}"
    if info.file_size > max(SMALL, RATIO * info.compress_size):
        return f"unpacks to more than {RATIO} times its size"
    return None
