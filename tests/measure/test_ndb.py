"""NDB for known cluster shares, equal distributions and a missing cluster."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from poise.measure import ndb as ndb_module
from poise.measure.ndb import assign_cells, kmeans_centres, ndb


def cloud(n: int, seed: int, d: int = 4) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_equal_distributions_differ_in_about_one_cell_of_twenty() -> None:
    found = [ndb(cloud(1000, 2 * seed), cloud(1000, 2 * seed + 1), 20) for seed in range(20)]
    assert 0.01 < np.mean([one.share_different for one in found]) < 0.09
    assert max(one.js_divergence for one in found) < 0.02


def corners(shares: list[int], seed: int) -> Tensor:
    """The given numbers of samples around the corners of a large square."""
    positions = 100 * torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    return torch.cat([cloud(n, seed + k, 2) / 10 + positions[k] for k, n in enumerate(shares)])


@pytest.mark.parametrize(
    ("fakes", "different"),
    [
        ([25, 25, 25, 25], 0.0),
        ([25, 25, 50, 0], 0.5),
        ([0, 0, 100, 0], 1.0),
        # against 100 of 400: z = 1.801 for 34 of 100, 2.186 for 36, -1.905 for 16, -2.124 for 15
        ([34, 25, 25, 16], 0.0),
        ([36, 24, 24, 16], 0.25),
        ([15, 27, 28, 30], 0.25),
    ],
)
def test_shares_of_known_clusters(fakes: list[int], different: float) -> None:
    found = ndb(corners(fakes, 10), corners([100] * 4, 20), 4)
    p = np.array(fakes) / sum(fakes)
    mixture = (p + 0.25) / 2
    entropy = [-(q[q > 0] * np.log(q[q > 0])).sum() for q in (mixture, p, np.full(4, 0.25))]
    assert found.share_different == different
    assert found.js_divergence == pytest.approx(entropy[0] - (entropy[1] + entropy[2]) / 2, abs=1e-12)


def test_missing_cluster_is_detected() -> None:
    real = torch.cat([cloud(800, 1), cloud(200, 2) + 8])
    complete = torch.cat([cloud(800, 3), cloud(200, 4) + 8])
    assert ndb(cloud(1000, 3), real, 20).share_different > ndb(complete, real, 20).share_different + 0.1
    assert ndb(cloud(1000, 3), real, 20).js_divergence > ndb(complete, real, 20).js_divergence + 0.05


def test_all_fakes_in_the_rarest_cell() -> None:
    real = corners([3000, 3000, 3000, 20], 0)
    found = ndb(corners([0, 0, 0, 500], 9), real, 4)
    assert found.share_different == 1
    assert 0.95 * math.log(2) < found.js_divergence < math.log(2)


def test_range_of_the_divergence() -> None:
    for seed in range(10):
        found = ndb(cloud(60, seed) * seed + seed, cloud(80, 100 + seed))
        assert 0 <= found.js_divergence < math.log(2)
        assert 0 <= found.share_different <= 1
    real = cloud(300, 1)
    assert ndb(real, real) == (0, 0)


def test_constant_features() -> None:
    same, real = torch.full((50, 4), 0.1), cloud(100, 1)
    assert ndb(same, same) == (0, 0)
    assert ndb(real, same) == (0, 0)
    found = ndb(same, real)
    assert found.share_different > 0.5
    assert 0 < found.js_divergence < math.log(2)


@pytest.mark.parametrize(("num_reals", "max_cells", "count"), [(2, 100, 2), (59, 100, 2), (60, 100, 3), (500, 10, 10)])
def test_number_of_cells_depends_on_the_number_of_reals(
    num_reals: int, max_cells: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []

    def recording_kmeans(features: Tensor, count: int) -> object:
        counts.append(count)
        return features[:count].numpy()

    monkeypatch.setattr(ndb_module, "kmeans_centres", recording_kmeans)
    ndb(cloud(50, 1), cloud(num_reals, 2), max_cells)
    assert counts == [count]
    ndb(cloud(50, 1), cloud(5000, 2))
    assert counts[1:] == [100]


def test_empty_cells_do_not_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    centres = np.array([[-1.0, 0.0], [1.0, 0.0], [1e6, 0.0]])
    monkeypatch.setattr(ndb_module, "kmeans_centres", lambda features, count: centres)
    fake, real = corners([50, 0, 0, 0], 1), corners([50, 0, 0, 0], 2)
    fake[:, 0], real[:, 0] = torch.linspace(-1, 1, 50).sign(), torch.linspace(-3, 1, 50).sign()
    found = ndb(fake, real)
    assert found.share_different == pytest.approx(2 / 3, abs=1e-12)
    assert 0 < found.js_divergence < 0.1


def test_no_more_cells_than_distinct_rows() -> None:
    real = cloud(3, 1).repeat(100, 1)
    assert ndb(real, real, 10) == (0, 0)


def test_kmeans_is_deterministic_and_centres_are_means() -> None:
    real = cloud(300, 1)
    centres = kmeans_centres(real, 5)
    np.testing.assert_array_equal(centres, kmeans_centres(real, 5))
    cells = assign_cells(real, torch.from_numpy(centres))
    assert cells.tolist() == ((real[:, None].numpy() - centres) ** 2).sum(2).argmin(1).tolist()
    for cell in range(5):
        np.testing.assert_allclose(real[cells == cell].mean(0).numpy(), centres[cell], atol=0.05)


def test_invalid_features_are_rejected() -> None:
    with pytest.raises(ValueError, match="fake features must be a matrix of at least 2 rows"):
        ndb(torch.zeros(1, 3), torch.zeros(5, 3))
