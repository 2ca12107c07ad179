"""WGAN-GP and DRAGAN: closed forms on D's whose slope is known, double backward, and where the slope is taken."""

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
    Bent,
    Doubled,
    Given,
    N,
    Quadratic,
    as_float64,
    central,
    cloud,
    faced,
    game_of,
    gradients,
    shown,
)

KINDS = ("wgan_gp", "dragan")
A = torch.tensor([[1.0, 0.5], [0.5, -2.0]])


def penalty(kind: str, weight: float = 1.0, every: int = 1, sides: Sides = "two") -> UnitGradientPenalty:
    if kind == "wgan_gp":
        return WGANGPConfig(weight=weight, every=every, sides=sides).build("p", {})
    return DRAGANConfig(weight=weight, every=every, sides=sides).build("p", {})


class At(UnitGradientPenalty):
    """The same charge at samples of one's own choice."""

    def __init__(self, x: Tensor, sides: Sides = "two") -> None:
        super().__init__("at", 1.0, 1, sides)
        self.x = x

    def penalty_points(self, move: MoveData) -> Tensor:
        return self.x


def off(length: float, sides: Sides) -> float:
    """(||w|| - 1)^2, or of what exceeds one."""
    return (length - 1) ** 2 if sides == "two" or length > 1 else 0.0


@pytest.mark.parametrize("sides", ["two", "one"])
def test_off_unit_is_its_formula(sides: Sides) -> None:
    slope = cloud(20, 3, 2, 2) * torch.linspace(0, 1.5, 20).view(-1, 1, 1, 1)
    expected = [off(float(np.linalg.norm(row)), sides) for row in as_float64(slope).reshape(20, -1)]
    assert 0 < sum(float(np.linalg.norm(row)) > 1 for row in as_float64(slope).reshape(20, -1)) < 20
    np.testing.assert_allclose(unit_norm_penalty(slope, sides).numpy(), expected, rtol=1e-5, atol=3e-6)
    assert unit_norm_penalty(slope.bfloat16(), sides).dtype == torch.float32
    assert unit_norm_penalty(slope.double(), sides).dtype == torch.float64


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sides", ["two", "one"])
@pytest.mark.parametrize("weight", [[3.0, -4.0], [0.3, 0.4]])
@pytest.mark.parametrize("judge", [discriminate_separately, discriminate_jointly])
def test_a_linear_d_is_charged_for_its_weights_length(kind: str, sides: Sides, weight: list[float], judge: Any) -> None:
    """The row shows (||w|| - 1)^2 wherever the slope is taken, and D's gradient is 2 lambda (||w|| - 1) w / ||w||."""
    found, length = [], math.hypot(*weight)
    for strength in (0.0, 10.0):
        game = game_of(penalty(kind, strength, sides=sides), d=Linear(weight), judge=judge)
        metrics = StepMetrics()
        make_move(game, Given(cloud(N, 2)), context(), metrics)
        found.append(gradients(game.d.net))
        if strength:
            assert shown(metrics)["d/p"] == pytest.approx(off(length, sides), rel=1e-5, abs=1e-12)
    pull = 0.0 if sides == "one" and length < 1 else 20 * (length - 1) / length
    assert (found[1][0] - found[0][0]).tolist() == pytest.approx([pull * w for w in weight], rel=1e-4, abs=1e-6)
    assert torch.allclose(found[1][1], found[0][1], atol=1e-7)  # the bias has no slope


def test_the_slope_of_a_quadratic_d_is_ax_and_that_of_central_differences() -> None:
    a = cloud(4, 4, dtype=torch.float64)
    d, x = Quadratic(a + a.T), cloud(N, 4, seed=1, dtype=torch.float64)
    slope = faced(d, x.clone(), x.clone()).input_gradient_at(x)
    assert torch.allclose(slope, x @ (a + a.T), atol=1e-12)
    with torch.no_grad():
        assert torch.allclose(slope, central(lambda y: d(y).score, x), atol=1e-7)
    lengths = np.linalg.norm(as_float64(x) @ as_float64(a + a.T), axis=1)
    cost = At(x).loss(faced(d, x.clone(), x.clone()))
    assert float(cost.detach()) == pytest.approx(((lengths - 1) ** 2).mean(), rel=1e-9)


def test_the_slope_of_a_bent_d_is_that_of_central_differences() -> None:
    d, x = Bent(3).double(), cloud(N, 3, seed=1, dtype=torch.float64)
    slope = faced(d, x.clone(), x.clone()).input_gradient_at(x)
    with torch.no_grad():
        assert torch.allclose(slope, central(lambda y: d(y).score, x), atol=1e-8)
    assert slope.norm(dim=1).std() > 0.1


@pytest.mark.parametrize("sides", ["two", "one"])
def test_parameter_gradients_are_those_of_differences(sides: Sides) -> None:
    """The penalty as a function of both layers' weights, through the slope, in float64."""
    x = cloud(N, 3, seed=1, dtype=torch.float64)
    weights = [w.detach().double().requires_grad_() for w in (Bent(3).first, Bent(3).second)]

    def charged(first: Tensor, second: Tensor) -> Tensor:
        move = MoveData(context(), torch.zeros(N, 2), x, x)
        move.discriminate_fn = lambda y, _: DiscriminatorOutput(torch.tanh(y @ first.T) @ second)
        return At(x, sides).loss(move)

    assert torch.autograd.gradcheck(charged, weights)
    grads = torch.autograd.grad(charged(*weights), weights)
    assert all(grad.norm() > 1e-3 for grad in grads)


@pytest.mark.parametrize("sides", ["two", "one"])
@pytest.mark.parametrize(
    "d", [Linear([0.0, 0.0]), Quadratic(torch.zeros(2, 2)), Quadratic(A)], ids=["linear", "quadratic", "at the saddle"]
)
def test_gradients_are_finite_where_the_slope_is_zero(d: torch.nn.Module, sides: Sides) -> None:
    x = torch.zeros(N, 2) if isinstance(d, Quadratic) and d.a.any() else cloud(N, 2)
    cost = At(x, sides).loss(faced(d, x.clone(), x.clone()))
    assert float(cost.detach()) == pytest.approx(off(0.0, sides), abs=1e-5)
    grads = torch.autograd.grad(cost, list(d.parameters()), allow_unused=True)
    assert any(grad is not None for grad in grads)
    assert all(torch.isfinite(grad).all() for grad in grads if grad is not None)


# ---------------------------------------------------------------- where


def asked(trick: UnitGradientPenalty, real: Tensor, fake: Tensor, at: MoveContext | None = None) -> Tensor:
    """The samples at which `trick` asks for the slope."""
    given: list[Tensor] = []
    move = MoveData(at or context(), torch.zeros(len(real), 2), fake, real)

    def ask(x: Tensor, labels: Tensor | None) -> DiscriminatorOutput:
        given.append(x.detach().clone())
        return DiscriminatorOutput(x.flatten(1).sum(1))

    move.discriminate_fn = ask
    trick.loss(move)
    (x,) = given
    return x


def test_wgan_gp_looks_on_the_lines_between_the_pairs() -> None:
    """x^ = u x + (1 - u) G(z): one u ~ U[0, 1] for each pair, in every coordinate the same."""
    real, fake = cloud(4000, 3, 2, 2), cloud(4000, 3, 2, 2, seed=1) + 10
    x = asked(penalty("wgan_gp"), real, fake)
    shares = ((x - fake) / (real - fake)).flatten(1)
    u = shares.mean(1)
    assert torch.allclose(shares, u[:, None].expand_as(shares), atol=1e-4)
    assert kstest(u.numpy(), "uniform").pvalue > 1e-3


def test_dragan_looks_around_the_reals() -> None:
    """x^ = x + 0.5 std eps with the standard deviation of the whole batch and normal eps, one for each number."""
    real = cloud(3000, 2) * torch.tensor([0.2, 6.0]) + 5
    std = float(np.std(as_float64(real), ddof=1))
    for spread in (0.5, 2.0):
        trick = DRAGANConfig(spread=spread).build("p", {})
        eps = (asked(trick, real, torch.full_like(real, 1e6)) - real) / (spread * std)
        assert kstest(as_float64(eps).ravel(), "norm").pvalue > 1e-3
        assert abs(np.corrcoef(as_float64(eps).T)[0, 1]) < 5 / math.sqrt(3000)
    assert torch.equal(asked(DRAGANConfig(spread=0.0).build("p", {}), real, real), real)


def test_ends_of_between_and_around() -> None:
    real, fake = cloud(5, 2), cloud(5, 2, seed=1)
    assert torch.allclose(interpolate_pairs(real, real, torch.Generator()), real)
    assert perturb_real(fake, 0.3, torch.Generator()).dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_looks_elsewhere_and_a_repeated_one_at_the_same(kind: str) -> None:
    real, fake = cloud(N, 2), cloud(N, 2, seed=1)
    trick = penalty(kind)
    first, again = (asked(trick, real, fake, context(3)) for _ in range(2))
    assert torch.equal(first, again)
    for other in (context(4), context(3, turn=1), context(3, seed=1)):
        assert not torch.allclose(first, asked(trick, real, fake, other), atol=1e-3)


# ---------------------------------------------------------------- whose gradient


@pytest.mark.parametrize("kind", KINDS)
def test_piles_get_no_gradient_from_it(kind: str) -> None:
    """Though another penalty may have asked for theirs."""
    d = Bent()
    move = faced(d, cloud(N, 2), cloud(N, 2, seed=1), "fake", "real")
    origins = move.samples("real"), move.samples("fake")
    assert all(origin.requires_grad for origin in origins)
    penalty(kind).loss(move).backward()
    assert all(origin.grad is None for origin in origins)
    assert all(grad.any() for grad in gradients(d))


def test_asking_for_the_slope_at_a_pile_leaves_it_as_it_was() -> None:
    move = faced(Bent(), cloud(N, 2), cloud(N, 2, seed=1), "fake")
    real, fake = move.samples("real"), move.samples("fake")
    for origin in (real, fake):
        At(origin).loss(move).backward()
    assert not real.requires_grad
    assert fake.requires_grad
    assert real.grad is fake.grad is None


@pytest.mark.parametrize("kind", KINDS)
def test_is_charged_to_d_alone(kind: str) -> None:
    game = game_of(penalty(kind, 10.0), d=Bent())
    make_move(game, Given(cloud(N, 2)), context(), StepMetrics())
    assert all(grad.any() for grad in gradients(game.d.net))
    assert not any(grad.any() for grad in gradients(game.g.net))
    plain, company = game_of(d=Bent()), game_of(penalty(kind, 10.0), d=Bent())
    for one in (plain, company):
        metrics = StepMetrics()
        make_move(one, Given(cloud(N, 2)), context(side=Side.G), metrics)
        assert list(shown(metrics)) == ["g/adversarial", "g/grad_norm"]
    for ours, theirs in zip(gradients(plain.g.net), gradients(company.g.net), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_views_are_part_of_what_is_differentiated(kind: str) -> None:
    """D(2x) has twice the slope at x: (2 ||w|| - 1)^2."""
    view, metrics = Doubled(), StepMetrics()
    game = game_of(view, penalty(kind), d=Linear([3.0, -4.0]))
    make_move(game, Given(cloud(N, 2)), context(), metrics)
    assert shown(metrics)["d/p"] == pytest.approx((2 * 5 - 1) ** 2, rel=1e-5)
    assert sorted(view.origins) == ["between", "fake", "real"]


def test_a_view_of_a_quadratic_d_is_differentiated_at_the_raw_sample() -> None:
    """D(2x) = 2 x'Ax: its slope at x is 4 Ax."""
    x = cloud(N, 2)
    move = faced(Quadratic(A), x.clone(), x.clone(), views=(Doubled(),))
    assert torch.allclose(move.input_gradient_at(x), 4 * x @ A, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("judge", [discriminate_separately, discriminate_jointly])
def test_every_multiplies_the_weight(kind: str, judge: Any) -> None:
    def pulled(weight: float, every: int, at: int) -> list[Tensor]:
        game = game_of(penalty(kind, weight, every), d=Bent(), judge=judge)
        make_move(game, Given(cloud(N, 2)), context(at), StepMetrics())
        return gradients(game.d.net)

    plain, once, lazy, idle = pulled(0.0, 1, 8), pulled(2.0, 1, 8), pulled(2.0, 4, 8), pulled(2.0, 4, 9)
    for w, w1, w4 in zip(plain, once, lazy, strict=True):
        assert torch.allclose(w4 - w, 4 * (w1 - w), atol=1e-5)
        assert not torch.allclose(w1, w, atol=1e-3)
    for w, w9 in zip(pulled(0.0, 1, 9), idle, strict=True):
        assert torch.equal(w, w9)


def test_both_stand_beside_r1() -> None:
    """Three penalties in one move: each is charged as if it were alone."""
    rows, tricks = [], [penalty("wgan_gp"), DRAGAN("q", 1.0, 1, "one", 0.5), R1("r", 1.0)]
    for company in (tricks, *([trick] for trick in tricks)):
        metrics = StepMetrics()
        make_move(game_of(*company, d=Bent()), Given(cloud(N, 2)), context(), metrics)
        rows.append({name: told for name, told in shown(metrics).items() if name in ("d/p", "d/q", "d/r")})
    alone = rows[1] | rows[2] | rows[3]
    assert rows[0] == pytest.approx(alone, rel=1e-5)
    assert len(rows[0]) == 3
    assert isinstance(tricks[0], WGANGP)
