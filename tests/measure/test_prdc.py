"""Precision, recall, density and coverage, compared with plain numpy, and for distributions with known results."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from poise.measure.base import BLOCK_SIZE
from poise.measure.prdc import PRDC, K, knn_radii, pairwise_distances, prdc

Matrix = npt.NDArray[np.float64]


def cloud(n: int, d: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def distance_matrix(a: Matrix, b: Matrix) -> Matrix:
    squares = np.zeros((len(a), len(b)))
    for column in range(a.shape[1]):
        squares += (a[:, column, None] - b[None, :, column]) ** 2
    return np.sqrt(squares)


def reference_radii(rows: Matrix, k: int) -> Matrix:
    """The distance to the k-th nearest other row."""
    between = distance_matrix(rows, rows)
    np.fill_diagonal(between, np.inf)
    return np.sort(between, axis=1)[:, k - 1]


def reference_prdc(fake: Tensor, real: Tensor, k: int) -> PRDC:
    """All four measures by their definitions, from full distance matrices."""
    between = distance_matrix(fake.numpy(), real.numpy())
    fake_radii, real_radii = reference_radii(fake.numpy(), k), reference_radii(real.numpy(), k)
    in_real, in_fake = between <= real_radii, between <= fake_radii[:, None]
    return PRDC(
        precision=float(in_real.any(1).mean()),
        recall=float(in_fake.any(0).mean()),
        density=float(in_real.sum() / (k * len(fake))),
        coverage=float(in_real.any(0).mean()),
    )


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("n", "m", "d"), [(6, 6, 1), (40, 90, 2), (200, 130, 5), (150, 150, 12)])
def test_prdc_matches_plain_numpy(n: int, m: int, d: int, k: int) -> None:
    fake, real = cloud(n, d, 1, scale=1.2) + 0.5, cloud(m, d, 2)
    assert prdc(fake, real, k) == pytest.approx(reference_prdc(fake, real, k), rel=1e-14)
    assert prdc(real, fake, k) == pytest.approx(reference_prdc(real, fake, k), rel=1e-14)


@pytest.mark.parametrize(("n", "m"), [(BLOCK_SIZE + 1, 300), (300, BLOCK_SIZE + 1), (2 * BLOCK_SIZE + 5, BLOCK_SIZE)])
def test_prdc_does_not_depend_on_blocks(n: int, m: int) -> None:
    fake, real = cloud(n, 3, 1, scale=1.5) + 0.5, cloud(m, 3, 2)
    assert prdc(fake, real) == pytest.approx(reference_prdc(fake, real, 5), rel=1e-14)


def test_default_k() -> None:
    fake, real = cloud(100, 2, 1) + 1, cloud(100, 2, 2)
    assert K == 5
    assert prdc(fake, real) == prdc(fake, real, 5) != prdc(fake, real, 3)


@pytest.mark.parametrize(("n", "m", "d"), [(100, 100, 3), (250, 180, 8)])
def test_precision_and_recall_match_torch_fidelity(n: int, m: int, d: int) -> None:
    fake, real = cloud(n, d, 3) + 0.6, cloud(m, d, 4)
    expected = prc_features_to_metric(fake, real, prc_neighborhood=5, verbose=False)
    result = prdc(fake, real)
    assert result.precision == pytest.approx(expected[KEY_METRIC_PRECISION], abs=1e-6)
    assert result.recall == pytest.approx(expected[KEY_METRIC_RECALL], abs=1e-6)
    assert 0 < result.recall < 1
    assert 0 < result.precision < 1


def test_narrow_and_wide_distributions() -> None:
    narrow, wide = cloud(300, 4, 5, scale=0.2), cloud(300, 4, 6)
    forward, backward = prdc(narrow, wide), prdc(wide, narrow)
    assert forward.precision > 0.8
    assert forward.recall < 0.3
    assert backward.precision < 0.3
    assert backward.recall > 0.8
    assert forward.density > 5 * backward.density


def test_missing_cluster_lowers_recall_and_coverage() -> None:
    real = torch.cat([cloud(200, 3, 1), cloud(100, 3, 2) + 50])
    found = prdc(cloud(300, 3, 3), real)
    assert found.precision > 0.9
    assert found.density == pytest.approx(1, abs=0.15)
    assert 0.55 < found.recall < 0.67
    assert 0.55 < found.coverage < 0.67


def test_distant_fakes_score_0() -> None:
    assert prdc(cloud(50, 3, 1) + 100, cloud(60, 3, 2)) == (0, 0, 0, 0)


def test_one_outlier_inflates_recall_but_not_coverage() -> None:
    """The ball of an outlier is large. Coverage was proposed for this reason."""
    real = torch.cat([cloud(100, 2, 1), cloud(100, 2, 2) + 20])
    fake = torch.cat([cloud(100, 2, 3), torch.full((1, 2), 40.0, dtype=torch.float64)])
    assert prdc(fake[:-1], real).recall < 0.55
    found = prdc(fake, real)
    assert found.recall > 0.95
    assert found.coverage < 0.55


def test_density_of_equal_distributions_is_1() -> None:
    densities = [prdc(cloud(200, 3, 2 * seed), cloud(200, 3, 2 * seed + 1)).density for seed in range(40)]
    assert np.mean(densities) == pytest.approx(1, abs=3 * np.std(densities) / 40**0.5)


def test_collapse_to_one_real_sample() -> None:
    real = cloud(200, 4, 1)
    found = prdc(real[:1].repeat(150, 1), real)
    assert found.precision == 1
    assert found.recall == 1 / 200
    assert 0 < found.coverage < 0.1
    assert np.isfinite(found.density)


def test_copies_are_at_distance_0() -> None:
    real = cloud(100, 64, 1) + 1e3
    assert not pairwise_distances(real, real.clone()).diagonal().any()
    assert prdc(real.clone(), real)[:2] == (1, 1)
    twins = real[:20].repeat(6, 1)
    assert not knn_radii(twins).any()
    assert prdc(twins, twins) == (1, 1, 6 / 5, 1)


def test_balls_are_closed() -> None:
    fake, real = torch.tensor([[-1.0], [4.0]]), torch.tensor([[0.0], [1.0]])
    assert prdc(fake, real, k=1) == (0.5, 1.0, 0.5, 0.5)


def test_fewer_than_k_other_samples() -> None:
    few = torch.tensor([[0.0], [1.0], [3.0]])
    assert knn_radii(few).tolist() == [3, 2, 3]
    assert prdc(few, few) == prdc(few, few, 2) == (1, 1, 1.5, 1)
    assert prdc(torch.tensor([[1.0], [2.0], [2.5], [-9.0]]), few) == (0.75, 1, 9 / 4 / 2, 1)


def test_invalid_features_are_rejected() -> None:
    with pytest.raises(ValueError, match="fake features must be a matrix of at least 2 rows"):
        prdc(torch.zeros(1, 3), torch.zeros(5, 3))
