"""The KL divergence: the bound of two Gaussians at its optimum, G's losses there, and the tangent."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from contracts.tiny import context, session
from objectives.scores import implementations, random_scores
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
parametrize_pairs = pytest.mark.parametrize(("p", "q"), PAIRS)


def density(distribution: Normal) -> Tensor:
    return distribution.log_prob(LINE).exp()


def expectation(distribution: Normal, values: Tensor) -> float:
    """The mean of a function given by its values on `LINE`; the density vanishes at both ends."""
    return float((density(distribution) * values).sum() * STEP)


def optimal_critic(p: Normal, q: Normal) -> Tensor:
    """v = 1 + log p / q."""
    return 1 + p.log_prob(LINE) - q.log_prob(LINE)


def bound(p: Normal, q: Normal, v: Tensor) -> float:
    """E_P[v] - E_Q[conjugate(v)], the negative of D's loss."""
    loss_real, loss_fake = KLDivergence().d_losses(v, v, None)
    return -(expectation(p, loss_real) + expectation(q, loss_fake))


# ---------------------------------------------------------------- the conjugate

BELOW = np.concatenate([[-1e4, -100.0], np.linspace(-20, 1 + CAP, 200)])
BEYOND = np.concatenate([np.linspace(1 + CAP, 40, 100), [100.0, 1e3, 1e4]])


def test_the_conjugate_matches_its_formula_and_its_tangent() -> None:
    np.testing.assert_allclose(kl_conjugate(torch.from_numpy(BELOW)).numpy(), np.exp(BELOW - 1), rtol=1e-14)
    tangent = math.exp(CAP) * (1 + BEYOND - 1 - CAP)
    np.testing.assert_allclose(kl_conjugate(torch.from_numpy(BEYOND)).numpy(), tangent, rtol=1e-13)


def test_the_conjugate_is_that_of_u_log_u() -> None:
    """The maximum of uv - u log u over u > 0 (Nowozin 2016, table 2), below the cap."""
    u = torch.linspace(1e-6, 200, 400_001, dtype=torch.float64)
    for v in (-3.0, 0.0, 1.0, 2.5, 1 + CAP):
        maximum = float((u * v - u * u.log()).max())
        assert float(kl_conjugate(torch.tensor(v, dtype=torch.float64))) == pytest.approx(maximum, rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_conjugate_and_its_derivative_are_finite_for_any_score(dtype: torch.dtype) -> None:
    v = torch.tensor([-1e4, -90.0, 0.0, 1 + CAP, 90.0, 1e4], dtype=dtype, requires_grad=True)
    loss = kl_conjugate(v)
    (gradient,) = torch.autograd.grad(loss.sum(), v)
    assert loss.dtype == dtype
    assert bool(torch.isfinite(loss).all())
    assert bool(torch.isfinite(gradient).all())
    assert gradient[-2:].tolist() == pytest.approx([math.exp(CAP)] * 2, rel=1e-6)


def test_the_conjugate_is_convex_with_a_continuous_derivative() -> None:
    v = torch.linspace(1 + CAP - 3, 1 + CAP + 3, 6000, dtype=torch.float64).requires_grad_()
    loss = kl_conjugate(v)
    (gradient,) = torch.autograd.grad(loss.sum(), v)
    assert bool((loss.diff() > 0).all())
    assert bool((gradient.diff() > -1e-9).all())
    assert float(gradient.diff().max()) < 1.1e-3 * math.exp(CAP)  # no jump: at most a step of v times the derivative
    torch.testing.assert_close(loss.diff() / v.diff(), (gradient[1:] + gradient[:-1]) / 2, rtol=1e-3, atol=0)


def test_the_derivative_where_curve_and_tangent_meet() -> None:
    v = torch.tensor(1 + CAP, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(kl_conjugate(v), v)
    assert float(gradient) == pytest.approx(math.exp(CAP), rel=1e-12)


def test_gradients() -> None:
    scores = torch.linspace(-4.03, 9.17, 31, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(kl_conjugate, (scores,))


# ---------------------------------------------------------------- the bound


@parametrize_pairs
def test_the_density_ratio_is_below_the_cap_where_there_is_mass(p: Normal, q: Normal) -> None:
    """The tests below rely on this."""
    beyond = (optimal_critic(p, q) - 1 > CAP).double()
    assert expectation(p, beyond) < 1e-4
    assert expectation(q, beyond) < 1e-6


@parametrize_pairs
def test_the_bound_of_the_optimal_critic_is_the_divergence(p: Normal, q: Normal) -> None:
    assert bound(p, q, optimal_critic(p, q)) == pytest.approx(float(kl_divergence(p, q)), abs=1e-4)


@parametrize_pairs
def test_the_bound_of_any_other_critic_is_lower(p: Normal, q: Normal) -> None:
    v = optimal_critic(p, q)
    maximum = bound(p, q, v)
    others = [v + 0.1, v - 0.1, 1 + 0.9 * (v - 1) + 0.05, v + 0.2 * LINE.sin(), v + 0.3 * LINE.tanh(), 2 - v + 0.5]
    for other in others:
        assert bound(p, q, other) < maximum - 1e-4


def test_the_optimal_critic_minimises_the_loss_at_each_point() -> None:
    """The gradient of D's loss with respect to the critic's value is 0 at every point."""
    p, q = PAIRS[0]
    points = (LINE.abs() < 4).nonzero().flatten()[::1000]
    v = optimal_critic(p, q)[points].requires_grad_()
    loss_real, loss_fake = KLDivergence().d_losses(v, v, None)
    loss = density(p)[points] * loss_real + density(q)[points] * loss_fake
    (gradient,) = torch.autograd.grad(loss.sum(), v)
    assert float(gradient.abs().max()) < 1e-12


@pytest.mark.parametrize("generator", ["modified", "bound"])
def test_the_decision_threshold_is_where_both_densities_are_equal(generator: str) -> None:
    objective = KLDivergence(generator=generator)  # type: ignore[arg-type]
    p, q = PAIRS[0]
    at = int((optimal_critic(p, q) - 1).abs().argmin())
    assert float(density(p)[at]) == pytest.approx(float(density(q)[at]), rel=1e-3)
    assert objective.decision_threshold == pytest.approx(float(optimal_critic(p, q)[at]), abs=1e-3)
    assert objective.decision_threshold == 1.0
    assert bound(p, p, torch.full_like(LINE, objective.decision_threshold)) == pytest.approx(0, abs=1e-9)


# ---------------------------------------------------------------- G


@parametrize_pairs
def test_gs_loss_against_the_optimal_critic(p: Normal, q: Normal) -> None:
    """`modified` is KL(Q || P) - 1; `bound` is the bound without the term of the real samples."""
    v = optimal_critic(p, q)
    (modified,) = KLDivergence().g_losses(v, None)
    (part,) = KLDivergence(generator="bound").g_losses(v, None)
    assert expectation(q, modified) == pytest.approx(float(kl_divergence(q, p)) - 1, abs=1e-6)
    assert expectation(q, part) + expectation(p, v) == pytest.approx(float(kl_divergence(p, q)), abs=1e-4)


def test_both_losses_of_g_decrease_with_its_score() -> None:
    _, fake = random_scores()
    for generator, expected in (("modified", -fake), ("bound", -kl_conjugate(fake))):
        for _, g_losses in implementations(KLDivergence(generator=generator)):  # type: ignore[arg-type]
            (loss,) = g_losses(fake, None)
            assert torch.equal(loss, expected)
    assert KLDivergence().generator == "modified"


def test_ds_loss_has_a_term_for_real_and_a_term_for_fake_samples() -> None:
    real, fake = random_scores()
    for d_losses, _ in implementations(KLDivergence()):
        loss_real, loss_fake = d_losses(real, fake, None)
        assert torch.equal(loss_real, -real)
        np.testing.assert_allclose(loss_fake.numpy(), np.exp(fake.numpy() - 1), rtol=1e-12)


def test_the_bound_is_logged() -> None:
    real, fake = random_scores()
    module = KLDivergence().build()
    move = MoveData(context(), torch.zeros(7, 2), fake, real)
    move.outputs = {"real": DiscriminatorOutput(real), "fake": DiscriminatorOutput(fake)}
    module.after_update(move)
    expected = float(real.mean() - (fake - 1).exp().mean())
    assert {name: float(value) for name, value in move.logged.items()} == {"divergence": pytest.approx(expected)}
    g = MoveData(context(side=Side.G), torch.zeros(7, 2), fake)
    g.outputs = {"fake": DiscriminatorOutput(fake)}
    module.after_update(g)
    assert g.logged == {}


@pytest.mark.parametrize("generator", ["modified", "bound"])
def test_d_raises_the_logged_bound_during_training(generator: str) -> None:
    """G hardly changes; the bound is -2 times the logged adversarial loss of D."""
    optimizers = {"g": {"kind": "sgd", "lr": 1e-12}, "d": {"kind": "adam", "lr": 1e-2}}
    run = session("points", objective={"kind": "kl_divergence", "generator": generator}, optimizer=optimizers)
    first = run.play(5).metrics.reduce()
    run.play(50).metrics.reduce()
    last = run.play(5).metrics.reduce()
    assert first["d/divergence"].mean == pytest.approx(-2 * first["d/adversarial"].mean, rel=1e-5)
    assert last["d/divergence"].mean > first["d/divergence"].mean + 0.1
    assert "g/adversarial" in last
