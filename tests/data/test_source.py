"""Image data sets: conversion to [-1, 1], the order of the batches, labels and fingerprints."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from poise.core.random_streams import RandomStreams
from poise.data.source import ImageDataset
from poise.utils.images import to_bytes, to_float


def numbered_images(n: int, labels: bool = False) -> ImageDataset:
    """n images; the two channels of each encode its index."""
    images = np.zeros((n, 4, 4, 2), np.uint8)
    images[..., 0], images[..., 1] = np.arange(n)[:, None, None] >> 8, np.arange(n)[:, None, None] & 255
    return ImageDataset(images, np.arange(n) % 3 if labels else None, ("a", "b", "c") if labels else ())


def numbers_of(images: torch.Tensor) -> list[int]:
    return (images[:, 0, 0, 0].long() * 256 + images[:, 0, 0, 1].long()).tolist()


def test_to_float_and_to_bytes_are_inverse() -> None:
    all_bytes = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    floats = to_float(all_bytes)
    assert floats.shape == (1, 1, 16, 16)
    assert (floats.min(), floats.max()) == (-1, 1)
    assert np.array_equal(to_bytes(floats), all_bytes.numpy())


def test_to_float_is_channels_first_in_channels_last_memory() -> None:
    floats = to_float(torch.randint(256, (5, 6, 7, 3), dtype=torch.uint8))
    assert floats.shape == (5, 3, 6, 7)
    assert floats.is_contiguous(memory_format=torch.channels_last)


def test_bytes_are_rounded_and_clamped() -> None:
    values = torch.tensor([-9.0, -1.0, -0.9961, 0.0, 0.9999, 3.0]).reshape(1, 1, 1, 6)
    assert to_bytes(values).ravel().tolist() == [0, 0, 0, 128, 255, 255]


def test_batches_are_a_function_of_seed_and_index() -> None:
    sequential, random_access = numbered_images(100), numbered_images(100)
    expected = [numbers_of(sequential.batch(i, 30, RandomStreams(7)).images) for i in range(20)]
    for i in (17, 3, 19, 0, 8, 3):
        assert numbers_of(random_access.batch(i, 30, RandomStreams(7)).images) == expected[i]


@pytest.mark.parametrize("size", [1, 7, 10, 25, 64, 230])
def test_every_epoch_is_a_permutation(size: int) -> None:
    """For any batch size: also one that exceeds the data, or does not divide its size."""
    source, epochs = numbered_images(100), 7
    batches = itertools.chain.from_iterable(
        numbers_of(source.batch(i, size, RandomStreams(0)).images) for i in itertools.count()
    )
    seen = [list(itertools.islice(batches, 100)) for _ in range(epochs)]
    assert all(sorted(epoch) == list(range(100)) for epoch in seen)
    assert len(set(map(tuple, seen))) == epochs


def test_the_order_does_not_depend_on_the_batch_size() -> None:
    one, other = numbered_images(50), numbered_images(50)
    batches_of_10 = [n for i in range(20) for n in numbers_of(one.batch(i, 10, RandomStreams(5)).images)]
    batches_of_40 = [n for i in range(5) for n in numbers_of(other.batch(i, 40, RandomStreams(5)).images)]
    assert batches_of_10 == batches_of_40


def test_seeds_give_different_orders() -> None:
    first_batches = {
        tuple(numbers_of(numbered_images(100).batch(0, 20, RandomStreams(seed)).images)) for seed in range(50)
    }
    assert len(first_batches) == 50
    shared = numbered_images(100)  # by several runs in one process
    assert len({tuple(numbers_of(shared.batch(0, 20, RandomStreams(seed)).images)) for seed in range(50)}) == 50


def test_labels_belong_to_their_images() -> None:
    batch = numbered_images(100, labels=True).batch(3, 64, RandomStreams(0))
    assert batch.labels is not None
    assert batch.labels.dtype == torch.int64
    assert batch.labels.tolist() == [n % 3 for n in numbers_of(batch.images)]
    assert numbered_images(9).batch(0, 4, RandomStreams(0)).labels is None


def test_preview_is_evenly_spaced() -> None:
    source = numbered_images(100)
    assert numbers_of(to_bytes_tensor(source.preview(4))) == [0, 33, 66, 99]
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
