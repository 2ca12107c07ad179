"""Folders in an object store (S3, GCS, Azure and others, through fsspec), read through a mirror in the cache folder.

Whatever reads run folders reads files of this machine. So the files that a command needs are copied into the cache
folder, under their names, and read from there: a file whose size or version has changed is fetched again, of a log that
has grown only the new lines, and the others not at all. Nothing is ever written to the store.

The names of objects are untrusted: one that is not a path of plain names below the folder is left out.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import re
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from poise.errors import DiskError, PoiseError, RecipeError
from poise.utils.batch_files import atomic_path
from poise.utils.cache import cache_dir, cache_key, mark_used
from poise.utils.files import append_bytes, make_folder, remove_file, remove_folder, write_bytes, write_json
from poise.utils.locks import is_held, waiting_lock
from poise.utils.paths import is_plain, without_login
from poise.utils.printing import print_line
from poise.utils.system import disk_errors
from poise.utils.temporary import remove

VERSION_KEYS = ("ETag", "etag", "md5Hash", "md5", "mtime", "LastModified", "last_modified", "updated", "modified")
CHANGED_KEYS = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
"""Where the file systems of fsspec say which version an object has, and when it was changed; the first one counts."""

OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 10, "retries": {"total_max_attempts": 2}}},
}
OPTIONS["s3a"] = OPTIONS["s3"]
"""What bounds the time after which a store counts as unreachable. s3fs repeats a request that was not answered up to
five times, and boto each of these, by default five times with 60 seconds each."""

MARK = 1024
"""The bytes before the end of a log that must be the same for the rest to be appended."""

PARALLEL = 8
"""The number of files that are fetched at the same time."""

LARGE = 16 * 1024**2
"""To fetch more bytes is announced."""

UNUSED_DAYS = 30
"""A mirror that was not used for so long is deleted."""

SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY|ACCOUNT_KEY|CREDENTIAL", re.IGNORECASE)


class _Missing(PoiseError):
    """A file or folder is not in the store. Not an `OSError`, which would be one of the mirror."""


_mirrors: dict[str, str] = {}
"""The URL of each mirror of this process, by its path."""


class Entry(NamedTuple):
    """A file in the store.

    Attributes:
        path: its name there.
        size: in bytes.
        version: changes whenever its content does.
        changed: when it was changed, in seconds since 1970.
    """

    path: str
    size: int
    version: str
    changed: float


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
        self.url = without_login(url)
        self.fs, root = _open_store(url, self.url)
        self.root = root.rstrip("/")
        name = self.root.rpartition("/")[2]
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
        try:
            with self._errors():
                self.fs.invalidate_cache()
                found = self.fs.find(self.root, detail=True)
        except _Missing:
            return {}
        listed = {}
        for path, info in found.items():
            name = path.removeprefix(self.root).removeprefix("/")
            if all(map(_is_allowed, name.split("/"))) and info["type"] == "file" and not info.get("islink"):
                listed[name] = Entry(path, int(info["size"] or 0), _version(info), _changed(info))
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
                with atomic_path(path) as temporary, self._errors():
                    self.fs.get_file(entry.path, str(temporary))
            os.utime(path, (entry.changed, entry.changed))
        except _Missing:
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
        with self._errors():
            new = bytes(self.fs.cat_file(entry.path, start=start, end=entry.size))
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

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Convert the errors of a file system of fsspec, which can be of any type.

        Raises:
            _Missing: the file or the folder is not there.
            DiskError: something else.
        """
        try:
            yield
        except (PoiseError, MemoryError):
            raise
        except FileNotFoundError:
            raise _Missing("is not in the store", where=self.url) from None
        except Exception as error:
            raise _explain(error, self.url) from None


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


def without_secrets(text: str) -> str:
    """A text without what may be a password: see `without_login`; and the values of secret environment variables."""
    text = without_login(text)
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value) >= 6:
            text = text.replace(value, "***")
    return text


def _is_allowed(part: str) -> bool:
    """Whether a part of an object's name may become a name in the mirror."""
    return is_plain(part) and not part.startswith(".") and part.isprintable() and len(os.fsencode(part)) <= 200


def _is_in_file(name: str, listed: Collection[str]) -> bool:
    """Whether a folder of a file is also the name of a file, which is possible in an object store."""
    return any(parent.as_posix() in listed for parent in PurePosixPath(name).parents)


def _version(info: Mapping[str, Any]) -> str:
    return next((str(info[key]) for key in (*VERSION_KEYS, "created") if info.get(key) is not None), "")


def _changed(info: Mapping[str, Any]) -> float:
    for key in CHANGED_KEYS:
        value = info.get(key)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return time.time()


def _open_store(url: str, shown: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    protocol = url.partition("://")[0]
    try:
        core, registry = importlib.import_module("fsspec.core"), importlib.import_module("fsspec.registry")
    except ImportError:
        cure = "install it with: pip install 'poise[remote]'"
        raise RecipeError("object stores need fsspec, which is not installed", where=shown, cure=cure) from None
    known = registry.known_implementations
    if protocol not in known and protocol not in registry.registry:
        cure = "s3://, gs://, az:// and the other protocols of fsspec are"
        raise RecipeError("not a known kind of object store", where=shown, found=f"{protocol}://", cure=cure)
    try:
        configured = importlib.import_module("fsspec.config").conf.get(protocol, {})
        options = {name: value for name, value in OPTIONS.get(protocol, {}).items() if name not in configured}
        return core.url_to_fs(url, use_listings_cache=False, **options)
    except ImportError:
        package = str(known.get(protocol, {}).get("class", "")).partition(".")[0]
        cure = f"install it with: pip install {package}" if package else ""
        what = f"{protocol}:// needs the package {package}, which is not installed"
        raise RecipeError(what, where=shown, cure=cure) from None
    except (ValueError, TypeError) as error:
        raise RecipeError(f"can't be opened: {without_secrets(str(error))}", where=shown) from None
    except Exception as error:
        raise _explain(error, shown) from None


def _explain(error: Exception, url: str) -> DiskError:
    """An error of a store as one of poise."""
    kind = type(error).__name__
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError("can't be written: the disk is full", where=str(mirrors()), cure="set POISE_CACHE to another")
    if "Credentials" in kind or "TokenRetrieval" in kind:
        cure = "give them as to other programs for this store, for example with AWS_PROFILE"
        return DiskError("no valid credentials for this store were found", where=url, cure=cure)
    if isinstance(error, PermissionError) or "Forbidden" in kind:
        cure = "check the credentials, and that they allow to list and to read"
        return DiskError("the store denies the access", where=url, found=_first_line(error), cure=cure)
    if isinstance(error, ConnectionError | TimeoutError) or re.search("Connect|Timeout|Proxy|DNS", kind):
        return DiskError("can't be reached", where=url, found=kind, cure="check the network and the store's address")
    return DiskError(f"can't be read: {kind}: {_first_line(error)}", where=url)


def _first_line(error: Exception) -> str:
    return without_secrets(str(error)).strip().split("\n")[0]


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
