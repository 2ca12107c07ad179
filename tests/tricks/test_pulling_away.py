"""The pulling-away term against a double loop over pairs."""

from __future__ import annotations

import math

import pytest
import torch

from contracts.tiny import context
from poise.core.types import Side
from poise.engine.step import make_move
from poise.engine.step_metrics import StepMetrics
from poise.tricks.pulling_away import PullingAway, PullingAwayConfig, pulling_away
from tricks.small import Bent, Given, N, cloud, game_of, gradients, shown


def loop(codes: list[list[float]]) -> float:
    """Equation 4 of the paper: 1 / (N (N - 1)) sum_i sum_{j != i} (S_i' S_j / (||S_i|| ||S_j||))^2."""
    total, n = 0.0, len(codes)
    for i, s in enumerate(codes):
        for j, t in enumerate(codes):
            if i != j:
                dot = sum(a * b for a, b in zip(s, t, strict=True))
                total += (dot / (math.hypot(*s) * math.hypot(*t))) ** 2
    return total / (n * (n - 1))


@pytest.mark.parametrize(("n", "width"), [(2, 3), (5, 2), (16, 8), (7, 1)])
def test_is_the_double_loop(n: int, width: int) -> None:
    codes = cloud(n, width, dtype=torch.float64) * torch.logspace(-3, 4, n, dtype=torch.float64)[:, None]
    assert float(pulling_away(codes)) == pytest.approx(loop(codes.tolist()), rel=1e-10)
    assert float(pulling_away(codes.float())) == pytest.approx(loop(codes.tolist()), rel=1e-4)


def test_codes_of_any_shape_are_laid_flat() -> None:
    codes = cloud(6, 3, 2, 2, dtype=torch.float64)
    assert float(pulling_away(codes)) == pytest.approx(loop(codes.flatten(1).tolist()), rel=1e-10)


def test_one_where_all_point_one_way_and_nothing_where_they_are_orthogonal() -> None:
    ways = torch.tensor([1.0, -2.0, 0.5, 1e4])[:, None]
    assert float(pulling_away(ways * cloud(1, 6))) == pytest.approx(1, abs=1e-6)
    orthogonal, _ = torch.linalg.qr(cloud(6, 6, dtype=torch.float64))
    assert float(pulling_away(orthogonal * 7)) == pytest.approx(0, abs=1e-14)
    half = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    assert float(pulling_away(half)) == pytest.approx(4 / 12, rel=1e-6)


def test_gradients() -> None:
    assert torch.autograd.gradcheck(pulling_away, (cloud(6, 4, dtype=torch.float64).requires_grad_(),))
    blank = cloud(6, 4)
    blank[2] = 0
    blank.requires_grad_()
    (grad,) = torch.autograd.grad(pulling_away(blank), blank)
    assert torch.isfinite(grad).all()


def test_g_alone_pays_it_for_what_d_says_of_its_fakes() -> None:
    d, metrics = Bent(), StepMetrics()
    game = game_of(PullingAwayConfig().build("pt", {}), d=d)
    move = make_move(game, Given(cloud(N, 2)), context(side=Side.G), metrics)
    with torch.no_grad():
        codes = d(move.fake).features
    assert codes is not None
    assert shown(metrics)["g/pt"] == pytest.approx(loop(codes.tolist()), rel=1e-4)
    row = StepMetrics()
    make_move(game, Given(cloud(N, 2)), context(), row)
    assert "d/pt" not in shown(row)


def test_the_weight_multiplies_its_pull() -> None:
    def pulled(weight: float) -> torch.Tensor:
        game = game_of(PullingAway("pt", weight), d=Bent())
        make_move(game, Given(cloud(N, 2)), context(side=Side.G), StepMetrics())
        return gradients(game.g.net)[0]

    plain = pulled(0.0)
    assert torch.allclose(pulled(3.0) - plain, 3 * (pulled(1.0) - plain), atol=1e-5)
    assert not torch.allclose(pulled(1.0), plain, atol=1e-3)
    assert PullingAwayConfig().weight == 0.1
