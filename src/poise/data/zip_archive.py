"""`zip`: a zip archive of images, read entry by entry without extracting it to the disk."""

from __future__ import annotations

import os
import shlex
import stat
import zipfile
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import ClassVar, Literal

from poise.data.listing import (
    HIDDEN,
    LABEL_FILE,
    REPLACED,
    Item,
    Listing,
    changed_at,
    display_name,
    ignored_reason,
    is_run,
    stamp_of,
)
from poise.data.paths import WHERE, access_error, file_at
from poise.data.scan import ScannedConfig, scan
from poise.data.source import BadFile, DataSplits
from poise.errors import DataError

MAX_RATIO = 100
SMALL_ENTRY = 2**20
MAX_ENTRY = 2**29
MAX_DEPTH = 10
"""Limits against zip bombs. Entries up to `SMALL_ENTRY` bytes may exceed the compression ratio `MAX_RATIO`, as blank
images do. Together, entries cannot take more than the archive, unless they overlap: so they expand to `MAX_RATIO` times
its size at most, or to `SMALL_ENTRY` bytes each. Folders are listed to the depth `MAX_DEPTH`."""


class ZipConfig(ScannedConfig):
    """A zip archive. A single folder that encloses everything is not a class."""

    container: ClassVar[str] = "archive"
    outer_levels: ClassVar[int] = 1
    kind: Literal["zip"] = "zip"

    def select_folder(self, folder: str) -> str:
        """See `ScannedConfig.select_folder`."""
        return f"extract it, then --data {shlex.quote(folder)}"

    def load(self, root: Path | None = None) -> DataSplits:
        """List the entries, then decode the images; `root` is not used.

        Raises:
            DataError: the file does not exist or is not a zip archive, or see `scan`.
        """
        with open_archive(self.path) as archive:
            return scan(listing_of(archive), self)


def open_archive(path: str) -> zipfile.ZipFile:
    """The archive at `path`, to be closed by the caller.

    Raises:
        DataError: the file does not exist or is not a zip archive.
    """
    try:
        return zipfile.ZipFile(file_at(path))
    except OSError as error:
        raise access_error(path, error) from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        cure = 'create it again, or extract it and set data.kind = "folder"'
        raise DataError(f"not a zip archive: {error}", where=WHERE, found=display_name(path), cure=cure) from None


def listing_of(archive: zipfile.ZipFile) -> Listing:
    """The entries of an archive, from its central directory only."""
    runs = _run_folders(archive)
    listing, taken = Listing(num_runs=len(runs)), 0
    archive_stamp, changed = _archive_stamp(archive)
    files = [(parts, info) for info in archive.infolist() if (parts := _path_parts(info)) and not info.is_dir()]
    last_of = {parts: info for parts, info in files if _unusable_reason(info, parts) is None}
    usable: list[tuple[tuple[str, ...], zipfile.ZipInfo]] = []
    folders: set[str] = set()
    for info in archive.infolist():
        parts = _path_parts(info)
        if any(parts[:end] in runs for end in range(1, len(parts) + 1)):
            continue
        ignored = _ignored_reason(parts) if parts else HIDDEN
        if ignored != HIDDEN and ".." not in parts:
            folders.update("/".join(parts[:end]) for end in range(1, min(len(parts) + info.is_dir(), MAX_DEPTH)))
        if not parts or info.is_dir():  # `is_dir` of an entry without a name is an error
            continue
        reason = _unusable_reason(info, parts)
        if reason is None and last_of[parts] is not info:
            listing.ignored[REPLACED] += 1
            continue
        if ignored is not None and (ignored == HIDDEN or parts[-1] != LABEL_FILE or reason):
            listing.ignored[ignored] += 1
            continue
        taken += 0 if reason else info.compress_size
        if reason is None and taken > archive.start_dir:  # where the entries end and their directory begins
            reason = "overlaps other entries of the archive"
        if reason is None:
            usable.append((parts, info))
        else:
            listing.bad_files.append(BadFile(display_name(info.filename), reason))
    for parts, info in usable:
        stamp = (info.CRC, info.file_size, info.compress_size, info.header_offset, *archive_stamp)
        item = Item("/".join(parts), partial(_read_entry, archive, info), stamp if archive_stamp else (), changed)
        (listing.label_files if parts[-1] == LABEL_FILE else listing.items).append(item)
    listing.folders = sorted(folders)
    return listing


def _path_parts(info: zipfile.ZipInfo) -> tuple[str, ...]:
    return tuple(part for part in info.filename.replace("\\", "/").split("/") if part not in ("", "."))


def _run_folders(archive: zipfile.ZipFile) -> set[tuple[str, ...]]:
    """The outermost run folders in an archive."""
    names_in: dict[tuple[str, ...], set[str]] = {}
    for *folder, name in filter(None, map(_path_parts, archive.infolist())):
        if name in ("run.json", "recipe.toml"):
            names_in.setdefault(tuple(folder), set()).add(name)
    runs = {folder for folder, names in names_in.items() if folder and is_run(names)}
    return {folder for folder in runs if not any(folder[:end] in runs for end in range(1, len(folder)))}


def _archive_stamp(archive: zipfile.ZipFile) -> tuple[tuple[int, ...], int]:
    """The stamp of the archive file and its change time.

    They are part of the stamps of the entries, since damage to an entry does not change the central directory.
    """
    try:
        assert archive.fp is not None
        status = os.fstat(archive.fp.fileno())
    except OSError:  # the archive is in memory
        return (), 0
    return stamp_of(status), changed_at(status)


def _read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> BytesIO:
    """Read an entry and verify its checksum; never decompress more than its declared size.

    Reading without a limit would decompress everything before it is truncated.
    """
    with archive.open(info) as stream:
        return BytesIO(stream.read(info.file_size + 1))


def _ignored_reason(parts: tuple[str, ...]) -> str | None:
    if any(ignored_reason(part) == HIDDEN for part in parts if part != ".."):
        return HIDDEN
    return ignored_reason(parts[-1])


def _unusable_reason(info: zipfile.ZipInfo, parts: tuple[str, ...]) -> str | None:
    if ".." in parts:
        return "its path leads out of the archive"
    if info.filename.startswith(("/", "\\")) or parts[0].endswith(":"):
        return "its path is absolute"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a symbolic link"
    if info.flag_bits & 1:
        return "encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "compressed by a method other than deflate"
    if info.file_size > MAX_ENTRY:
        return f"expands to {info.file_size:,} bytes, above the limit of {MAX_ENTRY:,}"
    if info.file_size > max(SMALL_ENTRY, MAX_RATIO * info.compress_size):
        return f"expands to more than {MAX_RATIO} times its compressed size"
    return None
