"""The losses of the original GAN compared with closed forms in float64, and with the theory of the optimal D."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from poise.core.types import Targets
from poise.objectives.pointwise import Minimax, NonSaturating, cross_entropy, minimax, non_saturating

FloatArray = npt.NDArray[np.float64]

# PyTorch's softplus is linear beyond 20 and off by up to 2e-9, so 20 to 37 is tested separately
GRID = np.concatenate(
    [np.linspace(-19.9, 19.9, 200), [0.0], [s * m for s in (-1, 1) for m in (38, 100, 745, 1e3, 1e4)]]
)
LINEAR_RANGE = np.linspace(20, 37, 100)
TARGETS = [0.0, 1.0, 0.9, 0.3, 1.2]


def log_d(score: FloatArray) -> FloatArray:
    """log sigmoid(s) without overflow."""
    return -np.logaddexp(0.0, -score)


def entropy(score: FloatArray, target: float) -> FloatArray:
    """-t log D - (1 - t) log(1 - D), written with log(1 - D) = log sigmoid(-s)."""
    return -target * log_d(score) - (1 - target) * log_d(-score)


@pytest.mark.parametrize("target", TARGETS)
def test_cross_entropy_matches_its_closed_form(target: float) -> None:
    actual = cross_entropy(torch.from_numpy(GRID), torch.full((len(GRID),), target, dtype=torch.float64)).numpy()
    assert np.isfinite(actual).all()
    np.testing.assert_allclose(actual, entropy(GRID, target), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("target", TARGETS)
def test_cross_entropy_where_softplus_is_linear(target: float) -> None:
    actual = cross_entropy(
        torch.from_numpy(LINEAR_RANGE), torch.full((len(LINEAR_RANGE),), target, dtype=torch.float64)
    ).numpy()
    np.testing.assert_allclose(actual, entropy(LINEAR_RANGE, target), rtol=0, atol=3e-9)


def test_gs_losses_match_their_closed_forms() -> None:
    score = torch.from_numpy(GRID)
    np.testing.assert_allclose(non_saturating(score).numpy(), -log_d(GRID), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(minimax(score).numpy(), log_d(-GRID), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sign", [-1, 1])
def test_float32_neither_overflows_nor_loses_its_gradient_for_large_scores(sign: int) -> None:
    score = torch.full((3,), sign * 1e4, requires_grad=True)
    for target in TARGETS:
        loss = cross_entropy(score, torch.full((3,), target))
        (grad,) = torch.autograd.grad(loss.sum(), score)
        sigmoid = 1.0 if sign > 0 else 0.0
        assert torch.allclose(loss, torch.full((3,), sign * 1e4 * (sigmoid - target)), rtol=1e-6)
        assert torch.allclose(grad, torch.full((3,), sigmoid - target), atol=1e-6)


@pytest.mark.parametrize("target", TARGETS)
def test_gradients(target: float) -> None:
    score = torch.linspace(-15, 15, 25, dtype=torch.float64, requires_grad=True)
    aim = torch.full_like(score, target, requires_grad=True)
    assert torch.autograd.gradcheck(cross_entropy, (score, aim))
    assert torch.autograd.gradgradcheck(cross_entropy, (score, aim))
    assert torch.autograd.gradcheck(non_saturating, (score,))
    assert torch.autograd.gradcheck(minimax, (score,))
    (grad,) = torch.autograd.grad(cross_entropy(score, aim).sum(), score)
    assert torch.allclose(grad, score.sigmoid() - target, atol=1e-12)


def test_non_saturating_has_a_gradient_where_minimax_saturates() -> None:
    """T02: for a confident D (score -20) one gradient is -1 and the other vanishes; both have the same sign."""
    score = torch.tensor([-20.0], dtype=torch.float64, requires_grad=True)
    (strong,) = torch.autograd.grad(non_saturating(score).sum(), score)
    (weak,) = torch.autograd.grad(minimax(score).sum(), score)
    assert float(strong) == pytest.approx(-1, abs=1e-8)
    assert -1e-8 < float(weak) < 0


@pytest.mark.parametrize("objective", [NonSaturating(), Minimax()], ids=lambda o: o.kind)
def test_no_targets_are_bit_identical_to_hard_targets(objective: NonSaturating | Minimax) -> None:
    generator = torch.Generator().manual_seed(0)
    far = torch.tensor([0.0, -0.0, 20.0, 20.001, -20.001, 88.0, -88.0, 1e4, -1e4])

    def charge(hard: bool) -> list[Tensor]:
        real, fake = (torch.cat((torch.randn(500, generator=generator) * 10, far)).requires_grad_() for _ in "ab")
        targets = Targets(torch.ones_like(real), torch.zeros_like(fake)) if hard else None
        losses = objective.d_losses(real, fake, targets)
        assert len(losses) == 2
        return [*losses, *torch.autograd.grad(torch.stack([c.mean() for c in losses]).sum(), (real, fake))]

    none = charge(False)
    generator.manual_seed(0)
    for actual, reference in zip(none, charge(True), strict=True):
        assert torch.equal(actual, reference)


def test_real_and_fake_samples_have_their_own_targets() -> None:
    real, fake = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    loss_real, loss_fake = NonSaturating().d_losses(
        real, fake, Targets(torch.tensor([0.9, 1.2]), torch.tensor([0.1, 0.0]))
    )
    for actual, score, target in ((loss_real, real, (0.9, 1.2)), (loss_fake, fake, (0.1, 0.0))):
        expected = [entropy(np.float64(s), t) for s, t in zip(score.tolist(), target, strict=True)]
        np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-6)


def test_gs_loss_depends_on_fake_samples_only() -> None:
    fake, real = torch.tensor([0.3, -2.0]), torch.tensor([5.0, 5.0])
    assert torch.equal(NonSaturating().g_losses(fake, real)[0], non_saturating(fake))
    assert torch.equal(Minimax().g_losses(fake, None)[0], minimax(fake))
    assert len(NonSaturating().g_losses(fake, None)) == len(Minimax().g_losses(fake, None)) == 1


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 1.0), (1.5, 0.7), (4.0, 0.5)])
def test_ds_loss_at_the_optimum_is_two_log_two_minus_two_js(mean: float, std: float) -> None:
    """Goodfellow 2014, theorem 1: with D* = p / (p + q), the loss is 2 log 2 - 2 JS(p, q)."""
    p, q = norm(0.0, 1.0), norm(mean, std)

    def loss(x: float) -> float:
        score = torch.tensor([p.logpdf(x) - q.logpdf(x)], dtype=torch.float64)
        real, fake = NonSaturating().d_losses(score, score, None)
        return float(p.pdf(x) * real + q.pdf(x) * fake)

    def divergence(x: float) -> float:
        middle = np.logaddexp(p.logpdf(x), q.logpdf(x)) - math.log(2)
        return 0.5 * (p.pdf(x) * (p.logpdf(x) - middle) + q.pdf(x) * (q.logpdf(x) - middle))

    where = {"points": [0.0, mean], "limit": 200, "epsabs": 1e-11, "epsrel": 1e-11}
    total, js = quad(loss, -9, 9, **where)[0], quad(divergence, -9, 9, **where)[0]
    assert 0 <= js <= math.log(2)
    assert total == pytest.approx(2 * math.log(2) - 2 * js, abs=1e-8)
