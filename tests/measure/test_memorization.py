"""Memorisation: copies are detected where the Frechet distance rewards them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from torch import Tensor

from poise.measure.base import BLOCK_SIZE
from poise.measure.fid import fid
from poise.measure.memorization import authenticity, copying_test, nearest_neighbours
from poise.measure.ndb import assign_cells, kmeans_centres

D = 6


def fresh(n: int, seed: int, d: int = D) -> Tensor:
    """Samples of a distribution with two clusters."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n, d, dtype=torch.float64, generator=generator)
    points[:, 0] += 4 * (torch.rand(n, generator=generator) < 0.4)
    return points


def copied(train: Tensor, n: int, seed: int, noise: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    chosen = train[torch.randint(len(train), (n,), generator=generator)]
    return chosen + noise * torch.randn(chosen.shape, dtype=chosen.dtype, generator=generator)


TRAIN, HELD_OUT = fresh(600, 0), fresh(400, 1)


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_copies_are_detected_and_have_a_low_fid(noise: float) -> None:
    fake = copied(TRAIN, 400, 2, noise)
    assert copying_test(fake, HELD_OUT, TRAIN) < -6
    assert authenticity(fake, TRAIN) < 0.01
    assert fid(fake, HELD_OUT) <= 1.5 * fid(fresh(400, 3), HELD_OUT)
    assert fid(TRAIN, HELD_OUT) <= 1.2 * fid(fresh(600, 3), HELD_OUT)


@pytest.mark.parametrize("seed", range(2, 8))
def test_fresh_samples_are_not_copies(seed: int) -> None:
    assert abs(copying_test(fresh(300, seed), HELD_OUT, TRAIN)) < 3
    assert authenticity(fresh(300, seed), TRAIN) == pytest.approx(authenticity(HELD_OUT, TRAIN), abs=0.15)
    assert authenticity(fresh(300, seed), TRAIN) > 0.3


def test_copying_test_of_fresh_samples_is_0_on_average() -> None:
    found = [copying_test(fresh(100, 10 + k), fresh(100, 50 + k), fresh(150, 90 + k)) for k in range(40)]
    assert np.mean(found) == pytest.approx(0, abs=3 * np.std(found) / 40**0.5)


def test_samples_far_from_the_data_score_high() -> None:
    fake = copied(TRAIN, 300, 2, noise=2.0)
    assert copying_test(fake, HELD_OUT, TRAIN) > 3
    assert authenticity(fake, TRAIN) > 0.9


def test_partial_copies_are_detected() -> None:
    fake = torch.cat([fresh(150, 2), copied(TRAIN, 150, 3, noise=0.0)])
    assert copying_test(fake, HELD_OUT, TRAIN) < -3
    assert authenticity(fake, TRAIN) == pytest.approx(authenticity(fresh(150, 2), TRAIN) / 2, abs=1e-12)


def distances_to_train(features: Tensor) -> np.ndarray:
    return np.array([((TRAIN - one) ** 2).sum(1).sqrt().min() for one in features])


def z_by_hand(fake: np.ndarray, held_out: np.ndarray) -> float:
    """U from the sum of ranks, standardised without a correction for ties."""
    n, m = len(fake), len(held_out)
    u = rankdata(np.concatenate([fake, held_out]))[:n].sum() - n * (n + 1) / 2
    return float((u - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12))


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_copying_test_with_one_cell_is_the_standardised_mann_whitney_u(noise: float) -> None:
    fake = copied(TRAIN, 150, 4, noise)
    expected = z_by_hand(distances_to_train(fake), distances_to_train(HELD_OUT))
    assert copying_test(fake, HELD_OUT, TRAIN, num_cells=1) == pytest.approx(expected, abs=1e-9)


def test_copying_test_is_a_mean_weighted_by_held_out_shares() -> None:
    fake, centres = copied(TRAIN, 150, 4, 0.4), torch.from_numpy(kmeans_centres(TRAIN, 5))
    cells = [assign_cells(features, centres).numpy() for features in (fake, HELD_OUT)]
    distances = [distances_to_train(features) for features in (fake, HELD_OUT)]
    scores = [
        z_by_hand(*(distance[assignment == cell] for distance, assignment in zip(distances, cells, strict=True)))
        for cell in range(5)
    ]
    shares = [(cells[1] == cell).mean() for cell in range(5)]
    assert len(set(shares)) > 1
    assert copying_test(fake, HELD_OUT, TRAIN) == pytest.approx(np.average(scores, weights=shares), abs=1e-9)


def line(*groups: tuple[float, int]) -> Tensor:
    """Distinct points on a line, in groups given as (position, number)."""
    return torch.cat([start + torch.linspace(0, 1, n, dtype=torch.float64) for start, n in groups])[:, None]


@pytest.mark.parametrize(("num_fakes", "is_used"), [(2, True), (1, False)], ids=["1 %", "less"])
def test_cells_with_too_few_fakes_are_ignored(num_fakes: int, is_used: bool) -> None:
    train, held_out = line((0, 50), (100, 50)), line((0.005, 40), (100.005, 40))
    fake = torch.cat([line((0.003, 200 - num_fakes)), line((100.9, num_fakes)) + 0.5])
    near = [
        z_by_hand(*(_line_distances(features, train, high) for features in (fake, held_out))) for high in (False, True)
    ]
    expected = sum(near) / 2 if is_used else near[0]
    assert near[0] != pytest.approx(near[1], abs=0.1)
    assert copying_test(fake, held_out, train, num_cells=2) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("num_held_out", "is_used"), [(2, True), (1, False)], ids=["1 %", "less"])
def test_cells_with_too_few_held_out_samples_are_ignored(num_held_out: int, is_used: bool) -> None:
    train, fake = line((0, 50), (100, 50)), line((0.003, 40), (100.005, 40))
    held_out = torch.cat([line((0.005, 200 - num_held_out)), line((100.9, num_held_out)) + 0.5])
    near = [
        z_by_hand(*(_line_distances(features, train, high) for features in (fake, held_out))) for high in (False, True)
    ]
    expected = ((200 - num_held_out) * near[0] + num_held_out * near[1]) / 200 if is_used else near[0]
    assert near[0] != pytest.approx(near[1], abs=0.1)
    assert copying_test(fake, held_out, train, num_cells=2) == pytest.approx(expected, abs=1e-9)


def _line_distances(features: Tensor, train: Tensor, high: bool) -> np.ndarray:
    inside = features[(features[:, 0] > 50) == high]
    return (inside - train.T).abs().min(1).values.numpy()


def test_no_cell_with_enough_samples_is_an_error() -> None:
    train = line((0, 50), (100, 50))
    with pytest.raises(ValueError, match="no cell of the training features has enough fake and held-out samples"):
        copying_test(line((0, 50)), line((100, 50)), train, num_cells=2)


def test_constant_training_features() -> None:
    train = torch.zeros(50, D)
    assert copying_test(fresh(60, 1), fresh(60, 2), train) == pytest.approx(0, abs=3)
    assert copying_test(torch.zeros(60, D), fresh(60, 2), train) < -6


# ---------------------------------------------------------------- authenticity


def authentic_by_hand(fake: Tensor, train: Tensor) -> float:
    fakes, trained, count = fake.double().numpy(), train.double().numpy(), 0
    for sample in fakes:
        distances = np.sqrt(((trained - sample) ** 2).sum(1))
        nearest = int(distances.argmin())
        others = np.sqrt(((np.delete(trained, nearest, axis=0) - trained[nearest]) ** 2).sum(1))
        count += bool(distances[nearest] > others.min())
    return count / len(fakes)


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 1), (200, 50, 3), (60, 300, 8)])
@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_authenticity_matches_a_loop(n: int, m: int, d: int, noise: float) -> None:
    train = fresh(m, 0, d)
    fake = copied(train, n, 1, noise)
    assert authenticity(fake, train) == pytest.approx(authentic_by_hand(fake, train), abs=1e-12)


def test_a_sample_at_equal_distance_is_not_authentic() -> None:
    train = torch.tensor([[0.0], [1.0], [5.0]])
    assert authenticity(torch.tensor([[-1.0], [-1.01], [1.0], [1.9], [9.01]]), train) == 0.4


def test_copies_of_duplicate_training_samples_are_not_authentic() -> None:
    train = torch.cat([TRAIN, TRAIN[:100]])
    assert authenticity(TRAIN[:100], train) == 0


FLIP = torch.tensor([1.0, -1, 1, 1, 1, 1], dtype=torch.float64)
"""What flips do to these features: the second is a direction to the left or to the right."""


def test_copies_of_flips_are_not_authentic() -> None:
    fake = copied(TRAIN, 400, 2, 0.02)
    assert authenticity(fake * FLIP, TRAIN) > 0.3
    for found in (fake * FLIP, fake, torch.cat([fake[::2], fake[1::2] * FLIP])):
        assert authenticity(found, TRAIN, TRAIN * FLIP) < 0.01
    assert copying_test(fake * FLIP, HELD_OUT, torch.cat([TRAIN, TRAIN * FLIP])) < -6


@pytest.mark.parametrize("seed", range(2, 6))
def test_new_samples_are_as_authentic_as_flips_of_new_samples(seed: int) -> None:
    new = fresh(300, seed)
    assert authenticity(new * FLIP, TRAIN, TRAIN * FLIP) == authenticity(new, TRAIN, TRAIN * FLIP) > 0.3


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_authenticity_with_flips_matches_a_loop(noise: float) -> None:
    train, flipped = fresh(50, 0, 3), fresh(50, 7, 3)  # any features: those of flips need not be flipped features
    fake, count = copied(torch.cat([train, flipped]), 200, 1, noise), 0
    for sample in fake:
        to_all = torch.stack([(version - sample).square().sum(1).sqrt() for version in (train, flipped)])
        version, image = divmod(int(to_all.argmin()), 50)
        neighbour = (train, flipped)[version][image]
        others = [(rows - neighbour).square().sum(1).sqrt() for rows in (train, flipped)]
        own = min(float(distance) for row in others for j, distance in enumerate(row) if j != image)
        count += float(to_all.min()) > own
    assert authenticity(fake, train, flipped) == pytest.approx(count / 200, abs=1e-12)


def test_a_symmetric_image_is_not_its_own_neighbour() -> None:
    """Its flip has the same features; the nearest other image is at distance 4."""
    train = torch.tensor([[0.0], [4.0], [9.0]])
    assert authenticity(torch.tensor([[1.0], [-3.9], [-4.1], [13.0]]), train, train) == 0.25
    assert authenticity(torch.tensor([[1.0], [-3.9], [-4.1], [13.0]]), train) == 0.25


def test_images_that_are_flips_of_each_other_count_once() -> None:
    """Otherwise each one's nearest neighbour would be the other at distance 0, and near copies authentic."""
    both = torch.cat([TRAIN, TRAIN * FLIP])
    near = copied(TRAIN, 100, 2, 0.02)
    assert authenticity(near, both, both * FLIP) == authenticity(near, TRAIN, TRAIN * FLIP) < 0.01
    with pytest.raises(ValueError, match="all training samples are equal"):
        authenticity(near, torch.stack([TRAIN[0], TRAIN[0] * FLIP]), torch.stack([TRAIN[0] * FLIP, TRAIN[0]]))


# ---------------------------------------------------------------- nearest neighbours


@pytest.mark.parametrize("n", [7, BLOCK_SIZE + 1])
def test_nearest_neighbours_are_sorted(n: int) -> None:
    features, among = fresh(n, 1), fresh(40, 2)
    neighbours = nearest_neighbours(features, among, 3)
    distances = np.linalg.norm(features.numpy()[:, None] - among.numpy(), axis=2)
    order = distances.argsort(axis=1)[:, :3]
    np.testing.assert_array_equal(neighbours.indices.numpy(), order)
    np.testing.assert_allclose(neighbours.distances.numpy(), np.take_along_axis(distances, order, axis=1), rtol=1e-12)
    assert all((neighbours.distances[:, a] <= neighbours.distances[:, b]).all() for a, b in pairwise(range(3)))


def test_k_is_limited_by_the_number_of_rows() -> None:
    found = nearest_neighbours(fresh(4, 1), fresh(2, 2), 5)
    assert found.indices.shape == found.distances.shape == (4, 2)
    assert nearest_neighbours(fresh(4, 1), fresh(2, 2)).indices.shape == (4, 1)


@pytest.mark.parametrize("which", range(3))
def test_invalid_features_are_rejected(which: int) -> None:
    sets = [fresh(30, k) for k in range(3)]
    sets[which] = sets[which][:, :2]
    with pytest.raises(ValueError, match="must have the same width"):
        copying_test(*sets)
    with pytest.raises(ValueError, match="fake features must be a matrix of at least 2 rows"):
        authenticity(torch.zeros(1, 3), torch.zeros(5, 3))
