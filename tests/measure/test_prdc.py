"""Precision, recall, density and coverage, to the last bit, against plain numpy; and clouds planted by hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from poise.measure.base import BLOCK_SIZE
from poise.measure.prdc import PRDC, K, knn_radii, pairwise_distances, prdc

Numbers = npt.NDArray[np.float64]


def cloud(n: int, d: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def apart(a: Numbers, b: Numbers) -> Numbers:
    squares = np.zeros((len(a), len(b)))
    for column in range(a.shape[1]):
        squares += (a[:, column, None] - b[None, :, column]) ** 2
    return np.sqrt(squares)


def reach(pile: Numbers, k: int) -> Numbers:
    """To the k-th nearest of the others."""
    between = apart(pile, pile)
    np.fill_diagonal(between, np.inf)
    return np.sort(between, axis=1)[:, k - 1]


def plain(fake: Tensor, real: Tensor, k: int) -> PRDC:
    """By the definitions, with whole matrices."""
    between = apart(fake.numpy(), real.numpy())
    of_fake, of_real = reach(fake.numpy(), k), reach(real.numpy(), k)
    in_real, in_fake = between <= of_real, between <= of_fake[:, None]
    return PRDC(
        precision=float(in_real.any(1).mean()),
        recall=float(in_fake.any(0).mean()),
        density=float(in_real.sum() / (k * len(fake))),
        coverage=float(in_real.any(0).mean()),
    )


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("n", "m", "d"), [(6, 6, 1), (40, 90, 2), (200, 130, 5), (150, 150, 12)])
def test_they_are_those_of_plain_numpy(n: int, m: int, d: int, k: int) -> None:
    fake, real = cloud(n, d, 1, scale=1.2) + 0.5, cloud(m, d, 2)
    assert prdc(fake, real, k) == pytest.approx(plain(fake, real, k), rel=1e-14)
    assert prdc(real, fake, k) == pytest.approx(plain(real, fake, k), rel=1e-14)


@pytest.mark.parametrize(("n", "m"), [(BLOCK_SIZE + 1, 300), (300, BLOCK_SIZE + 1), (2 * BLOCK_SIZE + 5, BLOCK_SIZE)])
def test_blocks_do_not_show(n: int, m: int) -> None:
    fake, real = cloud(n, 3, 1, scale=1.5) + 0.5, cloud(m, 3, 2)
    assert prdc(fake, real) == pytest.approx(plain(fake, real, 5), rel=1e-14)


def test_five_neighbours_are_asked() -> None:
    fake, real = cloud(100, 2, 1) + 1, cloud(100, 2, 2)
    assert K == 5
    assert prdc(fake, real) == prdc(fake, real, 5) != prdc(fake, real, 3)


@pytest.mark.parametrize(("n", "m", "d"), [(100, 100, 3), (250, 180, 8)])
def test_precision_and_recall_are_torch_fidelitys(n: int, m: int, d: int) -> None:
    fake, real = cloud(n, d, 3) + 0.6, cloud(m, d, 4)
    theirs = prc_features_to_metric(fake, real, prc_neighborhood=5, verbose=False)
    ours = prdc(fake, real)
    assert ours.precision == pytest.approx(theirs[KEY_METRIC_PRECISION], abs=1e-6)
    assert ours.recall == pytest.approx(theirs[KEY_METRIC_RECALL], abs=1e-6)
    assert 0 < ours.recall < 1
    assert 0 < ours.precision < 1


def test_a_tight_cloud_within_a_wide_one_is_precise_and_recalls_little() -> None:
    tight, wide = cloud(300, 4, 5, scale=0.2), cloud(300, 4, 6)
    there, back = prdc(tight, wide), prdc(wide, tight)
    assert there.precision > 0.8
    assert there.recall < 0.3
    assert back.precision < 0.3
    assert back.recall > 0.8
    assert there.density > 5 * back.density


def test_a_missing_cluster_costs_recall_and_coverage() -> None:
    real = torch.cat([cloud(200, 3, 1), cloud(100, 3, 2) + 50])
    found = prdc(cloud(300, 3, 3), real)
    assert found.precision > 0.9
    assert found.density == pytest.approx(1, abs=0.15)
    assert 0.55 < found.recall < 0.67
    assert 0.55 < found.coverage < 0.67


def test_far_away_fakes_get_nothing() -> None:
    assert prdc(cloud(50, 3, 1) + 100, cloud(60, 3, 2)) == (0, 0, 0, 0)


def test_one_outlier_swells_recall_but_not_coverage() -> None:
    """Why coverage was proposed: a fake's ball is as wide as the fakes are few."""
    real = torch.cat([cloud(100, 2, 1), cloud(100, 2, 2) + 20])
    fake = torch.cat([cloud(100, 2, 3), torch.full((1, 2), 40.0, dtype=torch.float64)])
    assert prdc(fake[:-1], real).recall < 0.55
    found = prdc(fake, real)
    assert found.recall > 0.95
    assert found.coverage < 0.55


def test_equal_laws_have_density_1() -> None:
    densities = [prdc(cloud(200, 3, 2 * seed), cloud(200, 3, 2 * seed + 1)).density for seed in range(40)]
    assert np.mean(densities) == pytest.approx(1, abs=3 * np.std(densities) / 40**0.5)


def test_collapse_to_one_real_sample_is_all_precise_and_covers_next_to_nothing() -> None:
    real = cloud(200, 4, 1)
    found = prdc(real[:1].repeat(150, 1), real)
    assert found.precision == 1
    assert found.recall == 1 / 200
    assert 0 < found.coverage < 0.1
    assert np.isfinite(found.density)


def test_copies_are_at_distance_0_and_inside() -> None:
    real = cloud(100, 64, 1) + 1e3
    assert not pairwise_distances(real, real.clone()).diagonal().any()
    assert prdc(real.clone(), real)[:2] == (1, 1)
    twins = real[:20].repeat(6, 1)
    assert not knn_radii(twins).any()
    assert prdc(twins, twins) == (1, 1, 6 / 5, 1)


def test_what_lies_on_an_edge_is_inside() -> None:
    fake, real = torch.tensor([[-1.0], [4.0]]), torch.tensor([[0.0], [1.0]])
    assert prdc(fake, real, k=1) == (0.5, 1.0, 0.5, 0.5)


def test_where_there_are_fewer_than_k_others_the_farthest_counts() -> None:
    few = torch.tensor([[0.0], [1.0], [3.0]])
    assert knn_radii(few).tolist() == [3, 2, 3]
    assert prdc(few, few) == prdc(few, few, 2) == (1, 1, 1.5, 1)
    assert prdc(torch.tensor([[1.0], [2.0], [2.5], [-9.0]]), few) == (0.75, 1, 9 / 4 / 2, 1)


def test_what_is_no_pile_is_refused() -> None:
    with pytest.raises(ValueError, match="fake features must be a matrix of at least 2 rows"):
        prdc(torch.zeros(1, 3), torch.zeros(5, 3))
