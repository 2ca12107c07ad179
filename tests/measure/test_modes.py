"""Modes: points set by hand, and what a perfect sampler of the ring and the grid must score."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from poise.data.toys import grid_modes, mixture, ring_modes
from poise.measure.modes import count_mode_indices, count_modes, mode_stds, reverse_kl, truncated_std

CENTRES = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])


def test_count_modes_of_given_points() -> None:
    points = torch.tensor([[0.0, 0.0], [0.0, 2.9], [-1.0, -1.0], [10.0, 3.1], [7.1, 0.0], [50.0, 50.0]])
    found = count_modes(points, CENTRES, 1.0)
    assert found.found == 2
    assert found.high_quality == 4 / 6
    expected = 0.75 * math.log(0.75 * 3) + 0.25 * math.log(0.25 * 3)
    assert found.reverse_kl == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [1, 100], ids=["alone", "among many"])
def test_boundary_is_included(n: int) -> None:
    for angle in ([3.0, 0.0], [0.0, -3.0], [10.0, -3.0]):
        assert count_modes(torch.tensor([angle]).repeat(n, 1), CENTRES, 1.0).high_quality == 1
    assert count_modes(torch.tensor([[3.001, 0.0]]).repeat(n, 1), CENTRES, 1.0).high_quality == 0


def test_sigma_and_num_sigmas_set_the_boundary() -> None:
    point = torch.tensor([[4.0, 0.0]])
    assert [count_modes(point, CENTRES, sigma).high_quality for sigma in (1.3, 1.4)] == [0, 1]
    assert [count_modes(point, CENTRES, 2.0, num_sigmas).high_quality for num_sigmas in (1.9, 2.0)] == [0, 1]


def test_a_point_belongs_to_the_nearest_mode_only() -> None:
    """Each sample is counted once where the balls overlap."""
    centres = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    points = torch.tensor([[1.9, 0.0], [1.5, 0.0], [1.0, 0.5], [2.1, 0.0]])
    found = count_modes(points, centres, 1.0)
    assert found.reverse_kl == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-12)
    assert count_modes(points[:3], centres, 1.0).found == 1


def test_only_high_quality_samples_are_counted() -> None:
    even = CENTRES.repeat(5, 1)
    off = torch.tensor([[0.0, 4.0]]).repeat(85, 1)
    found = count_modes(torch.cat([even, off]), CENTRES, 1.0)
    assert found == (3, 0.15, 0, 1.0)


def test_no_high_quality_samples() -> None:
    assert count_modes(torch.full((9, 2), 99.0), CENTRES, 1.0) == (0, 0.0, math.inf, 1.0)
    assert count_modes(torch.full((9, 2), torch.nan), CENTRES, 1.0) == (0, 0.0, math.inf, 1.0)


@pytest.mark.parametrize(("centres", "sigma"), [(ring_modes(), 0.01), (grid_modes(), 0.05)], ids=["ring", "grid"])
def test_perfect_sampler(centres: Tensor, sigma: float) -> None:
    """A share of 1 - exp(-9 / 2) is of high quality; 2N KL is about chi-squared, so the mean KL is (K - 1) / 2N."""
    generator = torch.Generator().manual_seed(0)
    draws, n = 60, 2500
    found = [count_modes(mixture(n, centres, sigma, generator), centres, sigma) for _ in range(draws)]
    share, high_quality = 1 - math.exp(-4.5), np.mean([one.high_quality for one in found])
    assert high_quality == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / (n * draws)))
    assert all(one.found == len(centres) for one in found)
    divergences = np.array([one.reverse_kl for one in found])
    expected = (len(centres) - 1) / (2 * n * share)
    assert divergences.mean() == pytest.approx(expected, abs=4 * divergences.std() / draws**0.5)
    assert divergences.mean() == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize(("centres", "sigma"), [(ring_modes(), 0.01), (grid_modes(), 0.05)], ids=["ring", "grid"])
@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.0])
def test_std_error_of_modes_that_have_shrunk(centres: Tensor, sigma: float, ratio: float) -> None:
    """The error is that of the worst mode, whose estimate from n points errs by about 1 / sqrt(4 n)."""
    per_mode = 4000
    points = mixture(per_mode * len(centres), centres, sigma * ratio, torch.Generator().manual_seed(0))
    error = count_modes(points, centres, sigma).std_error
    assert error == pytest.approx(
        1 - ratio * truncated_std(3 / ratio, 2) / truncated_std(3, 2), abs=4 / (4 * per_mode) ** 0.5
    )


def test_std_error_is_that_of_the_worst_mode() -> None:
    generator = torch.Generator().manual_seed(0)
    points = CENTRES.repeat_interleave(2000, 0) + torch.randn(6000, 2, generator=generator)
    points[-2000:] = CENTRES[2] + 0.3 * (points[-2000:] - CENTRES[2])
    assert count_modes(points, CENTRES, 1.0).std_error == pytest.approx(1 - 0.3 / truncated_std(3, 2), abs=0.02)
    assert count_modes(points[:-2000], CENTRES, 1.0).std_error == 1


def test_std_of_modes_is_about_their_own_mean() -> None:
    points = torch.tensor([[0.0, 1.0], [2.0, 1.0], [10.0, 0.0], [10.0, 4.0], [10.0, 8.0], [9.0, 9.0]])
    modes = torch.tensor([0, 0, 1, 1, 1, 3])
    assert mode_stds(points, modes, 4).tolist() == pytest.approx([1.0, 8**0.5, 0.0, 0.0])


def test_truncated_std_matches_samples() -> None:
    for dim in (1, 2, 5):
        x = torch.randn(200_000, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(dim))
        inside = x[x.norm(dim=1) <= 2]
        assert truncated_std(2.0, dim) == pytest.approx(float(inside.square().mean().sqrt()), rel=0.01)
    assert truncated_std(50.0, 2) == pytest.approx(1)


def test_modes_without_width_have_no_std_error() -> None:
    assert count_modes(CENTRES.repeat(3, 1), CENTRES, 0.0) == (3, 1.0, 0.0, 0.0)


@pytest.mark.parametrize("points", [torch.zeros(0, 2), torch.zeros(3, 3), torch.zeros(3), torch.zeros(3, 2, 1)])
def test_invalid_points_are_rejected(points: Tensor) -> None:
    with pytest.raises(ValueError, match="points must be a non-empty N x 2 matrix, found"):
        count_modes(points, CENTRES, 1.0)


# ---------------------------------------------------------------- counts


def test_reverse_kl_of_equal_counts_is_0() -> None:
    for k in range(1, 200):
        assert 0 <= reverse_kl(torch.full((k,), 13)) < 1e-12


def test_reverse_kl_of_one_mode_is_log_k() -> None:
    assert reverse_kl(torch.tensor([0, 0, 9, 0])) == pytest.approx(math.log(4), rel=1e-12)


def test_reverse_kl_without_counts_is_infinite() -> None:
    assert reverse_kl(torch.zeros(4, dtype=torch.long)) == math.inf


def test_reverse_kl_matches_scipy() -> None:
    from scipy.stats import entropy

    counts = torch.tensor([5, 0, 1, 30, 2])
    assert reverse_kl(counts) == pytest.approx(entropy(counts.numpy(), np.ones(5)), rel=1e-12)


def test_count_mode_indices() -> None:
    found = count_mode_indices(torch.tensor([3, 3, 0, 999]), 1000)
    assert found.found == 3
    assert found.high_quality == 1
    assert found.reverse_kl == pytest.approx(0.5 * math.log(500) + 0.5 * math.log(250), rel=1e-12)
    assert count_mode_indices(torch.tensor([3, 3, 3]), 1000).reverse_kl == pytest.approx(math.log(1000), rel=1e-12)
