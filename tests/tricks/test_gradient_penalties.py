"""R1: closed forms for discriminators with known input gradients, parameter gradients, one `autograd.grad` per move."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import BATCH, Counted, by_hand, context, ring_batches
from poise.core.hooks import InputTransform
from poise.core.move import MoveData
from poise.core.types import Batch, DiscriminatorOutput, MoveContext, Origin, Side
from poise.engine.game import discriminate_jointly, discriminate_separately
from poise.engine.step import discriminate, make_move, sample
from poise.engine.step_metrics import StepMetrics
from poise.tricks.gradient_penalties import R1, R2, R1Config, zero_centred_penalty
from poise.tricks.instance_noise import InstanceNoise
from tricks.small import GradCounter


def test_zero_centred_penalty_sums_over_all_but_the_batch_axis() -> None:
    gradient = torch.arange(24.0).view(2, 3, 2, 2)
    expected = [sum(v * v for v in range(start, start + 12)) / 2 for start in (0, 12)]
    assert zero_centred_penalty(gradient).tolist() == expected
    assert zero_centred_penalty(gradient.bfloat16()).dtype == torch.float32


class Quadratic(nn.Module):
    """D(x) = x'Ax / 2 with A symmetric: its input gradient is Ax."""

    def __init__(self, a: Tensor) -> None:
        super().__init__()
        self.a = nn.Parameter(a)

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(score=((x @ self.a) * x).sum(1) / 2)


def move_of(d: nn.Module, real: Tensor, fake: Tensor, *differentiated: Origin) -> MoveData:
    """The data of a move after `d` has been run."""
    move = MoveData(context(), torch.zeros(len(real), 2), fake, real, differentiated=differentiated)
    for origin in differentiated:
        move.samples(origin).requires_grad_()
    move.outputs = discriminate_separately(d, Batch(move.real), Batch(move.fake))
    return move


def test_penalty_of_a_linear_d_is_half_its_squared_weight() -> None:
    weight = [3.0, -4.0]
    game = by_hand(R1("r1", 10.0))
    with torch.no_grad():
        game.d.net.weight.copy_(torch.tensor(weight))
    metrics = StepMetrics()
    make_move(game, ring_batches(), context(), metrics)
    assert metrics.reduce()["d/r1"].mean == pytest.approx(25 / 2, rel=1e-6)


def test_input_and_parameter_gradients_of_a_quadratic_d() -> None:
    """Value, input gradient and the gradient with respect to A, compared with autograd on the formula in float64."""
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(4, 4, generator=generator)
    a, x = (a + a.T) / 2, torch.randn(BATCH, 4, generator=generator)
    d = Quadratic(a.clone())
    move = move_of(d, x.clone(), torch.zeros_like(x), "real")
    gradient = move.input_gradient("real")
    loss = R1Config().build("r1", {}).loss(move)
    (actual,) = torch.autograd.grad(loss, d.a)

    exact = a.double().clone().requires_grad_()
    expected_gradient = x.double() @ (exact + exact.T) / 2
    expected = expected_gradient.square().sum(1).mean() / 2
    (expected_parameter_gradient,) = torch.autograd.grad(expected, exact)
    assert torch.allclose(gradient.double(), expected_gradient, atol=1e-5)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert torch.allclose(actual.double(), expected_parameter_gradient, rtol=1e-5, atol=1e-5)


def test_parameter_gradient_equals_central_differences() -> None:
    """d(loss)/d(weights) of a two-layer D by double backward, compared with differences in float64."""
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
    loss = R1("r1", 1.0).loss(move_of(d, x.clone(), x.clone(), "real"))
    actual = torch.autograd.grad(loss, (d.first, d.second))

    def penalty(w1: Tensor, w2: Tensor) -> Tensor:
        derivative = 1 - torch.tanh(x.double() @ w1.T).square()  # the input gradient: W1' (w2 * (1 - tanh^2))
        return ((derivative * w2) @ w1).square().sum(1).mean() / 2

    w1, w2 = first.double(), second.double()
    assert float(loss.detach()) == pytest.approx(float(penalty(w1, w2)), rel=1e-5)
    for k, weight in enumerate((w1, w2)):
        for index in range(weight.numel()):
            step = torch.zeros(weight.numel(), dtype=torch.float64)
            step[index] = 1e-5
            stepped = [[w1, w2], [w1, w2]]
            for sign, pair in zip((1, -1), stepped, strict=True):
                pair[k] = weight + sign * step.view_as(weight)
            central = (penalty(*stepped[0]) - penalty(*stepped[1])) / 2e-5
            assert float(actual[k].flatten()[index]) == pytest.approx(float(central), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("judge", [discriminate_separately, discriminate_jointly])
def test_r1_and_r2_share_one_autograd_grad(judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    d = Quadratic(torch.tensor([[1.0, 0.5], [0.5, -2.0]]))
    game = by_hand(R1("r1", 1.0), R2("r2", 1.0), d=d, judge=judge)
    move = sample(game, ring_batches(), context())
    discriminate(game, move)
    assert move.differentiated == ("fake", "real")
    seen = GradCounter(monkeypatch)
    gradients: dict[Origin, Tensor] = {"real": move.input_gradient("real"), "fake": move.input_gradient("fake")}
    move.input_gradient("real")
    assert seen.calls == 1
    for origin, gradient in gradients.items():
        alone = move_of(d, move.samples("real").detach(), move.samples("fake").detach(), origin).input_gradient(origin)
        assert torch.allclose(gradient, alone, atol=1e-6)
        assert torch.allclose(gradient, move.samples(origin) @ d.a, atol=1e-5)
    assert not torch.allclose(gradients["real"], gradients["fake"])


def test_without_a_due_penalty_no_gradient_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = GradCounter(monkeypatch)
    make_move(by_hand(), ring_batches(), context(), StepMetrics())
    assert seen.calls == 0
    make_move(by_hand(R1("r1", 1.0, every=2)), ring_batches(), context(1), StepMetrics())
    assert seen.calls == 0
    make_move(by_hand(R1("r1", 1.0, every=2)), ring_batches(), context(2), StepMetrics())
    assert seen.calls == 1


class ScaleByThree(InputTransform):
    """D sees three times the image."""

    def transform_input(self, images: Tensor, origin: Origin, context: MoveContext) -> Tensor:
        return 3 * images


def gradient_at_real(*transforms: InputTransform) -> tuple[Tensor, Tensor, Quadratic]:
    d = Quadratic(torch.tensor([[1.0, 0.5], [0.5, -2.0]]))
    game = by_hand(R1("r1", 1.0), *transforms, d=d)
    batches = Counted()
    move = sample(game, batches, context())
    discriminate(game, move)
    return move.input_gradient("real"), batches.given[0], d


def test_differentiates_at_the_sample_before_input_transforms() -> None:
    """D(3x) = 9/2 x'Ax: its gradient at x is 9 Ax; with respect to 3x it would be 3 Ax."""
    gradient, raw, d = gradient_at_real(ScaleByThree("scaled"))
    assert torch.allclose(gradient, 9 * raw @ d.a, atol=1e-5)


def test_differentiates_at_the_sample_before_noise() -> None:
    """D scores the noisy image, and the gradient is with respect to the original one: A (x + noise)."""
    noise = InstanceNoise("noise", 0.7)
    gradient, raw, d = gradient_at_real(noise)
    noisy = noise.transform_input(raw, "real", context())
    assert not torch.allclose(noisy, raw, atol=0.1)
    assert torch.allclose(gradient, noisy @ d.a, atol=1e-5)


def test_gamma_scales_the_gradient() -> None:
    """R1 adds gamma * w to D's gradient (for a linear D the penalty is gamma/2 ||w||^2), times `every`."""
    gradients = {}
    for gamma, every in ((0.0, 1), (3.0, 1), (3.0, 4)):
        game = by_hand(R1("r1", gamma, every), lr=0.0)
        make_move(game, ring_batches(), context(8), StepMetrics())
        gradients[gamma, every] = game.d.net.weight.grad.clone()
        weight = game.d.net.weight.detach()
    assert torch.allclose(gradients[3.0, 1] - gradients[0.0, 1], 3.0 * weight, atol=1e-6)
    assert torch.allclose(gradients[3.0, 4] - gradients[0.0, 1], 12.0 * weight, atol=1e-6)


def test_g_is_not_penalised() -> None:
    game = by_hand(R1("r1", 10.0))
    metrics = StepMetrics()
    make_move(game, ring_batches(), context(side=Side.G), metrics)
    assert list(metrics.reduce()) == ["g/adversarial", "g/grad_norm"]
