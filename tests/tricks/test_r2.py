"""R2 and R1 together: closed forms at the fakes, one `autograd.grad` for both, with separate and joint batches."""

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
    DoublingTransform,
    FixedBatches,
    GradCounter,
    N,
    Quadratic,
    TanhDiscriminator,
    as_float64,
    central_difference,
    discriminated,
    game_of,
    gradients,
    logged_means,
    randn,
)

SEPARATE_AND_JOINT = pytest.mark.parametrize("judge", [discriminate_separately, discriminate_jointly])
A = torch.tensor([[1.0, 0.5], [0.5, -2.0]])


def half_mean_square(gradient: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return float((gradient**2).sum(1).mean() / 2)


@SEPARATE_AND_JOINT
def test_penalty_of_a_linear_d_is_half_its_squared_weight(judge: Discriminate) -> None:
    found = []
    for gamma in (0.0, 3.0):
        game, metrics = game_of(R2("r2", gamma), d=Linear([3.0, -4.0]), judge=judge), StepMetrics()
        make_move(game, FixedBatches(randn(N, 2)), context(), metrics)
        found.append(gradients(game.d.net)[0])
    assert logged_means(metrics)["d/r2"] == pytest.approx(25 / 2, rel=1e-6)
    assert (found[1] - found[0]).tolist() == pytest.approx([9.0, -12.0], rel=1e-5)


@SEPARATE_AND_JOINT
def test_penalty_of_a_quadratic_d_is_taken_at_the_fakes(judge: Discriminate) -> None:
    real, fake = randn(N, 2), 3 * randn(N, 2, seed=1) + 1
    d = Quadratic(A)
    move = discriminated(d, real.clone(), fake.clone(), "fake", judge=judge)
    loss = R2Config().build("r2", {}).loss(move)
    expected = half_mean_square(as_float64(fake) @ as_float64(A))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(half_mean_square(as_float64(real) @ as_float64(A)), rel=0.5)
    (actual,) = torch.autograd.grad(loss, d.a)
    gradient = as_float64(fake) @ as_float64(A)
    expected_gradient = (gradient.T @ as_float64(fake) + as_float64(fake).T @ gradient) / (
        2 * N
    )  # d/dA of E ||(A + A')x / 2||^2 / 2
    np.testing.assert_allclose(actual.numpy(), expected_gradient, rtol=1e-4)


def test_the_value_equals_central_differences() -> None:
    d, fake = TanhDiscriminator(3).double(), randn(N, 3, seed=1, dtype=torch.float64)
    loss = R2("r2", 1.0).loss(discriminated(d, fake.clone(), fake.clone(), "fake"))
    with torch.no_grad():
        gradient = central_difference(lambda x: d(x).score, fake)
    assert float(loss.detach()) == pytest.approx(half_mean_square(as_float64(gradient)), rel=1e-7)


@SEPARATE_AND_JOINT
def test_r1_and_r2_share_one_autograd_grad(judge: Discriminate, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = GradCounter(monkeypatch)
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
        make_move(
            game_of(*tricks, d=TanhDiscriminator(), judge=judge), FixedBatches(randn(N, 2)), context(), StepMetrics()
        )
        assert seen.calls == calls


def play_move(judge: Discriminate, *tricks: LossTerm) -> tuple[dict[str, float], list[Tensor]]:
    """The logged values of one move, and D's gradient."""
    game, metrics = game_of(*tricks, d=TanhDiscriminator(), judge=judge), StepMetrics()
    make_move(game, FixedBatches(randn(N, 2)), context(), metrics)
    return logged_means(metrics), gradients(game.d.net)


def test_separate_and_joint_batches_give_equal_results() -> None:
    for tricks in ([R2("r2", 3.0)], [R1("r1", 5.0), R2("r2", 3.0)]):
        (row, grads), (other_row, other_grads) = (
            play_move(judge, *tricks) for judge in (discriminate_separately, discriminate_jointly)
        )
        assert row == pytest.approx(other_row, rel=1e-5)
        for separate, joint in zip(grads, other_grads, strict=True):
            assert torch.allclose(separate, joint, atol=1e-5)


@SEPARATE_AND_JOINT
def test_gradients_of_r1_and_r2_add_up(judge: Discriminate) -> None:
    r1, r2 = R1("r1", 5.0), R2("r2", 3.0)
    (_, plain), (one, by_r1), (two, by_r2), (both, by_both) = (play_move(judge, *t) for t in ([], [r1], [r2], [r1, r2]))
    assert both["d/r1"] == pytest.approx(one["d/r1"], rel=1e-5)
    assert both["d/r2"] == pytest.approx(two["d/r2"], rel=1e-5)
    assert both["d/r1"] != pytest.approx(both["d/r2"], rel=1e-2)
    for w, w1, w2, w12 in zip(plain, by_r1, by_r2, by_both, strict=True):
        assert torch.allclose(w12 - w, (w1 - w) + (w2 - w), atol=1e-5)
        assert not torch.allclose(w2, w, atol=1e-2)


class Replaced(FakeReplacement):
    """Replaces G's samples by the given ones."""

    def __init__(self, fake: Tensor) -> None:
        super().__init__("replaced")
        self.fake = fake

    def replace_fakes(self, fake: Batch, context: MoveContext) -> ReplacedFakes:
        return ReplacedFakes(Batch(fake.images[:0], None), Batch(self.fake.clone(), None))


def test_is_taken_at_the_replaced_fakes() -> None:
    fake, metrics = 3 * randn(N, 2, seed=5) - 1, StepMetrics()
    make_move(game_of(Replaced(fake), R2("r2", 1.0), d=Quadratic(A)), FixedBatches(randn(N, 2)), context(), metrics)
    assert logged_means(metrics)["d/r2"] == pytest.approx(half_mean_square(as_float64(fake) @ as_float64(A)), rel=1e-5)


def test_differentiates_at_the_fakes_before_input_transforms() -> None:
    """D(2x) = 2 x'Ax: its gradient at x is 4 Ax."""
    fake = randn(N, 2, seed=5)
    move = discriminated(Quadratic(A), randn(N, 2), fake.clone(), "fake", transforms=(DoublingTransform(),))
    assert torch.allclose(move.input_gradient("fake"), 4 * fake @ A, atol=1e-5)


def test_every_scales_gamma() -> None:
    def gradient_after(gamma: float, every: int, at: int) -> Tensor:
        game = game_of(R2Config(gamma=gamma, every=every).build("r2", {}), d=Linear([3.0, -4.0]))
        make_move(game, FixedBatches(randn(N, 2)), context(at), StepMetrics())
        return gradients(game.d.net)[0]

    for at, force in ((8, 12.0), (9, 0.0)):
        assert torch.allclose(
            gradient_after(3.0, 4, at) - gradient_after(0.0, 1, at), force * torch.tensor([3.0, -4.0]), atol=1e-4
        )


def test_g_is_not_penalised() -> None:
    metrics = StepMetrics()
    make_move(game_of(R2("r2", 10.0)), FixedBatches(randn(N, 2)), context(side=Side.G), metrics)
    assert list(logged_means(metrics)) == ["g/adversarial", "g/grad_norm"]
