"""Weight clipping against numpy's clip, on D, after its own steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts.tiny import context
from poise.core.types import Side
from poise.engine.step import make_move
from poise.engine.step_metrics import StepMetrics
from poise.errors import RecipeError
from poise.recipe.decode import decode
from poise.tricks.weight_clipping import WeightClipping, WeightClippingConfig, clip_
from tricks.small import Bent, Given, N, as_float64, cloud, game_of


@pytest.mark.parametrize("limit", [0.01, 0.5, 10.0])
def test_clip_is_numpys_in_place(limit: float) -> None:
    weights = [cloud(4, 3), cloud(7, seed=1), torch.tensor([limit, -limit, 0.0, 1e4, -1e4])]
    before = [as_float64(w).copy() for w in weights]
    kept = list(weights)
    clip_(weights, limit)
    for w, same, old in zip(weights, kept, before, strict=True):
        assert w is same
        np.testing.assert_allclose(as_float64(w), np.clip(old, -limit, limit), rtol=1e-6)


def test_clips_what_the_step_came_to() -> None:
    """D's weights after a clipped move are the clipped weights after an unclipped one, to the bit."""
    plain, clipped = (
        game_of(d=Bent(), lr=0.3),
        game_of(WeightClippingConfig(limit=0.4).build("c", {}), d=Bent(), lr=0.3),
    )
    for at in range(3):
        for game in (plain, clipped):
            make_move(game, Given(cloud(N, 2)), context(at), StepMetrics())
        for free, held in zip(plain.d.net.parameters(), clipped.d.net.parameters(), strict=True):
            assert torch.equal(held, free.clamp(-0.4, 0.4))
            assert held.requires_grad
            assert bool((free.abs() > 0.4).any())
        plain.d.net.load_state_dict(clipped.d.net.state_dict())


def test_g_is_not_clipped_and_clips_nobody() -> None:
    game = game_of(WeightClipping("c", 0.01), d=Bent(), lr=0.3)
    before = [w.detach().clone() for w in game.d.net.parameters()]
    make_move(game, Given(cloud(N, 2)), context(side=Side.G), StepMetrics())
    assert all(torch.equal(w, old) for w, old in zip(game.d.net.parameters(), before, strict=True))
    make_move(game, Given(cloud(N, 2)), context(), StepMetrics())
    assert all(w.abs().max() <= 0.01 for w in game.d.net.parameters())
    assert all(w.abs().max() > 0.01 for w in game.g.net.parameters())


@pytest.mark.parametrize("limit", [0.0, -0.01])
def test_a_limit_that_leaves_nothing_is_refused(limit: float) -> None:
    with pytest.raises(RecipeError, match="limit"):
        decode({"tricks": [{"kind": "weight_clipping", "limit": limit}]})
    assert WeightClippingConfig().limit == 0.01
