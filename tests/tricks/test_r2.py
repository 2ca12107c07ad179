"""R2 beside R1: closed forms at the fakes, one `autograd.grad` for both, and the same numbers however D judges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from contracts.tiny import Linear, context
from poise.core.hooks import FakeReplacement, LossTerm, ReplacedFakes
from poise.core.types import Batch, MoveContext, Side
from poise.engine.game import Discriminate, discriminate_jointly, discriminate_separately
from poise.engine.step import make_move
from poise.engine.step_metrics import StepMetrics
from poise.tricks.gradient_penalties import R1, R2, R2Config
from poise.tricks.unit_gradient_penalties import WGANGP
from tricks.small import (
    Bent,
    Doubled,
    Given,
    N,
    Quadratic,
    Seen,
    as_float64,
    central,
    cloud,
    faced,
    game_of,
    gradients,
    shown,
)

JUDGES = pytest.mark.parametrize("judge", [discriminate_separately, discriminate_jointly])
A = torch.tensor([[1.0, 0.5], [0.5, -2.0]])


def half_mean_square(slope: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return float((slope**2).sum(1).mean() / 2)


@JUDGES
def test_a_linear_d_is_charged_half_gamma_times_its_squared_weight(judge: Discriminate) -> None:
    found = []
    for gamma in (0.0, 3.0):
        game, metrics = game_of(R2("r2", gamma), d=Linear([3.0, -4.0]), judge=judge), StepMetrics()
        make_move(game, Given(cloud(N, 2)), context(), metrics)
        found.append(gradients(game.d.net)[0])
    assert shown(metrics)["d/r2"] == pytest.approx(25 / 2, rel=1e-6)
    assert (found[1] - found[0]).tolist() == pytest.approx([9.0, -12.0], rel=1e-5)


@JUDGES
def test_a_quadratic_d_is_charged_for_its_slope_at_the_fakes(judge: Discriminate) -> None:
    real, fake = cloud(N, 2), 3 * cloud(N, 2, seed=1) + 1
    d = Quadratic(A)
    move = faced(d, real.clone(), fake.clone(), "fake", judge=judge)
    cost = R2Config().build("r2", {}).loss(move)
    expected = half_mean_square(as_float64(fake) @ as_float64(A))
    assert float(cost.detach()) == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(half_mean_square(as_float64(real) @ as_float64(A)), rel=0.5)
    (ours,) = torch.autograd.grad(cost, d.a)
    slope = as_float64(fake) @ as_float64(A)
    theirs = (slope.T @ as_float64(fake) + as_float64(fake).T @ slope) / (2 * N)  # d/dA of E ||(A + A')x / 2||^2 / 2
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4)


def test_the_value_is_that_of_central_differences() -> None:
    d, fake = Bent(3).double(), cloud(N, 3, seed=1, dtype=torch.float64)
    cost = R2("r2", 1.0).loss(faced(d, fake.clone(), fake.clone(), "fake"))
    with torch.no_grad():
        slope = central(lambda x: d(x).score, fake)
    assert float(cost.detach()) == pytest.approx(half_mean_square(as_float64(slope)), rel=1e-7)


@JUDGES
def test_the_two_share_one_grad(judge: Discriminate, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch)
    for tricks, calls in (
        ([], 0),
        ([R1("r1", 1.0)], 1),
        ([R2("r2", 1.0)], 1),
        ([R1("r1", 1.0), R2("r2", 1.0)], 1),
        ([R2("r2", 1.0), R1("r1", 1.0)], 1),
        ([R1("r1", 1.0), R2("r2", 1.0), WGANGP("gp", 1.0, 1, "two")], 2),
        ([R1("r1", 1.0), R2("r2", 0.0)], 1),
    ):
        seen.calls = 0
        make_move(game_of(*tricks, d=Bent(), judge=judge), Given(cloud(N, 2)), context(), StepMetrics())
        assert seen.calls == calls


def charged(judge: Discriminate, *tricks: LossTerm) -> tuple[dict[str, float], list[Tensor]]:
    """The row of one move, and D's gradient."""
    game, metrics = game_of(*tricks, d=Bent(), judge=judge), StepMetrics()
    make_move(game, Given(cloud(N, 2)), context(), metrics)
    return shown(metrics), gradients(game.d.net)


def test_the_same_numbers_whether_judged_apart_or_together() -> None:
    for tricks in ([R2("r2", 3.0)], [R1("r1", 5.0), R2("r2", 3.0)]):
        (row, grads), (other_row, other_grads) = (
            charged(judge, *tricks) for judge in (discriminate_separately, discriminate_jointly)
        )
        assert row == pytest.approx(other_row, rel=1e-5)
        for ours, theirs in zip(grads, other_grads, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)


@JUDGES
def test_both_together_pull_as_each_alone(judge: Discriminate) -> None:
    r1, r2 = R1("r1", 5.0), R2("r2", 3.0)
    (_, plain), (one, by_r1), (two, by_r2), (both, by_both) = (charged(judge, *t) for t in ([], [r1], [r2], [r1, r2]))
    assert both["d/r1"] == pytest.approx(one["d/r1"], rel=1e-5)
    assert both["d/r2"] == pytest.approx(two["d/r2"], rel=1e-5)
    assert both["d/r1"] != pytest.approx(both["d/r2"], rel=1e-2)
    for w, w1, w2, w12 in zip(plain, by_r1, by_r2, by_both, strict=True):
        assert torch.allclose(w12 - w, (w1 - w) + (w2 - w), atol=1e-5)
        assert not torch.allclose(w2, w, atol=1e-2)


class Replaced(FakeReplacement):
    """D is handed these fakes, whatever G made."""

    def __init__(self, fake: Tensor) -> None:
        super().__init__("replaced")
        self.fake = fake

    def replace_fakes(self, fake: Batch, context: MoveContext) -> ReplacedFakes:
        return ReplacedFakes(Batch(fake.images[:0], None), Batch(self.fake.clone(), None))


def test_is_taken_at_the_fakes_that_d_is_handed() -> None:
    fake, metrics = 3 * cloud(N, 2, seed=5) - 1, StepMetrics()
    make_move(game_of(Replaced(fake), R2("r2", 1.0), d=Quadratic(A)), Given(cloud(N, 2)), context(), metrics)
    assert shown(metrics)["d/r2"] == pytest.approx(half_mean_square(as_float64(fake) @ as_float64(A)), rel=1e-5)


def test_differentiates_at_the_raw_fakes_through_views() -> None:
    """D(2x) = 2 x'Ax: its slope at x is 4 Ax."""
    fake = cloud(N, 2, seed=5)
    move = faced(Quadratic(A), cloud(N, 2), fake.clone(), "fake", views=(Doubled(),))
    assert torch.allclose(move.input_gradient("fake"), 4 * fake @ A, atol=1e-5)


def test_every_multiplies_gamma() -> None:
    def pulled(gamma: float, every: int, at: int) -> Tensor:
        game = game_of(R2Config(gamma=gamma, every=every).build("r2", {}), d=Linear([3.0, -4.0]))
        make_move(game, Given(cloud(N, 2)), context(at), StepMetrics())
        return gradients(game.d.net)[0]

    for at, force in ((8, 12.0), (9, 0.0)):
        assert torch.allclose(pulled(3.0, 4, at) - pulled(0.0, 1, at), force * torch.tensor([3.0, -4.0]), atol=1e-4)


def test_is_no_business_of_g() -> None:
    metrics = StepMetrics()
    make_move(game_of(R2("r2", 10.0)), Given(cloud(N, 2)), context(side=Side.G), metrics)
    assert list(shown(metrics)) == ["g/adversarial", "g/grad_norm"]
