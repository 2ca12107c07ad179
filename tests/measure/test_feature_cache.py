"""The cache: entries are loaded unchanged or not at all, and a failing disk is not an error."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from poise.measure import feature_cache
from poise.utils.system import system


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "a" / "home"))
    return tmp_path / "a" / "home"


def tensors() -> dict[str, Tensor]:
    return {
        "features": torch.arange(12.0).reshape(3, 4),
        "right": torch.tensor(0.987, dtype=torch.float64),
        "count": torch.tensor([3, -1]),
        "none": torch.empty(0, 5),
    }


def same(found: dict[str, Tensor] | None, stored: dict[str, Tensor]) -> bool:
    return (
        found is not None
        and set(found) == set(stored)
        and all(found[k].dtype == stored[k].dtype and torch.equal(found[k], stored[k]) for k in stored)
    )


def test_round_trip(home: Path) -> None:
    feature_cache.store("features", "0123", tensors())
    assert same(feature_cache.load("features", "0123"), tensors())
    assert [path.relative_to(home) for path in home.rglob("*.*")] == [Path("features/0123.safetensors")]


def test_non_contiguous_tensors_and_parameters() -> None:
    unusual = {
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "weight": torch.nn.Parameter(torch.ones(2)),
        "part": torch.arange(10.0)[3:6],
    }
    feature_cache.store("classifiers", "k", unusual)
    found = feature_cache.load("classifiers", "k")
    assert same(found, unusual)
    assert found is not None
    assert not found["weight"].requires_grad


def test_missing_entry() -> None:
    assert feature_cache.load("features", "k") is None
    feature_cache.store("features", "k", tensors())
    assert feature_cache.load("features", "l") is None
    assert feature_cache.load("classifiers", "k") is None


def test_stored_entry_is_replaced() -> None:
    feature_cache.store("features", "k", tensors())
    feature_cache.store("features", "k", {"other": torch.ones(2)})
    assert same(feature_cache.load("features", "k"), {"other": torch.ones(2)})


@pytest.mark.parametrize("flip", [0x01, 0x0F, 0xFF])
def test_flipped_bytes_are_detected(home: Path, flip: int) -> None:
    """In the header and in the data; 0x0F turns F into I, that is, floats into integers."""
    feature_cache.store("features", "k", tensors())
    path = home / "features" / "k.safetensors"
    original = path.read_bytes()
    for offset in range(len(original)):
        path.write_bytes(original[:offset] + bytes([original[offset] ^ flip]) + original[offset + 1 :])
        found = feature_cache.load("features", "k")
        assert found is None or same(found, tensors()), offset
        assert found is None or chr(original[offset]).isspace(), offset
    path.write_bytes(original)
    assert same(feature_cache.load("features", "k"), tensors())


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, -1, -40])
def test_truncated_file(home: Path, length: int) -> None:
    feature_cache.store("features", "k", tensors())
    path = home / "features" / "k.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    assert feature_cache.load("features", "k") is None


def test_trailing_bytes(home: Path) -> None:
    feature_cache.store("features", "k", tensors())
    path = home / "features" / "k.safetensors"
    path.write_bytes(path.read_bytes() + b"\0")
    assert feature_cache.load("features", "k") is None


def test_changed_tensors_and_missing_checksum(home: Path) -> None:
    feature_cache.store("features", "k", tensors())
    path = home / "features" / "k.safetensors"
    original = safetensors.torch.load(path.read_bytes())
    plain = {name: tensor for name, tensor in original.items() if name != "sum"}
    renamed = {("fritures" if name == "features" else name): tensor for name, tensor in original.items()}
    fewer = {name: tensor for name, tensor in original.items() if name != "count"}
    more = {**original, "more": torch.ones(1)}
    transposed = {**original, "features": original["features"].reshape(4, 3)}
    for other in (plain, renamed, fewer, more, transposed, {}):
        path.write_bytes(safetensors.torch.save(other))
        assert feature_cache.load("features", "k") is None
    path.write_bytes(safetensors.torch.save(original))
    assert same(feature_cache.load("features", "k"), tensors())


def test_folder_in_place_of_the_file(home: Path) -> None:
    (home / "features" / "k.safetensors").mkdir(parents=True)
    assert feature_cache.load("features", "k") is None
    feature_cache.store("features", "k", tensors())
    assert feature_cache.load("features", "k") is None


def test_unusable_cache_folder(home: Path, tmp_path: Path) -> None:
    """A file in place of the folder: nothing is stored, raised or changed."""
    (tmp_path / "a").write_text("dear")
    feature_cache.store("features", "k", tensors())
    assert feature_cache.load("features", "k") is None
    assert (tmp_path / "a").read_text() == "dear"


def test_full_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    feature_cache.store("features", "k", tensors())
    with monkeypatch.context() as patch:
        patch.setattr(system, "write", full)
        feature_cache.store("features", "k", {"other": torch.ones(2)})
    assert same(feature_cache.load("features", "k"), tensors())


def test_writes_are_atomic(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader sees the old file while another process writes."""
    feature_cache.store("features", "k", tensors())
    write, seen = system.write, []

    def slow(handle: int, data: bytes) -> int:
        length = write(handle, data[:50])
        seen.append(feature_cache.load("features", "k"))
        return length

    monkeypatch.setattr(system, "write", slow)
    feature_cache.store("features", "k", {"other": torch.ones(2)})
    assert len(seen) > 1
    assert all(same(one, tensors()) for one in seen)
    assert same(feature_cache.load("features", "k"), {"other": torch.ones(2)})


def test_cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("POISE_CACHE", str(tmp_path / "own"))
    assert feature_cache.cache_dir() == tmp_path / "own"
    for nothing in (lambda name: monkeypatch.setenv(name, ""), monkeypatch.delenv):
        nothing("POISE_CACHE")
        assert feature_cache.cache_dir() == tmp_path / "xdg" / "poise"
    for nothing in (lambda name: monkeypatch.setenv(name, ""), monkeypatch.delenv):
        nothing("XDG_CACHE_HOME")
        assert feature_cache.cache_dir() == tmp_path / "me" / ".cache" / "poise"


def test_cache_key() -> None:
    assert feature_cache.cache_key("a", 1) == feature_cache.cache_key("a", 1)
    assert len({feature_cache.cache_key(*parts) for parts in (("a", 1), ("a", 2), ("b", 1), (1, "a"), ("a",))}) == 5
    assert len(feature_cache.cache_key("a")) == 16
    assert set(feature_cache.cache_key("a")) <= set("0123456789abcdef")
