"""Weight clipping, compared with NumPy's clip, of D after its updates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts.tiny import context, session
from poise.core.types import Side
from poise.engine.step import make_move
from poise.engine.step_metrics import StepMetrics
from poise.errors import RecipeError
from poise.recipe.decode import decode
from poise.tricks.weight_clipping import WeightClipping, WeightClippingConfig, clip_
from tricks.small import FixedBatches, N, TanhDiscriminator, as_float64, game_of, randn


@pytest.mark.parametrize("limit", [0.01, 0.5, 10.0])
def test_clip_equals_numpys_and_works_in_place(limit: float) -> None:
    weights = [randn(4, 3), randn(7, seed=1), torch.tensor([limit, -limit, 0.0, 1e4, -1e4])]
    before = [as_float64(w).copy() for w in weights]
    same_tensors = list(weights)
    clip_(weights, limit)
    for w, same, old in zip(weights, same_tensors, before, strict=True):
        assert w is same
        np.testing.assert_allclose(as_float64(w), np.clip(old, -limit, limit), rtol=1e-6)


def test_clips_the_updated_weights() -> None:
    """D's weights after a clipped move equal the clipped weights after an unclipped one, bit for bit."""
    plain, clipped = (
        game_of(d=TanhDiscriminator(), lr=0.3),
        game_of(WeightClippingConfig(limit=0.4).build("c", {}), d=TanhDiscriminator(), lr=0.3),
    )
    for at in range(3):
        for game in (plain, clipped):
            make_move(game, FixedBatches(randn(N, 2)), context(at), StepMetrics())
        for unclipped_weight, clipped_weight in zip(plain.d.net.parameters(), clipped.d.net.parameters(), strict=True):
            assert torch.equal(clipped_weight, unclipped_weight.clamp(-0.4, 0.4))
            assert clipped_weight.requires_grad
            assert bool((unclipped_weight.abs() > 0.4).any())
        plain.d.net.load_state_dict(clipped.d.net.state_dict())


def test_gs_weights_and_gs_moves_are_not_affected() -> None:
    game = game_of(WeightClipping("c", 0.01), d=TanhDiscriminator(), lr=0.3)
    before = [w.detach().clone() for w in game.d.net.parameters()]
    make_move(game, FixedBatches(randn(N, 2)), context(side=Side.G), StepMetrics())
    assert all(torch.equal(w, old) for w, old in zip(game.d.net.parameters(), before, strict=True))
    make_move(game, FixedBatches(randn(N, 2)), context(), StepMetrics())
    assert all(w.abs().max() <= 0.01 for w in game.d.net.parameters())
    assert all(w.abs().max() > 0.01 for w in game.g.net.parameters())


@pytest.mark.parametrize("limit", [0.0, -0.01])
def test_limits_of_0_or_less_are_rejected(limit: float) -> None:
    with pytest.raises(RecipeError, match="limit"):
        decode({"tricks": [{"kind": "weight_clipping", "limit": limit}]})
    assert WeightClippingConfig().limit == 0.01


@pytest.mark.parametrize("order", [1, -1])
def test_copies_of_d_are_within_the_limit_whatever_the_order_in_the_recipe(order: int) -> None:
    tricks = [{"kind": "past_selves", "keep": 1, "every": 3, "duration": 1}, {"kind": "weight_clipping", "limit": 1e-3}]
    run = session("points", *tricks[::order]).play(2)
    (copy,) = run.game.tricks["past_selves"].selves["d"]
    weights = run.game.d.net.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in copy.state_dict().items())
    assert all(weight.abs().max() <= 1e-3 for weight in copy.parameters())
