"""Relativistic costs against a plain loop over the papers' formulas in Python floats."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from objectives.scores import near, pairs, softplus, wanting, ways
from poise.core.types import Side
from poise.objectives.relativistic import (
    Relativistic,
    RelativisticAverage,
    RelativisticBase,
    relativistic_average_loss,
    relativistic_loss,
)

BOTH = [Relativistic(), RelativisticAverage()]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def loop_paired(real: list[float], fake: list[float]) -> float:
    """Equation 8 of the paper: -E log sigmoid(C(x_r) - C(x_f))."""
    return -sum(math.log(sigmoid(r - f)) for r, f in zip(real, fake, strict=True)) / len(real)


def loop_average(real: list[float], fake: list[float], side: Side) -> float:
    """Section 4.2: L_D = -E_xr log D~(x_r) - E_xf log(1 - D~(x_f)), L_G = -E_xf log D~(x_f) - E_xr log(1 - D~(x_r)).

    With D~(x_r) = sigmoid(C(x_r) - E C(x_f)) and D~(x_f) = sigmoid(C(x_f) - E C(x_r)).
    """
    mean_real, mean_fake = sum(real) / len(real), sum(fake) / len(fake)
    told_real = [sigmoid(r - mean_fake) for r in real]
    told_fake = [sigmoid(f - mean_real) for f in fake]
    yes, no = (told_real, told_fake) if side is Side.D else (told_fake, told_real)
    return -sum(map(math.log, yes)) / len(yes) - sum(math.log(1 - told) for told in no) / len(no)


def total(costs: tuple[Tensor, ...]) -> float:
    return float(sum(cost.detach().mean() for cost in costs))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [1, 2, 16])
def test_both_players_pay_what_the_loop_says(n: int, seed: int) -> None:
    real, fake = near(n, seed)
    r, f = real.tolist(), fake.tolist()
    for d_costs, g_costs in ways(Relativistic()):
        assert total(d_costs(real, fake, None)) == pytest.approx(loop_paired(r, f), rel=1e-9)
        assert total(g_costs(fake, real)) == pytest.approx(loop_paired(f, r), rel=1e-9)
    for d_costs, g_costs in ways(RelativisticAverage()):
        assert total(d_costs(real, fake, None)) == pytest.approx(loop_average(r, f, Side.D), rel=1e-9)
        assert total(g_costs(fake, real)) == pytest.approx(loop_average(r, f, Side.G), rel=1e-9)


def test_paired_is_its_formula_on_the_grid() -> None:
    real, fake = pairs()
    gap = (fake - real).numpy()
    smooth = (gap <= 20) | (gap >= 37)
    ours = relativistic_loss(real, fake).numpy()
    np.testing.assert_allclose(ours[smooth], softplus(gap)[smooth], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours, softplus(gap), rtol=0, atol=3e-9)


@pytest.mark.parametrize("far", [-1e4, 90.0, 1e4])
def test_averaged_is_its_formula_far_out(far: float) -> None:
    real, fake = (origin.numpy() for origin in near(9))
    one, two = relativistic_average_loss(torch.from_numpy(real + far), torch.from_numpy(fake))
    np.testing.assert_allclose(one.numpy(), softplus(fake.mean() - real - far), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(two.numpy(), softplus(fake - (real + far).mean()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("objective", BOTH, ids=lambda o: o.kind)
@pytest.mark.parametrize("sign", [-1, 1])
def test_float32_neither_overflows_nor_loses_its_gradient(objective: RelativisticBase, sign: int) -> None:
    """Where D is wrong by 2e4 it pays 2e4 for each expectation, and its mean gradient is -1; where it is right, 0."""
    real = torch.full((3,), sign * 1e4, requires_grad=True)
    fake = torch.full((3,), -sign * 1e4, requires_grad=True)
    for d_costs, g_costs in ways(objective):
        for costs, wrong in ((d_costs(real, fake, None), sign < 0), (g_costs(fake, real), sign > 0)):
            assert total(costs) == pytest.approx(2e4 * len(costs) if wrong else 0, rel=1e-6, abs=1e-6)
            grads = torch.autograd.grad(torch.stack([cost.mean() for cost in costs]).sum(), (real, fake))
            pull = (len(costs) if wrong else 0) * sign
            assert float(grads[0].sum()) == pytest.approx(pull, abs=1e-6)
            assert float(grads[1].sum()) == pytest.approx(-pull, abs=1e-6)


@pytest.mark.parametrize("objective", BOTH, ids=lambda o: o.kind)
def test_gradients(objective: RelativisticBase) -> None:
    real, fake = wanting()
    for cost in (relativistic_loss, relativistic_average_loss):
        assert torch.autograd.gradcheck(cost, (real, fake))
        assert torch.autograd.gradgradcheck(cost, (real, fake))
    for d_costs, g_costs in ways(objective):
        assert torch.autograd.gradcheck(lambda r, f, d_costs=d_costs: d_costs(r, f, None), (real, fake))
        assert torch.autograd.gradcheck(lambda r, f, g_costs=g_costs: g_costs(f, r), (real, fake))


@pytest.mark.parametrize("objective", BOTH, ids=lambda o: o.kind)
def test_gs_cost_is_ds_with_the_piles_exchanged(objective: RelativisticBase) -> None:
    real, fake = near()
    for d_costs, g_costs in ways(objective):
        ours, swapped = g_costs(fake, real), d_costs(fake, real, None)
        assert all(torch.equal(g, d) for g, d in zip(ours, swapped, strict=True))
        assert total(ours) != pytest.approx(total(d_costs(real, fake, None)), rel=1e-3)


@pytest.mark.parametrize("objective", BOTH, ids=lambda o: o.kind)
def test_only_differences_of_scores_matter(objective: RelativisticBase) -> None:
    real, fake = near()
    for d_costs, g_costs in ways(objective):
        assert total(d_costs(real + 50, fake + 50, None)) == pytest.approx(total(d_costs(real, fake, None)), rel=1e-9)
        assert total(g_costs(fake + 50, real + 50)) == pytest.approx(total(g_costs(fake, real)), rel=1e-9)


@pytest.mark.parametrize("objective", BOTH, ids=lambda o: o.kind)
def test_log_two_where_nobody_can_tell(objective: RelativisticBase) -> None:
    same = torch.full((4,), 3.0, dtype=torch.float64)
    for d_costs, g_costs in ways(objective):
        for costs in (d_costs(same, same, None), g_costs(same, same)):
            assert total(costs) / len(costs) == pytest.approx(math.log(2), rel=1e-14)
    assert objective.equilibrium == {Side.D: math.log(2), Side.G: math.log(2)}


def test_pairing_and_averaging_part_where_reals_differ() -> None:
    """With scores 0 and 6 on both sides, real i beside fake i: pair by pair nobody can tell, on average one can."""
    scores = torch.tensor([0.0, 6.0], dtype=torch.float64)
    assert total(Relativistic().d_losses(scores, scores, None)) == pytest.approx(math.log(2), rel=1e-12)
    average = total(RelativisticAverage().d_losses(scores, scores, None)) / 2
    assert average == pytest.approx((math.log1p(math.exp(3)) + math.log1p(math.exp(-3))) / 2, rel=1e-12)
