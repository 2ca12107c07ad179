"""Archives: malicious and damaged entries are bad files; the others are read without extracting them."""

from __future__ import annotations

import copy
import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from image_helpers import WriteImages
from PIL import Image

from poise.data.folder import FolderConfig
from poise.data.source import DataSplits, ImageDataset
from poise.data.zip_archive import ZipConfig, listing_of
from poise.errors import DataError


def load(path: Path, **fields: object) -> DataSplits:
    return ZipConfig(path=str(path), **{"size": 8, "held_out": 0.0, **fields}).load()  # type: ignore[arg-type]


def image(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive_file:
        for i, name in enumerate(names):
            archive_file.writestr(name, image(i))
    return path


def add(path: Path, info: zipfile.ZipInfo | str, body: bytes) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive_file:
        archive_file.writestr(info, body, zipfile.ZIP_DEFLATED)


GOOD = ("a.png", "b.png", "c.png", "d.png")


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x.png")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info


BAD_ENTRIES = {
    "I26-leads-out": ("../x.png", image(9), "../x.png", "its path leads out of the archive"),
    "I26-leads-out-inside": ("p/../../x.png", image(9), "p/../../x.png", "its path leads out of the archive"),
    "I26-absolute": ("/etc/x.png", image(9), "/etc/x.png", "its path is absolute"),
    "I26-drive": ("C:\\x.png", image(9), "'C:\\\\x.png'", "its path is absolute"),
    "I26-symlink": (link(), b"/etc/passwd", "x.png", "a symbolic link"),
    "I26-bomb": ("x.png", b"\0" * (20 * 2**20), "x.png", "expands to more than 100 times its compressed size"),
    "I01-text": ("x.png", b"just words", "x.png", "not an image"),
}


@pytest.mark.parametrize(("info", "body", "name", "why"), BAD_ENTRIES.values(), ids=BAD_ENTRIES)
def test_a_bad_entry_is_skipped_with_a_reason(
    tmp_path: Path, info: zipfile.ZipInfo | str, body: bytes, name: str, why: str
) -> None:
    path = archive(tmp_path / "p.zip", *GOOD)
    add(path, info, body)
    loaded = load(path)
    assert [tuple(bad) for bad in loaded.bad_files] == [(name, why)]
    assert isinstance(loaded.train, ImageDataset)
    assert len(loaded.train) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["p.zip"]


def overwrite_field(path: Path, name: str, offset: int, format_: str, value: int) -> None:
    """Overwrite a field of an entry in the central directory."""
    raw = bytearray(path.read_bytes())
    entry = raw.rindex(name.encode()) - 46
    assert raw[entry : entry + 4] == b"PK\1\2"
    struct.pack_into(format_, raw, entry + offset, value)
    path.write_bytes(raw)


def test_encrypted_entries_are_bad(tmp_path: Path) -> None:
    path = archive(tmp_path / "p.zip", *GOOD, "x.png")
    overwrite_field(path, "x.png", 8, "<H", 1)
    assert [tuple(bad) for bad in load(path).bad_files] == [("x.png", "encrypted")]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_other_compression_methods_are_bad(tmp_path: Path, method: int) -> None:
    """They cannot be decompressed up to a limit."""
    path = archive(tmp_path / "p.zip", *GOOD)
    with zipfile.ZipFile(path, "a") as archive_file:
        archive_file.writestr("x.png", image(9), method)
    assert [tuple(bad) for bad in load(path).bad_files] == [("x.png", "compressed by a method other than deflate")]


def test_an_entry_above_the_size_limit_is_bad(tmp_path: Path) -> None:
    path = archive(tmp_path / "p.zip", *GOOD, "x.png")
    overwrite_field(path, "x.png", 20, "<I", 2**30)
    overwrite_field(path, "x.png", 24, "<I", 2**31)
    (bad,) = load(path).bad_files
    assert bad.name == "x.png"
    assert bad.reason.startswith("expands to 2,147,483,648 bytes, above the limit")


def test_an_entry_larger_than_declared_is_truncated(tmp_path: Path) -> None:
    """A bomb that declares 1,000 bytes is decompressed no further."""
    path = archive(tmp_path / "p.zip", *GOOD)
    add(path, "x.png", image(9) + b"\0" * (50 * 2**20))
    overwrite_field(path, "x.png", 24, "<I", 1000)
    tracemalloc.start()
    loaded = load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (bad,) = loaded.bad_files
    assert bad.reason.startswith("damaged: Bad CRC-32")
    assert peak < 10 * 2**20


def test_a_flipped_byte_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive_file:
        for i, name in enumerate(GOOD):
            archive_file.writestr(name, image(i))
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"b.png") + 100] ^= 1
    path.write_bytes(raw)
    (bad,) = load(path).bad_files
    assert bad.name == "b.png"
    assert bad.reason.startswith("damaged: ")


def renamed(info: zipfile.ZipInfo, n: int) -> list[zipfile.ZipInfo]:
    """Copies of an entry with names of their own."""
    entries = [copy.copy(info) for _ in range(n)]
    for i, entry in enumerate(entries):
        entry.filename = f"{i}.png"
    return entries


def test_overlapping_entries_are_bad(tmp_path: Path) -> None:
    """A bomb with a thousand entries that share their data does not expand a thousand times."""
    path = archive(tmp_path / "p.zip", *GOOD)
    with zipfile.ZipFile(path) as opened:
        taken = sum(info.compress_size for info in opened.infolist())
        first = opened.getinfo(GOOD[0])
        opened.filelist.extend(renamed(first, 1000))
        listing = listing_of(opened)
    fit = (opened.start_dir - taken) // first.compress_size
    assert len(listing.items) <= len(GOOD) + fit
    assert {bad.reason for bad in listing.bad_files} == {"overlaps other entries of the archive"}


def test_an_entry_without_a_name_is_ignored(tmp_path: Path) -> None:
    path = archive(tmp_path / "p.zip", *GOOD)
    with zipfile.ZipFile(path) as opened:
        opened.infolist()[0].filename = ""
        assert [item.name for item in listing_of(opened).items] == [*GOOD[1:]]


def test_the_total_size_of_an_archive_is_not_limited(tmp_path: Path) -> None:
    path = archive(tmp_path / "p.zip", *GOOD)
    with zipfile.ZipFile(path) as opened:
        opened.start_dir = 2**50
        first = opened.getinfo(GOOD[0])
        first.file_size = first.compress_size = 2**29
        opened.filelist.extend(renamed(first, 1000))  # 500 GiB
        listing = listing_of(opened)
    assert listing.bad_files == []


def test_blank_images_may_exceed_the_ratio(tmp_path: Path) -> None:
    """A blank uncompressed image has a compression ratio above 100:1 and is valid."""
    path = archive(tmp_path / "p.zip", *GOOD)
    out = io.BytesIO()
    Image.new("RGB", (256, 256)).save(out, "BMP")
    add(path, "x.bmp", out.getvalue())
    with zipfile.ZipFile(path) as opened:
        info = opened.getinfo("x.bmp")
        assert info.file_size > 100 * info.compress_size
    assert load(path).bad_files == []


def test_a_nested_archive_is_not_opened(tmp_path: Path) -> None:
    path = archive(tmp_path / "p.zip", *GOOD)
    add(path, "inner.zip", path.read_bytes())
    loaded = load(path)
    assert loaded.bad_files == []
    assert "skipped 1 other file: 1 .zip" in loaded.notes


def test_an_archive_loads_like_its_folder(tmp_path: Path, write_images: WriteImages) -> None:
    for name in ("a", "b"):
        write_images(tmp_path / "p" / name, 5, size=11)
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive_file:
        for file in sorted((tmp_path / "p").rglob("*"), reverse=True):
            archive_file.write(file, file.relative_to(tmp_path))
    fields = {"size": 8, "held_out": 0.2}
    folder = FolderConfig(path=str(tmp_path / "p"), **fields).load()  # type: ignore[arg-type]
    zipped = ZipConfig(path=str(tmp_path / "p.zip"), **fields).load()  # type: ignore[arg-type]
    assert zipped.train.classes == ("a", "b")
    assert zipped.train.fingerprint == folder.train.fingerprint
    assert zipped.notes == folder.notes


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("a.png", "b.png"), ()),
        (("top/a.png", "top/b.png"), ()),
        (("x/a.png", "y/b.png"), ("x", "y")),
        (("top/x/a.png", "top/y/b.png"), ("x", "y")),
        (("top/x/a.png", "top/b.png"), ()),
        (("x\\a.png", "y\\b.png"), ("x", "y")),
        (("./x/a.png", "./y/b.png"), ("x", "y")),
        (("__MACOSX/x/._a.png", "top/x/a.png", "top/y/b.png"), ("x", "y")),
    ],
    ids=str,
)
def test_classes_are_found_by_folder(tmp_path: Path, names: tuple[str, ...], classes: tuple[str, ...]) -> None:
    assert load(archive(tmp_path / "p.zip", *names)).train.classes == classes


def test_deeply_nested_folders(tmp_path: Path) -> None:
    path = archive(tmp_path / "p.zip", "a.png", "d/" * 2000 + "b.png")
    loaded = load(path)
    assert isinstance(loaded.train, ImageDataset)
    assert len(loaded.train) == 2


def refused(path: Path) -> str:
    with pytest.raises(DataError) as raised:
        load(path)
    return str(raised.value)


def test_files_that_are_not_archives(tmp_path: Path) -> None:
    (tmp_path / "p.zip").write_bytes(b"no archive")
    assert "not a zip archive" in refused(tmp_path / "p.zip")
    assert "no such file or folder" in refused(tmp_path / "q.zip")
    assert "this is a folder, not a file, found " in refused(tmp_path)
    assert 'set data.kind = "folder"' in refused(tmp_path)


def test_an_archive_without_images(tmp_path: Path) -> None:
    assert "no images in this archive, found nothing at all" in refused(archive(tmp_path / "p.zip"))
    assert "found only 1 .txt" in refused(archive(tmp_path / "q.zip", "words.txt"))


def test_too_many_bad_entries(tmp_path: Path) -> None:
    path = archive(tmp_path / "p.zip", "a.png", "../b.png", "/c.png")
    assert "2 of 3 image files can't be used: ../b.png (its path leads out of the archive)" in refused(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_entries_of_one_name_the_last_one_is_used(tmp_path: Path) -> None:
    path = archive(tmp_path / "p.zip", *GOOD)
    add(path, "a.png", image(7))
    add(path, "./a.png", image(8))
    add(path, "/a.png", image(9))  # is not used
    add(path, "./", b"")
    loaded = load(path)
    assert isinstance(loaded.train, ImageDataset)
    assert len(loaded.train) == len(GOOD)
    assert np.array_equal(loaded.train.images[0], np.asarray(Image.open(io.BytesIO(image(8)))))
    assert [bad.name for bad in loaded.bad_files] == ["/a.png"]
    assert "skipped 2 other files: 2 replaced by a later one of the same name" in loaded.notes
