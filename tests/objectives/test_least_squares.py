"""The least-squares losses compared with numpy in float64, and the Pearson divergence at the optimal D."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency

from contracts.tiny import recipe
from objectives.scores import GRID, FloatArray, implementations, random_scores_with_grad, score_grid
from poise import functional as F
from poise.core.types import Side, Targets
from poise.errors import RecipeError
from poise.objectives.least_squares import LeastSquares, half_squared_error

CODINGS = [(0.0, 1.0, 1.0), (-1.0, 1.0, 0.0), (0.0, 2.0, 1.0), (-0.7, 0.3, 5.0)]


def half_square(score: FloatArray, target: FloatArray | float) -> FloatArray:
    return 0.5 * (score - target) * (score - target)


@pytest.mark.parametrize("target", [0.0, 1.0, -1.0, 0.37])
def test_half_squared_error_matches_its_formula(target: float) -> None:
    score = torch.from_numpy(GRID)
    for aim in (target, torch.full_like(score, target)):
        np.testing.assert_allclose(half_squared_error(score, aim).numpy(), half_square(GRID, target), rtol=1e-14)
    assert torch.autograd.gradcheck(lambda s: half_squared_error(s, target), (random_scores_with_grad()[0],))
    assert torch.autograd.gradgradcheck(lambda s: half_squared_error(s, target), (random_scores_with_grad()[0],))


@pytest.mark.parametrize(("a", "b", "c"), CODINGS)
def test_losses_are_half_squared_distances_to_a_b_and_c(a: float, b: float, c: float) -> None:
    real, fake = score_grid()
    for d_losses, g_losses in implementations(LeastSquares(a=a, b=b, c=c)):
        loss_real, loss_fake = d_losses(real, fake, None)
        np.testing.assert_allclose(loss_real.numpy(), half_square(real.numpy(), b), rtol=1e-14)
        np.testing.assert_allclose(loss_fake.numpy(), half_square(fake.numpy(), a), rtol=1e-14)
        (loss_g,) = g_losses(fake, None)
        np.testing.assert_allclose(loss_g.numpy(), half_square(fake.numpy(), c), rtol=1e-14)


@pytest.mark.parametrize(("a", "b", "c"), CODINGS)
def test_targets_interpolate_between_a_and_b(a: float, b: float, c: float) -> None:
    real, fake = score_grid()
    generator = torch.Generator().manual_seed(0)
    high, low = torch.rand(2, len(real), dtype=torch.float64, generator=generator) * 1.2
    for d_losses, _ in implementations(LeastSquares(a=a, b=b, c=c)):
        loss_real, loss_fake = d_losses(real, fake, Targets(high, low))
        np.testing.assert_allclose(loss_real.numpy(), half_square(real.numpy(), a + high.numpy() * (b - a)), rtol=1e-12)
        np.testing.assert_allclose(loss_fake.numpy(), half_square(fake.numpy(), a + low.numpy() * (b - a)), rtol=1e-12)
        hard = d_losses(real, fake, Targets(torch.ones_like(real), torch.zeros_like(fake)))
        for actual, plain in zip(hard, d_losses(real, fake, None), strict=True):
            assert torch.allclose(actual, plain, rtol=1e-12)


@pytest.mark.parametrize("sign", [-1, 1])
def test_float32_is_accurate_for_large_scores(sign: int) -> None:
    score = torch.full((3,), sign * 1e4, requires_grad=True)
    entry = LeastSquares()
    losses = [*entry.d_losses(score, score, None), *entry.g_losses(score, None)]
    for loss, target in zip(losses, (1.0, 0.0, 1.0), strict=True):
        (grad,) = torch.autograd.grad(loss.sum(), score)
        assert loss.tolist() == pytest.approx([(sign * 1e4 - target) ** 2 / 2] * 3, rel=1e-6)
        assert grad.tolist() == pytest.approx([sign * 1e4 - target] * 3, rel=1e-6)


@pytest.mark.parametrize(("a", "b", "c"), CODINGS)
def test_gradients(a: float, b: float, c: float) -> None:
    real, fake = random_scores_with_grad()
    aims = [torch.full_like(real, t, requires_grad=True) for t in (0.9, 0.2)]
    for d_losses, g_losses in implementations(LeastSquares(a=a, b=b, c=c)):
        assert torch.autograd.gradcheck(lambda r, f, d_losses=d_losses: d_losses(r, f, None), (real, fake))
        assert torch.autograd.gradcheck(
            lambda r, f, x, y, d_losses=d_losses: d_losses(r, f, Targets(x, y)), (real, fake, *aims)
        )
        assert torch.autograd.gradcheck(lambda f, g_losses=g_losses: g_losses(f, None), (fake,))


@pytest.mark.parametrize(("a", "b", "c"), CODINGS)
def test_equilibrium_is_the_loss_at_the_midpoint(a: float, b: float, c: float) -> None:
    entry = LeastSquares(a=a, b=b, c=c)
    threshold = torch.full((1,), entry.decision_threshold, dtype=torch.float64)
    real, fake = entry.d_losses(threshold, threshold, None)
    assert float(real) == pytest.approx(float(fake), rel=1e-12)
    assert entry.equilibrium[Side.D] == pytest.approx(float(real + fake) / 2, rel=1e-12)
    assert entry.equilibrium[Side.G] == pytest.approx(float(entry.g_losses(threshold, None)[0]), rel=1e-12)


def two_distributions(seed: int) -> tuple[FloatArray, FloatArray]:
    random = np.random.default_rng(seed)
    p, q = random.dirichlet(np.ones(9)), random.dirichlet(np.ones(9))
    return p, q


@pytest.mark.parametrize(("a", "b", "c"), CODINGS)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_optimal_d_is_b_p_plus_a_q_over_p_plus_q(a: float, b: float, c: float, seed: int) -> None:
    """Equation 5 of the paper: the gradient of D's loss is 0 there, and any other D has a higher loss."""
    p, q = map(torch.from_numpy, two_distributions(seed))
    entry = LeastSquares(a=a, b=b, c=c)
    optimal = ((b * p + a * q) / (p + q)).requires_grad_()

    def d_loss(score: torch.Tensor) -> torch.Tensor:
        real, fake = entry.d_losses(score, score, None)
        return (p * real + q * fake).sum()

    (gradient,) = torch.autograd.grad(d_loss(optimal), optimal)
    assert torch.allclose(gradient, torch.zeros_like(gradient), atol=1e-14)
    for index in range(len(p)):
        for step in (-0.1, 0.1):
            other = optimal.detach().clone()
            other[index] += step
            assert d_loss(other) > d_loss(optimal)


@pytest.mark.parametrize(("a", "b", "c"), [(-1.0, 1.0, 0.0), (0.0, 2.0, 1.0), (2.5, 4.5, 3.5)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_g_minimises_the_pearson_divergence_if_b_minus_c_is_1_and_b_minus_a_is_2(
    a: float, b: float, c: float, seed: int
) -> None:
    """Section 3.2: at the optimal D, twice G's loss over both distributions is chi^2(p + q || 2 q)."""
    p, q = two_distributions(seed)
    assert (b - c, b - a) == (1, 2)
    optimal = torch.from_numpy((b * p + a * q) / (p + q))
    (loss,) = LeastSquares(a=a, b=b, c=c).g_losses(optimal, None)
    total = float((loss * torch.from_numpy(p + q)).sum())
    pearson = ((2 * q - (p + q)) ** 2 / (p + q)).sum()
    assert 2 * total == pytest.approx(pearson, rel=1e-12)
    table = chi2_contingency(np.stack((p, q)), correction=False)  # of a 2 x 9 table it is sum (p - q)^2 / (p + q)
    assert 2 * total == pytest.approx(table.statistic, rel=1e-12)


def test_the_default_coding_does_not_minimise_the_pearson_divergence() -> None:
    p, q = two_distributions(0)
    (loss,) = LeastSquares().g_losses(torch.from_numpy(p / (p + q)), None)
    assert 2 * float((loss * torch.from_numpy(p + q)).sum()) != pytest.approx(((p - q) ** 2 / (p + q)).sum(), rel=0.05)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"a": 1.0, "b": 0.0}, "b"),
        ({"a": 1.0}, "b"),
        ({"b": 0.0}, "b"),
        ({"a": -1.0, "b": 1.0, "c": -1.0}, "c"),
        ({"c": -2.0}, "c"),
    ],
)
def test_targets_that_train_d_and_g_towards_the_same_are_refused(given: dict[str, float], key: str) -> None:
    """With a = 1, b = 0 and c = 1 both losses fell to 0.02 on the ring, and nothing was adversarial."""
    pattern = rf"objective\.{key}: .* must be above a, .*found a = .*, {key} = .*; use a = 0, b = 1"
    with pytest.raises(RecipeError, match=pattern):
        recipe("points", objective={"kind": "least_squares", **given})
    with pytest.raises(RecipeError, match=rf"least_squares: {key}: .* must be above a, .*found a = "):
        F.d_loss("least_squares", torch.ones(2), torch.zeros(2), **given)
