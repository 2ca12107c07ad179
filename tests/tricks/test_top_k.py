"""Top-k: the places of the best fakes by numpy's sort, and what G then pays."""

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
from tricks.small import Bent, Given, N, as_float64, cloud, gradients, shown


@pytest.mark.parametrize(
    ("fraction", "k"), [(0.0, 1), (0.01, 1), (0.1, 2), (0.5, 10), (0.74, 15), (0.98, 20), (1.0, 20)]
)
def test_the_best_are_numpys_last(fraction: float, k: int) -> None:
    for seed in range(10):
        scores = cloud(20, seed=seed) * 10 - 5
        places = top_k_indices(scores, fraction)
        assert len(places) == k
        assert set(places.tolist()) == set(np.argsort(as_float64(scores))[20 - k :].tolist())


def test_one_is_always_left() -> None:
    for count in (1, 2, 3):
        scores = cloud(count)
        for fraction in (0.0, 0.1):
            assert top_k_indices(scores, fraction).tolist() == [int(scores.argmax())]
    assert top_k_indices(cloud(1), 1.0).tolist() == [0]


def test_among_equals_it_takes_as_many_as_are_wanted_and_nobody_twice() -> None:
    scores = torch.tensor([1.0, 3.0, 3.0, 2.0, 3.0, -7.0, 2.0, 2.0])
    for k in range(1, 9):
        places = top_k_indices(scores, k / 8)
        assert len(set(places.tolist())) == k
        assert scores[places].sort(descending=True).values.tolist() == [3.0, 3.0, 3.0, 2.0, 2.0, 2.0, 1.0, -7.0][:k]
    assert len(set(top_k_indices(torch.zeros(8), 0.5).tolist())) == 4


def test_negative_scores_are_ranked_by_height_not_by_size() -> None:
    assert top_k_indices(torch.tensor([-9.0, -1.0, -5.0, -2.0]), 0.5).tolist() == [1, 3]


def judged(fake: Tensor, at: int = 0, steps: int = 10) -> MoveData:
    move = MoveData(context(at, side=Side.G, steps=steps), torch.zeros(len(fake), 2), torch.zeros(len(fake), 2))
    move.outputs = {"fake": DiscriminatorOutput(fake), "real": DiscriminatorOutput(-fake)}
    return move


def test_each_expectation_keeps_the_same_places() -> None:
    """Those of the fakes' scores, whatever the costs are."""
    scores = torch.tensor([0.5, 2.0, -1.0, 1.0])
    costs = (torch.tensor([10.0, 20.0, 30.0, 40.0]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    first, second = apply_sample_selections([TopK("top", 0.5)], costs, judged(scores))
    assert sorted(first.tolist()) == [20.0, 40.0]
    assert sorted(second.tolist()) == [2.0, 4.0]
    assert [a / 10 for a in first.tolist()] == second.tolist(), "place by place"
    assert len(apply_sample_selections([TopK("top", 0.5)], costs[:1], judged(scores))) == 1
    (best_of_best,) = apply_sample_selections([TopK("top", 0.5), TopK("top_2", 0.5)], costs[:1], judged(scores))
    assert best_of_best.tolist() == [float(costs[0][scores.argmax()])], "the second picks among the first one's"


def test_all_of_them_is_what_came_in() -> None:
    costs = (cloud(8), cloud(8, seed=1))
    assert apply_sample_selections([TopK("top", 1.0)], costs, judged(cloud(8))) is costs


@pytest.mark.parametrize(
    ("dial", "sizes"),
    [
        (TopKConfig().fraction, [10, 9, 8, 7, 6, 5, 5, 5, 5, 5, 5]),
        (Linear(start=0.2, end=1.0), [2, 3, 4, 4, 5, 6, 7, 8, 8, 9, 10]),
        (0.3, [3] * 11),
    ],
)
def test_the_fraction_is_a_dial(dial: Schedulable, sizes: list[int]) -> None:
    """As it stands: from all to half over the first half of the run."""
    trick = TopK("top", dial)
    assert [len(apply_sample_selections([trick], (cloud(10),), judged(cloud(10), at))[0]) for at in range(11)] == sizes


# ---------------------------------------------------------------- in a game


def by_formula(objective: Objective, fake: Tensor, real: Tensor) -> tuple[Tensor, ...]:
    """What G pays for each place, worked out from the papers."""
    if isinstance(objective, RelativisticAverage):
        return softplus(real.mean() - fake), softplus(real - fake.mean())
    return (softplus(real - fake),) if isinstance(objective, Relativistic) else (softplus(-fake),)


@pytest.mark.parametrize("objective", [NonSaturating(), Relativistic(), RelativisticAverage()])
@pytest.mark.parametrize(("fraction", "k"), [(0.0, 1), (0.4, 3), (0.75, 6), (1.0, 8)])
def test_g_pays_for_its_best_only(objective: Objective, fraction: float, k: int) -> None:
    """The value in the row and the gradient, from the same formulas with the places sorted by numpy.

    Where a formula holds a sample against a mean, the mean stays that of the whole pile.
    """
    game, metrics = by_hand(TopK("top", fraction), d=Bent(), objective=objective, lr=0.0), StepMetrics()
    move = make_move(game, Given(cloud(N, 2, seed=3)), context(side=Side.G), metrics)
    shift = game.g.net.by.detach().clone().requires_grad_()
    fake = game.d.net(move.latents + shift).score
    real = game.d.net(cloud(N, 2, seed=3)).score.detach()
    places = torch.from_numpy(np.argsort(as_float64(fake))[N - k :].copy())
    costs = by_formula(objective, fake, real)
    cost = torch.stack([of_each[places].mean() for of_each in costs]).sum()
    (right,) = torch.autograd.grad(cost, shift)
    assert shown(metrics)["g/adversarial"] == pytest.approx(float(cost.detach()) / len(costs), rel=1e-5)
    assert torch.allclose(gradients(game.g.net)[0], right, rtol=1e-4, atol=1e-6)


def test_ds_move_is_what_it_was() -> None:
    rows = []
    for tricks in ((), (TopK("top", 0.1),)):
        metrics = StepMetrics()
        make_move(by_hand(*tricks, d=Bent()), Given(cloud(N, 2)), context(), metrics)
        rows.append(shown(metrics))
    assert rows[0] == rows[1]
    assert TopK.sides == {Side.G}


def test_the_fewer_and_better_the_cheaper() -> None:
    """The non-saturating cost falls with the score, so it falls with the fraction."""
    paid = []
    for fraction in (1.0, 0.75, 0.5, 0.25, 0.0):
        metrics = StepMetrics()
        make_move(by_hand(TopK("top", fraction), d=Bent()), Given(cloud(N, 2)), context(side=Side.G), metrics)
        paid.append(shown(metrics)["g/adversarial"])
    assert paid == sorted(paid, reverse=True)
    assert paid[0] > paid[-1]


def test_the_entry_builds_it() -> None:
    context = TrickContext({}, DataSpec((2,)))
    trick = TopKConfig(fraction=0.25).build("x", context)
    assert (trick.name, trick.fraction) == ("x", 0.25)
    for fraction in (-0.1, 1.1):
        with pytest.raises(RecipeError, match="fraction"):
            recipe("points", {"kind": "top_k", "fraction": fraction})
