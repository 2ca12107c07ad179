"""Object stores (S3, GCS, Azure and others) through fsspec: what is in a folder, its files, and errors for people."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from poise.errors import DiskError, PoiseError, RecipeError
from poise.utils.cache import cache_dir
from poise.utils.paths import without_login

VERSION_KEYS = (
    *("ETag", "etag", "md5Hash", "md5", "xet_hash", "blob_id", "mtime"),
    *("LastModified", "last_modified", "updated", "modified", "modify", "modificationTime"),
)
CHANGED_KEYS = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
"""Where the file systems of fsspec say which version an object has, and when it was changed; the first one counts."""

OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 10, "retries": {"total_max_attempts": 2}}},
}
OPTIONS["s3a"] = OPTIONS["s3"]
"""What bounds the time after which a store counts as unreachable. s3fs repeats a request that was not answered up to
five times, and boto each of these, by default five times with 60 seconds each."""

SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY|ACCOUNT_KEY|CREDENTIAL", re.IGNORECASE)


class Missing(PoiseError):
    """A file or folder is not in the store. Not an `OSError`, which would be one of the mirror."""


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


class ObjectStore:
    """A folder in an object store.

    Args:
        url: such as `s3://bucket/runs`.

    Attributes:
        url: the URL without a login.
        root: its path in the store.

    Raises:
        RecipeError: the package for this kind of store is not installed, or there is no such kind.
    """

    def __init__(self, url: str) -> None:
        self.url = without_login(url)
        self._fs, root = _open_store(url, self.url)
        self.root = root.rstrip("/")

    def files(self) -> dict[str, Entry]:
        """The files below the folder, by their names relative to it; empty if there is no such folder.

        Raises:
            DiskError: the store can't be reached or does not allow it.
        """
        try:
            with self._errors():
                self._fs.invalidate_cache()
                found = self._fs.find(self.root, detail=True)
        except Missing:
            return {}
        return {
            path.removeprefix(self.root).removeprefix("/"): Entry(
                path, int(info["size"] or 0), _version(info), _changed(info)
            )
            for path, info in found.items()
            if info["type"] == "file" and not info.get("islink")
        }

    def download(self, entry: Entry, path: Path) -> None:
        """Copy a file to a path of this machine.

        Raises:
            Missing: it is not there any more.
            DiskError: see `files`.
        """
        with self._errors():
            self._fs.get_file(entry.path, str(path))

    def read(self, entry: Entry, start: int) -> bytes:
        """The bytes of a file from `start` on; see `download`."""
        with self._errors():
            return bytes(self._fs.cat_file(entry.path, start=start, end=entry.size))

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Convert the errors of a file system of fsspec, which can be of any type.

        Raises:
            Missing: the file or the folder is not there.
            DiskError: something else.
        """
        try:
            yield
        except (PoiseError, MemoryError):
            raise
        except FileNotFoundError:
            raise Missing("is not in the store", where=self.url) from None
        except Exception as error:
            raise _explain(error, self.url) from None


def without_secrets(text: str) -> str:
    """A text without what may be a password: see `without_login`; and the values of secret environment variables."""
    text = without_login(text)
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value) >= 6:
            text = text.replace(value, "***")
    return text


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
        return DiskError(
            "can't be written: the disk is full", where=str(cache_dir()), cure="set POISE_CACHE to another"
        )
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
