"""LeCam regularisation against a re-implementation in numpy, move by move."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from contracts.tiny import context
from poise.core.move import MoveData
from poise.core.player import Player
from poise.core.types import DiscriminatorOutput, Side
from poise.engine.step import make_move
from poise.engine.step_metrics import StepMetrics
from poise.tricks.lecam import LeCam, LeCamConfig, lecam
from tricks.small import Bent, Given, N, cloud, game_of, gradients, shown

Numbers = np.ndarray[Any, np.dtype[np.float64]]


class Plain:
    """Averages of all mean scores so far with weights decay^age, and the cost they give."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.means: list[tuple[float, float]] = []

    def cost(self, real: Numbers, fake: Numbers) -> float:
        if not self.means:
            return 0.0
        ages = np.arange(len(self.means))[::-1]
        weights = self.decay**ages / (self.decay**ages).sum()
        mean_real, mean_fake = weights @ np.array(self.means)
        return float((np.maximum(real - mean_fake, 0) ** 2).mean() + (np.maximum(mean_real - fake, 0) ** 2).mean())

    def remember(self, real: Numbers, fake: Numbers) -> None:
        self.means.append((float(real.mean()), float(fake.mean())))


def judged(at: int) -> MoveData:
    """Scores that drift, reals at first above the fakes and later below."""
    real, fake = cloud(N, seed=at) + 2 - 0.07 * at, cloud(N, seed=100 + at) - 1 + 0.07 * at
    move = MoveData(context(at), torch.zeros(N, 2), torch.zeros(N, 2), torch.zeros(N, 2))
    move.outputs = {"real": DiscriminatorOutput(real), "fake": DiscriminatorOutput(fake)}
    return move


def numbers(move: MoveData) -> tuple[Numbers, Numbers]:
    with torch.no_grad():
        return move.score("real").double().numpy(), move.score("fake").double().numpy()


def player() -> Player:
    return game_of().d


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_thirty_moves_are_those_of_the_plain_one(decay: float) -> None:
    trick, plain, d = LeCamConfig(decay=decay).build("lecam", {}), Plain(decay), player()
    costs = []
    for at in range(30):
        move = judged(at)
        costs.append(plain.cost(*numbers(move)))
        assert float(trick.loss(move)) == pytest.approx(costs[-1], rel=1e-4)
        trick.after_update(d, move)
        plain.remember(*numbers(move))
    assert costs[0] == 0.0
    assert np.median(costs) > 0.5


def test_the_start_has_no_bias() -> None:
    """Scores that never change have their own means from the first move on."""
    trick, d, move = LeCam("lecam", 1.0, 0.99), player(), judged(0)
    real, fake = numbers(move)
    expected = (np.maximum(real - fake.mean(), 0) ** 2).mean() + (np.maximum(real.mean() - fake, 0) ** 2).mean()
    for _ in range(5):
        trick.after_update(d, move)
        assert float(trick.loss(move)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_the_cost_is_its_formula_and_its_gradient(scale: float) -> None:
    real, fake = (cloud(9, seed=s, dtype=torch.float64) * scale for s in (1, 2))
    for mean_real, mean_fake in ((0.3, -0.4), (-2.0, 1.5)):
        means = torch.tensor([mean_real, mean_fake], dtype=torch.float64) * scale
        ours = float(lecam(real, fake, means[0], means[1]))
        right = np.maximum(real.numpy() - means[1].item(), 0), np.maximum(means[0].item() - fake.numpy(), 0)
        assert ours == pytest.approx((right[0] ** 2).mean() + (right[1] ** 2).mean(), rel=1e-12)
        for dtype in (torch.float32, torch.float64):
            again = lecam(real.to(dtype), fake.to(dtype), *means.to(dtype))
            assert float(again) == pytest.approx(ours, rel=1e-5)
    origins = [origin.div(scale).requires_grad_() for origin in (real, fake)]
    assert torch.autograd.gradcheck(lambda r, f: lecam(r, f, torch.tensor(0.3), torch.tensor(-0.4)), origins)


def test_without_the_positive_part_it_is_the_papers_equation_where_d_ranks_rightly() -> None:
    """Equation 4: E ||D(x) - a_F||^2 + E ||D(G(z)) - a_R||^2."""
    real, fake = cloud(N).abs() + 1, -cloud(N, seed=1).abs() - 1
    paper = (real - fake.mean()).square().mean() + (fake - real.mean()).square().mean()
    assert float(lecam(real, fake, real.mean(), fake.mean())) == pytest.approx(float(paper), rel=1e-6)


def test_in_a_game_ds_moves_are_charged_and_remembered() -> None:
    game, plain = game_of(LeCam("lecam", 0.3, 0.9), d=Bent(), lr=0.1), Plain(0.9)
    for at in range(8):
        metrics = StepMetrics()
        expected = make_move(game, Given(cloud(N, 2, seed=at)), context(at), metrics)
        assert shown(metrics)["d/lecam"] == pytest.approx(plain.cost(*numbers(expected)), rel=1e-4)
        plain.remember(*numbers(expected))
        metrics = StepMetrics()
        before = [w.clone() for w in game.tricks.buffers()]
        make_move(game, Given(cloud(N, 2)), context(at, side=Side.G), metrics)
        assert "g/lecam" not in shown(metrics)
        assert all(torch.equal(w, old) for w, old in zip(game.tricks.buffers(), before, strict=True))


def test_the_weight_multiplies_its_pull_and_the_means_want_no_gradient() -> None:
    def pulled(weight: float) -> list[Tensor]:
        game = game_of(LeCam("lecam", weight, 0.9), d=Bent())
        for at in range(2):
            make_move(game, Given(cloud(N, 2)), context(at), StepMetrics())
        assert not any(buffer.requires_grad for buffer in game.tricks.buffers())
        return gradients(game.d.net)

    for w, w1, w3 in zip(pulled(0.0), pulled(1.0), pulled(3.0), strict=True):
        assert torch.allclose(w3 - w, 3 * (w1 - w), atol=1e-5)
        assert not torch.allclose(w1, w, atol=1e-3)


def test_means_gather_while_the_weight_is_zero() -> None:
    """A dial that lifts it later finds them ready."""
    game = game_of(LeCam("lecam", 0.0, 0.9), d=Bent())
    row = StepMetrics()
    move = make_move(game, Given(cloud(N, 2)), context(), row)
    assert "d/lecam" not in shown(row)
    real, fake = numbers(move)
    trick = game.tricks["lecam"]
    assert isinstance(trick, LeCam)
    plain = Plain(0.9)
    plain.remember(real, fake)
    assert float(trick.loss(move).detach()) == pytest.approx(plain.cost(real, fake), rel=1e-5)


def test_is_resumed() -> None:
    old, fresh, d = LeCam("lecam", 1.0, 0.9), LeCam("lecam", 1.0, 0.9), player()
    for at in range(7):
        old.after_update(d, judged(at))
    assert set(old.state_dict()) == {"sums", "gathered"}
    fresh.load_state_dict(old.state_dict())
    for at in range(7, 12):
        assert torch.equal(old.loss(judged(at)), fresh.loss(judged(at)))
        assert float(old.loss(judged(at))) > 0
        old.after_update(d, judged(at))
        fresh.after_update(d, judged(at))
