"""Rows of the tricks that average weights over time, to sample from the mean or to be drawn back to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from contracts.rows.base import Gradients, Play, Row
from contracts.tiny import BATCH, unequal
from poise.core.types import Side


def averages(play: Play) -> None:
    """Samples come from the average of every G so far, worked out here anew; training goes on as it would."""
    run = play(True, 0)
    expected = [w.detach().double().clone() for w in run.game.g.weights]
    beta = 0.5 ** (BATCH / 16)
    for _ in range(3):
        run.play(1)
        expected = [
            beta * e + (1 - beta) * w.detach().double() for e, w in zip(expected, run.game.g.weights, strict=True)
        ]
    shown = run.game.sampling_network()
    for ours, theirs, live in zip(expected, shown.parameters(), run.game.g.weights, strict=True):
        assert torch.allclose(ours.float(), theirs, atol=1e-6)
        assert not torch.equal(theirs, live)
    assert run.game.sampling_network(raw=True) is run.game.g.net


def shows_a_mean(play: Play) -> None:
    """Samples come from the mean of the last two copies, one taken every third step; training goes on as it would."""
    run = play(True, 0)

    def live() -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in run.game.g.net.state_dict().items()}

    copies, start = list[dict[str, Tensor]](), live()
    for at in range(11):
        run.play(1)
        if at % 3 == 2:
            copies.append(live())
        kept = copies[-2:] or [start]
        shown = run.game.sampling_network()
        assert not shown.training
        assert not any(weight.requires_grad for weight in shown.parameters())
        for name, tensor in shown.state_dict().items():
            if tensor.is_floating_point():
                mean = sum(one[name].double() for one in kept) / len(kept)
                assert torch.allclose(tensor.double(), mean, rtol=1e-6, atol=1e-7), name
            else:
                assert torch.equal(tensor, kept[-1][name]), "a count is the newest one's"
        if len(copies) > 1:
            assert all(not torch.equal(w, now) for w, now in zip(shown.parameters(), run.game.g.weights, strict=True))
    assert len(copies) == 3
    assert run.game.sampling_network(raw=True) is run.game.g.net
    saved = {name: t for name, t in run.saved().items() if not name.startswith("game/tricks.")}
    assert unequal(saved, play(False, 11).saved()) == []


def pulls_to_the_past(play: Play) -> None:
    """The step's gradient is backward's and 2 weight (theta - mean), of the start and each step since; players stay.

    The rows show ||theta - mean||^2.
    """
    run, weight = play(True, 0), 10.0
    seen, steps = Gradients(run), 12
    run.play(steps)
    rows = run.metrics.state_dict()
    for side in Side:
        for at in range(steps):
            away = seen.at[side][at] - torch.stack(seen.at[side][: at + 1]).mean(0)
            wanted = seen.left[side][at] + 2 * weight * away
            assert torch.allclose(seen.used[side][at], wanted, rtol=1e-5, atol=1e-5)
            told = float(rows[f"{side}/historical_averaging"][at])
            assert told == pytest.approx(float(away.square().sum()), rel=1e-4, abs=1e-9)
            assert bool(away.any()) is (at > 0)

    def off(on: bool) -> list[float]:
        """How far from its mean each player is after some steps."""
        run = play(on, 0)
        seen = Gradients(run)
        run.play(60)
        return [float((seen.at[side][-1] - torch.stack(seen.at[side]).mean(0)).norm()) for side in Side]

    for held, free in zip(off(True), off(False), strict=True):
        assert held < 0.5 * free


ROWS = {
    "averaged_weights": Row(
        strong={"half_life": 16.0, "ramp_up": 0.0},
        zero={"half_life": 0.0},
        acts=averages,
    ),
    "historical_averaging": Row(strong={"weight": 10.0}, zero={"weight": 0.0}, acts=pulls_to_the_past),
    "mean_weights": Row(strong={"last": 2, "every": 3}, zero={"last": 1, "every": 1}, acts=shows_a_mean),
}
