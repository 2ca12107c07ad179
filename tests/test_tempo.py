"""Tempos: the order and the number of the players' moves, and simultaneous moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import Linear, Session, Shift, by_hand, context, recipe, ring_batches, source
from poise.core.move import MoveData
from poise.core.types import MoveContext, Side
from poise.engine.step import alternate, simultaneous
from poise.engine.step_metrics import StepMetrics
from poise.errors import RecipeError
from poise.objectives.base import Losses, Objective
from poise.tempo import RatioConfig, SimultaneousConfig, ThresholdsConfig
from poise.training.state import STEP_FUNCTIONS

D, G = Side.D, Side.G


def play(steps: int = 1, **tempo: Any) -> list[list[Side]]:
    """The players that moved, step by step."""
    run = Session(recipe("points", tempo=tempo), source("points"))
    sides = []
    for _ in range(steps):
        before = len(run.moves)
        run.play(1)
        sides.append([move.context.side for move in run.moves[before:]])
    return sides


# ---------------------------------------------------------------- ratio


def test_ratio() -> None:
    assert play(2, kind="ratio") == [[D, G]] * 2
    assert play(2, kind="ratio", d=3, g=2) == [[D, D, D, G, G]] * 2
    assert play(2, kind="ratio", d=2, g=1, first="g") == [[G, D, D]] * 2


def test_only_d_moves_during_the_head_start() -> None:
    assert play(4, kind="ratio", d=2, head_start=2) == [[D, D]] * 2 + [[D, D, G]] * 2
    assert play(3, kind="ratio", g=2, head_start=1, first="g") == [[D]] + [[G, G, D]] * 2
    assert play(3, kind="thresholds", d_above=100.0, g_above=100.0, head_start=2) == [[D]] * 2 + [[D, G]]


def test_turns_are_counted_per_player() -> None:
    run = Session(recipe("points", tempo={"kind": "ratio", "d": 2, "g": 3, "first": "g"}), source("points")).play(1)
    assert [(m.context.side, m.context.turn) for m in run.moves] == [(G, 0), (G, 1), (G, 2), (D, 0), (D, 1)]
    assert tuple(run.game.tempo.max_moves) == (2, 3)


@pytest.mark.parametrize(
    ("tempo", "field"),
    [
        ({"kind": "ratio", "d": 0}, "d"),
        ({"kind": "ratio", "g": 1001}, "g"),
        ({"kind": "ratio", "first": "x"}, "first"),
        ({"kind": "ratio", "head_start": -1}, "head_start"),
        ({"kind": "thresholds", "d_most": 0}, "d_most"),
        ({"kind": "simultaneous", "d": 2}, "d"),
    ],
)
def test_invalid_tempos_are_refused_with_their_path(tempo: dict[str, Any], field: str) -> None:
    with pytest.raises(RecipeError, match=rf"tempo\.{field}\b"):
        recipe("points", tempo=tempo)


# ---------------------------------------------------------------- thresholds


@pytest.mark.parametrize("first", ["d", "g"])
def test_moves_end_below_the_threshold_or_at_the_maximum(first: str) -> None:
    order = (D, G) if first == "d" else (G, D)
    for d_above, g_above in ((-1.0, -1.0), (100.0, -1.0), (-1.0, 100.0), (100.0, 100.0)):
        counts = {D: 4 if d_above < 0 else 1, G: 3 if g_above < 0 else 1}
        (sides,) = play(kind="thresholds", d_above=d_above, g_above=g_above, d_most=4, g_most=3, first=first)
        assert sides == [side for side in order for _ in range(counts[side])]


def test_a_loss_of_nan_ends_the_moves() -> None:
    tempo = ThresholdsConfig().build()
    assert not tempo.should_move(context(turn=1), make_move(float("nan")))


def make_move(adversarial: float) -> MoveData:
    empty = torch.zeros(0)
    return MoveData(context(), empty, empty, logged={"adversarial": torch.tensor(adversarial)})


def test_the_threshold_applies_to_the_adversarial_loss_of_the_last_move() -> None:
    tempo = ThresholdsConfig(d_above=0.7, g_above=1.5, d_most=3, g_most=3).build()
    for side, threshold in ((D, 0.7), (G, 1.5)):
        assert tempo.should_move(context(side=side), None)
        assert tempo.should_move(context(side=side, turn=1), make_move(threshold + 1e-3))
        assert not tempo.should_move(context(side=side, turn=1), make_move(threshold - 1e-3))
        assert not tempo.should_move(context(side=side, turn=3), make_move(threshold + 1e-3))
    costly = make_move(0.1)
    costly.logged["penalty"] = torch.tensor(100.0)
    assert not tempo.should_move(context(turn=1), costly)


@pytest.mark.parametrize("side", list(Side))
def test_a_player_moves_until_its_loss_is_below_the_threshold(side: Side) -> None:
    """Gradient descent on a decreasing loss."""
    options: dict[str, Any] = {"d_most": 50, "g_most": 50, "d_above": 9.0, "g_above": 9.0, f"{side}_above": 0.3}
    g = Shift([4.0, 1.0] if side is D else [-1.0, 0.5])
    tempo = ThresholdsConfig(first=side.value, **options).build()
    game = by_hand(d=Linear([0.5, -0.25]), g=g, tempo=tempo, lr=0.1 if side is D else 1.0)
    losses: list[float] = []
    should_move = game.tempo.should_move

    def recording(context: MoveContext, last: MoveData | None) -> bool:
        if context.side is side and last is not None:
            losses.append(float(last.logged["adversarial"]))
        return should_move(context, last)

    game.tempo.should_move = recording  # type: ignore[method-assign]
    alternate(game, ring_batches(50), context(), StepMetrics())
    assert 1 < len(losses) < 50
    assert all(loss > 0.3 for loss in losses[:-1])
    assert losses[-1] <= 0.3


# ---------------------------------------------------------------- simultaneous


class Bilinear(Objective):
    """Losses linear in D's score: D maximises it for real and minimises it for fake samples, G maximises it."""

    def d_losses(self, real: Tensor, fake: Tensor, targets: object) -> Losses:
        return (-real, fake)

    def g_losses(self, fake: Tensor, real: Tensor | None) -> Losses:
        return (-fake,)


def descent_ascent(steps: int, lr: float, style: str) -> tuple[Tensor, Tensor, Tensor]:
    """w, b and the shift after gradient steps on V = <w, x - z - by>; D's bias has no gradient."""
    w, by = torch.tensor([0.5, -0.25]).double(), torch.tensor([0.3, 0.1]).double()
    bias = torch.zeros(()).double()
    batches, latent = ring_batches(), by_hand().latent
    for at in range(steps):
        real, _ = batches.load(context(at))
        assert real is not None
        z = {side: latent.sample(len(real), context(at, side=side).generator("latents")).double() for side in Side}
        w_before = w
        w = w + lr * (real.double().mean(0) - z[D].mean(0) - by)
        by = by + lr * (w_before if style == "simultaneous" else w)
    return w, bias, by


@pytest.mark.parametrize("style", ["simultaneous", "alternate"])
def test_simultaneous_gradients_are_those_at_the_same_weights(style: str) -> None:
    lr, steps = 0.2, 5
    tempo = SimultaneousConfig().build() if style == "simultaneous" else RatioConfig().build()
    game: Any = by_hand(objective=Bilinear(), tempo=tempo, lr=lr)
    assert game.tempo.step_kind == style
    for at in range(steps):
        STEP_FUNCTIONS[game.tempo.step_kind](game, ring_batches(), context(at), StepMetrics())
    w, bias, by = descent_ascent(steps, lr, style)
    assert torch.allclose(game.d.net.weight.detach().double(), w, atol=1e-5)
    assert torch.allclose(game.d.net.bias.detach().double(), bias, atol=1e-5)
    assert torch.allclose(game.g.net.by.detach().double(), by, atol=1e-5)


def test_simultaneous_and_alternating_steps_differ() -> None:
    (w, _, by), (other_w, _, other_by) = (descent_ascent(5, 0.2, style) for style in ("simultaneous", "alternate"))
    assert (by - other_by).norm() > 1e-2
    assert (w - other_w).norm() > 1e-3


class FakeOnly(Bilinear):
    """D's loss for real samples is 0: the game is <w, by> + b."""

    def d_losses(self, real: Tensor, fake: Tensor, targets: object) -> Losses:
        return (0 * real, fake)


class Constant(Shift):
    """A G whose samples are all equal."""

    def forward(self, latents: Tensor) -> Tensor:
        return super().forward(latents * 0)


def test_simultaneous_steps_diverge_where_alternating_steps_stay_bounded() -> None:
    """Mescheder 2017: in a bilinear game each simultaneous step multiplies the norm of (w, by) by sqrt(1 + lr^2)."""
    norms = {}
    for step in (simultaneous, alternate):
        game: Any = by_hand(
            objective=FakeOnly(),
            d=Linear([1.0, 0.0]),
            g=Constant([0.0, 0.0]),
            tempo=SimultaneousConfig().build(),
            lr=0.3,
        )
        for at in range(40):
            step(game, ring_batches(), context(at), StepMetrics())
        norms[step] = float(torch.cat((game.d.net.weight, game.g.net.by)).detach().norm())
    assert norms[simultaneous] == pytest.approx((1 + 0.3**2) ** 20, rel=1e-4)
    assert norms[alternate] < 1.5


def test_both_players_move_once_in_a_simultaneous_step_and_are_logged() -> None:
    run = Session(recipe("points", tempo={"kind": "simultaneous"}), source("points"))
    before = {side: [w.detach().clone() for w in p.weights] for side, p in run.game.players.items()}
    run.play(1)
    assert [move.context.side for move in run.moves] == [D, G]
    for side, player in run.game.players.items():
        assert all(not torch.equal(a, b) for a, b in zip(before[side], player.weights, strict=True))
        assert all(w.requires_grad for w in player.weights)
    stats = run.metrics.reduce()
    assert {"d/adversarial", "g/adversarial", "d/grad_norm", "g/grad_norm"} <= set(stats)


def test_simultaneous_gradients_do_not_depend_on_the_other_move() -> None:
    """In the first step, the gradient of each player is the same as if this player moved first."""
    grads: dict[str, dict[Side, Tensor]] = {}
    for name, tempo in (
        ("simultaneous", {"kind": "simultaneous"}),
        ("d first", {"kind": "ratio"}),
        ("g first", {"kind": "ratio", "first": "g"}),
    ):
        run = Session(recipe("points", tempo=tempo), source("points")).play(1)
        grads[name] = {side: gradient(player) for side, player in run.game.players.items()}
    assert torch.equal(grads["simultaneous"][D], grads["d first"][D])
    assert torch.equal(grads["simultaneous"][G], grads["g first"][G])
    assert not torch.equal(grads["simultaneous"][G], grads["d first"][G])
    assert not torch.equal(grads["simultaneous"][D], grads["g first"][D])


def gradient(player: nn.Module) -> Tensor:
    return torch.cat([w.grad.flatten() for w in player.parameters() if w.grad is not None])
