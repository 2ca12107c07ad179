"""R1: closed forms on D's whose slope is known, the parameter gradient, and the one `autograd.grad` of a move."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import BATCH, Counted, by_hand, context, ring_feed
from poise.core.hooks import InputTransform
from poise.core.move import MoveData
from poise.core.types import Batch, DiscriminatorOutput, MoveContext, Origin, Side
from poise.engine.game import discriminate_jointly, discriminate_separately
from poise.engine.step import discriminate, make_move, sample
from poise.engine.step_metrics import StepMetrics
from poise.tricks.gradient_penalties import R1, R2, R1Config, zero_centred_penalty
from poise.tricks.instance_noise import InstanceNoise
from tricks.small import Seen


def test_zero_centred_sums_squares_over_everything_but_the_batch() -> None:
    slope = torch.arange(24.0).view(2, 3, 2, 2)
    expected = [sum(v * v for v in range(start, start + 12)) / 2 for start in (0, 12)]
    assert zero_centred_penalty(slope).tolist() == expected
    assert zero_centred_penalty(slope.bfloat16()).dtype == torch.float32


class Quadratic(nn.Module):
    """D(x) = x'Ax / 2 with A symmetric: its slope is Ax."""

    def __init__(self, a: Tensor) -> None:
        super().__init__()
        self.a = nn.Parameter(a)

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(score=((x @ self.a) * x).sum(1) / 2)


def exchange_of(d: nn.Module, real: Tensor, fake: Tensor, *sloped: Origin) -> MoveData:
    """An exchange judged by `d`, as `face` leaves it."""
    move = MoveData(context(), torch.zeros(len(real), 2), fake, real, differentiated=sloped)
    for origin in sloped:
        move.samples(origin).requires_grad_()
    move.outputs = discriminate_separately(d, Batch(move.real), Batch(move.fake))
    return move


def test_linear_d_is_charged_half_its_squared_weight() -> None:
    weight = [3.0, -4.0]
    game = by_hand(R1("r1", 10.0))
    with torch.no_grad():
        game.d.net.weight.copy_(torch.tensor(weight))
    metrics = StepMetrics()
    make_move(game, ring_feed(), context(), metrics)
    assert metrics.reduce()["d/r1"].mean == pytest.approx(25 / 2, rel=1e-6)


def test_quadratic_d_has_slope_ax_and_its_parameter_gradient() -> None:
    """Value, slope and the gradient with respect to A, against autograd on the formula in float64."""
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(4, 4, generator=generator)
    a, x = (a + a.T) / 2, torch.randn(BATCH, 4, generator=generator)
    d = Quadratic(a.clone())
    move = exchange_of(d, x.clone(), torch.zeros_like(x), "real")
    slope = move.input_gradient("real")
    cost = R1Config().build("r1", {}).loss(move)
    (ours,) = torch.autograd.grad(cost, d.a)

    exact = a.double().clone().requires_grad_()
    wanted_slope = x.double() @ (exact + exact.T) / 2
    wanted = wanted_slope.square().sum(1).mean() / 2
    (theirs,) = torch.autograd.grad(wanted, exact)
    assert torch.allclose(slope.double(), wanted_slope, atol=1e-5)
    assert float(cost.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
    assert torch.allclose(ours.double(), theirs, rtol=1e-5, atol=1e-5)


def test_parameter_gradient_of_a_network_is_that_of_central_differences() -> None:
    """A two-layer D: d(cost)/d(weights) by double backward, against differences in float64 of the slope written out."""
    generator = torch.Generator().manual_seed(4)
    first, second = torch.randn(5, 3, generator=generator), torch.randn(1, 5, generator=generator)
    x = torch.randn(BATCH, 3, generator=generator)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Parameter(first.clone()), nn.Parameter(second.clone())

        def forward(self, x: Tensor) -> DiscriminatorOutput:
            return DiscriminatorOutput(score=(torch.tanh(x @ self.first.T) @ self.second.T).flatten())

    d = Two()
    cost = R1("r1", 1.0).loss(exchange_of(d, x.clone(), x.clone(), "real"))
    ours = torch.autograd.grad(cost, (d.first, d.second))

    def penalty(w1: Tensor, w2: Tensor) -> Tensor:
        bend = 1 - torch.tanh(x.double() @ w1.T).square()  # the slope written out: W1' (w2 * (1 - tanh^2))
        return ((bend * w2) @ w1).square().sum(1).mean() / 2

    w1, w2 = first.double(), second.double()
    assert float(cost.detach()) == pytest.approx(float(penalty(w1, w2)), rel=1e-5)
    for k, weight in enumerate((w1, w2)):
        for place in range(weight.numel()):
            nudge = torch.zeros(weight.numel(), dtype=torch.float64)
            nudge[place] = 1e-5
            nudged = [[w1, w2], [w1, w2]]
            for sign, pair in zip((1, -1), nudged, strict=True):
                pair[k] = weight + sign * nudge.view_as(weight)
            central = (penalty(*nudged[0]) - penalty(*nudged[1])) / 2e-5
            assert float(ours[k].flatten()[place]) == pytest.approx(float(central), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("judge", [discriminate_separately, discriminate_jointly])
def test_both_piles_share_one_grad_and_equal_separate_ones(judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    d = Quadratic(torch.tensor([[1.0, 0.5], [0.5, -2.0]]))
    game = by_hand(R1("r1", 1.0), R2("r2", 1.0), d=d, judge=judge)
    move = sample(game, ring_feed(), context())
    discriminate(game, move)
    assert move.differentiated == ("fake", "real")
    seen = Seen(monkeypatch)
    slopes: dict[Origin, Tensor] = {"real": move.input_gradient("real"), "fake": move.input_gradient("fake")}
    move.input_gradient("real")
    assert seen.calls == 1
    for origin, slope in slopes.items():
        alone = exchange_of(d, move.samples("real").detach(), move.samples("fake").detach(), origin).input_gradient(
            origin
        )
        assert torch.allclose(slope, alone, atol=1e-6)
        assert torch.allclose(slope, move.samples(origin) @ d.a, atol=1e-5)
    assert not torch.allclose(slopes["real"], slopes["fake"])


def test_a_move_without_a_penalty_asks_for_no_slope(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch)
    make_move(by_hand(), ring_feed(), context(), StepMetrics())
    assert seen.calls == 0
    make_move(by_hand(R1("r1", 1.0, every=2)), ring_feed(), context(1), StepMetrics())
    assert seen.calls == 0
    make_move(by_hand(R1("r1", 1.0, every=2)), ring_feed(), context(2), StepMetrics())
    assert seen.calls == 1


class Scaled(InputTransform):
    """D sees three times the picture."""

    def transform_input(self, images: Tensor, origin: Origin, context: MoveContext) -> Tensor:
        return 3 * images


def slope_at_reals(*views: InputTransform) -> tuple[Tensor, Tensor, Quadratic]:
    d = Quadratic(torch.tensor([[1.0, 0.5], [0.5, -2.0]]))
    game = by_hand(R1("r1", 1.0), *views, d=d)
    batches = Counted()
    move = sample(game, batches, context())
    discriminate(game, move)
    return move.input_gradient("real"), batches.given[0], d


def test_differentiates_at_the_raw_picture_through_a_scaling_view() -> None:
    """D(3x) = 9/2 x'Ax: its slope at x is 9 Ax; at the view it would be 3 Ax."""
    slope, raw, d = slope_at_reals(Scaled("scaled"))
    assert torch.allclose(slope, 9 * raw @ d.a, atol=1e-5)


def test_differentiates_at_the_raw_picture_under_noise() -> None:
    """The noisy picture is what D judges, and the raw one what the slope is taken with respect to: A (x + noise)."""
    noise = InstanceNoise("noise", 0.7)
    slope, raw, d = slope_at_reals(noise)
    noisy = noise.transform_input(raw, "real", context())
    assert not torch.allclose(noisy, raw, atol=0.1)
    assert torch.allclose(slope, noisy @ d.a, atol=1e-5)


def test_the_charge_is_gamma_times_the_reading() -> None:
    """D's gradient with R1 is the plain one plus gamma * w (a linear D: gamma/2 ||w||^2), times `every`."""
    found = {}
    for gamma, every in ((0.0, 1), (3.0, 1), (3.0, 4)):
        game = by_hand(R1("r1", gamma, every), lr=0.0)
        make_move(game, ring_feed(), context(8), StepMetrics())
        found[gamma, every] = game.d.net.weight.grad.clone()
        weight = game.d.net.weight.detach()
    assert torch.allclose(found[3.0, 1] - found[0.0, 1], 3.0 * weight, atol=1e-6)
    assert torch.allclose(found[3.0, 4] - found[0.0, 1], 12.0 * weight, atol=1e-6)


def test_is_no_business_of_g() -> None:
    game = by_hand(R1("r1", 10.0))
    metrics = StepMetrics()
    make_move(game, ring_feed(), context(side=Side.G), metrics)
    assert list(metrics.reduce()) == ["g/adversarial", "g/grad_norm"]
