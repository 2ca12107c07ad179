"""Decoded pictures are kept for the next time, and never taken for other ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from poise.data import decode_cache, scan
from poise.data.folder import FolderConfig
from poise.data.source import DataSplits
from poise.data.zip_archive import ZipConfig
from poise.errors import DataError
from poise.utils import cache
from poise.utils.system import system
from poise.utils.temporary import temporary_name


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes, transparency, 16 bits, another size, a damaged file, a text; kept however fast and new they are."""
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decode_cache, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(decode_cache, "MIN_AGE", 0.0)
    rng = np.random.default_rng(0)
    for kind in "ab":
        (tmp_path / "pics" / kind).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 256, (20, 16, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pics" / kind / f"{number}.png")
    Image.fromarray(rng.integers(0, 4096, (16, 16)).astype(np.uint16)).save(tmp_path / "pics/a/deep.png")
    (tmp_path / "pics/a/bad.png").write_bytes(b"no picture")
    (tmp_path / "pics/b/notes.txt").write_text("")
    return tmp_path / "pics"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures were decoded."""
    count, read = [0], scan.decode_image

    def counting(*given: Any) -> Any:
        count[0] += 1
        return read(*given)

    monkeypatch.setattr(scan, "decode_image", counting)
    return count


def all_of(loaded: DataSplits) -> tuple[Any, ...]:
    """Everything that is known of loaded pictures."""
    train, held_out = loaded.train, loaded.held_out
    arrays = [(one.images.tobytes(), one.labels.tobytes(), one.classes) for one in (train, held_out)]  # type: ignore[union-attr]
    return *arrays, train.fingerprint, loaded.notes, loaded.warnings, loaded.bad_files


Entry = Callable[..., Any]


@pytest.fixture(params=["folder", "zip"])
def entry(request: pytest.FixtureRequest, pictures: Path) -> Entry:
    """The pictures, in a folder or in an archive."""
    if request.param == "folder":
        return lambda **told: FolderConfig(path=str(pictures), **{"size": 8} | told)
    archive = shutil.make_archive(str(pictures), "zip", pictures)
    return lambda **told: ZipConfig(path=archive, **{"size": 8} | told)


def test_what_was_kept_is_what_is_decoded(entry: Entry, opened: list[int]) -> None:
    first = all_of(entry().load())
    assert opened == [25]
    assert len(first[-1]) == 1
    assert all_of(entry().load()) == first
    assert opened == [25], "nothing was decoded again"
    assert all_of(entry(held_out=0.4).load())[0] != first[0], "what is held out is decided anew"
    assert opened == [25]


@pytest.mark.parametrize("told", [{"size": 16}, {"channels": 4}, {"background": "black"}])
def test_asked_for_otherwise_they_are_decoded_anew(entry: Entry, opened: list[int], told: dict[str, Any]) -> None:
    entry().load()
    entry(**told).load()
    assert opened == [50]


def other(path: Path) -> None:
    before = path.stat()
    Image.fromarray(np.zeros((20, 16, 4), np.uint8)).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as tools do that copy times along


CHANGES: dict[str, Callable[[Path], object]] = {
    "another content, its time set back": lambda top: other(top / "a/3.png"),
    "a new file": lambda top: shutil.copy(top / "a/3.png", top / "a/new.png"),
    "a file less": lambda top: (top / "a/3.png").unlink(),
    "another name": lambda top: (top / "a/3.png").rename(top / "a/33.png"),
    "another class": lambda top: (top / "a/3.png").rename(top / "b/33.png"),
    "the bad one mended": lambda top: shutil.copy(top / "a/3.png", top / "a/bad.png"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changed_is_seen(change: str, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = FolderConfig(path=str(pictures), size=8)
    entry.load()
    CHANGES[change](pictures)
    again = all_of(entry.load())
    monkeypatch.setenv("POISE_CACHE", str(pictures.parent / "empty"))
    assert again == all_of(entry.load())


@pytest.mark.parametrize("damage", ["cut", "flipped", "flipped head", "empty"])
def test_a_damaged_file_is_as_good_as_none(entry: Entry, opened: list[int], damage: str) -> None:
    first = all_of(entry().load())
    (kept,) = (cache.cache_dir() / "pictures").glob("*.pixels")
    data = bytearray(kept.read_bytes())
    if damage.startswith("flipped"):
        data[-100 if damage == "flipped" else 20] ^= 1
    kept.write_bytes(data[: {"cut": len(data) // 2, "empty": 0}.get(damage, len(data))])
    assert all_of(entry().load()) == first
    assert opened == [50]


def test_where_nothing_can_be_kept_all_goes_on(entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "file"))
    assert all_of(entry().load()) == all_of(entry().load())


def test_only_what_took_its_time_and_has_settled_is_kept(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, kept = FolderConfig(path=str(pictures), size=8), cache.cache_dir() / "pictures"
    for name, value in (("MIN_SECONDS", 60.0), ("MIN_AGE", 60.0)):
        with monkeypatch.context() as patched:
            patched.setattr(decode_cache, name, value)
            entry.load()
        assert not kept.exists()
    entry.load()
    assert len(list(kept.iterdir())) == 1


def test_those_that_were_not_used_go_first(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache.cache_dir() / "pictures"
    entries = [FolderConfig(path=str(pictures), size=size) for size in (8, 9, 10)]
    for at, entry in enumerate(entries[:2]):
        entry.load()
        newest = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (at, at))
    entries[0].load()  # used again
    monkeypatch.setattr(decode_cache, "MAX_BYTES", sum(path.stat().st_size for path in folder.iterdir()) + 3000)
    before = {path.name for path in folder.iterdir()}
    entries[2].load()
    assert len(before - {path.name for path in folder.iterdir()}) == 1
    count = [0]
    monkeypatch.setattr(scan, "decode_image", lambda *given: count.__setitem__(0, 1))
    entries[0].load()
    assert count == [0], "the one that was used is still there"


def test_a_mended_archive_is_read_anew(pictures: Path, opened: list[int]) -> None:
    """Its table of contents is the same: only the archive itself tells that it changed."""
    archive = Path(shutil.make_archive(str(pictures), "zip", pictures))
    whole = archive.read_bytes()
    with zipfile.ZipFile(archive) as told:
        info = max(told.infolist(), key=lambda info: info.compress_size)
    at = info.header_offset + 30 + len(info.filename) + info.compress_size // 2
    archive.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    entry = ZipConfig(path=str(archive), size=8)
    assert len(entry.load().bad_files) == 2
    archive.write_bytes(whole)
    assert len(entry.load().bad_files) == 1
    assert opened[0] > 25


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "I/O error"), MemoryError()])
def test_a_reason_that_may_pass_is_not_kept(entry: Entry, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(scan, "decode_image", lambda *_: (_ for _ in ()).throw(error))
        with pytest.raises(DataError):
            entry().load()
    assert len(entry().load().bad_files) == 1


def test_what_changed_just_before_it_was_listed_is_not_kept(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long decoding takes: it may have changed again meanwhile, without a later time."""
    monkeypatch.setattr(decode_cache, "MIN_AGE", 0.3)
    for name in ("folder", "zip"):
        archive = shutil.make_archive(str(pictures), "zip", pictures)
        os.utime(pictures / "a/3.png")
        entry = FolderConfig(path=str(pictures), size=8) if name == "folder" else ZipConfig(path=archive, size=8)
        with monkeypatch.context() as patched:
            read = scan.decode_image
            patched.setattr(scan, "decode_image", lambda *given, read=read: (time.sleep(0.03), read(*given))[1])
            entry.load()
        assert not list((cache.cache_dir() / "pictures").glob("*")), name
        time.sleep(0.35)
        entry.load()
        assert len(list((cache.cache_dir() / "pictures").glob("*"))) == 1
        shutil.rmtree(cache.cache_dir())


def test_a_disk_with_little_room_is_left_alone(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    FolderConfig(path=str(pictures), size=8).load()
    assert not list((cache.cache_dir() / "pictures").iterdir())


def test_no_room_is_made_for_a_size_that_can_not_be(
    pictures: Path, opened: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = FolderConfig(path=str(pictures), size=8)
    entry.load()
    (kept,) = (cache.cache_dir() / "pictures").iterdir()
    kept.write_bytes(kept.read_bytes().replace(b'"shape": [25,', b'"shape": [99999999999,', 1))
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(decode_cache, "allocate_images", lambda shape, budget: asked.append(shape))
    entry.load()
    assert opened == [50]
    assert asked == []


def test_what_a_killed_process_left_there_goes(pictures: Path) -> None:
    folder = cache.cache_dir() / "pictures"
    folder.mkdir(parents=True)
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    mine = temporary_name("other.pixels")
    left = mine.replace(f"-{os.getpid()}-", f"-{int(dead.stdout)}-")
    alive = mine.replace(f"-{os.getpid()}-", f"-{os.getppid()}-")
    for name in (left, alive):
        (folder / name).write_bytes(b"half")
    FolderConfig(path=str(pictures), size=8).load()
    assert sorted(path.suffix for path in folder.iterdir()) == [".pixels", ".pixels"]
    assert (folder / alive).exists()


def test_two_processes_at_once_agree(pictures: Path) -> None:
    code = (
        "import sys; from poise.data import decode_cache as decoded; from poise.data.folder import FolderConfig\n"
        "decoded.MIN_SECONDS = decoded.MIN_AGE = 0.0\n"
        "for _ in range(20): print(FolderConfig(path=sys.argv[1], size=8).load().train.fingerprint)"
    )
    words = [sys.executable, "-c", code, str(pictures)]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [one.communicate(timeout=60)[0].split() for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert set(told[0] + told[1]) == {FolderConfig(path=str(pictures), size=8).load().train.fingerprint}


def test_one_that_can_not_be_removed_does_not_keep_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for at, name in enumerate("abc"):
        (tmp_path / name).write_bytes(b"0" * 100)
        os.utime(tmp_path / name, (at, at))
    unlink = system.unlink
    monkeypatch.setattr(system, "unlink", lambda path: unlink(path) if path.name != "a" else refuse())
    cache.prune(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


def refuse() -> None:
    raise PermissionError(13, "Permission denied")
