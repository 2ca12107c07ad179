"""The objectives at the optimal D: quadrature for two Gaussians, and exact critics in one dimension."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import wasserstein_distance

from objectives.scores import FloatArray
from poise.objectives.pointwise import CrossEntropy, Minimax, NonSaturating
from poise.objectives.wasserstein import Wasserstein, distance

GAUSSIANS = [(0.0, 1.0), (0.5, 1.0), (1.5, 0.7), (4.0, 0.5)]


def log_density(x: float, mean: float, std: float) -> float:
    return -0.5 * ((x - mean) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))


class GaussianPair:
    """The data p = N(0, 1), G's q = N(mean, std), and integrals over them."""

    def __init__(self, mean: float, std: float) -> None:
        self.mean, self.std = mean, std

    def log_p(self, x: float) -> float:
        return log_density(x, 0.0, 1.0)

    def log_q(self, x: float) -> float:
        return log_density(x, self.mean, self.std)

    def log_m(self, x: float) -> float:
        """The log-density of their mixture in equal parts."""
        return float(np.logaddexp(self.log_p(x), self.log_q(x))) - math.log(2)

    def expect(self, log_p: Callable[[float], float], f: Callable[[float], float]) -> float:
        """E f(x) under the density."""
        options = {"points": [0.0, self.mean], "limit": 200, "epsabs": 1e-11, "epsrel": 1e-11}
        return quad(lambda x: math.exp(log_p(x)) * f(x), -9.0, 9.0, **options)[0]

    def kl(self, one: Callable[[float], float], other: Callable[[float], float]) -> float:
        return self.expect(one, lambda x: one(x) - other(x))

    @property
    def js(self) -> float:
        return 0.5 * self.kl(self.log_p, self.log_m) + 0.5 * self.kl(self.log_q, self.log_m)

    def value(self, objective: CrossEntropy, shift: float = 0.0) -> float:
        """The negative of D's loss at the optimal D, with its logit shifted by `shift`."""

        def losses(x: float) -> tuple[float, float]:
            score = torch.tensor([self.log_p(x) - self.log_q(x) + shift], dtype=torch.float64)
            real, fake = objective.d_losses(score, score, None)
            return float(real), float(fake)

        return -self.expect(self.log_p, lambda x: losses(x)[0]) - self.expect(self.log_q, lambda x: losses(x)[1])

    def g_loss(self, objective: CrossEntropy) -> float:
        """G's loss at the optimal D."""

        def loss(x: float) -> float:
            score = torch.tensor([self.log_p(x) - self.log_q(x)], dtype=torch.float64)
            return float(objective.g_losses(score, None)[0])

        return self.expect(self.log_q, loss)


@pytest.mark.parametrize(("mean", "std"), GAUSSIANS)
@pytest.mark.parametrize("objective", [Minimax(), NonSaturating()], ids=lambda o: o.kind)
def test_the_value_of_the_optimal_d_is_2_js_minus_log_4(objective: CrossEntropy, mean: float, std: float) -> None:
    """Goodfellow 2014, theorem 1; a D with shifted logits has a lower value."""
    pair = GaussianPair(mean, std)
    optimal = pair.value(objective)
    assert optimal == pytest.approx(-math.log(4) + 2 * pair.js, abs=1e-8)
    assert all(pair.value(objective, shift) < optimal - 1e-6 for shift in (-0.1, 0.1))


@pytest.mark.parametrize(("mean", "std"), GAUSSIANS)
def test_the_minimax_loss_of_g_is_a_divergence_from_the_mixture(mean: float, std: float) -> None:
    """E_q log(1 - D*) = KL(q || m) - log 2."""
    pair = GaussianPair(mean, std)
    assert pair.g_loss(Minimax()) == pytest.approx(pair.kl(pair.log_q, pair.log_m) - math.log(2), abs=1e-8)


@pytest.mark.parametrize(("mean", "std"), GAUSSIANS)
def test_the_non_saturating_loss_is_a_reverse_divergence(mean: float, std: float) -> None:
    """E_q[-log D*] = KL(q || p) - KL(q || m) + log 2 (Arjovsky & Bottou 2017, arXiv:1701.04862, theorem 2.5)."""
    pair = GaussianPair(mean, std)
    expected = pair.kl(pair.log_q, pair.log_p) - pair.kl(pair.log_q, pair.log_m) + math.log(2)
    assert pair.g_loss(NonSaturating()) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("objective", [Minimax(), NonSaturating()], ids=lambda o: o.kind)
def test_d_trained_on_two_discrete_distributions_learns_their_log_ratio(objective: CrossEntropy) -> None:
    random = np.random.default_rng(0)
    p, q = (torch.from_numpy(random.dirichlet(np.full(7, 3.0))) for _ in range(2))
    score = torch.zeros(7, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [score], max_iter=500, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        real, fake = objective.d_losses(score, score, None)
        loss = (p * real + q * fake).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.allclose(score, (p / q).log(), atol=1e-5)


# ---------------------------------------------------------------- critics in one dimension


def optimal_critic(real: FloatArray, fake: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """The 1-Lipschitz function that attains the distance; its derivative is the sign of F_fake - F_real."""
    knots = np.sort(np.concatenate((real, fake)))
    below = [np.searchsorted(np.sort(origin), knots[:-1], side="right") / len(origin) for origin in (real, fake)]
    heights = np.concatenate(([0.0], np.cumsum(np.sign(below[1] - below[0]) * np.diff(knots))))
    return lambda x: np.interp(x, knots, heights)


def estimate(critic: Callable[[FloatArray], FloatArray], real: FloatArray, fake: FloatArray) -> float:
    """The distance that the objective computes: the negative of D's loss."""
    scores = [torch.from_numpy(critic(origin)) for origin in (real, fake)]
    losses = Wasserstein().d_losses(scores[0], scores[1], None)
    total = float(sum(loss.mean() for loss in losses))
    assert float(distance(scores[0], scores[1])) == pytest.approx(-total, rel=1e-12)
    return -total


@pytest.mark.parametrize("shift", [0.7, -3.0])
def test_a_linear_critic_of_slope_one_measures_a_shift(shift: float) -> None:
    """|mu_1 - mu_2| for distributions that differ by a shift, equal to scipy's distance of the same samples."""
    real = np.random.default_rng(0).normal(0, 1, 400)
    fake = real - shift
    linear = estimate(lambda x: math.copysign(1.0, shift) * x, real, fake)
    assert linear == pytest.approx(abs(shift), rel=1e-12)
    assert linear == pytest.approx(wasserstein_distance(real, fake), rel=1e-12)
    assert estimate(lambda x: -math.copysign(1.0, shift) * x, real, fake) < 0


def test_for_gaussians_of_equal_std_it_is_the_difference_of_means() -> None:
    random = np.random.default_rng(1)
    real, fake = random.normal(2.0, 1, 40_000), random.normal(-1.0, 1, 40_000)
    assert estimate(lambda x: x, real, fake) == pytest.approx(3.0, abs=5 * math.sqrt(2 / 40_000))
    assert estimate(lambda x: x, real, fake) == pytest.approx(wasserstein_distance(real, fake), rel=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_only_the_optimal_critic_attains_the_distance(seed: int) -> None:
    random = np.random.default_rng(seed)
    real, fake = random.normal(0.5, 1.0, 60), random.exponential(2.0, 90) - 1
    exact = wasserstein_distance(real, fake)
    assert estimate(optimal_critic(real, fake), real, fake) == pytest.approx(exact, rel=1e-10)
    knots = np.linspace(-6, 15, 40)
    for _ in range(50):
        heights = np.cumsum(random.uniform(-1, 1, 40) * (knots[1] - knots[0]))
        assert estimate(lambda x, heights=heights: np.interp(x, knots, heights), real, fake) <= exact
