"""Images that don't fit into memory: decoded once into the cache, by one process, and mapped from there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from image_helpers import noise_png, write_tar

from poise.core.random_streams import RandomStreams
from poise.data import decode_cache, image_array, scan, split
from poise.data.folder import FolderConfig
from poise.data.scan import ScannedConfig
from poise.data.source import DataSplits, ImageDataset
from poise.data.tar_shards import TarConfig
from poise.errors import DiskError
from poise.utils import images, locks
from poise.utils.cache import cache_dir
from poise.utils.temporary import temporary_name

N = 30
SIZE = 8


@pytest.fixture(params=["folder", "tar"])
def config(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScannedConfig:
    """Images of two classes and a damaged one, in a folder and in shards, of which none fits into memory."""
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decode_cache, "MIN_AGE", 0.0)
    monkeypatch.setattr(image_array, "MEMORY_BUDGET", 1000)
    files = {f"{'ab'[i % 2]}/{i}.png": noise_png(i) for i in range(N)} | {"a/bad.png": b"text"}
    if request.param == "tar":
        write_tar(tmp_path / "images.tar", files)
        return TarConfig(path=str(tmp_path / "images.tar"), size=SIZE, held_out=0.2)
    for name, content in files.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return FolderConfig(path=str(tmp_path / "images"), size=SIZE, held_out=0.2)


@pytest.fixture
def num_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    count, read = [0], scan.decode_image

    def counting(*args: Any) -> Any:
        count[0] += 1
        return read(*args)

    monkeypatch.setattr(scan, "decode_image", counting)
    return count


def content_of(loaded: DataSplits) -> tuple[Any, ...]:
    """Everything that is seen of loaded data."""
    parts: list[Any] = [loaded.notes, loaded.warnings, loaded.bad_files]
    for source in (loaded.train, loaded.held_out):
        assert isinstance(source, ImageDataset)
        images, labels = source.gather(torch.arange(len(source)))
        assert labels is not None
        parts += [images.numpy().tobytes(), labels.tolist(), source.classes, source.fingerprint, source.class_counts]
        parts += [source.batch(3, 7, RandomStreams(1)).images.numpy().tobytes(), source.pixel_hashes().tobytes()]
    return tuple(parts)


def large_files() -> list[str]:
    return sorted(path.suffix for path in (cache_dir() / "large-pictures").iterdir())


def test_mapped_images_are_those_in_memory(
    config: ScannedConfig, num_decoded: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = config.load()
    assert isinstance(first.train.images, np.memmap)  # type: ignore[attr-defined]
    assert "30 images of 8 x 8 x 3 need 0.0 MiB of disk space, more than" in capsys.readouterr().err
    known = content_of(first)
    again = config.load()
    assert content_of(again) == known
    assert (num_decoded, capsys.readouterr().err) == ([N], "")
    assert not again.train.images.flags.writeable  # type: ignore[attr-defined]
    assert large_files() == [".fingerprints", ".index", ".lock", ".pixels"]
    monkeypatch.setattr(image_array, "MEMORY_BUDGET", 10**6)
    monkeypatch.setenv("POISE_CACHE", str(cache_dir() / "other"))
    assert content_of(config.load()) == known


def test_the_fingerprint_is_remembered_for_the_same_split(
    config: ScannedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = config.load().train.fingerprint

    def refuse(_: object) -> None:
        raise AssertionError("the pixels are read")

    monkeypatch.setattr(ImageDataset, "_chunks", refuse)
    assert config.load().train.fingerprint == known
    with pytest.raises(AssertionError):
        _ = config.model_copy(update={"held_out": 0.4}).load().train.fingerprint


def test_the_flips_of_mapped_images_are_searched_for_once(
    config: ScannedConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = config.model_copy(update={"mirror": True}).load()

    def refuse(_: object) -> None:
        raise AssertionError("the pixels are read")

    monkeypatch.setattr(split, "pixel_hashes", refuse)
    again = config.model_copy(update={"mirror": True, "held_out": 0.4}).load()
    assert again.notes == first.notes


def test_a_disk_that_is_too_small_is_refused_before_decoding(
    config: ScannedConfig, num_decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**27))
    message = r"large-pictures: 30 images of 8 x 8 x 3 need .* found 128.0 MiB free; set POISE_CACHE to .* data.size"
    with pytest.raises(DiskError, match=message) as caught:
        config.load()
    assert (num_decoded, large_files(), caught.value.exit_code) == ([0], [".lock"], 6)


@pytest.mark.parametrize("place", ["the cache", "the lock"])
def test_a_cache_that_can_not_be_written_gets_the_cure(
    config: ScannedConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    if place == "the cache":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("POISE_CACHE", str(tmp_path / "file"))
    else:

        def refuse(path: Path, *args: Any) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(locks.system, "open", refuse)
    with pytest.raises(DiskError, match=r"large-pictures.*can't be written: .*; set POISE_CACHE to a folder"):
        config.load()


def test_an_interrupted_decode_starts_again(config: ScannedConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    read, count = scan.decode_image, [0]

    def interrupted(*args: Any) -> Any:
        count[0] += 1
        if count[0] == 12:
            raise KeyboardInterrupt
        return read(*args)

    with monkeypatch.context() as patched:
        patched.setattr(scan, "decode_image", interrupted)
        with pytest.raises(KeyboardInterrupt):
            config.load()
    assert large_files() == [".lock"]
    finished = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    killed = temporary_name("0.pixels").replace(f"-{os.getpid()}-", f"-{int(finished.stdout)}-")
    (cache_dir() / "large-pictures" / killed).write_bytes(b"half")
    config.load()
    assert large_files() == [".index", ".lock", ".pixels"]


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)


CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "other pixels": ("pixels", alter),
    "fewer pixels": ("pixels", lambda path: os.truncate(path, 100)),
    "no pixels": ("pixels", Path.unlink),
    "a damaged index": ("index", alter),
    "half an index": ("index", lambda path: os.truncate(path, 100)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_cache_is_decoded_anew(config: ScannedConfig, num_decoded: list[int], change: str) -> None:
    known = content_of(config.load())
    suffix, act = CHANGES[change]
    act(next((cache_dir() / "large-pictures").glob(f"*.{suffix}")))
    assert content_of(config.load()) == known
    assert num_decoded == [2 * N]


def test_files_that_have_just_changed_are_not_cached(
    config: ScannedConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decode_cache, "MIN_AGE", 100.0)
    assert len(content_of(config.load())) == 17
    assert "for this process only, as they have just changed" in capsys.readouterr().err
    assert not (cache_dir() / "large-pictures").exists()


def test_one_of_two_decodes_and_the_other_waits(
    config: ScannedConfig, num_decoded: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Threads stand for processes: the lock belongs to an open file, not to a process."""
    counting = scan.decode_image
    monkeypatch.setattr(scan, "decode_image", lambda *args: (time.sleep(0.02), counting(*args))[1])
    monkeypatch.setattr(locks, "POLL", 0.01)
    with ThreadPoolExecutor(2) as pool:
        loaded = [each.result() for each in [pool.submit(config.load) for _ in range(2)]]
    assert num_decoded == [N]
    assert content_of(loaded[0]) == content_of(loaded[1])
    assert capsys.readouterr().err.count("another process is decoding the same images: waiting for it") == 1


def test_rows_of_a_mapped_file_are_read_ahead(config: ScannedConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row of a batch is announced: from a page boundary before it to its end."""
    source = config.load().train
    assert isinstance(source, ImageDataset)
    announced: list[tuple[int, int]] = []
    pages = SimpleNamespace(madvise=lambda _, start, size: announced.append((start, start + size)))
    size = SIZE * SIZE * 3
    monkeypatch.setattr(images, "mmap", SimpleNamespace(MADV_WILLNEED=3, PAGESIZE=256))
    monkeypatch.setattr(source.images, "_mmap", pages, raising=False)
    indices = torch.tensor([20, 3])
    source.gather(indices)
    rows = source._row_tensor[indices].tolist()  # type: ignore[index]
    assert announced == [(row * size // 256 * 256, (row + 1) * size) for row in rows]
