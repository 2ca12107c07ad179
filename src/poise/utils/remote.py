"""Folders in an object store, read through a mirror in the cache folder.

Whatever reads run folders reads files of this machine. So the files that a command needs are copied into the cache
folder, under their names, and read from there: a file whose size or version has changed is fetched again, of a log that
has grown only the new lines, and the others not at all. Nothing is ever written to the store.

The names of objects are untrusted: one that is not a path of plain names below the folder is left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from poise.errors import DiskError, PoiseError
from poise.utils.batch_files import atomic_path
from poise.utils.cache import cache_dir, cache_key, mark_used
from poise.utils.files import append_bytes, make_folder, remove_file, remove_folder, write_bytes, write_json
from poise.utils.locks import is_held, waiting_lock
from poise.utils.object_store import Entry, Missing, ObjectStore
from poise.utils.paths import is_plain
from poise.utils.printing import print_line
from poise.utils.system import disk_errors
from poise.utils.temporary import remove

MARK = 1024
"""The bytes before the end of a log that must be the same for the rest to be appended."""

PARALLEL = 8
"""The number of files that are fetched at the same time."""

LARGE = 16 * 1024**2
"""To fetch more bytes is announced."""

UNUSED_DAYS = 30
"""A mirror that was not used for so long is deleted."""

_mirrors: dict[str, str] = {}
"""The URL of each mirror of this process, by its path."""


class RemoteFolder:
    """A folder in an object store, and its mirror. The methods may be called from several threads.

    Args:
        url: such as `s3://bucket/runs`.

    Attributes:
        local: the mirror, which holds the files that were asked for.

    Raises:
        RecipeError: the package for this kind of store is not installed, or there is no such kind.
        DiskError: the cache folder can't be written.
    """

    def __init__(self, url: str) -> None:
        self._store = ObjectStore(url)
        self.url = self._store.url
        name = self._store.root.rpartition("/")[2]
        folder = mirrors() / cache_key(url)
        self.local = folder / (name if is_plain(name) and len(os.fsencode(name)) <= 100 else "folder")
        self._lock_file, self._index_file = folder / "lock", folder / "index.json"
        self._listed: dict[str, Entry] = {}
        self._busy = threading.RLock()
        _remove_unused(folder)
        with _cache_errors(folder):
            make_folder(self.local)
        _mirrors[str(self.local)] = self.url

    def refresh(self, wanted: re.Pattern[str], on_demand: re.Pattern[str] | None = None) -> None:
        """List the folder and fetch what is new or has changed; delete from the mirror what is gone.

        Args:
            wanted: the files to fetch, by their names relative to the folder.
            on_demand: files that are to be empty in the mirror until `fetch` is called; then they are kept up to date.

        Raises:
            DiskError: the store can't be reached or does not allow it, or the disk is full.
        """
        with self._busy:
            self._listed = self._list()
            with self._index() as known:
                for name in [name for name in known if name not in self._listed]:
                    self._forget(name, known)
                for name in filter(on_demand.fullmatch, self._listed) if on_demand is not None else ():
                    if name not in known:
                        make_folder(self._path(name).parent)
                        write_bytes(self._path(name), b"")
                        known[name] = [0, ""]
                asked = {name for name, (size, _) in known.items() if size and on_demand and on_demand.fullmatch(name)}
                self._fetch([name for name in self._listed if wanted.fullmatch(name) or name in asked], known)

    def fetch(self, *names: str) -> None:
        """Fetch files that were listed by `refresh`, unless the mirror has them; others are left out.

        Args:
            names: relative to the folder.

        Raises:
            DiskError: see `refresh`.
        """
        with self._busy, self._index() as known:
            self._fetch([name for name in names if name in self._listed], known)

    def names(self) -> list[str]:
        """The names of the files that `refresh` has listed, relative to the folder."""
        return sorted(self._listed)

    def _list(self) -> dict[str, Entry]:
        listed = {name: entry for name, entry in self._store.files().items() if all(map(_is_allowed, name.split("/")))}
        return {name: entry for name, entry in listed.items() if not _is_in_file(name, listed)}

    def _path(self, name: str) -> Path:
        return self.local.joinpath(*name.split("/"))

    @contextlib.contextmanager
    def _index(self) -> Iterator[dict[str, list[Any]]]:
        """The size and version of each file in the mirror, by its name, written when the block ends."""
        with _cache_errors(self.local):
            make_folder(self.local)  # the cache may be deleted at any time
        with (
            _cache_errors(self.local),
            waiting_lock(self._lock_file, f"another process is fetching files from {self.url}"),
        ):
            try:
                known = {name: [int(size), str(version)] for name, (size, version) in self._read_index().items()}
            except (OSError, ValueError, TypeError, AttributeError):
                known = {}
            before = dict(known)
            try:
                yield known
            finally:
                if known != before or not self._index_file.exists():
                    write_json(self._index_file, known)
                mark_used(self._index_file)

    def _read_index(self) -> Any:
        return json.loads(self._index_file.read_bytes())

    def _fetch(self, names: list[str], known: dict[str, list[Any]]) -> None:
        needed = [name for name in names if not self._is_current(name, known)]
        total = sum(self._listed[name].size for name in needed)
        if total > LARGE:
            print_line(f"fetching {total / 1e6:,.0f} MB from {self.url} into the cache folder", err=True)
        failed: PoiseError | None = None
        for name, result in zip(needed, self._copy_all(needed, known), strict=True):
            if isinstance(result, PoiseError):
                failed = failed or result
            elif result:
                known[name] = [self._listed[name].size, self._listed[name].version]
            else:
                self._forget(name, known)
        if failed is not None:
            raise failed

    def _copy_all(self, names: list[str], known: Mapping[str, list[Any]]) -> Iterator[bool | PoiseError]:
        """`_copy` for several files, some at the same time. One alone is copied in this thread, which Ctrl-C ends."""
        before = [known.get(name) for name in names]
        if len(names) < 2:
            yield from map(self._copy, names, before)
            return
        pool = ThreadPoolExecutor(min(PARALLEL, len(names)))
        try:
            yield from pool.map(self._copy, names, before)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _is_current(self, name: str, known: Mapping[str, list[Any]]) -> bool:
        entry = self._listed[name]
        if not entry.version:  # of the same size it may be another one
            return False
        return known.get(name) == [entry.size, entry.version] and self._size(name) == entry.size

    def _size(self, name: str) -> int | None:
        try:
            return self._path(name).stat().st_size
        except OSError:
            return None

    def _copy(self, name: str, before: list[Any] | None) -> bool | PoiseError:
        """Bring a file of the mirror up to date.

        Args:
            name: the file.
            before: its size and version in the mirror, if it is there.

        Returns:
            Whether it still is in the store; or the error.
        """
        entry, path = self._listed[name], self._path(name)
        try:
            make_folder(path.parent)
            appended = before is not None and before[0] == self._size(name) and self._append(entry, path, before[0])
            if not appended:
                with atomic_path(path) as temporary:
                    self._store.download(entry, temporary)
            os.utime(path, (entry.changed, entry.changed))
        except Missing:
            return False
        except PoiseError as error:
            return error
        except OSError as error:
            return DiskError(f"can't be written: {error.strerror or error}", where=str(path))
        return True

    def _append(self, entry: Entry, path: Path, size: int) -> bool:
        """Append what is new to a log whose old part is the same; returns False if the file must be fetched anew."""
        if path.suffix != ".jsonl" or not 0 < size < entry.size:
            return False
        start = max(0, size - MARK)
        with path.open("rb") as stream:
            stream.seek(start)
            mark = stream.read()
        new = self._store.read(entry, start)
        if len(new) != entry.size - start or not new.startswith(mark):
            return False
        append_bytes(path, new[len(mark) :])
        return True

    def _forget(self, name: str, known: dict[str, list[Any]]) -> None:
        """Delete a file from the mirror, and the folders that are then empty."""
        known.pop(name, None)
        path = self._path(name)
        with contextlib.suppress(OSError):
            remove_file(path)
        for folder in path.parents:
            if folder == self.local or not folder.is_relative_to(self.local):
                break
            with contextlib.suppress(OSError):
                if not any(folder.iterdir()):
                    remove(folder)

    def discard(self) -> None:
        """Delete the mirror of a folder that turned out not to be there."""
        _mirrors.pop(str(self.local), None)
        with contextlib.suppress(OSError):
            remove_folder(self.local.parent)


def mirrors() -> Path:
    """The folder of all mirrors."""
    return (cache_dir() / "remote").resolve()


def is_mirrored(path: Path) -> bool:
    """Whether a path is in the mirror of a folder in an object store."""
    return path.resolve().is_relative_to(mirrors())


def with_urls(text: str) -> str:
    """A text in which the paths of mirrors are replaced by the URLs of what they mirror."""
    for path, url in _mirrors.items():
        text = text.replace(path, url)
    return text


def _is_allowed(part: str) -> bool:
    """Whether a part of an object's name may become a name in the mirror."""
    return is_plain(part) and not part.startswith(".") and part.isprintable() and len(os.fsencode(part)) <= 200


def _is_in_file(name: str, listed: Collection[str]) -> bool:
    """Whether a folder of a file is also the name of a file, which is possible in an object store."""
    return any(parent.as_posix() in listed for parent in PurePosixPath(name).parents)


@contextlib.contextmanager
def _cache_errors(folder: Path) -> Iterator[None]:
    with disk_errors(folder):
        yield


def _remove_unused(keep: Path) -> None:
    """Delete the mirrors that no process has used for long."""
    for folder in mirrors().glob("*"):
        with contextlib.suppress(OSError):
            unused = time.time() - (folder / "index.json").stat().st_mtime > UNUSED_DAYS * 86400
            if unused and folder != keep and not is_held(folder / "lock"):
                remove_folder(folder)
