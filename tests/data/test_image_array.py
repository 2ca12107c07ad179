"""The image array: its allocation, the permutation of its rows, and its split."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from image_helpers import WriteImages, encoded, load, pixels

from poise.data.folder import FolderConfig, Walk
from poise.data.image_array import allocate_images, permute_rows
from poise.data.scan import scan
from poise.data.source import ImageDataset
from poise.errors import DiskError


def test_arrays_above_the_budget_are_memory_mapped(
    tmp_path: Path, write_images: WriteImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    write_images(tmp_path / "p", 9)
    (tmp_path / "p" / "x.jpg").write_bytes(encoded("JPEG")[:-300])
    config = FolderConfig(path=str(tmp_path / "p"), size=8, held_out=0.3)
    listing = Walk(tmp_path / "p", follow=False).listing()
    small, large = scan(listing, config), scan(listing, config, budget=100)
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    for first, second in ((small.train, large.train), (small.held_out, large.held_out)):
        assert isinstance(first, ImageDataset)
        assert isinstance(second, ImageDataset)
        assert not isinstance(first.images, np.memmap)
        assert isinstance(second.images, np.memmap)
        assert first.fingerprint == second.fingerprint
    assert len(large.train.images) == 7  # type: ignore[attr-defined]


def test_a_full_disk_raises_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskError, match="No space left on device; set TMPDIR"):
        allocate_images((4, 8, 8, 3), budget=10)


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_permuted_in_place(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(seed * 3)
    images = np.random.default_rng(99).integers(0, 256, (seed * 3, 2, 2, 1), np.uint8)
    expected = images[order]
    permute_rows(images, order)
    assert np.array_equal(images, expected)


def test_training_and_held_out_images_are_disjoint(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, 20)
    everything = pixels(load(tmp_path))
    loaded = load(tmp_path, held_out=0.25)
    assert isinstance(loaded.held_out, ImageDataset)
    parts = np.concatenate((pixels(loaded), loaded.held_out.images))
    assert (len(pixels(loaded)), len(loaded.held_out.images)) == (15, 5)
    assert sorted(map(bytes, parts)) == sorted(map(bytes, everything))
    assert load(tmp_path, held_out=0.01).held_out is None
