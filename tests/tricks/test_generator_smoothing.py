"""Label smoothing of G: the added score is a lower target, exactly, and MUSE's loss of the map."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy

from contracts.tiny import context, recipe
from poise.core.move import MoveData
from poise.core.types import DiscriminatorOutput, Side
from poise.errors import RecipeError
from poise.objectives.least_squares import half_squared_error
from poise.objectives.pointwise import cross_entropy, non_saturating
from poise.recipe.checks.compatibility import check_compatibility
from poise.tricks.generator_smoothing import GeneratorSmoothing

SCORES = torch.linspace(-6, 6, 25, dtype=torch.float64)


def smoothing(scores: torch.Tensor) -> torch.Tensor:
    outputs = {"fake": DiscriminatorOutput(scores)}
    return GeneratorSmoothing("s", 0.1).loss(MoveData(context(side=Side.G), scores, scores, outputs=outputs))  # type: ignore[arg-type]


def test_it_equals_the_cross_entropy_with_a_lower_target() -> None:
    loss = non_saturating(SCORES).mean() + 0.1 * smoothing(SCORES)
    assert loss == pytest.approx(float(cross_entropy(SCORES, torch.full_like(SCORES, 0.9)).mean()))
    # MUSE: D is the probability of "source", and the map's target for its samples is the smoothed "target", 0.1
    source = torch.sigmoid(-SCORES)
    assert loss == pytest.approx(float(binary_cross_entropy(source, torch.full_like(source, 0.1))))


def test_it_lowers_the_target_of_least_squares() -> None:
    scores = SCORES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(half_squared_error(scores, 1.0).mean() + 0.1 * smoothing(scores), scores)
    (expected,) = torch.autograd.grad(half_squared_error(scores, 0.9).mean(), scores)
    assert torch.allclose(gradient, expected)


def test_an_objective_without_targets_is_refused() -> None:
    check_compatibility(recipe("points", {"kind": "generator_smoothing"})).raise_first()
    with pytest.raises(RecipeError, match="generator_smoothing"):
        check_compatibility(
            recipe("points", {"kind": "generator_smoothing"}, objective={"kind": "hinge"})
        ).raise_first()
    with pytest.raises(RecipeError, match="weight"):
        recipe("points", {"kind": "generator_smoothing", "weight": 0.5})
