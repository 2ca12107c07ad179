"""`folder`: a folder of pictures, flat or with one sub-folder for each class."""

from __future__ import annotations

import errno
import os
import shlex
import stat
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from poise.data.listing import HIDDEN, TABLE, Item, Listing, display_name, ignored_reason, is_run, sort_key, stamp_of
from poise.data.paths import WHERE, access_error, folder_at
from poise.data.scan import ScannedConfig, scan
from poise.data.source import BadFile, DataSplits
from poise.errors import DataError


class FolderConfig(ScannedConfig):
    """A folder. Links that lead out of it are bad unless `follow_links` is set."""

    place: ClassVar[str] = "folder"
    kind: Literal["folder"] = "folder"
    follow_links: bool = False

    def inside(self, folder: str) -> str:
        """See `ScannedEntry.inside`."""
        return f"--data {shlex.quote(str(Path(self.path, folder)))}"

    def load(self, root: Path | None = None) -> DataSplits:
        """List, then scan; `root` is for data sets by name and is not looked at.

        Raises:
            DataError: no such folder, no permission, no pictures, or the scan's reasons.
        """
        place = folder_at(self.path)
        try:
            with os.scandir(place) as entries:
                names = {entry.name for entry in entries}
        except OSError as error:
            raise access_error(self.path, error) from None
        if is_run(names):
            what, cure = (
                "this is a run's folder, not one of pictures",
                "sample it first: poise sample RUN --npz FILE.npz",
            )
            raise DataError(what, where=WHERE, found=display_name(self.path), cure=cure)
        listing = Walk(place, self.follow_links).listing()
        return scan(listing, self)


class Walk:
    """One walk through a folder, to any depth, without recursion and without opening a file.

    Args:
        top: the folder.
        follow: whether links may lead out of it.
    """

    def __init__(self, top: Path, follow: bool) -> None:
        self.top, self.follow = top, follow
        self._real_top = os.path.realpath(top)
        self._met = {_identity(top.stat())}
        self._waiting = [""]
        self._found = Listing()

    def listing(self) -> Listing:
        """Everything below, each real folder once."""
        while self._waiting:
            inside = self._waiting.pop()
            try:
                with os.scandir(self.top / inside) as entries:
                    within = sorted(entries, key=lambda entry: sort_key(entry.name))
            except OSError as error:
                self._found.bad_files.append(BadFile(display_name(inside), f"unreadable folder: {error.strerror}"))
                continue
            if inside and is_run({entry.name for entry in within}):
                self._found.runs += 1
                self._found.folders.remove(inside)
                continue
            for entry in within:
                self._judge(entry, f"{inside}/{entry.name}" if inside else entry.name)
        return self._found

    def _judge(self, entry: os.DirEntry[str], name: str) -> None:
        """Put one name where it belongs: waiting, listed, bad or ignored."""
        ignored = ignored_reason(entry.name)
        if ignored == HIDDEN:
            self._found.ignored[HIDDEN] += 1
            return
        try:
            status = entry.stat()
        except OSError as error:
            if ignored is None or entry.is_dir(follow_symlinks=False):
                self._found.bad_files.append(BadFile(display_name(name), _unreachable(error, entry.is_symlink())))
            else:
                self._found.ignored[ignored] += 1
            return
        out = entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(self._real_top)
        if stat.S_ISDIR(status.st_mode) and ignored is not None:
            self._judge_folder(name, status, link=entry.is_symlink(), out=out)
        elif entry.name == TABLE and not self._unfit(status, out):
            self._found.tables.append(_item(name, entry, status))
        elif ignored is not None:
            self._found.ignored[ignored] += 1
        elif why := self._unfit(status, out):
            self._found.bad_files.append(BadFile(display_name(name), why))
        else:
            self._found.items.append(_item(name, entry, status))

    def _unfit(self, status: os.stat_result, out: bool) -> str | None:
        if stat.S_ISDIR(status.st_mode):
            return "a folder with a picture's name"
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        return "a link out of the folder (data.follow_links)" if out and not self.follow else None

    def _judge_folder(self, name: str, status: os.stat_result, link: bool, out: bool) -> None:
        """A link to a folder inside adds nothing: its pictures are met under their own names."""
        if out and not self.follow:
            self._found.bad_files.append(BadFile(display_name(name), "a link out of the folder (data.follow_links)"))
        elif (link and not out) or _identity(status) in self._met:
            self._found.ignored["links to folders met before"] += 1
        else:
            self._met.add(_identity(status))
            self._found.folders.append(name)
            self._waiting.append(name)


def _item(name: str, entry: os.DirEntry[str], status: os.stat_result) -> Item:
    changed = max(status.st_mtime_ns, status.st_ctime_ns)
    return Item(name, partial(Path.open, Path(entry.path), "rb"), stamp_of(status), changed)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _unreachable(error: OSError, link: bool) -> str:
    if link and error.errno == errno.ELOOP:
        return "a link that leads back to itself"
    if link and isinstance(error, FileNotFoundError):
        return "a broken link"
    return f"unreadable: {error.strerror}"
