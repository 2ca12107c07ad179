"""Images of any source (a folder, a zip or npz archive, or one file), one at a time and at their own sizes.

Unlike a data set, they are not decoded before they are needed, so that memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from poise.data.decode import SUFFIXES, Header, decode_image, strict_pillow
from poise.data.fit import TargetFormat, convert_array
from poise.data.listing import Item, Listing, display_name, sort_key, stamp_of
from poise.data.npz import SAVE, NpzConfig, check_images, load_arrays
from poise.data.paths import WHERE, file_at
from poise.data.scan import THREADS, ThreadedWork, read_headers
from poise.data.source import BadFile
from poise.data.two_domains import listing_at, ordinary_kind
from poise.data.unread_formats import explain
from poise.errors import DataError
from poise.utils.images import Bytes
from poise.utils.paths import expand_home
from poise.utils.progress import DelayedProgress


class StoredImage(NamedTuple):
    """An image that is not decoded yet.

    Attributes:
        name: its path relative to the folder or archive, separated by "/", or its number in an npz file.
        size: height and width.
        read: decodes it to H x W x C, uint8.
        stamp: identifies this version of the file that it is in, see `Item.stamp`.

    Raises:
        UnreadableImage: by `read`, if it can't be decoded; the message is the reason.
    """

    name: str
    size: tuple[int, int]
    read: Callable[[], Bytes]
    stamp: tuple[int, ...] = ()


class UnreadableImage(Exception):
    """An image that can't be decoded; the message is the reason."""


class StoredImages(NamedTuple):
    """The images of a source, sorted by name, and the files that can't be used."""

    images: list[StoredImage]
    bad: list[BadFile]


@contextmanager
def stored_images(path: str, target: TargetFormat) -> Iterator[StoredImages]:
    """The images at `path`; they can be read within the context.

    Args:
        path: a folder, with sub-folders, a zip archive, an npz archive with the array `images`, or an image file.
        target: the channels that they are converted to, and the background of transparent ones; its size is not used.

    Raises:
        DataError: there are none, or they can't be read.
    """
    if ordinary_kind(path) is NpzConfig:
        yield _from_array(path, target)
        return
    with _listing(path) as listing:
        yield _from_files(listing, target)


@contextmanager
def _listing(path: str) -> Iterator[Listing]:
    """The files at a path, which may be that of one file."""
    location = expand_home(path)
    if location.is_file() and location.suffix.lower() != ".zip":
        if location.suffix.lower() not in SUFFIXES:
            cure = f"give a folder, a .zip or .npz archive, or an image file: {' '.join(SUFFIXES)}"
            raise DataError("not a file of images", where=WHERE, found=display_name(path), cure=cure)
        yield Listing([Item(location.name, partial(file_at(path).open, "rb"), stamp_of(location.stat()))])
        return
    with listing_at(path, follow=False) as listing:
        yield listing


def _from_files(listing: Listing, target: TargetFormat) -> StoredImages:
    """The image files of a listing, whose headers are read."""
    items = sorted(listing.items, key=lambda item: sort_key(item.name))
    with strict_pillow(), ThreadPoolExecutor(THREADS) as pool, DelayedProgress() as progress:
        headers = read_headers(ThreadedWork(pool, progress), items)
    images, bad = list[StoredImage](), list(listing.bad_files)
    for item, header in zip(items, headers, strict=True):
        if isinstance(header, Header):
            size = header.height, header.width
            read = partial(_read_file, item, target._replace(size=size))
            images.append(StoredImage(item.name, size, read, item.stamp))
        else:
            bad.append(BadFile(display_name(item.name), header))
    if not images and not bad:
        found = f"only {listing.ignored_summary}" if listing.ignored else "nothing at all"
        raise DataError(
            "there are no images", where=WHERE, found=found, cure=f"image files end in {' '.join(SUFFIXES)}"
        )
    return StoredImages(images, sorted(bad, key=lambda file: sort_key(file.name)))


def _read_file(item: Item, target: TargetFormat) -> Bytes:
    try:
        with strict_pillow(), item.open() as stream:
            return decode_image(stream, target)[0]
    except Exception as error:  # a decoder can raise anything
        raise UnreadableImage(explain(error, item.open)) from None


def _from_array(path: str, target: TargetFormat) -> StoredImages:
    """The images of an npz archive."""
    arrays = load_arrays(path, ["images"])
    if "images" not in arrays:
        keys = ", ".join(map(display_name, arrays)) or "no arrays"
        raise DataError("no array is called 'images'", where=WHERE, found=keys, cure=SAVE)
    images = check_images(arrays, "images")
    size = images.shape[1], images.shape[2]

    def read(row: int) -> Bytes:
        return convert_array(images[row : row + 1], target._replace(size=size))[0]

    if not len(images):
        raise DataError("there are no images", where=WHERE, found=display_name(path))
    stamp = stamp_of(file_at(path).stat())
    return StoredImages([StoredImage(f"{row:08d}", size, partial(read, row), stamp) for row in range(len(images))], [])
