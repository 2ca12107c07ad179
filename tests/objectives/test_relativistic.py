"""The relativistic losses compared with loops over the papers' formulas in Python floats."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from objectives.scores import implementations, random_scores, random_scores_with_grad, score_grid, softplus
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
    d_real = [sigmoid(r - mean_fake) for r in real]
    d_fake = [sigmoid(f - mean_real) for f in fake]
    yes, no = (d_real, d_fake) if side is Side.D else (d_fake, d_real)
    return -sum(map(math.log, yes)) / len(yes) - sum(math.log(1 - p) for p in no) / len(no)


def total(losses: tuple[Tensor, ...]) -> float:
    return float(sum(loss.detach().mean() for loss in losses))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [1, 2, 16])
def test_losses_match_the_loops(n: int, seed: int) -> None:
    real, fake = random_scores(n, seed)
    r, f = real.tolist(), fake.tolist()
    for d_losses, g_losses in implementations(Relativistic()):
        assert total(d_losses(real, fake, None)) == pytest.approx(loop_paired(r, f), rel=1e-9)
        assert total(g_losses(fake, real)) == pytest.approx(loop_paired(f, r), rel=1e-9)
    for d_losses, g_losses in implementations(RelativisticAverage()):
        assert total(d_losses(real, fake, None)) == pytest.approx(loop_average(r, f, Side.D), rel=1e-9)
        assert total(g_losses(fake, real)) == pytest.approx(loop_average(r, f, Side.G), rel=1e-9)


def test_the_paired_loss_matches_its_formula() -> None:
    real, fake = score_grid()
    gap = (fake - real).numpy()
    smooth = (gap <= 20) | (gap >= 37)
    actual = relativistic_loss(real, fake).numpy()
    np.testing.assert_allclose(actual[smooth], softplus(gap)[smooth], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(actual, softplus(gap), rtol=0, atol=3e-9)


@pytest.mark.parametrize("offset", [-1e4, 90.0, 1e4])
def test_the_averaged_loss_matches_its_formula_for_large_scores(offset: float) -> None:
    real, fake = (origin.numpy() for origin in random_scores(9))
    one, two = relativistic_average_loss(torch.from_numpy(real + offset), torch.from_numpy(fake))
    np.testing.assert_allclose(one.numpy(), softplus(fake.mean() - real - offset), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(two.numpy(), softplus(fake - (real + offset).mean()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("objective", BOTH, ids=lambda o: o.kind)
@pytest.mark.parametrize("sign", [-1, 1])
def test_float32_neither_overflows_nor_loses_its_gradient(objective: RelativisticBase, sign: int) -> None:
    """If D is wrong by 2e4, each expectation is 2e4 with a mean gradient of -1; if it is right, both are 0."""
    real = torch.full((3,), sign * 1e4, requires_grad=True)
    fake = torch.full((3,), -sign * 1e4, requires_grad=True)
    for d_losses, g_losses in implementations(objective):
        for losses, wrong in ((d_losses(real, fake, None), sign < 0), (g_losses(fake, real), sign > 0)):
            assert total(losses) == pytest.approx(2e4 * len(losses) if wrong else 0, rel=1e-6, abs=1e-6)
            grads = torch.autograd.grad(torch.stack([loss.mean() for loss in losses]).sum(), (real, fake))
            total_gradient = (len(losses) if wrong else 0) * sign
            assert float(grads[0].sum()) == pytest.approx(total_gradient, abs=1e-6)
            assert float(grads[1].sum()) == pytest.approx(-total_gradient, abs=1e-6)


@pytest.mark.parametrize("objective", BOTH, ids=lambda o: o.kind)
def test_gradients(objective: RelativisticBase) -> None:
    real, fake = random_scores_with_grad()
    for loss in (relativistic_loss, relativistic_average_loss):
        assert torch.autograd.gradcheck(loss, (real, fake))
        assert torch.autograd.gradgradcheck(loss, (real, fake))
    for d_losses, g_losses in implementations(objective):
        assert torch.autograd.gradcheck(lambda r, f, d_losses=d_losses: d_losses(r, f, None), (real, fake))
        assert torch.autograd.gradcheck(lambda r, f, g_losses=g_losses: g_losses(f, r), (real, fake))


@pytest.mark.parametrize("objective", BOTH, ids=lambda o: o.kind)
def test_gs_loss_is_ds_with_real_and_fake_exchanged(objective: RelativisticBase) -> None:
    real, fake = random_scores()
    for d_losses, g_losses in implementations(objective):
        actual, swapped = g_losses(fake, real), d_losses(fake, real, None)
        assert all(torch.equal(g, d) for g, d in zip(actual, swapped, strict=True))
        assert total(actual) != pytest.approx(total(d_losses(real, fake, None)), rel=1e-3)


@pytest.mark.parametrize("objective", BOTH, ids=lambda o: o.kind)
def test_only_differences_of_scores_matter(objective: RelativisticBase) -> None:
    real, fake = random_scores()
    for d_losses, g_losses in implementations(objective):
        assert total(d_losses(real + 50, fake + 50, None)) == pytest.approx(total(d_losses(real, fake, None)), rel=1e-9)
        assert total(g_losses(fake + 50, real + 50)) == pytest.approx(total(g_losses(fake, real)), rel=1e-9)


@pytest.mark.parametrize("objective", BOTH, ids=lambda o: o.kind)
def test_the_loss_is_log_two_for_equal_scores(objective: RelativisticBase) -> None:
    same = torch.full((4,), 3.0, dtype=torch.float64)
    for d_losses, g_losses in implementations(objective):
        for losses in (d_losses(same, same, None), g_losses(same, same)):
            assert total(losses) / len(losses) == pytest.approx(math.log(2), rel=1e-14)
    assert objective.equilibrium == {Side.D: math.log(2), Side.G: math.log(2)}


def test_paired_and_averaged_losses_differ_if_real_scores_differ() -> None:
    """With scores 0 and 6 of both real and fake samples, pairs have equal scores, but samples differ from the mean."""
    scores = torch.tensor([0.0, 6.0], dtype=torch.float64)
    assert total(Relativistic().d_losses(scores, scores, None)) == pytest.approx(math.log(2), rel=1e-12)
    average = total(RelativisticAverage().d_losses(scores, scores, None)) / 2
    assert average == pytest.approx((math.log1p(math.exp(3)) + math.log1p(math.exp(-3))) / 2, rel=1e-12)
