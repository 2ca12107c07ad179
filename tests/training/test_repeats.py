"""Copies among training samples are counted without a copy of all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poise.core.types import Batch
from poise.data.source import ImageDataset
from poise.training import repeats
from poise.training.repeats import Repeats, count_repeats

SIDE = 8


@pytest.fixture
def images() -> np.ndarray:
    """100 images: 90 to 93 are copies, 94 to 96 flips, and 97 to 99 of one colour."""
    images = np.random.default_rng(0).integers(0, 256, (100, SIDE, SIDE, 3), np.uint8)
    images[90:94] = images[:4]
    images[94:97] = images[10:13, :, ::-1]
    images[97:] = 5
    return images


@pytest.mark.parametrize("rows_at_once", [1, 7, 1000])
@pytest.mark.parametrize(("mirror", "expected"), [(False, Repeats(100, 3, 6, 0)), (True, Repeats(100, 3, 9, 3))])
def test_the_counts_do_not_depend_on_the_chunks(
    images: np.ndarray, monkeypatch: pytest.MonkeyPatch, rows_at_once: int, mirror: bool, expected: Repeats
) -> None:
    source, sizes = ImageDataset(images), list[int]()
    gather = source.gather

    def watched(indices: torch.Tensor) -> Batch:
        sizes.append(len(indices))
        return gather(indices)

    monkeypatch.setattr(source, "gather", watched)
    monkeypatch.setattr(repeats, "CHUNK_BYTES", rows_at_once * SIDE * SIDE * 3)
    assert count_repeats(source, mirror=mirror) == expected
    assert max(sizes) == min(rows_at_once, 100)
