"""What the objectives come to against the best D there is: quadrature for two Gaussians, exact critics on a line."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import wasserstein_distance

from objectives.scores import Numbers
from poise.objectives.pointwise import CrossEntropy, Minimax, NonSaturating
from poise.objectives.wasserstein import Wasserstein, distance

GAUSSIANS = [(0.0, 1.0), (0.5, 1.0), (1.5, 0.7), (4.0, 0.5)]


def log_density(x: float, mean: float, std: float) -> float:
    return -0.5 * ((x - mean) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))


class Two:
    """The data p = N(0, 1), G's q = N(mean, std), and integrals over them."""

    def __init__(self, mean: float, std: float) -> None:
        self.mean, self.std = mean, std

    def log_p(self, x: float) -> float:
        return log_density(x, 0.0, 1.0)

    def log_q(self, x: float) -> float:
        return log_density(x, self.mean, self.std)

    def log_m(self, x: float) -> float:
        """Of their mixture in equal parts."""
        return float(np.logaddexp(self.log_p(x), self.log_q(x))) - math.log(2)

    def expect(self, log_law: Callable[[float], float], f: Callable[[float], float]) -> float:
        """E f(x), x ~ the law."""
        options = {"points": [0.0, self.mean], "limit": 200, "epsabs": 1e-11, "epsrel": 1e-11}
        return quad(lambda x: math.exp(log_law(x)) * f(x), -9.0, 9.0, **options)[0]

    def kl(self, one: Callable[[float], float], other: Callable[[float], float]) -> float:
        return self.expect(one, lambda x: one(x) - other(x))

    @property
    def js(self) -> float:
        return 0.5 * self.kl(self.log_p, self.log_m) + 0.5 * self.kl(self.log_q, self.log_m)

    def value(self, objective: CrossEntropy, shift: float = 0.0) -> float:
        """The game's value: minus what D pays, with the optimal D's logit moved by `shift`."""

        def costs(x: float) -> tuple[float, float]:
            score = torch.tensor([self.log_p(x) - self.log_q(x) + shift], dtype=torch.float64)
            real, fake = objective.d_losses(score, score, None)
            return float(real), float(fake)

        return -self.expect(self.log_p, lambda x: costs(x)[0]) - self.expect(self.log_q, lambda x: costs(x)[1])

    def g_pays(self, objective: CrossEntropy) -> float:
        """What G pays against the optimal D."""

        def cost(x: float) -> float:
            score = torch.tensor([self.log_p(x) - self.log_q(x)], dtype=torch.float64)
            return float(objective.g_losses(score, None)[0])

        return self.expect(self.log_q, cost)


@pytest.mark.parametrize(("mean", "std"), GAUSSIANS)
@pytest.mark.parametrize("objective", [Minimax(), NonSaturating()], ids=lambda o: o.kind)
def test_the_game_is_worth_minus_log_4_and_2_js(objective: CrossEntropy, mean: float, std: float) -> None:
    """Goodfellow 2014, theorem 1; and D's whose logits lie a little beside get less out of it."""
    two = Two(mean, std)
    best = two.value(objective)
    assert best == pytest.approx(-math.log(4) + 2 * two.js, abs=1e-8)
    assert all(two.value(objective, shift) < best - 1e-6 for shift in (-0.1, 0.1))


@pytest.mark.parametrize(("mean", "std"), GAUSSIANS)
def test_minimax_gs_share_of_it_is_a_divergence_from_the_mixture(mean: float, std: float) -> None:
    """E_q log(1 - D*) = KL(q || m) - log 2."""
    two = Two(mean, std)
    assert two.g_pays(Minimax()) == pytest.approx(two.kl(two.log_q, two.log_m) - math.log(2), abs=1e-8)


@pytest.mark.parametrize(("mean", "std"), GAUSSIANS)
def test_non_saturating_g_meets_the_reverse_divergence(mean: float, std: float) -> None:
    """E_q[-log D*] = KL(q || p) - KL(q || m) + log 2 (Arjovsky & Bottou 2017, arXiv:1701.04862, theorem 2.5)."""
    two = Two(mean, std)
    expected = two.kl(two.log_q, two.log_p) - two.kl(two.log_q, two.log_m) + math.log(2)
    assert two.g_pays(NonSaturating()) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("objective", [Minimax(), NonSaturating()], ids=lambda o: o.kind)
def test_a_d_trained_on_two_discrete_distributions_finds_their_log_ratio(objective: CrossEntropy) -> None:
    random = np.random.default_rng(0)
    p, q = (torch.from_numpy(random.dirichlet(np.full(7, 3.0))) for _ in range(2))
    score = torch.zeros(7, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [score], max_iter=500, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def paid() -> torch.Tensor:
        optimizer.zero_grad()
        real, fake = objective.d_losses(score, score, None)
        cost = (p * real + q * fake).sum()
        cost.backward()
        return cost

    optimizer.step(paid)
    assert torch.allclose(score, (p / q).log(), atol=1e-5)


# ---------------------------------------------------------------- critics on a line


def best_critic(real: Numbers, fake: Numbers) -> Callable[[Numbers], Numbers]:
    """The 1-Lipschitz function that attains the distance on a line: its slope is the sign of F_fake - F_real."""
    knots = np.sort(np.concatenate((real, fake)))
    below = [np.searchsorted(np.sort(origin), knots[:-1], side="right") / len(origin) for origin in (real, fake)]
    heights = np.concatenate(([0.0], np.cumsum(np.sign(below[1] - below[0]) * np.diff(knots))))
    return lambda x: np.interp(x, knots, heights)


def told(critic: Callable[[Numbers], Numbers], real: Numbers, fake: Numbers) -> float:
    """The distance by the objective's own numbers: minus what D pays."""
    scores = [torch.from_numpy(critic(origin)) for origin in (real, fake)]
    costs = Wasserstein().d_losses(scores[0], scores[1], None)
    paid = float(sum(cost.mean() for cost in costs))
    assert float(distance(scores[0], scores[1])) == pytest.approx(-paid, rel=1e-12)
    return -paid


@pytest.mark.parametrize("shift", [0.7, -3.0])
def test_a_linear_critic_of_slope_one_tells_how_far_samples_were_moved(shift: float) -> None:
    """|mu_1 - mu_2| for laws that differ by a shift: scipy's distance of the very samples."""
    real = np.random.default_rng(0).normal(0, 1, 400)
    fake = real - shift
    linear = told(lambda x: math.copysign(1.0, shift) * x, real, fake)
    assert linear == pytest.approx(abs(shift), rel=1e-12)
    assert linear == pytest.approx(wasserstein_distance(real, fake), rel=1e-12)
    assert told(lambda x: -math.copysign(1.0, shift) * x, real, fake) < 0


def test_of_two_gaussians_of_one_width_it_tells_the_difference_of_means() -> None:
    random = np.random.default_rng(1)
    real, fake = random.normal(2.0, 1, 40_000), random.normal(-1.0, 1, 40_000)
    assert told(lambda x: x, real, fake) == pytest.approx(3.0, abs=5 * math.sqrt(2 / 40_000))
    assert told(lambda x: x, real, fake) == pytest.approx(wasserstein_distance(real, fake), rel=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_the_best_critic_tells_the_distance_and_no_other_more(seed: int) -> None:
    random = np.random.default_rng(seed)
    real, fake = random.normal(0.5, 1.0, 60), random.exponential(2.0, 90) - 1
    exact = wasserstein_distance(real, fake)
    assert told(best_critic(real, fake), real, fake) == pytest.approx(exact, rel=1e-10)
    knots = np.linspace(-6, 15, 40)
    for _ in range(50):
        heights = np.cumsum(random.uniform(-1, 1, 40) * (knots[1] - knots[0]))
        assert told(lambda x, heights=heights: np.interp(x, knots, heights), real, fake) <= exact
