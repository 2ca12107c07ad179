"""Bins that differ: shares of cells by hand, equal laws, a missing cluster."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from poise.measure import ndb as module
from poise.measure.ndb import assign_cells, kmeans_centres, ndb


def cloud(n: int, seed: int, d: int = 4) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_for_equal_laws_about_one_cell_in_twenty_differs() -> None:
    found = [ndb(cloud(1000, 2 * seed), cloud(1000, 2 * seed + 1), 20) for seed in range(20)]
    assert 0.01 < np.mean([one.share_different for one in found]) < 0.09
    assert max(one.js_divergence for one in found) < 0.02


def corners(shares: list[int], seed: int) -> Tensor:
    """As many samples around each corner of a large square as are asked for."""
    at = 100 * torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    return torch.cat([cloud(n, seed + k, 2) / 10 + at[k] for k, n in enumerate(shares)])


@pytest.mark.parametrize(
    ("fakes", "different"),
    [
        ([25, 25, 25, 25], 0.0),
        ([25, 25, 50, 0], 0.5),
        ([0, 0, 100, 0], 1.0),
        # beside 100 of 400, 34 of 100 are z = 1.801 away and 36 of 100 are 2.186; 16 are -1.905 and 15 are -2.124
        ([34, 25, 25, 16], 0.0),
        ([36, 24, 24, 16], 0.25),
        ([15, 27, 28, 30], 0.25),
    ],
)
def test_the_shares_of_planted_clusters_are_tested_one_by_one(fakes: list[int], different: float) -> None:
    found = ndb(corners(fakes, 10), corners([100] * 4, 20), 4)
    p = np.array(fakes) / sum(fakes)
    middle = (p + 0.25) / 2
    entropy = [-(side[side > 0] * np.log(side[side > 0])).sum() for side in (middle, p, np.full(4, 0.25))]
    assert found.share_different == different
    assert found.js_divergence == pytest.approx(entropy[0] - (entropy[1] + entropy[2]) / 2, abs=1e-12)


def test_a_missing_cluster_is_seen() -> None:
    real = torch.cat([cloud(800, 1), cloud(200, 2) + 8])
    whole = torch.cat([cloud(800, 3), cloud(200, 4) + 8])
    assert ndb(cloud(1000, 3), real, 20).share_different > ndb(whole, real, 20).share_different + 0.1
    assert ndb(cloud(1000, 3), real, 20).js_divergence > ndb(whole, real, 20).js_divergence + 0.05


def test_all_fakes_in_the_rarest_cell_come_close_to_log_2() -> None:
    real = corners([3000, 3000, 3000, 20], 0)
    found = ndb(corners([0, 0, 0, 500], 9), real, 4)
    assert found.share_different == 1
    assert 0.95 * math.log(2) < found.js_divergence < math.log(2)


def test_the_range_of_the_divergence() -> None:
    for seed in range(10):
        found = ndb(cloud(60, seed) * seed + seed, cloud(80, 100 + seed))
        assert 0 <= found.js_divergence < math.log(2)
        assert 0 <= found.share_different <= 1
    real = cloud(300, 1)
    assert ndb(real, real) == (0, 0)


def test_piles_of_one_picture_over_and_over() -> None:
    same, real = torch.full((50, 4), 0.1), cloud(100, 1)
    assert ndb(same, same) == (0, 0)
    assert ndb(real, same) == (0, 0)
    found = ndb(same, real)
    assert found.share_different > 0.5
    assert 0 < found.js_divergence < math.log(2)


@pytest.mark.parametrize(("reals", "asked", "count"), [(2, 100, 2), (59, 100, 2), (60, 100, 3), (500, 10, 10)])
def test_a_cell_asks_for_20_reals(reals: int, asked: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []

    def watched(features: Tensor, count: int) -> object:
        counts.append(count)
        return features[:count].numpy()

    monkeypatch.setattr(module, "kmeans_centres", watched)
    ndb(cloud(50, 1), cloud(reals, 2), asked)
    assert counts == [count]
    ndb(cloud(50, 1), cloud(5000, 2))
    assert counts[1:] == [100]


def test_a_cell_where_nobody_is_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    centres = np.array([[-1.0, 0.0], [1.0, 0.0], [1e6, 0.0]])
    monkeypatch.setattr(module, "kmeans_centres", lambda features, count: centres)
    fake, real = corners([50, 0, 0, 0], 1), corners([50, 0, 0, 0], 2)
    fake[:, 0], real[:, 0] = torch.linspace(-1, 1, 50).sign(), torch.linspace(-3, 1, 50).sign()
    found = ndb(fake, real)
    assert found.share_different == pytest.approx(2 / 3, abs=1e-12)
    assert 0 < found.js_divergence < 0.1


def test_there_are_no_more_cells_than_different_pictures() -> None:
    real = cloud(3, 1).repeat(100, 1)
    assert ndb(real, real, 10) == (0, 0)


def test_cells_are_the_same_each_time_and_means_of_their_own() -> None:
    real = cloud(300, 1)
    centres = kmeans_centres(real, 5)
    np.testing.assert_array_equal(centres, kmeans_centres(real, 5))
    homes = assign_cells(real, torch.from_numpy(centres))
    assert homes.tolist() == ((real[:, None].numpy() - centres) ** 2).sum(2).argmin(1).tolist()
    for cell in range(5):
        np.testing.assert_allclose(real[homes == cell].mean(0).numpy(), centres[cell], atol=0.05)


def test_what_is_no_pile_is_refused() -> None:
    with pytest.raises(ValueError, match="fake features must be a matrix of at least 2 rows"):
        ndb(torch.zeros(1, 3), torch.zeros(5, 3))
