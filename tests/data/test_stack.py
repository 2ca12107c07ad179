"""One array: where it lies, how its rows move, and what is held out of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from making import Fill, encoded, load, pixels

from poise.data.folder import FolderConfig, Walk
from poise.data.image_array import allocate_images, permute_rows
from poise.data.scan import scan
from poise.data.source import ImageDataset
from poise.errors import DataError


def test_above_the_budget_lies_in_a_file(tmp_path: Path, fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    fill(tmp_path / "p", 9)
    (tmp_path / "p" / "x.jpg").write_bytes(encoded("JPEG")[:-300])
    entry = FolderConfig(path=str(tmp_path / "p"), size=8, held_out=0.3)
    listing = Walk(tmp_path / "p", follow=False).listing()
    small, large = scan(listing, entry), scan(listing, entry, budget=100)
    assert [one.name for one in tmp_path.iterdir()] == ["p"]
    for one, other in ((small.train, large.train), (small.held_out, large.held_out)):
        assert isinstance(one, ImageDataset)
        assert isinstance(other, ImageDataset)
        assert not isinstance(one.images, np.memmap)
        assert isinstance(other.images, np.memmap)
        assert one.fingerprint == other.fingerprint
    assert len(large.train.images) == 7  # type: ignore[attr-defined]


def test_a_full_disk_is_an_error_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match="No space left on device; set TMPDIR"):
        allocate_images((4, 8, 8, 3), budget=10)


@pytest.mark.parametrize("seed", range(20))
def test_rearranging_in_place(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(seed * 3)
    rows = np.random.default_rng(99).integers(0, 256, (seed * 3, 2, 2, 1), np.uint8)
    expected = rows[order]
    permute_rows(rows, order)
    assert np.array_equal(rows, expected)


def test_held_out_pictures_are_others(tmp_path: Path, fill: Fill) -> None:
    fill(tmp_path, 20)
    everything = pixels(load(tmp_path))
    loaded = load(tmp_path, held_out=0.25)
    assert isinstance(loaded.held_out, ImageDataset)
    parts = np.concatenate((pixels(loaded), loaded.held_out.images))
    assert (len(pixels(loaded)), len(loaded.held_out.images)) == (15, 5)
    assert sorted(map(bytes, parts)) == sorted(map(bytes, everything))
    assert load(tmp_path, held_out=0.01).held_out is None
