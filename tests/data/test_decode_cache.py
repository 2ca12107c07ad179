"""The cache of decoded images: it is used for unchanged files only."""

from __future__ import annotations

import multiprocessing
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

from poise.data import decode, decode_cache, listing, pixel_statistics, scan
from poise.data.decoded import CODE
from poise.data.folder import FolderConfig
from poise.data.pairs import PairsConfig
from poise.data.source import DataSplits
from poise.data.tar_shards import TarConfig
from poise.data.zip_archive import ZipConfig
from poise.errors import DataError
from poise.utils import cache
from poise.utils.system import system
from poise.utils.temporary import temporary_name


@pytest.fixture
def image_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes, with transparency, 16 bits, another size, a damaged file and a text; always cached."""
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
    (tmp_path / "pics/a/bad.png").write_bytes(b"not an image")
    (tmp_path / "pics/b/notes.txt").write_text("")
    return tmp_path / "pics"


@pytest.fixture
def num_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of decoded images."""
    count, read = [0], scan.decode_image

    def counting(*args: Any) -> Any:
        count[0] += 1
        return read(*args)

    monkeypatch.setattr(scan, "decode_image", counting)
    return count


def content_of(loaded: DataSplits) -> tuple[Any, ...]:
    """Everything that a loaded data set consists of."""
    train, held_out = loaded.train, loaded.held_out
    arrays = [(dataset.images.tobytes(), dataset.labels.tobytes(), dataset.classes) for dataset in (train, held_out)]  # type: ignore[union-attr]
    return *arrays, train.fingerprint, loaded.notes, loaded.warnings, loaded.bad_files


MakeConfig = Callable[..., Any]


@pytest.fixture(params=["folder", "zip"])
def make_config(request: pytest.FixtureRequest, image_folder: Path) -> MakeConfig:
    """Configs of the images, in a folder or in an archive."""
    if request.param == "folder":
        return lambda **fields: FolderConfig(path=str(image_folder), **{"size": 8} | fields)
    archive = shutil.make_archive(str(image_folder), "zip", image_folder)
    return lambda **fields: ZipConfig(path=archive, **{"size": 8} | fields)


def test_cached_images_equal_decoded_ones(make_config: MakeConfig, num_decoded: list[int]) -> None:
    first = content_of(make_config().load())
    assert num_decoded == [25]
    assert len(first[-1]) == 1
    assert content_of(make_config().load()) == first
    assert num_decoded == [25], "nothing is decoded again"
    assert content_of(make_config(held_out=0.4).load())[0] != first[0], "the split is computed anew"
    assert num_decoded == [25]


@pytest.mark.parametrize("fields", [{"size": 16}, {"channels": 4}, {"background": "black"}])
def test_other_options_decode_again(make_config: MakeConfig, num_decoded: list[int], fields: dict[str, Any]) -> None:
    make_config().load()
    make_config(**fields).load()
    assert num_decoded == [50]


@pytest.mark.parametrize("layout", ["two folders", "side by side"])
def test_pairs_are_cached_and_are_not_mixed_up_with_ordinary_images(
    image_folder: Path, num_decoded: list[int], layout: str
) -> None:
    folder, num_files = image_folder, 24
    if layout == "side by side":
        folder, num_files = image_folder.parent / "both", 12
        folder.mkdir()
        for number in range(12):
            both = [Image.open(image_folder / kind / f"{number}.png").convert("RGB").resize((8, 8)) for kind in "ab"]
            Image.fromarray(np.concatenate([np.asarray(image) for image in both], 1)).save(folder / f"{number}.png")

    def load(config: type[PairsConfig | FolderConfig], **fields: Any) -> DataSplits:
        return config(path=str(folder), size=8, held_out=0.0, **fields).load()

    first = load(PairsConfig)
    again = load(PairsConfig)
    assert num_decoded == [num_files], "what has no partner is not decoded"
    assert (again.train.fingerprint, again.notes) == (first.train.fingerprint, first.notes)
    if layout == "side by side":
        swapped = load(PairsConfig, source="right")
        assert num_decoded == [num_files], "the other half is known too"
        of_a, of_b = (first.train.domain_sources, swapped.train.domain_sources)
        assert all(np.array_equal(of_a[k].images, of_b[1 - k].images) for k in range(2))
        load(PairsConfig, channels=[1, 3])
        assert num_decoded == [2 * num_files]
    count = num_decoded[0]
    assert load(FolderConfig).train.parts == ()
    assert num_decoded[0] > count


def replace_content(path: Path) -> None:
    stat_before = path.stat()
    Image.fromarray(np.zeros((20, 16, 4), np.uint8)).save(path)
    os.utime(path, ns=(stat_before.st_atime_ns, stat_before.st_mtime_ns))  # as tools do that preserve times


CHANGES: dict[str, Callable[[Path], object]] = {
    "other content with the same modification time": lambda folder: replace_content(folder / "a/3.png"),
    "a new file": lambda folder: shutil.copy(folder / "a/3.png", folder / "a/new.png"),
    "a deleted file": lambda folder: (folder / "a/3.png").unlink(),
    "another name": lambda folder: (folder / "a/3.png").rename(folder / "a/33.png"),
    "another class": lambda folder: (folder / "a/3.png").rename(folder / "b/33.png"),
    "a repaired file": lambda folder: shutil.copy(folder / "a/3.png", folder / "a/bad.png"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_detected(change: str, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = FolderConfig(path=str(image_folder), size=8)
    config.load()
    CHANGES[change](image_folder)
    again = content_of(config.load())
    monkeypatch.setenv("POISE_CACHE", str(image_folder.parent / "empty"))
    assert again == content_of(config.load())


def test_the_key_depends_on_every_module_that_decoding_uses() -> None:
    """A change of one of them decodes again, wherever its functions are moved."""
    modules, found = [decode, pixel_statistics], set[str]()
    while modules:
        module = modules.pop()
        if module.__file__ in found:
            continue
        found.add(str(module.__file__))
        homes = {getattr(value, "__module__", None) or "" for value in vars(module).values()}
        modules += [sys.modules[home] for home in homes if home.startswith("poise.data.")]
    assert found == set(CODE)


@pytest.mark.parametrize("damage", ["cut", "flipped", "flipped head", "empty"])
def test_a_damaged_cache_file_is_ignored(make_config: MakeConfig, num_decoded: list[int], damage: str) -> None:
    first = content_of(make_config().load())
    (cached,) = (cache.cache_dir() / "pictures").glob("*.pixels")
    data = bytearray(cached.read_bytes())
    if damage.startswith("flipped"):
        data[-100 if damage == "flipped" else 20] ^= 1
    cached.write_bytes(data[: {"cut": len(data) // 2, "empty": 0}.get(damage, len(data))])
    assert content_of(make_config().load()) == first
    assert num_decoded == [50]


def test_an_unwritable_cache_is_ignored(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "file"))
    assert content_of(make_config().load()) == content_of(make_config().load())


def test_only_slow_results_of_unchanged_files_are_cached(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, cached = FolderConfig(path=str(image_folder), size=8), cache.cache_dir() / "pictures"
    for name, value in (("MIN_SECONDS", 60.0), ("MIN_AGE", 60.0)):
        with monkeypatch.context() as patched:
            patched.setattr(decode_cache, name, value)
            config.load()
        assert not cached.exists()
    config.load()
    assert len(list(cached.iterdir())) == 1


def test_the_least_recently_used_are_deleted_first(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache.cache_dir() / "pictures"
    configs = [FolderConfig(path=str(image_folder), size=size) for size in (8, 9, 10)]
    for position, config in enumerate(configs[:2]):
        config.load()
        newest = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (position, position))
    configs[0].load()  # used again
    monkeypatch.setattr(decode_cache, "MAX_BYTES", sum(path.stat().st_size for path in folder.iterdir()) + 3000)
    before = {path.name for path in folder.iterdir()}
    configs[2].load()
    assert len(before - {path.name for path in folder.iterdir()}) == 1
    count = [0]
    monkeypatch.setattr(scan, "decode_image", lambda *args: count.__setitem__(0, 1))
    configs[0].load()
    assert count == [0], "the result that was used again is still cached"


def test_a_repaired_archive_is_decoded_again(image_folder: Path, num_decoded: list[int]) -> None:
    """Its central directory is the same; only the stamp of the archive file changes."""
    archive = Path(shutil.make_archive(str(image_folder), "zip", image_folder))
    content = archive.read_bytes()
    with zipfile.ZipFile(archive) as opened:
        info = max(opened.infolist(), key=lambda info: info.compress_size)
    position = info.header_offset + 30 + len(info.filename) + info.compress_size // 2
    archive.write_bytes(content[:position] + bytes([content[position] ^ 255]) + content[position + 1 :])
    config = ZipConfig(path=str(archive), size=8)
    assert len(config.load().bad_files) == 2
    archive.write_bytes(content)
    assert len(config.load().bad_files) == 1
    assert num_decoded[0] > 25


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "I/O error"), MemoryError()])
def test_transient_errors_are_not_cached(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(scan, "decode_image", lambda *_: (_ for _ in ()).throw(error))
        with pytest.raises(DataError):
            make_config().load()
    assert len(make_config().load().bad_files) == 1


def test_files_that_changed_recently_are_not_cached(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long decoding takes: they may have changed again meanwhile, without a new change time."""
    monkeypatch.setattr(decode_cache, "MIN_AGE", 0.3)
    for name in ("folder", "zip"):
        archive = shutil.make_archive(str(image_folder), "zip", image_folder)
        os.utime(image_folder / "a/3.png")
        config = FolderConfig(path=str(image_folder), size=8) if name == "folder" else ZipConfig(path=archive, size=8)
        with monkeypatch.context() as patched:
            read = scan.decode_image
            patched.setattr(scan, "decode_image", lambda *args, read=read: (time.sleep(0.03), read(*args))[1])
            config.load()
        assert not list((cache.cache_dir() / "pictures").glob("*")), name
        time.sleep(0.35)
        config.load()
        assert len(list((cache.cache_dir() / "pictures").glob("*"))) == 1
        shutil.rmtree(cache.cache_dir())


def test_nothing_is_cached_on_a_full_disk(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    FolderConfig(path=str(image_folder), size=8).load()
    assert not list((cache.cache_dir() / "pictures").iterdir())


def test_no_memory_is_allocated_for_an_invalid_size(
    image_folder: Path, num_decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = FolderConfig(path=str(image_folder), size=8)
    config.load()
    (cached,) = (cache.cache_dir() / "pictures").iterdir()
    cached.write_bytes(cached.read_bytes().replace(b'"shape": [25,', b'"shape": [99999999999,', 1))
    allocations: list[tuple[int, ...]] = []
    allocate = decode_cache.allocate_images
    monkeypatch.setattr(
        decode_cache, "allocate_images", lambda shape, budget: (allocations.append(shape), allocate(shape, budget))[1]
    )
    config.load()
    assert num_decoded == [50]
    assert allocations == [(25, 8, 8, 3)]


def test_files_of_killed_processes_are_deleted(image_folder: Path) -> None:
    folder = cache.cache_dir() / "pictures"
    folder.mkdir(parents=True)
    finished = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    own_name = temporary_name("other.pixels")
    stale_name = own_name.replace(f"-{os.getpid()}-", f"-{int(finished.stdout)}-")
    live_name = own_name.replace(f"-{os.getpid()}-", f"-{os.getppid()}-")
    for name in (stale_name, live_name):
        (folder / name).write_bytes(b"half")
    FolderConfig(path=str(image_folder), size=8).load()
    assert sorted(path.suffix for path in folder.iterdir()) == [".pixels", ".pixels"]
    assert (folder / live_name).exists()


def fingerprints(folder: str) -> list[str]:
    return [FolderConfig(path=folder, size=8).load().train.fingerprint for _ in range(20)]


def test_two_concurrent_processes_agree(image_folder: Path) -> None:
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        one, other = pool.map(fingerprints, [str(image_folder)] * 2, chunksize=1)
    assert len(one) == len(other) == 20
    assert set(one + other) == {FolderConfig(path=str(image_folder), size=8).load().train.fingerprint}


def test_a_file_that_cannot_be_deleted_does_not_stop_pruning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for position, name in enumerate("abc"):
        (tmp_path / name).write_bytes(b"0" * 100)
        os.utime(tmp_path / name, (position, position))
    unlink = system.unlink
    monkeypatch.setattr(system, "unlink", lambda path: unlink(path) if path.name != "a" else raise_permission_error())
    cache.prune(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


def raise_permission_error() -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize("change_time", [True, False], ids=["change time", "no change time, as on Windows"])
def test_a_modification_time_in_the_future_does_not_prevent_caching(
    image_folder: Path, num_decoded: list[int], monkeypatch: pytest.MonkeyPatch, kind: str, change_time: bool
) -> None:
    monkeypatch.setattr(listing, "HAS_CHANGE_TIME", change_time)
    if kind == "folder":
        config: Any = FolderConfig(path=str(image_folder), size=8)
        position = image_folder / "a/3.png"
    else:
        position = Path(shutil.make_archive(str(image_folder), kind, image_folder))
        config = {"zip": ZipConfig, "tar": TarConfig}[kind](path=str(position), size=8)
    os.utime(position, (time.time() + 1e8, time.time() + 1e8))
    config.load()
    config.load()
    assert num_decoded == [25]
    monkeypatch.setattr(decode_cache, "MIN_AGE", 60.0)
    os.utime(position)
    config.load()
    config.load()
    assert num_decoded == [75], "it has just changed"
