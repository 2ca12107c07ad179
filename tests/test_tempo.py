"""Tempos: who moves, in which order and how often, and both at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import Linear, Session, Shift, by_hand, context, recipe, ring_feed, source
from poise.core.move import MoveData
from poise.core.types import MoveContext, Side
from poise.engine.step import alternate, simultaneous
from poise.engine.step_metrics import StepMetrics
from poise.errors import RecipeError
from poise.objectives.base import Losses, Objective
from poise.tempo import RatioConfig, SimultaneousConfig, ThresholdsConfig
from poise.training.state import STEP_FUNCTIONS

D, G = Side.D, Side.G


def played(steps: int = 1, **tempo: Any) -> list[list[Side]]:
    """Who moved, step by step."""
    told = recipe("points", tempo=tempo)
    run = Session(told, source("points"))
    found = []
    for _ in range(steps):
        before = len(run.moves)
        run.play(1)
        found.append([move.context.side for move in run.moves[before:]])
    return found


# ---------------------------------------------------------------- ratio


def test_ratio() -> None:
    assert played(2, kind="ratio") == [[D, G]] * 2
    assert played(2, kind="ratio", d=3, g=2) == [[D, D, D, G, G]] * 2
    assert played(2, kind="ratio", d=2, g=1, first="g") == [[G, D, D]] * 2


def test_d_moves_alone_in_its_head_start() -> None:
    assert played(4, kind="ratio", d=2, head_start=2) == [[D, D]] * 2 + [[D, D, G]] * 2
    assert played(3, kind="ratio", g=2, head_start=1, first="g") == [[D]] + [[G, G, D]] * 2
    assert played(3, kind="thresholds", d_above=100.0, g_above=100.0, head_start=2) == [[D]] * 2 + [[D, G]]


def test_turns_are_counted_for_each_side() -> None:
    run = Session(recipe("points", tempo={"kind": "ratio", "d": 2, "g": 3, "first": "g"}), source("points")).play(1)
    assert [(m.context.side, m.context.turn) for m in run.moves] == [(G, 0), (G, 1), (G, 2), (D, 0), (D, 1)]
    assert tuple(run.game.tempo.max_moves) == (2, 3)


@pytest.mark.parametrize(
    ("tempo", "where"),
    [
        ({"kind": "ratio", "d": 0}, "d"),
        ({"kind": "ratio", "g": 1001}, "g"),
        ({"kind": "ratio", "first": "x"}, "first"),
        ({"kind": "ratio", "head_start": -1}, "head_start"),
        ({"kind": "thresholds", "d_most": 0}, "d_most"),
        ({"kind": "simultaneous", "d": 2}, "d"),
    ],
)
def test_what_is_no_tempo_is_refused_with_its_path(tempo: dict[str, Any], where: str) -> None:
    with pytest.raises(RecipeError, match=rf"tempo\.{where}\b"):
        recipe("points", tempo=tempo)


# ---------------------------------------------------------------- thresholds


@pytest.mark.parametrize("first", ["d", "g"])
def test_thresholds_stop_where_they_are_reached_and_at_the_most(first: str) -> None:
    order = (D, G) if first == "d" else (G, D)
    for d_above, g_above in ((-1.0, -1.0), (100.0, -1.0), (-1.0, 100.0), (100.0, 100.0)):
        counts = {D: 4 if d_above < 0 else 1, G: 3 if g_above < 0 else 1}
        (found,) = played(kind="thresholds", d_above=d_above, g_above=g_above, d_most=4, g_most=3, first=first)
        assert found == [side for side in order for _ in range(counts[side])]


def test_a_loss_that_is_no_number_does_not_go_on() -> None:
    tempo = ThresholdsConfig().build()
    assert not tempo.should_move(context(turn=1), move(float("nan")))


def move(adversarial: float) -> MoveData:
    nothing = torch.zeros(0)
    return MoveData(context(), nothing, nothing, logged={"adversarial": torch.tensor(adversarial)})


def test_the_loss_in_question_is_the_adversarial_one_of_the_move_before() -> None:
    tempo = ThresholdsConfig(d_above=0.7, g_above=1.5, d_most=3, g_most=3).build()
    for side, above in ((D, 0.7), (G, 1.5)):
        assert tempo.should_move(context(side=side), None)
        assert tempo.should_move(context(side=side, turn=1), move(above + 1e-3))
        assert not tempo.should_move(context(side=side, turn=1), move(above - 1e-3))
        assert not tempo.should_move(context(side=side, turn=3), move(above + 1e-3))
    dear = move(0.1)
    dear.logged["penalty"] = torch.tensor(100.0)
    assert not tempo.should_move(context(turn=1), dear)


@pytest.mark.parametrize("side", list(Side))
def test_a_player_moves_until_its_own_loss_is_below(side: Side) -> None:
    """Plain gradient descent on a loss that falls: as many moves as the rows would ask for."""
    told: dict[str, Any] = {"d_most": 50, "g_most": 50, "d_above": 9.0, "g_above": 9.0, f"{side}_above": 0.3}
    away = Shift([4.0, 1.0] if side is D else [-1.0, 0.5])
    tempo = ThresholdsConfig(first=side.value, **told).build()
    game = by_hand(d=Linear([0.5, -0.25]), g=away, tempo=tempo, lr=0.1 if side is D else 1.0)
    losses: list[float] = []
    again = game.tempo.should_move

    def watched(now: MoveContext, before: MoveData | None) -> bool:
        if now.side is side and before is not None:
            losses.append(float(before.logged["adversarial"]))
        return again(now, before)

    game.tempo.should_move = watched  # type: ignore[method-assign]
    alternate(game, ring_feed(50), context(), StepMetrics())
    assert 1 < len(losses) < 50
    assert all(loss > 0.3 for loss in losses[:-1])
    assert losses[-1] <= 0.3


# ---------------------------------------------------------------- simultaneous


class Bilinear(Objective):
    """D's score, as it is: D wants reals high and fakes low, G wants fakes high."""

    def d_losses(self, real: Tensor, fake: Tensor, targets: object) -> Losses:
        return (-real, fake)

    def g_losses(self, fake: Tensor, real: Tensor | None) -> Losses:
        return (-fake,)


def descent_ascent(steps: int, lr: float, style: str) -> tuple[Tensor, Tensor, Tensor]:
    """w, b and the shift by hand: V = <w, x - z - by>, where the bias cancels out for D alone."""
    w, by = torch.tensor([0.5, -0.25]).double(), torch.tensor([0.3, 0.1]).double()
    bias = torch.zeros(()).double()
    batches, latent = ring_feed(), by_hand().latent
    for at in range(steps):
        real, _ = batches.load(context(at))
        assert real is not None
        z = {side: latent.sample(len(real), context(at, side=side).generator("latents")).double() for side in Side}
        seen = w
        w = w + lr * (real.double().mean(0) - z[D].mean(0) - by)
        by = by + lr * (seen if style == "simultaneous" else w)
    return w, bias, by


@pytest.mark.parametrize("style", ["simultaneous", "alternate"])
def test_both_step_from_where_both_stood(style: str) -> None:
    lr, steps = 0.2, 5
    tempo = SimultaneousConfig().build() if style == "simultaneous" else RatioConfig().build()
    game: Any = by_hand(objective=Bilinear(), tempo=tempo, lr=lr)
    assert game.tempo.step_kind == style
    for at in range(steps):
        STEP_FUNCTIONS[game.tempo.step_kind](game, ring_feed(), context(at), StepMetrics())
    w, bias, by = descent_ascent(steps, lr, style)
    assert torch.allclose(game.d.net.weight.detach().double(), w, atol=1e-5)
    assert torch.allclose(game.d.net.bias.detach().double(), bias, atol=1e-5)
    assert torch.allclose(game.g.net.by.detach().double(), by, atol=1e-5)


def test_at_once_differs_from_in_turn() -> None:
    (w, _, by), (other, _, apart) = (descent_ascent(5, 0.2, style) for style in ("simultaneous", "alternate"))
    assert (by - apart).norm() > 1e-2
    assert (w - other).norm() > 1e-3


class FakesAlone(Bilinear):
    """Reals cost nothing: the game is <w, by> + b."""

    def d_losses(self, real: Tensor, fake: Tensor, targets: object) -> Losses:
        return (0 * real, fake)


class Constant(Shift):
    """A G whose samples are all alike."""

    def forward(self, latents: Tensor) -> Tensor:
        return super().forward(latents * 0)


def test_at_once_spirals_out_where_turns_stay_bounded() -> None:
    """Mescheder 2017: in a bilinear game each simultaneous step lengthens (w, by) by sqrt(1 + lr^2)."""
    lengths = {}
    for step in (simultaneous, alternate):
        game: Any = by_hand(
            objective=FakesAlone(),
            d=Linear([1.0, 0.0]),
            g=Constant([0.0, 0.0]),
            tempo=SimultaneousConfig().build(),
            lr=0.3,
        )
        for at in range(40):
            step(game, ring_feed(), context(at), StepMetrics())
        lengths[step] = float(torch.cat((game.d.net.weight, game.g.net.by)).detach().norm())
    assert lengths[simultaneous] == pytest.approx((1 + 0.3**2) ** 20, rel=1e-4)
    assert lengths[alternate] < 1.5


def test_both_play_once_in_a_step_and_both_are_remembered() -> None:
    told = recipe("points", tempo={"kind": "simultaneous"})
    run = Session(told, source("points"))
    before = {side: [w.detach().clone() for w in p.weights] for side, p in run.game.players.items()}
    run.play(1)
    assert [move.context.side for move in run.moves] == [D, G]
    for side, player in run.game.players.items():
        assert all(not torch.equal(a, b) for a, b in zip(before[side], player.weights, strict=True))
        assert all(w.requires_grad for w in player.weights)
    stats = run.metrics.reduce()
    assert {"d/adversarial", "g/adversarial", "d/grad_norm", "g/grad_norm"} <= set(stats)


def test_neither_gradient_holds_anything_of_the_other_move() -> None:
    """At the first step G's gradient is the same at once as if it had moved first; D's as if it had."""
    grads: dict[str, dict[Side, Tensor]] = {}
    for name, tempo in (
        ("at once", {"kind": "simultaneous"}),
        ("d first", {"kind": "ratio"}),
        ("g first", {"kind": "ratio", "first": "g"}),
    ):
        run = Session(recipe("points", tempo=tempo), source("points")).play(1)
        grads[name] = {side: gradient(player) for side, player in run.game.players.items()}
    assert torch.equal(grads["at once"][D], grads["d first"][D])
    assert torch.equal(grads["at once"][G], grads["g first"][G])
    assert not torch.equal(grads["at once"][G], grads["d first"][G])
    assert not torch.equal(grads["at once"][D], grads["g first"][D])


def gradient(player: nn.Module) -> Tensor:
    return torch.cat([w.grad.flatten() for w in player.parameters() if w.grad is not None])
