"""Rows of the tricks that average weights over time, to sample from the mean or to pull the weights towards it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from contracts.rows.base import Gradients, Play, Row
from contracts.tiny import BATCH, unequal
from poise.core.types import Side


def check_average(play: Play) -> None:
    """Samples come from the average of all past generators, recomputed here; training is unchanged."""
    run = play(True, 0)
    expected = [w.detach().double().clone() for w in run.game.g.weights]
    beta = 0.5 ** (BATCH / 16)
    for _ in range(3):
        run.play(1)
        expected = [
            beta * e + (1 - beta) * w.detach().double() for e, w in zip(expected, run.game.g.weights, strict=True)
        ]
    average = run.game.sampling_network()
    for expected_weight, weight, live in zip(expected, average.parameters(), run.game.g.weights, strict=True):
        assert torch.allclose(expected_weight.float(), weight, atol=1e-6)
        assert not torch.equal(weight, live)
    assert run.game.sampling_network(raw=True) is run.game.g.net


def check_mean_of_copies(play: Play) -> None:
    """Samples come from the mean of the last two copies, one taken every third step; training is unchanged."""
    run = play(True, 0)

    def live() -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in run.game.g.net.state_dict().items()}

    copies, start = list[dict[str, Tensor]](), live()
    for step in range(11):
        run.play(1)
        if step % 3 == 2:
            copies.append(live())
        last_two = copies[-2:] or [start]
        mean_net = run.game.sampling_network()
        assert not mean_net.training
        assert not any(weight.requires_grad for weight in mean_net.parameters())
        for name, tensor in mean_net.state_dict().items():
            if tensor.is_floating_point():
                mean = sum(state[name].double() for state in last_two) / len(last_two)
                assert torch.allclose(tensor.double(), mean, rtol=1e-6, atol=1e-7), name
            else:
                assert torch.equal(tensor, last_two[-1][name]), "counters come from the newest copy"
        if len(copies) > 1:
            assert all(
                not torch.equal(w, live_weight)
                for w, live_weight in zip(mean_net.parameters(), run.game.g.weights, strict=True)
            )
    assert len(copies) == 3
    assert run.game.sampling_network(raw=True) is run.game.g.net
    saved = {name: t for name, t in run.saved().items() if not name.startswith("game/tricks.")}
    assert unequal(saved, play(False, 11).saved()) == []


def check_historical_pull(play: Play) -> None:
    """The gradient gets 2 weight (theta - mean), from the mean of the start and all steps; logs ||theta - mean||^2."""
    run, weight = play(True, 0), 10.0
    seen, steps = Gradients(run), 12
    run.play(steps)
    history = run.metrics.state_dict()
    for side in Side:
        for step in range(steps):
            difference = seen.weights_before[side][step] - torch.stack(seen.weights_before[side][: step + 1]).mean(0)
            expected = seen.backward[side][step] + 2 * weight * difference
            assert torch.allclose(seen.used[side][step], expected, rtol=1e-5, atol=1e-5)
            logged = float(history[f"{side}/historical_averaging"][step])
            assert logged == pytest.approx(float(difference.square().sum()), rel=1e-4, abs=1e-9)
            assert bool(difference.any()) is (step > 0)

    def distance_from_mean(on: bool) -> list[float]:
        """The distance of each player from its mean after 40 steps."""
        run = play(on, 0)
        seen = Gradients(run)
        run.play(40)
        return [
            float((seen.weights_before[side][-1] - torch.stack(seen.weights_before[side]).mean(0)).norm())
            for side in Side
        ]

    for pulled, free in zip(distance_from_mean(True), distance_from_mean(False), strict=True):
        assert pulled < 0.5 * free


ROWS = {
    "averaged_weights": Row(
        strong={"half_life": 16.0, "ramp_up": 0.0},
        zero={"half_life": 0.0},
        check=check_average,
    ),
    "historical_averaging": Row(strong={"weight": 10.0}, zero={"weight": 0.0}, check=check_historical_pull),
    "mean_weights": Row(strong={"last": 2, "every": 3}, zero={"last": 1, "every": 1}, check=check_mean_of_copies),
}
