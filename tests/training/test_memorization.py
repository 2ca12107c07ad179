"""Memorisation statistics of copies, new images and blobs, on real digits."""

from __future__ import annotations

from itertools import combinations
from statistics import fmean

import numpy as np
import pytest
import torch
from torch import Tensor

from poise.data.digits import DigitsConfig
from poise.data.source import ImageDataset
from poise.training.memorization import (
    COUNT,
    MemorizationCheck,
    distances,
    downsample_rows,
    downsampled_side,
    expected_nearest,
    flip_rows,
    nearest_rank_probabilities,
    nearest_ratio,
)
from poise.utils.images import to_float

CPU = torch.device("cpu")
COPIES, ENTRY = 0.7, DigitsConfig(kind="digits", size=28)
"""Below this the detector `memorising` speaks of copies (its default)."""


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """1,600 shuffled digits, N x 28 x 28 x 1."""
    train = ENTRY.load().train
    assert isinstance(train, ImageDataset)
    places = np.random.default_rng(3).permutation(len(train))[:1600]
    return train.images[places]


def signed(images: np.ndarray) -> Tensor:
    return to_float(torch.from_numpy(np.ascontiguousarray(images)))


def metrics_of(one: MemorizationCheck, fake: Tensor) -> dict[str, float]:
    return {name: float(above / below) for name, (above, below, _) in one.compute(fake.clamp(-1, 1)).items()}


def noise(sigma: float, n: int = COUNT, seed: int = 0) -> Tensor:
    return sigma * torch.from_numpy(np.random.default_rng(seed).standard_normal((n, 1, 28, 28))).float()


def some(images: Tensor, n: int = COUNT) -> Tensor:
    """n images; the first ones are repeated if there are fewer."""
    return images[torch.arange(n) % len(images)]


def among(
    digits: np.ndarray, known: int, held_out: int, *, mirror: bool = False
) -> tuple[MemorizationCheck, Tensor, Tensor]:
    """The check for the given numbers of images, the training images, and new images."""
    train, others = digits[:known], digits[known : known + held_out]
    one = MemorizationCheck(ImageDataset(train), ImageDataset(others), CPU, mirror=mirror)
    return one, signed(train), signed(digits[-COUNT:])


@pytest.mark.parametrize(("known", "held_out"), [(20, 2), (45, 5), (100, 11), (900, 100), (50, 950)])
def test_copies_differ_from_new_images_and_from_blobs(digits: np.ndarray, known: int, held_out: int) -> None:
    one, train, new = among(digits, known, held_out)
    mean = train.mean(0, keepdim=True)
    mixed = torch.stack([some(train.roll(k, 0)) for k in (0, 3, 5, 7, 11)]).mean(0)
    harmless = {
        "new": new,
        "noise": noise(0.5),
        "flat": noise(0.001) - 0.4,
        "between new and mean": mean + 0.5 * (new - mean),
        "dim, near the mean": mean + 0.1 * (new - mean),
        "means of five": mixed,
    }
    copied = some(train)
    copies = {
        "bare": copied,
        "with noise": copied + noise(0.3),
        "brighter": copied + 0.4,
        "darker": 0.5 * copied - 0.5,
        "a third of them, beside new ones": torch.cat([copied[: COUNT // 3], new[COUNT // 3 :]]),
    }
    for what, fake in harmless.items():
        assert metrics_of(one, fake)["g/nearest_ratio"] > COPIES, what
    for what, fake in copies.items():
        assert metrics_of(one, fake)["g/nearest_ratio"] < 0.5, what
    assert metrics_of(one, mixed)["g/newness"] < 0.9 or known > 100, "nearness alone would have called them copies"


def test_slightly_shifted_copies_of_a_small_set_are_copies(digits: np.ndarray) -> None:
    one, train, _ = among(digits, 45, 5)
    assert metrics_of(one, some(train).roll(1, 3))["g/nearest_ratio"] < COPIES


@pytest.mark.parametrize("how", ["same bytes", "a little noise", "brighter"])
def test_duplicates_in_the_training_set_do_not_hide_copies(digits: np.ndarray, how: str) -> None:
    """Each image occurs three times in the data; its duplicate is not a second neighbour."""
    first = digits[:60].astype(np.int64)
    rng = np.random.default_rng(1)
    change = {
        "same bytes": lambda: 0,
        "a little noise": lambda: rng.integers(-4, 5, first.shape),
        "brighter": lambda: 9,
    }[how]
    train = np.concatenate([np.clip(first + (change() if k else 0), 0, 255) for k in range(3)]).astype(np.uint8)
    one = MemorizationCheck(ImageDataset(train), ImageDataset(digits[200:220]), CPU)
    assert metrics_of(one, some(signed(train)) + noise(0.2))["g/nearest_ratio"] < 0.5
    assert metrics_of(one, signed(digits[-COUNT:]))["g/nearest_ratio"] > COPIES


def test_blobs_are_no_copies_of_a_flat_training_image(digits: np.ndarray) -> None:
    train = np.concatenate([digits[:60], np.full((1, 28, 28, 1), 77, np.uint8)])
    one = MemorizationCheck(ImageDataset(train), ImageDataset(digits[200:220]), CPU)
    blobs = noise(0.002) + (77 / 127.5 - 1)
    assert metrics_of(one, blobs)["g/newness"] < 0.1, "they lie on it"
    assert metrics_of(one, blobs)["g/nearest_ratio"] > COPIES


def test_mixtures_of_training_images_are_closer_to_them_than_to_held_out_images(digits: np.ndarray) -> None:
    """They are not copies, but made of training images; new images and blobs are equally close to both splits."""
    one, train, new = among(digits, 60, 900)
    mixed, mean = 0.5 * (some(train) + some(train.roll(7, 0))), train.mean(0, keepdim=True)
    assert metrics_of(one, mixed)["g/train_ratio"] < 0.9
    assert metrics_of(one, mixed)["g/nearest_ratio"] > COPIES
    for fake in (new, mean + 0.5 * (new - mean), noise(0.5)):
        assert metrics_of(one, fake)["g/train_ratio"] == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize(("known", "held_out", "there"), [(200, 49, False), (49, 200, False), (50, 50, True)])
def test_the_train_ratio_needs_fifty_images_in_each_split(
    digits: np.ndarray, known: int, held_out: int, there: bool
) -> None:
    one, _, new = among(digits, known, held_out)
    assert ("g/train_ratio" in one.compute(new)) == there


@pytest.mark.parametrize(("known", "held_out"), [(45, 5), (100, 11), (900, 100), (50, 950)])
def test_with_mirror_flipped_copies_are_copies_and_flipped_new_images_are_not(
    digits: np.ndarray, known: int, held_out: int
) -> None:
    one, train, new = among(digits, known, held_out, mirror=True)
    plain, _, _ = among(digits, known, held_out)
    copied = some(train)
    mixed = torch.cat([copied[::2], copied[1::2].flip(3)])
    for fake in (copied, copied.flip(3), mixed, mixed + noise(0.3)):
        found = metrics_of(one, fake)
        assert found["g/nearest_ratio"] < 0.5
        assert found["g/newness"] < 0.8
    assert metrics_of(plain, copied.flip(3))["g/nearest_ratio"] > COPIES, "without mirror they are no copies"
    for fake in (new, new.flip(3), torch.cat([new[::2], new[1::2].flip(3)])):
        assert metrics_of(one, fake)["g/nearest_ratio"] > COPIES


def test_with_mirror_an_image_and_its_flip_are_treated_alike(digits: np.ndarray) -> None:
    one, train, new = among(digits, 200, 100, mirror=True)
    for fake in (some(train) + noise(0.3), new):
        assert metrics_of(one, fake.flip(3)) == pytest.approx(metrics_of(one, fake), rel=1e-4)


def test_with_mirror_the_flip_of_an_image_is_not_its_second_neighbour(digits: np.ndarray) -> None:
    """Nearly symmetric images are near their flips, which would be second neighbours as near as the first."""
    noisy = np.random.default_rng(0).integers(0, 60, (60, 28, 28, 1))
    half = digits[:60].astype(np.int64) // 2
    symmetric = (half + half[:, :, ::-1]).clip(0, 195) + noisy
    one = MemorizationCheck(ImageDataset(symmetric.astype(np.uint8)), ImageDataset(digits[200:220]), CPU, mirror=True)
    copies = some(signed(symmetric.astype(np.uint8)))
    assert metrics_of(one, copies + noise(0.3))["g/nearest_ratio"] < 0.5
    rows, known = downsample_rows(copies[:1]), one.known
    near = distances(rows, torch.cat([known, flip_rows(known, 16)]), exact=True).sort().values[0]
    assert near[1] < near[2] / 2, "its own flip would have been the second neighbour"


def test_with_mirror_duplicates_that_are_flips_do_not_hide_copies(digits: np.ndarray) -> None:
    """The data set has each image and its flip already."""
    train = np.concatenate([digits[:60], digits[:60, :, ::-1]])
    one = MemorizationCheck(ImageDataset(train), ImageDataset(digits[200:220]), CPU, mirror=True)
    assert metrics_of(one, some(signed(train)) + noise(0.2))["g/nearest_ratio"] < 0.5
    assert metrics_of(one, signed(digits[-COUNT:]))["g/nearest_ratio"] > COPIES


def test_with_mirror_new_images_are_equally_close_to_both_splits(digits: np.ndarray) -> None:
    one, train, new = among(digits, 60, 900, mirror=True)
    mixed = 0.5 * (some(train) + some(train.roll(7, 0))).flip(3)
    assert metrics_of(one, mixed)["g/train_ratio"] < 0.9
    for fake in (new, new.flip(3)):
        assert metrics_of(one, fake)["g/train_ratio"] == pytest.approx(1, abs=0.08)
    few, _, _ = among(digits, 200, 49, mirror=True)
    assert "g/train_ratio" not in few.compute(new), "flips are no more images"


@pytest.mark.parametrize(("height", "width", "channels"), [(28, 28, 1), (16, 16, 3), (9, 13, 2), (20, 30, 4)])
def test_downsampled_rows_of_flips_are_flipped_rows(height: int, width: int, channels: int) -> None:
    images = torch.from_numpy(np.random.default_rng(0).random((5, channels, height, width))).float()
    side = downsampled_side(height, width)
    torch.testing.assert_close(flip_rows(downsample_rows(images), side), downsample_rows(images.flip(3)))


def test_distances_to_an_image_or_its_flip_by_hand() -> None:
    """Images of one row with two pixels."""
    samples, known = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 1.0], [3.0, 4.0]])
    expected = [[0.0, 18**0.5], [1.0, 13**0.5]]
    for exact in (True, False):
        found = distances(samples, known, mirror_width=2, exact=exact)
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-3, rtol=0)


def test_nearest_ratio_by_hand() -> None:
    known = torch.tensor([[0.0, 0.0], [0.0, 0.1], [3.0, 0.0], [10.0, 0.0]])
    samples = torch.tensor([[1.0, 0.0], [9.0, 0.0], [3.0, 0.0]])
    found = nearest_ratio(distances(samples, known, exact=True), known, 0.2)
    assert found.tolist() == pytest.approx([1 / 2, 1 / 6, 0.0])
    alone = nearest_ratio(distances(samples, known, exact=True), known, 20.0)
    assert alone.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(("count", "n"), [(6, 1), (6, 2), (6, 5), (6, 6), (7, 3)])
def test_expected_nearest_is_the_mean_over_all_subsets(count: int, n: int) -> None:
    apart = torch.from_numpy(np.random.default_rng(0).random((4, count)))
    wanted = [fmean(min(part) for part in combinations(row, n)) for row in apart.tolist()]
    assert expected_nearest(apart, nearest_rank_probabilities(count, n).double()).tolist() == pytest.approx(
        wanted, rel=1e-5
    )


def test_rank_probabilities_of_many_images() -> None:
    found = nearest_rank_probabilities(5000, 500)
    assert len(found) < 200
    assert float(found.sum()) == pytest.approx(1)
    assert float(found[0]) == pytest.approx(0.1, rel=1e-4)


def test_images_are_downsampled_in_chunks(digits: np.ndarray) -> None:
    one, train, _ = among(digits, 900, 100)
    assert torch.equal(one.known, downsample_rows(train))
