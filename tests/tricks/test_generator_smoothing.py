"""Label smoothing of G: the added score is a lower target, exactly, and MUSE's loss of the map."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy

from contracts.tiny import context, recipe, session
from poise.core.move import MoveData
from poise.core.types import DiscriminatorOutput, Side
from poise.errors import RecipeError
from poise.objectives.least_squares import LeastSquares, half_squared_error
from poise.objectives.pointwise import cross_entropy, non_saturating
from poise.recipe.checks.compatibility import check_compatibility
from poise.tricks.generator_smoothing import GeneratorSmoothing

SCORES = torch.linspace(-6, 6, 25, dtype=torch.float64)


def smoothing(scores: torch.Tensor, span: float = 1.0) -> torch.Tensor:
    outputs = {"fake": DiscriminatorOutput(scores)}
    return GeneratorSmoothing("s", 0.1, span).loss(MoveData(context(side=Side.G), scores, scores, outputs=outputs))  # type: ignore[arg-type]


def test_it_equals_the_cross_entropy_with_a_lower_target() -> None:
    loss = non_saturating(SCORES).mean() + 0.1 * smoothing(SCORES)
    assert loss == pytest.approx(float(cross_entropy(SCORES, torch.full_like(SCORES, 0.9)).mean()))
    # MUSE: D is the probability of "source", and the map's target for its samples is the smoothed "target", 0.1
    source = torch.sigmoid(-SCORES)
    assert loss == pytest.approx(float(binary_cross_entropy(source, torch.full_like(source, 0.1))))


@pytest.mark.parametrize(("a", "b", "lowered"), [(0.0, 1.0, 0.9), (-1.0, 1.0, 0.8)])
def test_it_lowers_the_target_of_least_squares(a: float, b: float, lowered: float) -> None:
    """A target of 0.9 lies nine tenths of the way from a to b, as with `soft_labels`."""
    scores = SCORES.clone().requires_grad_()
    smoothed = half_squared_error(scores, b).mean() + 0.1 * smoothing(scores, LeastSquares(a=a, b=b, c=b).g_target_span)
    (gradient,) = torch.autograd.grad(smoothed, scores)
    (expected,) = torch.autograd.grad(half_squared_error(scores, lowered).mean(), scores)
    assert torch.allclose(gradient, expected)
    objective = {"kind": "least_squares", "a": a, "b": b, "c": b}
    (trick,) = session("points", {"kind": "generator_smoothing"}, objective=objective).game.tricks.values()
    assert isinstance(trick, GeneratorSmoothing)
    assert trick.span == b - a


@pytest.mark.parametrize("objective", ["hinge", "wasserstein", "minimax"])
def test_an_objective_without_a_target_in_gs_loss_is_refused(objective: str) -> None:
    """With minimax, where G's loss is no cross-entropy, the term would reverse its gradient."""
    check_compatibility(recipe("points", {"kind": "generator_smoothing"})).raise_first()
    findings = check_compatibility(recipe("points", {"kind": "generator_smoothing"}, objective={"kind": objective}))
    with pytest.raises(RecipeError, match=f"'generator_smoothing' changes the target of G's loss, .*'{objective}'"):
        findings.raise_first()
    with pytest.raises(RecipeError, match="weight"):
        recipe("points", {"kind": "generator_smoothing", "weight": 0.5})
