"""Bytes and [-1, 1], the feed's order, the split and the fingerprint."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from poise.core.random_streams import RandomStreams
from poise.data.source import ImageDataset
from poise.utils.images import to_bytes, to_float


def numbered(n: int, labels: bool = False) -> ImageDataset:
    """n pictures, each of which says its number in two bytes."""
    images = np.zeros((n, 4, 4, 2), np.uint8)
    images[..., 0], images[..., 1] = np.arange(n)[:, None, None] >> 8, np.arange(n)[:, None, None] & 255
    return ImageDataset(images, np.arange(n) % 3 if labels else None, ("a", "b", "c") if labels else ())


def numbers(images: torch.Tensor) -> list[int]:
    return (images[:, 0, 0, 0].long() * 256 + images[:, 0, 0, 1].long()).tolist()


def test_bytes_and_signed_are_inverse() -> None:
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    signed = to_float(every)
    assert signed.shape == (1, 1, 16, 16)
    assert (signed.min(), signed.max()) == (-1, 1)
    assert np.array_equal(to_bytes(signed), every.numpy())


def test_channels_go_first_in_memory_order_last() -> None:
    signed = to_float(torch.randint(256, (5, 6, 7, 3), dtype=torch.uint8))
    assert signed.shape == (5, 3, 6, 7)
    assert signed.is_contiguous(memory_format=torch.channels_last)


def test_bytes_are_rounded_and_clamped() -> None:
    values = torch.tensor([-9.0, -1.0, -0.9961, 0.0, 0.9999, 3.0]).reshape(1, 1, 1, 6)
    assert to_bytes(values).ravel().tolist() == [0, 0, 0, 128, 255, 255]


def test_order_is_a_function_of_seed_and_index() -> None:
    straight, jumping = numbered(100), numbered(100)
    in_turn = [numbers(straight.batch(i, 30, RandomStreams(7)).images) for i in range(20)]
    for i in (17, 3, 19, 0, 8, 3):
        assert numbers(jumping.batch(i, 30, RandomStreams(7)).images) == in_turn[i]


@pytest.mark.parametrize("size", [1, 7, 10, 25, 64, 230])
def test_every_epoch_is_a_permutation(size: int) -> None:
    """Whatever the batch: larger than the data, and not a divisor of it, too."""
    source, epochs = numbered(100), 7
    batches = itertools.chain.from_iterable(
        numbers(source.batch(i, size, RandomStreams(0)).images) for i in itertools.count()
    )
    seen = [list(itertools.islice(batches, 100)) for _ in range(epochs)]
    assert all(sorted(epoch) == list(range(100)) for epoch in seen)
    assert len(set(map(tuple, seen))) == epochs


def test_the_order_does_not_depend_on_the_batch() -> None:
    one, other = numbered(50), numbered(50)
    by_tens = [n for i in range(20) for n in numbers(one.batch(i, 10, RandomStreams(5)).images)]
    by_forties = [n for i in range(5) for n in numbers(other.batch(i, 40, RandomStreams(5)).images)]
    assert by_tens == by_forties


def test_seeds_differ() -> None:
    firsts = {tuple(numbers(numbered(100).batch(0, 20, RandomStreams(seed)).images)) for seed in range(50)}
    assert len(firsts) == 50


def test_labels_stay_with_pictures() -> None:
    batch = numbered(100, labels=True).batch(3, 64, RandomStreams(0))
    assert batch.labels is not None
    assert batch.labels.dtype == torch.int64
    assert batch.labels.tolist() == [n % 3 for n in numbers(batch.images)]
    assert numbered(9).batch(0, 4, RandomStreams(0)).labels is None


def test_some_are_spread_and_the_same() -> None:
    source = numbered(100)
    assert numbers(to_bytes_tensor(source.preview(4))) == [0, 33, 66, 99]
    assert len(source.preview(1000)) == 100


def to_bytes_tensor(images: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(to_bytes(images))


@pytest.mark.parametrize("row", [0, 4095, 4096, 4999])
def test_one_byte_changes_the_fingerprint(row: int) -> None:
    images = np.zeros((5000, 2, 2, 1), np.uint8)
    before = ImageDataset(images).fingerprint
    assert ImageDataset(images.copy()).fingerprint == before
    images[row, 1, 0, 0] = 1
    assert ImageDataset(images).fingerprint != before


def test_labels_classes_and_shape_change_the_fingerprint() -> None:
    images, labels = np.zeros((8, 2, 2, 1), np.uint8), np.zeros(8, np.int64)
    other = labels.copy()
    other[3] = 1
    prints = [
        ImageDataset(images).fingerprint,
        ImageDataset(images, labels, ("a", "b")).fingerprint,
        ImageDataset(images, other, ("a", "b")).fingerprint,
        ImageDataset(images, labels, ("a", "c")).fingerprint,
        ImageDataset(images.reshape(8, 1, 4, 1)).fingerprint,
        ImageDataset(images.reshape(4, 2, 2, 2)).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
