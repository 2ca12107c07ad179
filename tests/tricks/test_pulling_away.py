"""The pulling-away term, compared with a double loop over pairs."""

from __future__ import annotations

import math

import pytest
import torch

from contracts.tiny import context
from poise.core.types import Side
from poise.engine.step import make_move
from poise.engine.step_metrics import StepMetrics
from poise.tricks.pulling_away import PullingAway, PullingAwayConfig, pulling_away
from tricks.small import FixedBatches, N, TanhDiscriminator, game_of, gradients, logged_means, randn


def by_loop(codes: list[list[float]]) -> float:
    """Equation 4 of the paper: 1 / (N (N - 1)) sum_i sum_{j != i} (S_i' S_j / (||S_i|| ||S_j||))^2."""
    total, n = 0.0, len(codes)
    for i, s in enumerate(codes):
        for j, t in enumerate(codes):
            if i != j:
                dot = sum(a * b for a, b in zip(s, t, strict=True))
                total += (dot / (math.hypot(*s) * math.hypot(*t))) ** 2
    return total / (n * (n - 1))


@pytest.mark.parametrize(("n", "width"), [(2, 3), (5, 2), (16, 8), (7, 1)])
def test_equals_the_double_loop(n: int, width: int) -> None:
    codes = randn(n, width, dtype=torch.float64) * torch.logspace(-3, 4, n, dtype=torch.float64)[:, None]
    assert float(pulling_away(codes)) == pytest.approx(by_loop(codes.tolist()), rel=1e-10)
    assert float(pulling_away(codes.float())) == pytest.approx(by_loop(codes.tolist()), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_precision_is_float32_or_higher(dtype: torch.dtype, autocast: bool) -> None:
    """The term of a collapsed batch is 1; the sum of its squares, 300^2, is above the largest number of float16."""
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        collapsed = pulling_away(torch.ones(300, 3).to(dtype))
        codes = randn(9, 4, dtype=torch.float64).to(dtype)
        different = pulling_away(codes)
    assert collapsed.dtype == torch.promote_types(dtype, torch.float32)
    assert float(collapsed) == pytest.approx(1, rel=1e-5)
    assert float(different) == pytest.approx(by_loop(codes.tolist()), rel=1e-5)


def test_codes_of_any_shape_are_flattened() -> None:
    codes = randn(6, 3, 2, 2, dtype=torch.float64)
    assert float(pulling_away(codes)) == pytest.approx(by_loop(codes.flatten(1).tolist()), rel=1e-10)


def test_1_for_parallel_and_0_for_orthogonal_codes() -> None:
    lengths = torch.tensor([1.0, -2.0, 0.5, 1e4])[:, None]
    assert float(pulling_away(lengths * randn(1, 6))) == pytest.approx(1, abs=1e-6)
    orthogonal, _ = torch.linalg.qr(randn(6, 6, dtype=torch.float64))
    assert float(pulling_away(orthogonal * 7)) == pytest.approx(0, abs=1e-14)
    half = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    assert float(pulling_away(half)) == pytest.approx(4 / 12, rel=1e-6)


def test_gradients() -> None:
    assert torch.autograd.gradcheck(pulling_away, (randn(6, 4, dtype=torch.float64).requires_grad_(),))
    codes = randn(6, 4)
    codes[2] = 0
    codes.requires_grad_()
    (grad,) = torch.autograd.grad(pulling_away(codes), codes)
    assert torch.isfinite(grad).all()


def test_the_term_is_added_to_gs_loss_only() -> None:
    d, metrics = TanhDiscriminator(), StepMetrics()
    game = game_of(PullingAwayConfig().build("pt", {}), d=d)
    move = make_move(game, FixedBatches(randn(N, 2)), context(side=Side.G), metrics)
    with torch.no_grad():
        codes = d(move.fake).features
    assert codes is not None
    assert logged_means(metrics)["g/pt"] == pytest.approx(by_loop(codes.tolist()), rel=1e-4)
    row = StepMetrics()
    make_move(game, FixedBatches(randn(N, 2)), context(), row)
    assert "d/pt" not in logged_means(row)


def test_weight_scales_the_gradient() -> None:
    def gradient_with_weight(weight: float) -> torch.Tensor:
        game = game_of(PullingAway("pt", weight), d=TanhDiscriminator())
        make_move(game, FixedBatches(randn(N, 2)), context(side=Side.G), StepMetrics())
        return gradients(game.g.net)[0]

    plain = gradient_with_weight(0.0)
    assert torch.allclose(gradient_with_weight(3.0) - plain, 3 * (gradient_with_weight(1.0) - plain), atol=1e-5)
    assert not torch.allclose(gradient_with_weight(1.0), plain, atol=1e-3)
    assert PullingAwayConfig().weight == 0.1
