"""`folder`: a folder of images, flat or with one sub-folder per class."""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Hashable
from functools import partial
from pathlib import Path
from typing import IO, ClassVar, Literal

from poise.data.listing import (
    HIDDEN,
    LABEL_FILE,
    LINK_OUT,
    WITHOUT_SUFFIX,
    Item,
    Listing,
    changed_at,
    display_name,
    ignored_reason,
    is_run,
    sort_key,
    stamp_of,
)
from poise.data.paths import WHERE, access_error, folder_at
from poise.data.scan import ScannedConfig, scan
from poise.data.source import BadFile, DataSplits, SkippedFolder
from poise.errors import DataError


class FolderConfig(ScannedConfig):
    """A folder. Links that lead out of it are skipped, and listed as bad files, unless `follow_links` is set."""

    container: ClassVar[str] = "folder"
    kind: Literal["folder"] = "folder"
    follow_links: bool = False

    def select_folder(self, folder: str) -> str:
        """See `ScannedConfig.select_folder`."""
        return f"--data {shlex.quote(str(Path(self.path, folder)))}"

    def load(self, root: Path | None = None) -> DataSplits:
        """List the files, then decode the images; `root` is not used.

        Raises:
            DataError: the folder does not exist or is not readable, or see `scan`.
        """
        return scan(list_folder(self.path, self.follow_links), self)


def list_folder(path: str, follow: bool) -> Listing:
    """The files in a folder of images.

    Args:
        path: the folder.
        follow: whether links that lead out of it are followed.

    Raises:
        DataError: it does not exist, is not readable, or is the folder of a run.
    """
    folder = folder_at(path)
    try:
        with os.scandir(folder) as entries:
            names = {entry.name for entry in entries}
    except OSError as error:
        raise access_error(path, error) from None
    if is_run(names):
        what = "this is the folder of a run, not a folder of images"
        cure = "sample from the run first: poise sample RUN --npz FILE.npz"
        raise DataError(what, where=WHERE, found=display_name(path), cure=cure)
    return Walk(folder, follow).listing()


class Walk:
    """A traversal of a folder, to any depth. It is not recursive and opens no files.

    Args:
        top: the folder.
        follow: whether links that lead out of it are followed.
    """

    def __init__(self, top: Path, follow: bool) -> None:
        self.top, self.follow = top, follow
        self._real_top = os.path.realpath(top)
        self._visited = {_identity(top, top.stat())}
        self._pending = [""]
        self._listing = Listing()

    def listing(self) -> Listing:
        """All files below the folder; each real folder is visited once."""
        while self._pending:
            folder = self._pending.pop()
            try:
                with os.scandir(self.top / folder) as entries:
                    content = sorted(entries, key=lambda entry: sort_key(entry.name))
            except OSError as error:
                reason = f"unreadable folder: {error.strerror}"
                self._listing.bad_files.append(SkippedFolder(display_name(folder), reason))
                continue
            if folder and is_run({entry.name for entry in content}):
                self._listing.num_runs += 1
                self._listing.folders.remove(folder)
                continue
            for entry in content:
                self._add(entry, f"{folder}/{entry.name}" if folder else entry.name)
        return self._listing

    def _add(self, entry: os.DirEntry[str], name: str) -> None:
        """Classify a directory entry: a folder to visit, an image, a label file, a bad file, or one to ignore.

        A link without suffix that leads nowhere is taken for one to a folder.
        """
        ignored = ignored_reason(entry.name)
        if ignored == HIDDEN:
            self._listing.ignored[HIDDEN] += 1
            return
        try:
            status = _status(entry)
        except OSError as error:
            reason = _unreachable(error, entry.is_symlink())
            if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and ignored == WITHOUT_SUFFIX):
                self._listing.bad_files.append(SkippedFolder(display_name(name), reason))
            elif ignored is None:
                self._listing.bad_files.append(BadFile(display_name(name), reason))
            else:
                self._listing.ignored[ignored] += 1
            return
        out = entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(self._real_top)
        if stat.S_ISDIR(status.st_mode) and ignored is not None:
            self._add_folder(name, status, link=entry.is_symlink(), out=out)
        elif entry.name == LABEL_FILE and not self._unusable_reason(status, out):
            self._listing.label_files.append(_item(name, entry, status))
        elif ignored is not None:
            self._listing.ignored[ignored] += 1
        elif reason := self._unusable_reason(status, out):
            self._listing.bad_files.append(BadFile(display_name(name), reason))
        else:
            self._listing.items.append(_item(name, entry, status))

    def _unusable_reason(self, status: os.stat_result, out: bool) -> str | None:
        if stat.S_ISDIR(status.st_mode):
            return "a folder with the name of an image file"
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        return LINK_OUT if out and not self.follow else None

    def _add_folder(self, name: str, status: os.stat_result, link: bool, out: bool) -> None:
        """Add a folder to visit. A link to a folder inside is ignored, since its images are found under their paths."""
        if out and not self.follow:
            self._listing.bad_files.append(SkippedFolder(display_name(name), LINK_OUT))
        elif (link and not out) or (identity := _identity(self.top / name, status)) in self._visited:
            self._listing.ignored["links to visited folders"] += 1
        else:
            self._visited.add(identity)
            self._listing.folders.append(name)
            self._pending.append(name)


def _item(name: str, entry: os.DirEntry[str], status: os.stat_result) -> Item:
    return Item(name, partial(_open, entry.path), stamp_of(status), changed_at(status))


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    """The status of an entry, with device and inode, which a folder's entries lack on Windows."""
    status = entry.stat()
    return status if status.st_ino else Path(entry.path).stat()


def _open(path: str) -> IO[bytes]:
    return Path(path).open("rb")  # made here, as a million paths take more memory than their text


def _identity(path: Path, status: os.stat_result) -> Hashable:
    """What tells a folder from all others: its device and inode, or, without these, its path without links."""
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def _unreachable(error: OSError, link: bool) -> str:
    if link and error.errno == errno.ELOOP:
        return "a circular link"
    if link and isinstance(error, FileNotFoundError):
        return "a broken link"
    return f"unreadable: {error.strerror}"
