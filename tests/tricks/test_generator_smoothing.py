"""Label smoothing of G: the added score is a lower target, exactly, and MUSE's loss of the map."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import binary_cross_entropy

from contracts.tiny import context, recipe, session
from poise.core.hooks import apply_sample_selections
from poise.core.move import MoveData, join_parts
from poise.core.types import DiscriminatorOutput, Side, per_sample
from poise.errors import RecipeError
from poise.objectives.least_squares import LeastSquares, half_squared_error
from poise.objectives.pointwise import cross_entropy, non_saturating
from poise.recipe.checks.compatibility import check_compatibility
from poise.tricks.generator_smoothing import GeneratorSmoothing
from poise.tricks.top_k import TopK

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


@pytest.mark.parametrize("objective", [{"kind": "non_saturating"}, {"kind": "least_squares", "a": -1.0, "c": 1.0}])
@pytest.mark.parametrize(("fractions", "k"), [([0.5], 4), ([0.75, 0.5], 3), ([1.0], 8)])
def test_it_smooths_the_targets_of_the_selected_samples_only(
    objective: dict[str, Any], fractions: list[float], k: int
) -> None:
    """A sample that `top_k` drops has no loss, and so no target."""
    tricks = [{"kind": "top_k", "fraction": fraction} for fraction in fractions]
    run = session("points", {"kind": "generator_smoothing", "weight": 0.2}, *tricks, objective=objective).play(1)
    (played,) = run.of(Side.G)
    kept = played.move.score("fake").detach().topk(k).values
    span = 2.0 if objective["kind"] == "least_squares" else 1.0
    assert float(played.move.logged["generator_smoothing"].detach()) == pytest.approx(span * float(kept.mean()))


@pytest.mark.parametrize("patches", [False, True])
def test_the_selection_of_a_divided_batch_has_the_indices_of_the_whole(patches: bool) -> None:
    at, moves = context(side=Side.G), []
    for selected in (torch.tensor([3, 0]), None, torch.tensor([1])):
        score = torch.randn(4, *([3] if patches else []))
        move = MoveData(at, score, score, outputs={"fake": DiscriminatorOutput(score)}, selected=selected)
        moves.append(move.detach())
    whole = join_parts(moves, at)
    assert whole.selected is not None
    assert whole.selected.tolist() == [3, 0, 4, 5, 6, 7, 9]
    means = [move.selected_score if move.selected is not None else per_sample(move.score("fake")) for move in moves]
    assert torch.equal(whole.selected_score, torch.cat(means))
    assert join_parts([moves[1], moves[1]], at).selected is None


def test_dropped_samples_get_no_gradient_and_the_others_that_of_the_lower_target() -> None:
    scores = torch.linspace(-2, 2, 8, dtype=torch.float64).requires_grad_()
    move = MoveData(context(side=Side.G), scores, scores, outputs={"fake": DiscriminatorOutput(scores)})  # type: ignore[arg-type]
    (losses,) = apply_sample_selections([TopK("t", 0.5)], (non_saturating(scores),), move)
    loss = losses.mean() + 0.1 * GeneratorSmoothing("s", 0.1).loss(move)
    (gradient,) = torch.autograd.grad(loss, scores)
    (expected,) = torch.autograd.grad(
        cross_entropy(scores[4:], torch.full((4,), 0.9, dtype=torch.float64)).mean(), scores
    )
    assert torch.allclose(gradient, expected)


@pytest.mark.parametrize("objective", ["hinge", "wasserstein", "minimax"])
def test_an_objective_without_a_target_in_gs_loss_is_refused(objective: str) -> None:
    """With minimax, where G's loss is no cross-entropy, the term would reverse its gradient."""
    check_compatibility(recipe("points", {"kind": "generator_smoothing"})).raise_first()
    findings = check_compatibility(recipe("points", {"kind": "generator_smoothing"}, objective={"kind": objective}))
    with pytest.raises(RecipeError, match=f"'generator_smoothing' changes the target of G's loss, .*'{objective}'"):
        findings.raise_first()
    with pytest.raises(RecipeError, match="weight"):
        recipe("points", {"kind": "generator_smoothing", "weight": 0.5})
