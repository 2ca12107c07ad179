"""Gradient clipping against PyTorch's own, and against min(1, c / ||g||) in float64."""

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
from tricks.small import Bent, Given, N, cloud, game_of, gradients, shown

SHAPES = ((3, 4), (5,), (1,), (2, 1, 3))


def weights(scale: float = 1.0, dtype: torch.dtype = torch.float64, without: int | None = None) -> list[nn.Parameter]:
    """Parameters with gradients of normal numbers; one may be without."""
    made = [nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in SHAPES]
    for k, w in enumerate(made):
        if k != without:
            w.grad = scale * cloud(*w.shape, seed=k, dtype=dtype)
    return made


def flat(made: list[nn.Parameter]) -> Tensor:
    return torch.cat([w.grad.flatten() for w in made if w.grad is not None])


@pytest.mark.parametrize("without", [None, 1])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("most", [0.5, 4.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_pytorchs_own(most: float, scale: float, dtype: torch.dtype, without: int | None) -> None:
    ours, theirs = weights(scale, dtype, without), weights(scale, dtype, without)
    grads = [w.grad for w in ours]
    told = clip_grads_(iter(ours), most)
    assert torch.equal(told, nn.utils.clip_grad_norm_(theirs, most))  # which divides by the norm + 1e-6
    assert told.shape == ()
    for w, v, grad in zip(ours, theirs, grads, strict=True):
        assert w.grad is grad, "in place"
        assert (w.grad is None) == (v.grad is None)
        assert w.grad is None or torch.allclose(w.grad, v.grad, rtol=1e-5)
        assert not w.any()


@pytest.mark.parametrize("most", [0.01, 0.5, 3.0])
@pytest.mark.parametrize("scale", [1.0, 50.0, 1e6])
def test_a_long_gradient_keeps_its_direction_and_gets_the_length(most: float, scale: float) -> None:
    made = weights(scale)
    before = flat(made).clone()
    told = clip_grads_(made, most)
    after = flat(made)
    assert float(told) == pytest.approx(float(before.norm()), rel=1e-12)
    assert float(before.norm()) > most
    assert float(after.norm()) == pytest.approx(most, rel=1e-12)
    cosine = float(after @ before / after.norm() / before.norm())
    assert cosine == pytest.approx(1, abs=1e-12)


def test_a_short_gradient_is_the_same_to_the_bit() -> None:
    made = weights()
    before = flat(made).clone()
    clip_grads_(made, float(before.norm()) * 1.001)
    assert torch.equal(flat(made), before)


def test_nothing_is_longer_than_zero() -> None:
    made = weights()
    assert float(clip_grads_(made, 0.0)) > 0
    assert not flat(made).any()


def test_gradients_of_zero_stay() -> None:
    for most in (0.0, 1.0):
        made = weights(0.0)
        assert float(clip_grads_(made, most)) == 0.0
        assert torch.equal(flat(made), torch.zeros_like(flat(made)))


def test_without_any_gradient_there_is_nothing_to_cut() -> None:
    made = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))]
    assert float(clip_grads_(made, 1.0)) == 0.0
    assert all(w.grad is None for w in made)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_what_is_no_number_stays_visible(bad: float) -> None:
    """No cut may make a gradient that has burst look like a good one."""
    made = weights()
    made[1].grad[2] = bad  # type: ignore[index]
    told = clip_grads_(made, 1.0)
    assert not math.isfinite(float(told))
    assert bool(flat(made).isnan().any())
    assert math.isnan(float(made[1].grad[2]))  # type: ignore[index]


# ---------------------------------------------------------------- in a game


def cut(most: Schedulable, at: int = 0, scale: float = 1.0, steps: int = 10) -> tuple[float, float]:
    """The reading, and the length after it."""
    net = nn.ParameterList(weights(scale))
    player = Player(Side.D, net, torch.optim.SGD(net.parameters(), lr=1.0), lambda _: {})
    move = MoveData(context(at, steps=steps), torch.zeros(1, 2), torch.zeros(1, 2))
    GradientClipping("clip", most).transform_gradients(player, move)
    reading = move.logged["clip"]
    assert reading.shape == ()
    assert reading.is_floating_point()
    return float(reading), float(flat(player.weights).norm())


def test_the_reading_is_one_where_it_cuts_and_zero_where_it_does_not() -> None:
    length = float(flat(weights()).norm())
    assert cut(length * 0.999)[0] == 1.0
    assert cut(length) == (0.0, pytest.approx(length))
    assert cut(length * 1.001)[0] == 0.0
    assert cut(0.0, scale=0.0) == (0.0, 0.0)


def test_the_limit_is_a_dial() -> None:
    dial = Linear(start=2.0, end=0.0)
    for at, most in ((0, 2.0), (5, 1.0), (9, 0.2), (10, 0.0)):
        assert cut(dial, at) == (1.0, pytest.approx(most, rel=1e-5))
    assert cut(Linear(start=2.0, end=0.0, until=5, over="steps"), 4)[1] == pytest.approx(0.4, rel=1e-5)


@pytest.mark.parametrize("side", Side)
def test_both_players_steps_are_held_and_the_row_tells_the_length_as_it_was(side: Side) -> None:
    rows, steps, grads = [], [], []
    for tricks in ((), (GradientClipping("clip", 1e-3),)):
        game, metrics = game_of(*tricks, d=Bent(), lr=1.0), StepMetrics()
        net = game.players[side].net
        before = [w.detach().double() for w in net.parameters()]
        make_move(game, Given(cloud(N, 2)), context(side=side), metrics)
        rows.append(shown(metrics))
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


def test_the_row_shows_the_share_of_moves() -> None:
    """A limit that falls below the gradient's length half way, at a learning rate of 0."""
    lengths = StepMetrics()
    make_move(game_of(d=Bent()), Given(cloud(N, 2)), context(), lengths)
    length = shown(lengths)["d/grad_norm"]
    game, metrics = game_of(GradientClipping("clip", 0.99 * length), d=Bent()), StepMetrics()
    other = game_of(GradientClipping("clip", 1.01 * length), d=Bent())
    for held in (game, other, other, game):
        make_move(held, Given(cloud(N, 2)), context(), metrics)
    assert shown(metrics)["d/clip"] == 0.5


def test_the_entry_builds_it() -> None:
    context = TrickContext({}, DataSpec((2,)))
    assert GradientClippingConfig().build("clip", context).max_norm == 100.0
    trick = GradientClippingConfig(max_norm=3.0).build("x", context)
    assert (trick.name, trick.max_norm) == ("x", 3.0)
    assert GradientClipping.sides == set(Side)
    with pytest.raises(RecipeError, match="max_norm"):
        recipe("points", {"kind": "gradient_clipping", "max_norm": -1.0})
