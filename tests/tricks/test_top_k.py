"""Top-k: the indices of the highest scores by NumPy's sort, and G's loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from contracts.tiny import by_hand, context, recipe
from poise.core.hooks import apply_sample_selections
from poise.core.move import MoveData
from poise.core.schedules import Linear, Schedulable
from poise.core.types import DataSpec, DiscriminatorOutput, Side
from poise.engine.step import make_move
from poise.engine.step_metrics import StepMetrics
from poise.errors import RecipeError
from poise.objectives.base import Objective
from poise.objectives.pointwise import NonSaturating
from poise.objectives.relativistic import Relativistic, RelativisticAverage
from poise.tricks.base import TrickContext
from poise.tricks.top_k import TopK, TopKConfig, top_k_indices
from tricks.small import FixedBatches, N, TanhDiscriminator, as_float64, gradients, logged_means, randn


@pytest.mark.parametrize(
    ("fraction", "k"), [(0.0, 1), (0.01, 1), (0.1, 2), (0.5, 10), (0.74, 15), (0.98, 20), (1.0, 20)]
)
def test_indices_equal_numpys_argsort(fraction: float, k: int) -> None:
    for seed in range(10):
        scores = randn(20, seed=seed) * 10 - 5
        indices = top_k_indices(scores, fraction)
        assert len(indices) == k
        assert set(indices.tolist()) == set(np.argsort(as_float64(scores))[20 - k :].tolist())


def test_at_least_one_sample_is_selected() -> None:
    for count in (1, 2, 3):
        scores = randn(count)
        for fraction in (0.0, 0.1):
            assert top_k_indices(scores, fraction).tolist() == [int(scores.argmax())]
    assert top_k_indices(randn(1), 1.0).tolist() == [0]


def test_with_ties_exactly_k_different_samples_are_selected() -> None:
    scores = torch.tensor([1.0, 3.0, 3.0, 2.0, 3.0, -7.0, 2.0, 2.0])
    for k in range(1, 9):
        indices = top_k_indices(scores, k / 8)
        assert len(set(indices.tolist())) == k
        assert scores[indices].sort(descending=True).values.tolist() == [3.0, 3.0, 3.0, 2.0, 2.0, 2.0, 1.0, -7.0][:k]
    assert len(set(top_k_indices(torch.zeros(8), 0.5).tolist())) == 4


def test_negative_scores_are_ranked_by_value() -> None:
    assert top_k_indices(torch.tensor([-9.0, -1.0, -5.0, -2.0]), 0.5).tolist() == [1, 3]


def move_with(fake: Tensor, at: int = 0, steps: int = 10) -> MoveData:
    move = MoveData(context(at, side=Side.G, steps=steps), torch.zeros(len(fake), 2), torch.zeros(len(fake), 2))
    move.outputs = {"fake": DiscriminatorOutput(fake), "real": DiscriminatorOutput(-fake)}
    return move


def test_all_losses_keep_the_same_indices() -> None:
    """Those of the highest fake scores, whatever the losses are."""
    scores = torch.tensor([0.5, 2.0, -1.0, 1.0])
    losses = (torch.tensor([10.0, 20.0, 30.0, 40.0]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    first, second = apply_sample_selections([TopK("top", 0.5)], losses, move_with(scores))
    assert sorted(first.tolist()) == [20.0, 40.0]
    assert sorted(second.tolist()) == [2.0, 4.0]
    assert [a / 10 for a in first.tolist()] == second.tolist(), "index by index"
    assert len(apply_sample_selections([TopK("top", 0.5)], losses[:1], move_with(scores))) == 1
    (best_of_best,) = apply_sample_selections([TopK("top", 0.5), TopK("top_2", 0.5)], losses[:1], move_with(scores))
    assert best_of_best.tolist() == [float(losses[0][scores.argmax()])], "the second selects among those of the first"


def test_a_fraction_of_1_returns_the_losses_unchanged() -> None:
    losses = (randn(8), randn(8, seed=1))
    assert apply_sample_selections([TopK("top", 1.0)], losses, move_with(randn(8))) is losses


@pytest.mark.parametrize(
    ("fraction", "sizes"),
    [
        (TopKConfig().fraction, [10, 9, 8, 7, 6, 5, 5, 5, 5, 5, 5]),
        (Linear(start=0.2, end=1.0), [2, 3, 4, 4, 5, 6, 7, 8, 8, 9, 10]),
        (0.3, [3] * 11),
    ],
)
def test_the_fraction_may_follow_a_schedule(fraction: Schedulable, sizes: list[int]) -> None:
    """The default: from all to half over the first half of the run."""
    trick = TopK("top", fraction)
    assert [
        len(apply_sample_selections([trick], (randn(10),), move_with(randn(10), at))[0]) for at in range(11)
    ] == sizes


# ---------------------------------------------------------------- in a game


def by_formula(objective: Objective, fake: Tensor, real: Tensor) -> tuple[Tensor, ...]:
    """G's loss for each sample, computed from the papers' formulas."""
    if isinstance(objective, RelativisticAverage):
        return softplus(real.mean() - fake), softplus(real - fake.mean())
    return (softplus(real - fake),) if isinstance(objective, Relativistic) else (softplus(-fake),)


@pytest.mark.parametrize("objective", [NonSaturating(), Relativistic(), RelativisticAverage()])
@pytest.mark.parametrize(("fraction", "k"), [(0.0, 1), (0.4, 3), (0.75, 6), (1.0, 8)])
def test_gs_loss_is_that_of_the_selected_samples(objective: Objective, fraction: float, k: int) -> None:
    """The logged value and the gradient, from the same formulas with indices sorted by NumPy.

    If a formula compares a sample with a mean, it is the mean over the whole batch.
    """
    game, metrics = by_hand(TopK("top", fraction), d=TanhDiscriminator(), objective=objective, lr=0.0), StepMetrics()
    move = make_move(game, FixedBatches(randn(N, 2, seed=3)), context(side=Side.G), metrics)
    shift = game.g.net.by.detach().clone().requires_grad_()
    fake = game.d.net(move.latents + shift).score
    real = game.d.net(randn(N, 2, seed=3)).score.detach()
    indices = torch.from_numpy(np.argsort(as_float64(fake))[N - k :].copy())
    losses = by_formula(objective, fake, real)
    loss = torch.stack([per_sample[indices].mean() for per_sample in losses]).sum()
    (expected,) = torch.autograd.grad(loss, shift)
    assert logged_means(metrics)["g/adversarial"] == pytest.approx(float(loss.detach()) / len(losses), rel=1e-5)
    assert torch.allclose(gradients(game.g.net)[0], expected, rtol=1e-4, atol=1e-6)


def test_ds_move_is_unchanged() -> None:
    rows = []
    for tricks in ((), (TopK("top", 0.1),)):
        metrics = StepMetrics()
        make_move(by_hand(*tricks, d=TanhDiscriminator()), FixedBatches(randn(N, 2)), context(), metrics)
        rows.append(logged_means(metrics))
    assert rows[0] == rows[1]
    assert TopK.sides == {Side.G}


def test_gs_loss_falls_with_the_fraction() -> None:
    """The non-saturating loss decreases with the score, so it decreases with the fraction."""
    logged = []
    for fraction in (1.0, 0.75, 0.5, 0.25, 0.0):
        metrics = StepMetrics()
        make_move(
            by_hand(TopK("top", fraction), d=TanhDiscriminator()),
            FixedBatches(randn(N, 2)),
            context(side=Side.G),
            metrics,
        )
        logged.append(logged_means(metrics)["g/adversarial"])
    assert logged == sorted(logged, reverse=True)
    assert logged[0] > logged[-1]


def test_the_config_builds_the_trick() -> None:
    context = TrickContext({}, DataSpec((2,)))
    trick = TopKConfig(fraction=0.25).build("x", context)
    assert (trick.name, trick.fraction) == ("x", 0.25)
    for fraction in (-0.1, 1.1):
        with pytest.raises(RecipeError, match="fraction"):
            recipe("points", {"kind": "top_k", "fraction": fraction})
