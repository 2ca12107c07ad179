"""LeCam regularisation, compared with a NumPy implementation, move by move."""

from __future__ import annotations

import math
from typing import Any, Literal

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
from tricks.small import FixedBatches, N, TanhDiscriminator, game_of, gradients, logged_means, randn

Numbers = np.ndarray[Any, np.dtype[np.float64]]


class Reference:
    """Averages of all mean scores so far with weights decay^age, and the resulting loss."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.means: list[tuple[float, float]] = []

    def loss(self, real: Numbers, fake: Numbers) -> float:
        if not self.means:
            return 0.0
        ages = np.arange(len(self.means))[::-1]
        weights = self.decay**ages / (self.decay**ages).sum()
        mean_real, mean_fake = weights @ np.array(self.means)
        return float((np.maximum(real - mean_fake, 0) ** 2).mean() + (np.maximum(mean_real - fake, 0) ** 2).mean())

    def update(self, real: Numbers, fake: Numbers) -> None:
        self.means.append((float(real.mean()), float(fake.mean())))


def move_at(at: int) -> MoveData:
    """Scores that drift: real samples score higher than fakes at first, and lower later."""
    real, fake = randn(N, seed=at) + 2 - 0.07 * at, randn(N, seed=100 + at) - 1 + 0.07 * at
    move = MoveData(context(at), torch.zeros(N, 2), torch.zeros(N, 2), torch.zeros(N, 2))
    move.outputs = {"real": DiscriminatorOutput(real), "fake": DiscriminatorOutput(fake)}
    return move


def scores_of(move: MoveData) -> tuple[Numbers, Numbers]:
    with torch.no_grad():
        return move.score("real").double().numpy(), move.score("fake").double().numpy()


def player() -> Player:
    return game_of().d


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_thirty_moves_equal_the_reference(decay: float) -> None:
    trick, reference, d = LeCamConfig(decay=decay).build("lecam", {}), Reference(decay), player()
    losses = []
    for at in range(30):
        move = move_at(at)
        losses.append(reference.loss(*scores_of(move)))
        assert float(trick.loss(move)) == pytest.approx(losses[-1], rel=1e-4)
        trick.after_update(d, move)
        reference.update(*scores_of(move))
    assert losses[0] == 0.0
    assert np.median(losses) > 0.5


def test_the_zero_start_causes_no_bias() -> None:
    """Constant scores equal their running means from the first move on."""
    trick, d, move = LeCam("lecam", 1.0, 0.99), player(), move_at(0)
    real, fake = scores_of(move)
    expected = (np.maximum(real - fake.mean(), 0) ** 2).mean() + (np.maximum(real.mean() - fake, 0) ** 2).mean()
    for _ in range(5):
        trick.after_update(d, move)
        assert float(trick.loss(move)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("origin", ["real", "fake"])
def test_scores_that_are_not_finite_leave_the_means_as_they_were(origin: Literal["real", "fake"], bad: float) -> None:
    """The update of D is skipped then, and its next losses must be finite again."""
    trick, d = LeCam("lecam", 1.0, 0.9), player()
    trick.after_update(d, move_at(0))
    before = trick.sums.clone(), trick.gathered.clone()
    broken = move_at(1)
    broken.outputs[origin].score[2] = bad
    trick.after_update(d, broken)
    assert all(map(torch.equal, before, (trick.sums, trick.gathered)))
    trick.after_update(d, move_at(2))
    assert math.isfinite(float(trick.loss(move_at(3))))


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_the_loss_equals_its_formula(scale: float) -> None:
    real, fake = (randn(9, seed=s, dtype=torch.float64) * scale for s in (1, 2))
    for mean_real, mean_fake in ((0.3, -0.4), (-2.0, 1.5)):
        means = torch.tensor([mean_real, mean_fake], dtype=torch.float64) * scale
        actual = float(lecam(real, fake, means[0], means[1]))
        expected = np.maximum(real.numpy() - means[1].item(), 0), np.maximum(means[0].item() - fake.numpy(), 0)
        assert actual == pytest.approx((expected[0] ** 2).mean() + (expected[1] ** 2).mean(), rel=1e-12)
        for dtype in (torch.float32, torch.float64):
            again = lecam(real.to(dtype), fake.to(dtype), *means.to(dtype))
            assert float(again) == pytest.approx(actual, rel=1e-5)
    origins = [origin.div(scale).requires_grad_() for origin in (real, fake)]
    assert torch.autograd.gradcheck(lambda r, f: lecam(r, f, torch.tensor(0.3), torch.tensor(-0.4)), origins)


def test_equals_the_papers_equation_if_d_ranks_correctly() -> None:
    """Equation 4: E ||D(x) - a_F||^2 + E ||D(G(z)) - a_R||^2."""
    real, fake = randn(N).abs() + 1, -randn(N, seed=1).abs() - 1
    paper = (real - fake.mean()).square().mean() + (fake - real.mean()).square().mean()
    assert float(lecam(real, fake, real.mean(), fake.mean())) == pytest.approx(float(paper), rel=1e-6)


def test_ds_moves_are_penalised_and_update_the_means() -> None:
    game, reference = game_of(LeCam("lecam", 0.3, 0.9), d=TanhDiscriminator(), lr=0.1), Reference(0.9)
    for at in range(8):
        metrics = StepMetrics()
        expected = make_move(game, FixedBatches(randn(N, 2, seed=at)), context(at), metrics)
        assert logged_means(metrics)["d/lecam"] == pytest.approx(reference.loss(*scores_of(expected)), rel=1e-4)
        reference.update(*scores_of(expected))
        metrics = StepMetrics()
        before = [w.clone() for w in game.tricks.buffers()]
        make_move(game, FixedBatches(randn(N, 2)), context(at, side=Side.G), metrics)
        assert "g/lecam" not in logged_means(metrics)
        assert all(torch.equal(w, old) for w, old in zip(game.tricks.buffers(), before, strict=True))


def test_weight_scales_the_gradient_and_the_means_have_none() -> None:
    def gradient_with_weight(weight: float) -> list[Tensor]:
        game = game_of(LeCam("lecam", weight, 0.9), d=TanhDiscriminator())
        for at in range(2):
            make_move(game, FixedBatches(randn(N, 2)), context(at), StepMetrics())
        assert not any(buffer.requires_grad for buffer in game.tricks.buffers())
        return gradients(game.d.net)

    for w, w1, w3 in zip(gradient_with_weight(0.0), gradient_with_weight(1.0), gradient_with_weight(3.0), strict=True):
        assert torch.allclose(w3 - w, 3 * (w1 - w), atol=1e-5)
        assert not torch.allclose(w1, w, atol=1e-3)


def test_means_are_updated_while_the_weight_is_0() -> None:
    """A schedule may raise the weight later."""
    game = game_of(LeCam("lecam", 0.0, 0.9), d=TanhDiscriminator())
    row = StepMetrics()
    move = make_move(game, FixedBatches(randn(N, 2)), context(), row)
    assert "d/lecam" not in logged_means(row)
    real, fake = scores_of(move)
    trick = game.tricks["lecam"]
    assert isinstance(trick, LeCam)
    reference = Reference(0.9)
    reference.update(real, fake)
    assert float(trick.loss(move).detach()) == pytest.approx(reference.loss(real, fake), rel=1e-5)


def test_is_resumed() -> None:
    old, fresh, d = LeCam("lecam", 1.0, 0.9), LeCam("lecam", 1.0, 0.9), player()
    for at in range(7):
        old.after_update(d, move_at(at))
    assert set(old.state_dict()) == {"sums", "gathered"}
    fresh.load_state_dict(old.state_dict())
    for at in range(7, 12):
        assert torch.equal(old.loss(move_at(at)), fresh.loss(move_at(at)))
        assert float(old.loss(move_at(at))) > 0
        old.after_update(d, move_at(at))
        fresh.after_update(d, move_at(at))
