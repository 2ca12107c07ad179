"""Least squares against numpy in float64, and the Pearson divergence that the optimal D turns it into."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency

from objectives.scores import GRID, Numbers, pairs, wanting, ways
from poise.core.types import Side, Targets
from poise.objectives.least_squares import LeastSquares, half_squared_error

CODINGS = [(0.0, 1.0, 1.0), (-1.0, 1.0, 0.0), (0.0, 2.0, 1.0), (0.3, -0.7, 5.0)]


def half_square(score: Numbers, goal: Numbers | float) -> Numbers:
    return 0.5 * (score - goal) * (score - goal)


@pytest.mark.parametrize("goal", [0.0, 1.0, -1.0, 0.37])
def test_squared_is_its_formula(goal: float) -> None:
    score = torch.from_numpy(GRID)
    for aim in (goal, torch.full_like(score, goal)):
        np.testing.assert_allclose(half_squared_error(score, aim).numpy(), half_square(GRID, goal), rtol=1e-14)
    assert torch.autograd.gradcheck(lambda s: half_squared_error(s, goal), (wanting()[0],))
    assert torch.autograd.gradgradcheck(lambda s: half_squared_error(s, goal), (wanting()[0],))


@pytest.mark.parametrize(("a", "b", "c"), CODINGS)
def test_both_players_pay_half_squared_distances_to_a_b_and_c(a: float, b: float, c: float) -> None:
    real, fake = pairs()
    for d_costs, g_costs in ways(LeastSquares(a=a, b=b, c=c)):
        for_real, for_fake = d_costs(real, fake, None)
        np.testing.assert_allclose(for_real.numpy(), half_square(real.numpy(), b), rtol=1e-14)
        np.testing.assert_allclose(for_fake.numpy(), half_square(fake.numpy(), a), rtol=1e-14)
        (for_g,) = g_costs(fake, None)
        np.testing.assert_allclose(for_g.numpy(), half_square(fake.numpy(), c), rtol=1e-14)


@pytest.mark.parametrize(("a", "b", "c"), CODINGS)
def test_a_target_t_lies_t_of_the_way_from_a_to_b(a: float, b: float, c: float) -> None:
    real, fake = pairs()
    generator = torch.Generator().manual_seed(0)
    high, low = torch.rand(2, len(real), dtype=torch.float64, generator=generator) * 1.2
    for d_costs, _ in ways(LeastSquares(a=a, b=b, c=c)):
        for_real, for_fake = d_costs(real, fake, Targets(high, low))
        np.testing.assert_allclose(for_real.numpy(), half_square(real.numpy(), a + high.numpy() * (b - a)), rtol=1e-12)
        np.testing.assert_allclose(for_fake.numpy(), half_square(fake.numpy(), a + low.numpy() * (b - a)), rtol=1e-12)
        hard = d_costs(real, fake, Targets(torch.ones_like(real), torch.zeros_like(fake)))
        for ours, plain in zip(hard, d_costs(real, fake, None), strict=True):
            assert torch.allclose(ours, plain, rtol=1e-12)


@pytest.mark.parametrize("sign", [-1, 1])
def test_float32_is_right_far_out(sign: int) -> None:
    score = torch.full((3,), sign * 1e4, requires_grad=True)
    entry = LeastSquares()
    costs = [*entry.d_losses(score, score, None), *entry.g_losses(score, None)]
    for cost, goal in zip(costs, (1.0, 0.0, 1.0), strict=True):
        (grad,) = torch.autograd.grad(cost.sum(), score)
        assert cost.tolist() == pytest.approx([(sign * 1e4 - goal) ** 2 / 2] * 3, rel=1e-6)
        assert grad.tolist() == pytest.approx([sign * 1e4 - goal] * 3, rel=1e-6)


@pytest.mark.parametrize(("a", "b", "c"), CODINGS)
def test_gradients(a: float, b: float, c: float) -> None:
    real, fake = wanting()
    aims = [torch.full_like(real, t, requires_grad=True) for t in (0.9, 0.2)]
    for d_costs, g_costs in ways(LeastSquares(a=a, b=b, c=c)):
        assert torch.autograd.gradcheck(lambda r, f, d_costs=d_costs: d_costs(r, f, None), (real, fake))
        assert torch.autograd.gradcheck(
            lambda r, f, x, y, d_costs=d_costs: d_costs(r, f, Targets(x, y)), (real, fake, *aims)
        )
        assert torch.autograd.gradcheck(lambda f, g_costs=g_costs: g_costs(f, None), (fake,))


@pytest.mark.parametrize(("a", "b", "c"), CODINGS)
def test_equilibrium_is_what_the_middle_costs(a: float, b: float, c: float) -> None:
    entry = LeastSquares(a=a, b=b, c=c)
    undecided = torch.full((1,), entry.decision_threshold, dtype=torch.float64)
    real, fake = entry.d_losses(undecided, undecided, None)
    assert float(real) == pytest.approx(float(fake), rel=1e-12)
    assert entry.equilibrium[Side.D] == pytest.approx(float(real + fake) / 2, rel=1e-12)
    assert entry.equilibrium[Side.G] == pytest.approx(float(entry.g_losses(undecided, None)[0]), rel=1e-12)


def two_distributions(seed: int) -> tuple[Numbers, Numbers]:
    random = np.random.default_rng(seed)
    p, q = random.dirichlet(np.ones(9)), random.dirichlet(np.ones(9))
    return p, q


@pytest.mark.parametrize(("a", "b", "c"), CODINGS)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_optimal_d_is_b_p_plus_a_q_over_p_plus_q(a: float, b: float, c: float, seed: int) -> None:
    """Equation 5 of the paper: D's cost has no slope there, and is higher wherever else one looks."""
    p, q = map(torch.from_numpy, two_distributions(seed))
    entry = LeastSquares(a=a, b=b, c=c)
    best = ((b * p + a * q) / (p + q)).requires_grad_()

    def paid(score: torch.Tensor) -> torch.Tensor:
        real, fake = entry.d_losses(score, score, None)
        return (p * real + q * fake).sum()

    (slope,) = torch.autograd.grad(paid(best), best)
    assert torch.allclose(slope, torch.zeros_like(slope), atol=1e-14)
    for place in range(len(p)):
        for step in (-0.1, 0.1):
            aside = best.detach().clone()
            aside[place] += step
            assert paid(aside) > paid(best)


@pytest.mark.parametrize(("a", "b", "c"), [(-1.0, 1.0, 0.0), (0.0, 2.0, 1.0), (2.5, 4.5, 3.5)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_g_meets_the_pearson_divergence_where_b_less_c_is_1_and_b_less_a_is_2(
    a: float, b: float, c: float, seed: int
) -> None:
    """Section 3.2: against the optimal D, twice G's cost over both distributions is chi^2(p + q || 2 q)."""
    p, q = two_distributions(seed)
    assert (b - c, b - a) == (1, 2)
    optimal = torch.from_numpy((b * p + a * q) / (p + q))
    (cost,) = LeastSquares(a=a, b=b, c=c).g_losses(optimal, None)
    paid = float((cost * torch.from_numpy(p + q)).sum())
    pearson = ((2 * q - (p + q)) ** 2 / (p + q)).sum()
    assert 2 * paid == pytest.approx(pearson, rel=1e-12)
    table = chi2_contingency(np.stack((p, q)), correction=False)  # of a 2 x 9 table it is sum (p - q)^2 / (p + q)
    assert 2 * paid == pytest.approx(table.statistic, rel=1e-12)


def test_the_default_coding_does_not_meet_the_pearson_divergence() -> None:
    p, q = two_distributions(0)
    (cost,) = LeastSquares().g_losses(torch.from_numpy(p / (p + q)), None)
    assert 2 * float((cost * torch.from_numpy(p + q)).sum()) != pytest.approx(((p - q) ** 2 / (p + q)).sum(), rel=0.05)
