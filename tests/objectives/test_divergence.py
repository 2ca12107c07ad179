"""The KL divergence as a game: the bound at its best on two Gaussians, what G descends there, and the tangent."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from contracts.tiny import context, session
from objectives.scores import near, ways
from poise.core.move import MoveData
from poise.core.types import DiscriminatorOutput, Side
from poise.objectives.divergence import CAP, KLDivergence, kl_conjugate

LINE = torch.linspace(-25, 25, 400_001, dtype=torch.float64)
STEP = float(LINE[1] - LINE[0])
PAIRS = [
    (Normal(0.0, 1.0), Normal(0.5, 1.2)),
    (Normal(0.3, 1.1), Normal(0.0, 1.0)),
    (Normal(1.0, 0.8), Normal(-0.2, 1.0)),
    (Normal(0.0, 1.0), Normal(0.0, 1.0)),
]
two_laws = pytest.mark.parametrize(("p", "q"), PAIRS)


def density(law: Normal) -> Tensor:
    return law.log_prob(LINE).exp()


def under(law: Normal, of: Tensor) -> float:
    """The mean of a function on `LINE`, given where the law has mass: both laws are nothing at the ends."""
    return float((density(law) * of).sum() * STEP)


def best(p: Normal, q: Normal) -> Tensor:
    """v = 1 + log p / q."""
    return 1 + p.log_prob(LINE) - q.log_prob(LINE)


def bound(p: Normal, q: Normal, v: Tensor) -> float:
    """E_P[v] - E_Q[conjugate(v)], as minus what D pays."""
    for_real, for_fake = KLDivergence().d_losses(v, v, None)
    return -(under(p, for_real) + under(q, for_fake))


# ---------------------------------------------------------------- the conjugate

BELOW = np.concatenate([[-1e4, -100.0], np.linspace(-20, 1 + CAP, 200)])
BEYOND = np.concatenate([np.linspace(1 + CAP, 40, 100), [100.0, 1e3, 1e4]])


def test_the_conjugate_is_its_formula_and_its_tangent_beyond() -> None:
    np.testing.assert_allclose(kl_conjugate(torch.from_numpy(BELOW)).numpy(), np.exp(BELOW - 1), rtol=1e-14)
    tangent = math.exp(CAP) * (1 + BEYOND - 1 - CAP)
    np.testing.assert_allclose(kl_conjugate(torch.from_numpy(BEYOND)).numpy(), tangent, rtol=1e-13)


def test_it_is_the_conjugate_of_u_log_u() -> None:
    """The greatest of uv - u log u over u > 0 (Nowozin 2016, table 2), where it is not cut."""
    u = torch.linspace(1e-6, 200, 400_001, dtype=torch.float64)
    for v in (-3.0, 0.0, 1.0, 2.5, 1 + CAP):
        most = float((u * v - u * u.log()).max())
        assert float(kl_conjugate(torch.tensor(v, dtype=torch.float64))) == pytest.approx(most, rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_finite_for_any_score_and_so_is_its_slope(dtype: torch.dtype) -> None:
    v = torch.tensor([-1e4, -90.0, 0.0, 1 + CAP, 90.0, 1e4], dtype=dtype, requires_grad=True)
    cost = kl_conjugate(v)
    (slope,) = torch.autograd.grad(cost.sum(), v)
    assert cost.dtype == dtype
    assert bool(torch.isfinite(cost).all())
    assert bool(torch.isfinite(slope).all())
    assert slope[-2:].tolist() == pytest.approx([math.exp(CAP)] * 2, rel=1e-6)


def test_it_is_convex_and_bends_without_a_corner() -> None:
    v = torch.linspace(1 + CAP - 3, 1 + CAP + 3, 6000, dtype=torch.float64).requires_grad_()
    cost = kl_conjugate(v)
    (slope,) = torch.autograd.grad(cost.sum(), v)
    assert bool((cost.diff() > 0).all())
    assert bool((slope.diff() > -1e-9).all())
    assert float(slope.diff().max()) < 1.1e-3 * math.exp(CAP)  # no jump: at most a step of v times the slope itself
    torch.testing.assert_close(cost.diff() / v.diff(), (slope[1:] + slope[:-1]) / 2, rtol=1e-3, atol=0)


def test_its_slope_where_curve_and_tangent_meet() -> None:
    v = torch.tensor(1 + CAP, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(kl_conjugate(v), v)
    assert float(slope) == pytest.approx(math.exp(CAP), rel=1e-12)


def test_gradients() -> None:
    scores = torch.linspace(-4.03, 9.17, 31, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(kl_conjugate, (scores,))


# ---------------------------------------------------------------- the bound


@two_laws
def test_the_ratio_lies_within_the_cap_where_the_laws_have_mass(p: Normal, q: Normal) -> None:
    """What the tests below rest on."""
    beyond = (best(p, q) - 1 > CAP).double()
    assert under(p, beyond) < 1e-4
    assert under(q, beyond) < 1e-6


@two_laws
def test_at_its_best_the_bound_is_the_divergence(p: Normal, q: Normal) -> None:
    assert bound(p, q, best(p, q)) == pytest.approx(float(kl_divergence(p, q)), abs=1e-4)


@two_laws
def test_with_any_other_critic_it_is_lower(p: Normal, q: Normal) -> None:
    v = best(p, q)
    most = bound(p, q, v)
    others = [v + 0.1, v - 0.1, 1 + 0.9 * (v - 1) + 0.05, v + 0.2 * LINE.sin(), v + 0.3 * LINE.tanh(), 2 - v + 0.5]
    for other in others:
        assert bound(p, q, other) < most - 1e-4


def test_the_best_critic_is_where_the_cost_of_a_place_is_least() -> None:
    """A gradient of p + q's mass at any place of the line is 0 there."""
    p, q = PAIRS[0]
    places = (LINE.abs() < 4).nonzero().flatten()[::1000]
    v = best(p, q)[places].requires_grad_()
    for_real, for_fake = KLDivergence().d_losses(v, v, None)
    cost = density(p)[places] * for_real + density(q)[places] * for_fake
    (pull,) = torch.autograd.grad(cost.sum(), v)
    assert float(pull.abs().max()) < 1e-12


@pytest.mark.parametrize("generator", ["modified", "bound"])
def test_undecided_is_where_both_densities_are_equal(generator: str) -> None:
    objective = KLDivergence(generator=generator)  # type: ignore[arg-type]
    p, q = PAIRS[0]
    at = int((best(p, q) - 1).abs().argmin())
    assert float(density(p)[at]) == pytest.approx(float(density(q)[at]), rel=1e-3)
    assert objective.decision_threshold == pytest.approx(float(best(p, q)[at]), abs=1e-3)
    assert objective.decision_threshold == 1.0
    assert bound(p, p, torch.full_like(LINE, objective.decision_threshold)) == pytest.approx(0, abs=1e-9)


# ---------------------------------------------------------------- G


@two_laws
def test_what_g_pays_of_the_best_critic(p: Normal, q: Normal) -> None:
    """`modified` is KL(Q || P) - 1; `bound` is the bound, but for the reals' part."""
    v = best(p, q)
    (modified,) = KLDivergence().g_losses(v, None)
    (part,) = KLDivergence(generator="bound").g_losses(v, None)
    assert under(q, modified) == pytest.approx(float(kl_divergence(q, p)) - 1, abs=1e-6)
    assert under(q, part) + under(p, v) == pytest.approx(float(kl_divergence(p, q)), abs=1e-4)


def test_both_of_gs_costs_fall_with_its_score() -> None:
    _, fake = near()
    for generator, right in (("modified", -fake), ("bound", -kl_conjugate(fake))):
        for _, g_costs in ways(KLDivergence(generator=generator)):  # type: ignore[arg-type]
            (cost,) = g_costs(fake, None)
            assert torch.equal(cost, right)
    assert KLDivergence().generator == "modified"


def test_ds_costs_one_pile_at_a_time() -> None:
    real, fake = near()
    for d_costs, _ in ways(KLDivergence()):
        for_real, for_fake = d_costs(real, fake, None)
        assert torch.equal(for_real, -real)
        np.testing.assert_allclose(for_fake.numpy(), np.exp(fake.numpy() - 1), rtol=1e-12)


def test_the_row_tells_the_bound() -> None:
    real, fake = near()
    rule = KLDivergence().build()
    move = MoveData(context(), torch.zeros(7, 2), fake, real)
    move.outputs = {"real": DiscriminatorOutput(real), "fake": DiscriminatorOutput(fake)}
    rule.after_update(move)
    right = float(real.mean() - (fake - 1).exp().mean())
    assert {name: float(told) for name, told in move.logged.items()} == {"divergence": pytest.approx(right)}
    g = MoveData(context(side=Side.G), torch.zeros(7, 2), fake)
    g.outputs = {"fake": DiscriminatorOutput(fake)}
    rule.after_update(g)
    assert g.logged == {}


@pytest.mark.parametrize("generator", ["modified", "bound"])
def test_a_game_tells_it_and_d_raises_it(generator: str) -> None:
    """G hardly moves: what D pays is minus twice the adversarial row, which is the bound."""
    still = {"g": {"kind": "sgd", "lr": 1e-12}, "d": {"kind": "adam", "lr": 1e-2}}
    run = session("points", objective={"kind": "kl_divergence", "generator": generator}, optimizer=still)
    first = run.play(5).metrics.reduce()
    run.play(50).metrics.reduce()
    last = run.play(5).metrics.reduce()
    assert first["d/divergence"].mean == pytest.approx(-2 * first["d/adversarial"].mean, rel=1e-5)
    assert last["d/divergence"].mean > first["d/divergence"].mean + 0.1
    assert "g/adversarial" in last
