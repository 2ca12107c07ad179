"""WGAN-GP and DRAGAN: closed forms for known input gradients, double backward, and the points of the penalty."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from contracts.tiny import Linear, context
from poise.core.move import MoveData
from poise.core.types import DiscriminatorOutput, MoveContext, Side
from poise.engine.game import discriminate_jointly, discriminate_separately
from poise.engine.step import make_move
from poise.engine.step_metrics import StepMetrics
from poise.tricks.gradient_penalties import R1
from poise.tricks.unit_gradient_penalties import (
    DRAGAN,
    WGANGP,
    DRAGANConfig,
    Sides,
    UnitGradientPenalty,
    WGANGPConfig,
    interpolate_pairs,
    perturb_real,
    unit_norm_penalty,
)
from tricks.small import (
    DoublingTransform,
    FixedBatches,
    N,
    Quadratic,
    TanhDiscriminator,
    as_float64,
    central_difference,
    discriminated,
    game_of,
    gradients,
    logged_means,
    randn,
)

KINDS = ("wgan_gp", "dragan")
A = torch.tensor([[1.0, 0.5], [0.5, -2.0]])


def penalty(kind: str, weight: float = 1.0, every: int = 1, sides: Sides = "two") -> UnitGradientPenalty:
    if kind == "wgan_gp":
        return WGANGPConfig(weight=weight, every=every, sides=sides).build("p", {})
    return DRAGANConfig(weight=weight, every=every, sides=sides).build("p", {})


class PenaltyAt(UnitGradientPenalty):
    """The same penalty at given samples."""

    def __init__(self, x: Tensor, sides: Sides = "two") -> None:
        super().__init__("at", 1.0, 1, sides)
        self.x = x

    def penalty_points(self, move: MoveData) -> Tensor:
        return self.x


def expected_penalty(length: float, sides: Sides) -> float:
    """(||w|| - 1)^2, or only of the excess over one."""
    return (length - 1) ** 2 if sides == "two" or length > 1 else 0.0


@pytest.mark.parametrize("sides", ["two", "one"])
def test_unit_norm_penalty_equals_its_formula(sides: Sides) -> None:
    gradient = randn(20, 3, 2, 2) * torch.linspace(0, 1.5, 20).view(-1, 1, 1, 1)
    expected = [expected_penalty(float(np.linalg.norm(row)), sides) for row in as_float64(gradient).reshape(20, -1)]
    assert 0 < sum(float(np.linalg.norm(row)) > 1 for row in as_float64(gradient).reshape(20, -1)) < 20
    np.testing.assert_allclose(unit_norm_penalty(gradient, sides).numpy(), expected, rtol=1e-5, atol=3e-6)
    assert unit_norm_penalty(gradient.bfloat16(), sides).dtype == torch.float32
    assert unit_norm_penalty(gradient.double(), sides).dtype == torch.float64


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sides", ["two", "one"])
@pytest.mark.parametrize("weight", [[3.0, -4.0], [0.3, 0.4]])
@pytest.mark.parametrize("judge", [discriminate_separately, discriminate_jointly])
def test_penalty_of_a_linear_d_depends_on_the_norm_of_its_weight(
    kind: str, sides: Sides, weight: list[float], judge: Any
) -> None:
    """(||w|| - 1)^2 is logged, whatever the points are, and D's gradient is 2 lambda (||w|| - 1) w / ||w||."""
    results, norm = [], math.hypot(*weight)
    for strength in (0.0, 10.0):
        game = game_of(penalty(kind, strength, sides=sides), d=Linear(weight), judge=judge)
        metrics = StepMetrics()
        make_move(game, FixedBatches(randn(N, 2)), context(), metrics)
        results.append(gradients(game.d.net))
        if strength:
            assert logged_means(metrics)["d/p"] == pytest.approx(expected_penalty(norm, sides), rel=1e-5, abs=1e-12)
    factor = 0.0 if sides == "one" and norm < 1 else 20 * (norm - 1) / norm
    assert (results[1][0] - results[0][0]).tolist() == pytest.approx([factor * w for w in weight], rel=1e-4, abs=1e-6)
    assert torch.allclose(results[1][1], results[0][1], atol=1e-7)  # the bias does not affect the input gradient


def test_input_gradient_of_a_quadratic_d() -> None:
    a = randn(4, 4, dtype=torch.float64)
    d, x = Quadratic(a + a.T), randn(N, 4, seed=1, dtype=torch.float64)
    gradient = discriminated(d, x.clone(), x.clone()).input_gradient_at(x)
    assert torch.allclose(gradient, x @ (a + a.T), atol=1e-12)
    with torch.no_grad():
        assert torch.allclose(gradient, central_difference(lambda y: d(y).score, x), atol=1e-7)
    lengths = np.linalg.norm(as_float64(x) @ as_float64(a + a.T), axis=1)
    loss = PenaltyAt(x).loss(discriminated(d, x.clone(), x.clone()))
    assert float(loss.detach()) == pytest.approx(((lengths - 1) ** 2).mean(), rel=1e-9)


def test_input_gradient_equals_central_differences() -> None:
    d, x = TanhDiscriminator(3).double(), randn(N, 3, seed=1, dtype=torch.float64)
    gradient = discriminated(d, x.clone(), x.clone()).input_gradient_at(x)
    with torch.no_grad():
        assert torch.allclose(gradient, central_difference(lambda y: d(y).score, x), atol=1e-8)
    assert gradient.norm(dim=1).std() > 0.1


@pytest.mark.parametrize("sides", ["two", "one"])
def test_parameter_gradients_equal_finite_differences(sides: Sides) -> None:
    """The penalty as a function of both layers' weights, through the input gradient, in float64."""
    x = randn(N, 3, seed=1, dtype=torch.float64)
    weights = [w.detach().double().requires_grad_() for w in (TanhDiscriminator(3).first, TanhDiscriminator(3).second)]

    def penalty_of(first: Tensor, second: Tensor) -> Tensor:
        move = MoveData(context(), torch.zeros(N, 2), x, x)
        move.discriminate_fn = lambda y, _: DiscriminatorOutput(torch.tanh(y @ first.T) @ second)
        return PenaltyAt(x, sides).loss(move)

    assert torch.autograd.gradcheck(penalty_of, weights)
    grads = torch.autograd.grad(penalty_of(*weights), weights)
    assert all(grad.norm() > 1e-3 for grad in grads)


@pytest.mark.parametrize("sides", ["two", "one"])
@pytest.mark.parametrize(
    "d", [Linear([0.0, 0.0]), Quadratic(torch.zeros(2, 2)), Quadratic(A)], ids=["linear", "quadratic", "at the saddle"]
)
def test_gradients_are_finite_at_zero_input_gradients(d: torch.nn.Module, sides: Sides) -> None:
    x = torch.zeros(N, 2) if isinstance(d, Quadratic) and d.a.any() else randn(N, 2)
    loss = PenaltyAt(x, sides).loss(discriminated(d, x.clone(), x.clone()))
    assert float(loss.detach()) == pytest.approx(expected_penalty(0.0, sides), abs=1e-5)
    grads = torch.autograd.grad(loss, list(d.parameters()), allow_unused=True)
    assert any(grad is not None for grad in grads)
    assert all(torch.isfinite(grad).all() for grad in grads if grad is not None)


# ---------------------------------------------------------------- points


def points_of(trick: UnitGradientPenalty, real: Tensor, fake: Tensor, at: MoveContext | None = None) -> Tensor:
    """The samples at which `trick` takes the gradient."""
    given: list[Tensor] = []
    move = MoveData(at or context(), torch.zeros(len(real), 2), fake, real)

    def record(x: Tensor, labels: Tensor | None) -> DiscriminatorOutput:
        given.append(x.detach().clone())
        return DiscriminatorOutput(x.flatten(1).sum(1))

    move.discriminate_fn = record
    trick.loss(move)
    (x,) = given
    return x


def test_wgan_gp_interpolates_between_pairs() -> None:
    """x^ = u x + (1 - u) G(z), with one u ~ U[0, 1] for each pair, the same in every coordinate."""
    real, fake = randn(4000, 3, 2, 2), randn(4000, 3, 2, 2, seed=1) + 10
    x = points_of(penalty("wgan_gp"), real, fake)
    coefficients = ((x - fake) / (real - fake)).flatten(1)
    u = coefficients.mean(1)
    assert torch.allclose(coefficients, u[:, None].expand_as(coefficients), atol=1e-4)
    assert kstest(u.numpy(), "uniform").pvalue > 1e-3


def test_dragan_perturbs_real_samples() -> None:
    """x^ = x + 0.5 std eps, with the standard deviation of the whole batch and independent normal eps."""
    real = randn(3000, 2) * torch.tensor([0.2, 6.0]) + 5
    std = float(np.std(as_float64(real), ddof=1))
    for spread in (0.5, 2.0):
        trick = DRAGANConfig(spread=spread).build("p", {})
        eps = (points_of(trick, real, torch.full_like(real, 1e6)) - real) / (spread * std)
        assert kstest(as_float64(eps).ravel(), "norm").pvalue > 1e-3
        assert abs(np.corrcoef(as_float64(eps).T)[0, 1]) < 5 / math.sqrt(3000)
    assert torch.equal(points_of(DRAGANConfig(spread=0.0).build("p", {}), real, real), real)


def test_interpolation_and_perturbation_of_equal_inputs() -> None:
    real, fake = randn(5, 2), randn(5, 2, seed=1)
    assert torch.allclose(interpolate_pairs(real, real, torch.Generator()), real)
    assert perturb_real(fake, 0.3, torch.Generator()).dtype == torch.float32


DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("fake_type", DTYPES)
@pytest.mark.parametrize("real_type", DTYPES)
def test_samples_of_different_precisions_are_interpolated_in_the_higher_one(
    real_type: torch.dtype, fake_type: torch.dtype
) -> None:
    real, fake = torch.zeros(5, 3, dtype=real_type), torch.ones(5, 3, dtype=fake_type)
    points = interpolate_pairs(real, fake, torch.Generator().manual_seed(0))
    assert points.dtype == torch.promote_types(real_type, fake_type)
    assert (points == points[:, :1]).all()
    assert points[:, 0].unique().numel() > 1


@pytest.mark.parametrize(("n", "m"), [(1, 8), (8, 1), (8, 6), (0, 1)])
def test_samples_that_are_no_pairs_are_refused(n: int, m: int) -> None:
    with pytest.raises(ValueError, match=f"pairs of one shape, found {n} x 2 and {m} x 2"):
        interpolate_pairs(torch.zeros(n, 2), torch.zeros(m, 2), torch.Generator())


@pytest.mark.parametrize("kind", KINDS)
def test_points_are_determined_by_seed_step_and_turn(kind: str) -> None:
    real, fake = randn(N, 2), randn(N, 2, seed=1)
    trick = penalty(kind)
    first, again = (points_of(trick, real, fake, context(3)) for _ in range(2))
    assert torch.equal(first, again)
    for other in (context(4), context(3, turn=1), context(3, seed=1)):
        assert not torch.allclose(first, points_of(trick, real, fake, other), atol=1e-3)


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("kind", KINDS)
def test_real_and_fake_samples_get_no_gradient(kind: str) -> None:
    """Even if another penalty requires their gradients."""
    d = TanhDiscriminator()
    move = discriminated(d, randn(N, 2), randn(N, 2, seed=1), "fake", "real")
    origins = move.samples("real"), move.samples("fake")
    assert all(origin.requires_grad for origin in origins)
    penalty(kind).loss(move).backward()
    assert all(origin.grad is None for origin in origins)
    assert all(grad.any() for grad in gradients(d))


def test_the_given_samples_are_not_changed() -> None:
    move = discriminated(TanhDiscriminator(), randn(N, 2), randn(N, 2, seed=1), "fake")
    real, fake = move.samples("real"), move.samples("fake")
    for origin in (real, fake):
        PenaltyAt(origin).loss(move).backward()
    assert not real.requires_grad
    assert fake.requires_grad
    assert real.grad is fake.grad is None


@pytest.mark.parametrize("kind", KINDS)
def test_only_d_is_penalised(kind: str) -> None:
    game = game_of(penalty(kind, 10.0), d=TanhDiscriminator())
    make_move(game, FixedBatches(randn(N, 2)), context(), StepMetrics())
    assert all(grad.any() for grad in gradients(game.d.net))
    assert not any(grad.any() for grad in gradients(game.g.net))
    plain, penalised = game_of(d=TanhDiscriminator()), game_of(penalty(kind, 10.0), d=TanhDiscriminator())
    for one in (plain, penalised):
        metrics = StepMetrics()
        make_move(one, FixedBatches(randn(N, 2)), context(side=Side.G), metrics)
        assert list(logged_means(metrics)) == ["g/adversarial", "g/grad_norm"]
    for expected, actual in zip(gradients(plain.g.net), gradients(penalised.g.net), strict=True):
        assert torch.equal(expected, actual)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_taken_through_input_transforms(kind: str) -> None:
    """D(2x) has twice the gradient at x: (2 ||w|| - 1)^2."""
    transform, metrics = DoublingTransform(), StepMetrics()
    game = game_of(transform, penalty(kind), d=Linear([3.0, -4.0]))
    make_move(game, FixedBatches(randn(N, 2)), context(), metrics)
    assert logged_means(metrics)["d/p"] == pytest.approx((2 * 5 - 1) ** 2, rel=1e-5)
    assert sorted(transform.origins) == ["between", "fake", "real"]


def test_the_gradient_is_taken_before_input_transforms() -> None:
    """D(2x) = 2 x'Ax: its gradient at x is 4 Ax."""
    x = randn(N, 2)
    move = discriminated(Quadratic(A), x.clone(), x.clone(), transforms=(DoublingTransform(),))
    assert torch.allclose(move.input_gradient_at(x), 4 * x @ A, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("judge", [discriminate_separately, discriminate_jointly])
def test_every_scales_the_weight(kind: str, judge: Any) -> None:
    def gradients_after(weight: float, every: int, at: int) -> list[Tensor]:
        game = game_of(penalty(kind, weight, every), d=TanhDiscriminator(), judge=judge)
        make_move(game, FixedBatches(randn(N, 2)), context(at), StepMetrics())
        return gradients(game.d.net)

    plain, once, lazy, idle = (
        gradients_after(0.0, 1, 8),
        gradients_after(2.0, 1, 8),
        gradients_after(2.0, 4, 8),
        gradients_after(2.0, 4, 9),
    )
    for w, w1, w4 in zip(plain, once, lazy, strict=True):
        assert torch.allclose(w4 - w, 4 * (w1 - w), atol=1e-5)
        assert not torch.allclose(w1, w, atol=1e-3)
    for w, w9 in zip(gradients_after(0.0, 1, 9), idle, strict=True):
        assert torch.equal(w, w9)


def test_three_penalties_add_up() -> None:
    """Three penalties in one move: each is computed as if it were alone."""
    rows, tricks = [], [penalty("wgan_gp"), DRAGAN("q", 1.0, 1, "one", 0.5), R1("r", 1.0)]
    for combination in (tricks, *([trick] for trick in tricks)):
        metrics = StepMetrics()
        make_move(game_of(*combination, d=TanhDiscriminator()), FixedBatches(randn(N, 2)), context(), metrics)
        rows.append({name: value for name, value in logged_means(metrics).items() if name in ("d/p", "d/q", "d/r")})
    alone = rows[1] | rows[2] | rows[3]
    assert rows[0] == pytest.approx(alone, rel=1e-5)
    assert len(rows[0]) == 3
    assert isinstance(tricks[0], WGANGP)
