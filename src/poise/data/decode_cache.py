"""A cache of decoded images, so that the same files are not decoded again by `check`, resumed runs and evaluation.

An entry holds the pixels, arrays with a few numbers per image, and facts. Its key is a hash of the files' names and
stamps (size, times and inode of a file; checksum, sizes and offset of an archive's entry), of the requested format, and
of the code. A file whose content changed has another stamp even if its modification time was set back, because
the change time cannot be set.

Images that fit into memory are read from one file, whose checksum is verified. Those that don't are decoded into a file
of the cache, by one process at a time, and mapped from there. Their file is not read to verify it, as that would take
longer than all else: its stamp is kept, and a file that was changed has another one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import PIL

from poise.data import image_array
from poise.data.image_array import allocate_images, map_new_file
from poise.data.listing import stamp_of
from poise.errors import DiskError
from poise.utils.cache import cache_dir, cache_key, mark_used, prune
from poise.utils.files import make_folder, open_atomic, remove_file, sync_file
from poise.utils.images import Bytes
from poise.utils.locks import waiting_lock
from poise.utils.printing import print_line
from poise.utils.progress import DelayedProgress
from poise.utils.system import disk_errors, retry_interrupted, system
from poise.utils.temporary import remove_orphans, temporary_name

MIN_SECONDS = 0.5
"""The shortest decoding time, in seconds, whose result is cached if it fits into memory."""

MIN_AGE = 2.0
"""A file that changed within this many seconds before it was listed may change again without a new change time."""

MAX_BYTES = 10 * 2**30
"""The largest size of all cached images that fit into memory, in bytes; the least recently used are deleted first."""

MIN_FREE_FACTOR = 2
"""Such images are cached only if the free disk space is at least this many times their size."""

SPARE = 2**28
"""The disk space, in bytes, that must be left beside images that don't fit into memory."""

BYTES_PER_FILE = 1300
"""The memory that names and places of files take while they are decoded: 1,000 to 1,300 bytes were measured."""

CURE = "set POISE_CACHE to a folder that can be written to"

CHUNK = 2**24

Arrays = dict[str, npt.NDArray[Any]]


@dataclass
class Entry:
    """What the cache holds under a key.

    Attributes:
        images: uint8, N x H x W x C. If they are mapped from the cache, they can't be written to.
        arrays: arrays of a few numbers per image.
        facts: what JSON can hold.
        fingerprints: the file that remembers the fingerprints of data with these images, if they are mapped.
    """

    images: Bytes
    arrays: Arrays = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    fingerprints: Path | None = None


@dataclass
class Files:
    """The files that images are decoded from.

    Attributes:
        key: identifies these files and the format of the images; empty if a version cannot be identified.
        changed: when the newest of them changed, in nanoseconds since 1970.
        listed_at: when their stamps were taken, in seconds since 1970. One that changed shortly before may have changed
            again while it was decoded, without getting a new stamp.
    """

    key: str
    changed: int
    listed_at: float

    @property
    def cacheable(self) -> bool:
        """Whether later changes to the files are certain to be detected."""
        return bool(self.key) and self.listed_at - self.changed / 1e9 >= MIN_AGE


def key_of(files: Sequence[tuple[Any, ...]], *options: object, code: Sequence[str] = ()) -> str:
    """A cache key.

    Args:
        files: name and stamp of each file; see `Item.stamp`.
        options: what else the result depends on.
        code: the paths of the modules that determine it.

    Returns:
        The key; empty if a file's version cannot be identified.
    """
    if not all(stamp for _, stamp in files):
        return ""
    version, names = hashlib.sha256(), hashlib.sha256()
    try:
        for path in code:
            version.update(Path(path).read_bytes())
    except OSError:  # poise is imported from an archive
        return ""
    for file in files:
        names.update(repr(file).encode())
    return cache_key(version.hexdigest(), PIL.__version__, np.__version__, names.hexdigest(), *options)


class AlreadyDecoded(Exception):
    """Another process has decoded the same images while this one was waiting for it."""


class Destination:
    """Where images are decoded to: see `allocate`. A context manager that removes what an error leaves behind.

    Args:
        files: the files that are decoded.
        budget: the largest number of bytes in memory.
    """

    def __init__(self, files: Files, budget: int) -> None:
        self.files, self.budget = files, budget
        self.file: Path | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Destination:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the incomplete file, and let other processes decode the images."""
        if self.file is not None:
            with suppress(OSError):
                remove_file(self.file)
        self._stack.close()

    def allocate(self, shape: tuple[int, ...]) -> Bytes:
        """An uninitialised uint8 array: in memory, or mapped to a file if it exceeds the budget.

        The file is in the cache, or, if the images can't be cached, in the folder of temporary files. What it needs is
        printed before it is created, and its blocks are reserved at once, so that a full disk raises here.

        Raises:
            DiskError: the disk has too little space.
            AlreadyDecoded: another process has just decoded the same images.
        """
        needed = math.prod(shape)
        if needed <= self.budget:
            return allocate_images(shape, self.budget)
        folder = _mapped_folder() if self.files.cacheable else Path(tempfile.gettempdir())
        if self.files.cacheable:
            with disk_errors(folder, CURE):
                make_folder(folder)
            lock = folder / f"{self.files.key}.lock"
            self._stack.enter_context(waiting_lock(lock, "another process is decoding the same images", CURE))
            if _load_mapped(self.files.key) is not None:
                raise AlreadyDecoded
            remove_orphans(folder)
        check_space(shape, folder, self.budget, cached=self.files.cacheable)
        if not self.files.cacheable:
            return allocate_images(shape, self.budget)
        self.file = folder / temporary_name(f"{self.files.key}.pixels")
        return map_new_file(self.file, shape)

    def finish(self, entry: Entry) -> Entry:
        """Add a mapped entry to the cache, from which it is mapped anew."""
        assert self.file is not None
        pixels = _pixels(self.files.key)
        with disk_errors(pixels, CURE):
            entry.images.flush()  # type: ignore[attr-defined]
            sync_file(self.file)
            retry_interrupted(lambda: system.replace(self.file, pixels))  # type: ignore[arg-type]
        self.file = None
        with open_atomic(_index(self.files.key)) as stream:
            _write_head(stream, entry, {"stamp": _file_stamp(pixels)})
        found = _load_mapped(self.files.key)
        if found is None:
            raise DiskError("what was written can't be read back", where=str(pixels))
        return found


def check_space(shape: tuple[int, ...], folder: Path, budget: int, *, cached: bool) -> None:
    """Print what the decoded images need, before they are decoded.

    Raises:
        DiskError: the disk has too little space for them.
    """
    n, height, width, channels = shape
    needed, free = math.prod(shape), shutil.disk_usage(folder).free
    what = f"{n:,} images of {width} x {height} x {channels} need {_size_text(needed)} of disk space"
    if free < needed + SPARE:
        variable = "POISE_CACHE" if cached else "TMPDIR"
        cure = f"set {variable} to a folder on a larger disk, or reduce data.size"
        others = sum(path.stat().st_size for path in folder.glob("*.pixels")) if cached else 0
        cure += f"; earlier data in this folder takes {_size_text(others)}, and may be deleted" if others else ""
        raise DiskError(what, where=str(folder), found=f"{_size_text(free)} free", cure=cure)
    where = f"{'the cache, ' if cached else ''}{folder} ({_size_text(free)} free)"
    kept = "and stay there until you delete them" if cached else "for this process only, as they have just changed"
    more = f"more than {_size_text(budget)}, so they are not kept in memory but decoded into {where}, {kept}"
    names = f"while they are decoded, their names take about {_size_text(BYTES_PER_FILE * n)} of memory"
    print_line(f"note: {what}, {more}; {names}", err=True)


def _size_text(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**29 else f"{size / 2**20:,.1f} MiB"


def cached(files: Files, make: Callable[[Destination], tuple[Entry, bool]], budget: int | None = None) -> Entry:
    """The entry of these files: the cached one, or the one that `make` decodes, which is then cached.

    Args:
        files: the files.
        make: decodes them into an array of the given destination; returns the entry, and whether it may be cached: not
            if a file could not be read for a reason that may be gone the next time.
        budget: the largest number of bytes of images in memory; None for `MEMORY_BUDGET`.

    Raises:
        DiskError: the images exceed the budget, and the disk has too little space.
    """
    budget = image_array.MEMORY_BUDGET if budget is None else budget
    found = load(files.key, budget) if files.key else None
    if found is not None:
        return found
    start = time.monotonic()
    try:
        with Destination(files, budget) as destination:
            entry, lasting = make(destination)
            if destination.file is not None and lasting:
                return destination.finish(entry)
            if destination.file is None and lasting and files.cacheable:
                store(files.key, entry, time.monotonic() - start)
            return entry  # its file, if any, loses its name and lasts as long as the array
    except AlreadyDecoded:
        found = load(files.key, budget)
        return cached(files, make, budget) if found is None else found


def load(key: str, budget: int) -> Entry | None:
    """The entry under `key`; None if there is none or it is damaged.

    Args:
        key: see `key_of`.
        budget: the largest number of bytes in memory; see `allocate_images`.
    """
    path = _path(key)
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            header, arrays = _read_head(file, digest)
            size = file.tell() + math.prod(header["shape"]) + digest.digest_size
            if size != os.fstat(file.fileno()).st_size:
                return None  # before memory is allocated for it
            images = allocate_images(tuple(header["shape"]), budget)
            _read_into(file, images, digest)
            if digest.digest() != file.read():
                return None
    except FileNotFoundError:
        return _load_mapped(key)
    except Exception:  # a damaged file can raise anything
        return None
    mark_used(path)
    return Entry(images, arrays, header["facts"])


def _load_mapped(key: str) -> Entry | None:
    """An entry whose images are mapped; None if there is none, or its files were changed."""
    try:
        with _index(key).open("rb") as file:
            digest = hashlib.sha256()
            header, arrays = _read_head(file, digest)
            pixels = _pixels(key)
            if digest.digest() != file.read() or header["stamp"] != _file_stamp(pixels):
                return None
        images = np.memmap(pixels, np.uint8, "r", shape=tuple(header["shape"]))
    except Exception:  # a damaged file can raise anything
        return None
    return Entry(images, arrays, header["facts"], _pixels(key).with_suffix(".fingerprints"))


def store(key: str, entry: Entry, seconds: float) -> None:
    """Cache an entry whose images are in memory, if it took long enough.

    Write errors and a lack of disk space are ignored.
    """
    needed = entry.images.nbytes
    if seconds < MIN_SECONDS or needed > MAX_BYTES:
        return
    with suppress(OSError, DiskError):
        make_folder(_path(key).parent)
        prune(_path(key).parent, MAX_BYTES - needed)
        if shutil.disk_usage(_path(key).parent).free < MIN_FREE_FACTOR * needed:
            return
        with open_atomic(_path(key)) as stream:
            digest = _write_head(stream, entry, {}, end=False)
            for chunk in _chunks(entry.images):
                stream.write(chunk)
                digest.update(chunk)
            stream.write(digest.digest())


def _write_head(stream: IO[bytes], entry: Entry, more: Mapping[str, Any], *, end: bool = True) -> Any:
    """Write everything but the pixels; with their checksum if that is the `end`. Returns the checksum so far."""
    arrays = {name: np.ascontiguousarray(array) for name, array in entry.arrays.items()}
    described = {name: [array.dtype.str, array.shape] for name, array in arrays.items()}
    header = {"shape": entry.images.shape, "arrays": described, "facts": entry.facts, **more}
    digest = hashlib.sha256()
    for part in (json.dumps(header).encode() + b"\n", *(array.tobytes() for array in arrays.values())):
        stream.write(part)
        digest.update(part)
    if end:
        stream.write(digest.digest())
    return digest


def _read_head(file: IO[bytes], digest: Any) -> tuple[dict[str, Any], Arrays]:
    """What `_write_head` wrote, added to the checksum.

    Raises:
        Exception: it is damaged.
    """
    line = file.readline()
    digest.update(line)
    header = json.loads(line)
    arrays: Arrays = {}
    for name, (dtype, shape) in header["arrays"].items():
        size = np.dtype(dtype).itemsize * math.prod(shape)
        if size > os.fstat(file.fileno()).st_size:
            raise ValueError("the header is damaged")
        content = file.read(size)
        digest.update(content)
        arrays[name] = np.frombuffer(bytearray(content), dtype).reshape(shape)
    return header, arrays


def _file_stamp(path: Path) -> list[int]:
    return list(stamp_of(path.stat()))


def _path(key: str) -> Path:
    return cache_dir() / "pictures" / f"{key}.pixels"


def _mapped_folder() -> Path:
    return cache_dir() / "large-pictures"


def _pixels(key: str) -> Path:
    return _mapped_folder() / f"{key}.pixels"


def _index(key: str) -> Path:
    return _mapped_folder() / f"{key}.index"


def _chunks(images: Bytes) -> Iterator[memoryview]:
    flat = images.reshape(-1).data
    for start in range(0, len(flat), CHUNK):
        yield flat[start : start + CHUNK]


def _read_into(file: IO[bytes], images: Bytes, digest: Any) -> None:
    """Fill an array from a file, and add it to the checksum.

    Raises:
        ValueError: the file is too short.
    """
    with DelayedProgress() as progress:
        progress.phase("reading {:,} of {:,} MiB of cached images", images.nbytes >> 20)
        for chunk in _chunks(images):
            if file.readinto(chunk) != len(chunk):  # type: ignore[attr-defined]
                raise ValueError("the file is truncated")
            digest.update(chunk)
            progress.step(len(chunk) >> 20)
