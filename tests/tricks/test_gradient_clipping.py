"""Gradient clipping, compared with PyTorch's function and with min(1, c / ||g||) in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import context, recipe
from poise.core.move import MoveData
from poise.core.player import Player
from poise.core.schedules import Linear, Schedulable
from poise.core.types import DataSpec, Side
from poise.engine.step import make_move
from poise.engine.step_metrics import StepMetrics
from poise.errors import RecipeError
from poise.tricks.base import TrickContext
from poise.tricks.gradient_clipping import GradientClipping, GradientClippingConfig, clip_grads_
from tricks.small import FixedBatches, N, TanhDiscriminator, game_of, gradients, logged_means, randn

SHAPES = ((3, 4), (5,), (1,), (2, 1, 3))


def weights(scale: float = 1.0, dtype: torch.dtype = torch.float64, without: int | None = None) -> list[nn.Parameter]:
    """Parameters with normally distributed gradients; one may have none."""
    parameters = [nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in SHAPES]
    for k, w in enumerate(parameters):
        if k != without:
            w.grad = scale * randn(*w.shape, seed=k, dtype=dtype)
    return parameters


def flat(parameters: list[nn.Parameter]) -> Tensor:
    return torch.cat([w.grad.flatten() for w in parameters if w.grad is not None])


@pytest.mark.parametrize("without", [None, 1])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("max_norm", [0.5, 4.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_pytorchs_clip_grad_norm(max_norm: float, scale: float, dtype: torch.dtype, without: int | None) -> None:
    parameters, expected = weights(scale, dtype, without), weights(scale, dtype, without)
    grads = [w.grad for w in parameters]
    norm = clip_grads_(iter(parameters), max_norm)
    assert torch.equal(norm, nn.utils.clip_grad_norm_(expected, max_norm))  # which divides by the norm + 1e-6
    assert norm.shape == ()
    for w, v, grad in zip(parameters, expected, grads, strict=True):
        assert w.grad is grad, "in place"
        assert (w.grad is None) == (v.grad is None)
        assert w.grad is None or torch.allclose(w.grad, v.grad, rtol=1e-5)
        assert not w.any()


@pytest.mark.parametrize("max_norm", [0.01, 0.5, 3.0])
@pytest.mark.parametrize("scale", [1.0, 50.0, 1e6])
def test_a_large_gradient_keeps_its_direction_and_gets_the_maximum_norm(max_norm: float, scale: float) -> None:
    parameters = weights(scale)
    before = flat(parameters).clone()
    norm = clip_grads_(parameters, max_norm)
    after = flat(parameters)
    assert float(norm) == pytest.approx(float(before.norm()), rel=1e-12)
    assert float(before.norm()) > max_norm
    assert float(after.norm()) == pytest.approx(max_norm, rel=1e-12)
    cosine = float(after @ before / after.norm() / before.norm())
    assert cosine == pytest.approx(1, abs=1e-12)


def test_a_small_gradient_is_bitwise_unchanged() -> None:
    made = weights()
    before = flat(made).clone()
    clip_grads_(made, float(before.norm()) * 1.001)
    assert torch.equal(flat(made), before)


def test_a_maximum_norm_of_0_gives_zero_gradients() -> None:
    made = weights()
    assert float(clip_grads_(made, 0.0)) > 0
    assert not flat(made).any()


def test_zero_gradients_are_unchanged() -> None:
    for max_norm in (0.0, 1.0):
        made = weights(0.0)
        assert float(clip_grads_(made, max_norm)) == 0.0
        assert torch.equal(flat(made), torch.zeros_like(flat(made)))


def test_parameters_without_gradients_are_skipped() -> None:
    made = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))]
    assert float(clip_grads_(made, 1.0)) == 0.0
    assert all(w.grad is None for w in made)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_non_finite_gradients_stay_non_finite(bad: float) -> None:
    """Clipping must not hide an overflow."""
    parameters = weights()
    parameters[1].grad[2] = bad  # type: ignore[index]
    norm = clip_grads_(parameters, 1.0)
    assert not math.isfinite(float(norm))
    assert bool(flat(parameters).isnan().any())
    assert math.isnan(float(parameters[1].grad[2]))  # type: ignore[index]


# ---------------------------------------------------------------- in a game


def clipped_norm(max_norm: Schedulable, at: int = 0, scale: float = 1.0, steps: int = 10) -> tuple[float, float]:
    """The logged value, and the gradient norm after clipping."""
    net = nn.ParameterList(weights(scale))
    player = Player(Side.D, net, torch.optim.SGD(net.parameters(), lr=1.0), lambda _: {})
    move = MoveData(context(at, steps=steps), torch.zeros(1, 2), torch.zeros(1, 2))
    GradientClipping("clip", max_norm).transform_gradients(player, move)
    logged = move.logged["clip"]
    assert logged.shape == ()
    assert logged.is_floating_point()
    return float(logged), float(flat(player.weights).norm())


def test_the_logged_value_is_1_if_clipped_and_0_otherwise() -> None:
    norm = float(flat(weights()).norm())
    assert clipped_norm(norm * 0.999)[0] == 1.0
    assert clipped_norm(norm) == (0.0, pytest.approx(norm))
    assert clipped_norm(norm * 1.001)[0] == 0.0
    assert clipped_norm(0.0, scale=0.0) == (0.0, 0.0)


def test_the_limit_may_follow_a_schedule() -> None:
    schedule = Linear(start=2.0, end=0.0)
    for at, max_norm in ((0, 2.0), (5, 1.0), (9, 0.2), (10, 0.0)):
        assert clipped_norm(schedule, at) == (1.0, pytest.approx(max_norm, rel=1e-5))
    assert clipped_norm(Linear(start=2.0, end=0.0, until=5, over="steps"), 4)[1] == pytest.approx(0.4, rel=1e-5)


@pytest.mark.parametrize("side", Side)
def test_both_players_are_clipped_and_the_norm_before_is_logged(side: Side) -> None:
    rows, steps, grads = [], [], []
    for tricks in ((), (GradientClipping("clip", 1e-3),)):
        game, metrics = game_of(*tricks, d=TanhDiscriminator(), lr=1.0), StepMetrics()
        net = game.players[side].net
        before = [w.detach().double() for w in net.parameters()]
        make_move(game, FixedBatches(randn(N, 2)), context(side=side), metrics)
        rows.append(logged_means(metrics))
        grads.append(torch.cat([grad.flatten() for grad in gradients(net)]))
        steps.append(
            torch.cat([(w.detach().double() - v).flatten() for w, v in zip(net.parameters(), before, strict=True)])
        )
    assert float(steps[0].norm()) > 0.01
    assert float(steps[1].norm()) == pytest.approx(1e-3, rel=2e-3)
    assert torch.allclose(steps[1] / steps[1].norm(), steps[0] / steps[0].norm(), atol=1e-3)
    assert rows[0][f"{side}/grad_norm"] == rows[1][f"{side}/grad_norm"] == pytest.approx(float(grads[0].norm()))
    assert rows[1][f"{side}/clip"] == 1.0
    assert f"{side}/clip" not in rows[0]


def test_the_fraction_of_clipped_moves_is_logged() -> None:
    """The limit is below the gradient norm in half of the moves, at a learning rate of 0."""
    unclipped = StepMetrics()
    make_move(game_of(d=TanhDiscriminator()), FixedBatches(randn(N, 2)), context(), unclipped)
    norm = logged_means(unclipped)["d/grad_norm"]
    game, metrics = game_of(GradientClipping("clip", 0.99 * norm), d=TanhDiscriminator()), StepMetrics()
    other = game_of(GradientClipping("clip", 1.01 * norm), d=TanhDiscriminator())
    for one in (game, other, other, game):
        make_move(one, FixedBatches(randn(N, 2)), context(), metrics)
    assert logged_means(metrics)["d/clip"] == 0.5


def test_the_config_builds_the_trick() -> None:
    context = TrickContext({}, DataSpec((2,)))
    assert GradientClippingConfig().build("clip", context).max_norm == 100.0
    trick = GradientClippingConfig(max_norm=3.0).build("x", context)
    assert (trick.name, trick.max_norm) == ("x", 3.0)
    assert GradientClipping.sides == set(Side)
    with pytest.raises(RecipeError, match="max_norm"):
        recipe("points", {"kind": "gradient_clipping", "max_norm": -1.0})
