"""Noisy labels: targets are flipped independently, with draws from the move's stream."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from contracts.tiny import context, recipe
from poise.core.hooks import apply_target_transforms
from poise.core.schedules import Linear, Schedulable
from poise.core.types import DataSpec, MoveContext, Side, Targets
from poise.engine.step import make_move
from poise.engine.step_metrics import StepMetrics
from poise.errors import RecipeError
from poise.recipe.checks.compatibility import check_compatibility
from poise.tricks.base import TrickContext
from poise.tricks.noisy_labels import NoisyLabels, NoisyLabelsConfig, flip_targets
from poise.tricks.soft_labels import SoftLabels
from tricks.small import FixedBatches, N, TanhDiscriminator, game_of, logged_means, randn

B = 3000
HARD = Targets(torch.ones(B), torch.zeros(B))
NUMBERED = Targets(torch.arange(B).float(), -1 - torch.arange(B).float())
"""Every target is a different number, so that each can be identified."""


def draws_for(
    p: float, move_context: MoveContext, name: str = "noisy", count: int = B
) -> tuple[list[bool], list[bool]]:
    """Which real and which fake targets are flipped."""
    draws = torch.rand(2, count, generator=move_context.generator(name))
    real, fake = ([float(u) < p for u in row] for row in draws)
    return real, fake


def flip_by_loop(targets: Targets, real: list[bool], fake: list[bool]) -> tuple[list[float], list[float]]:
    """Flip the targets one by one, from the targets before."""
    real_targets, fake_targets = targets.real.tolist(), targets.fake.tolist()
    return (
        [t if flip else o for o, t, flip in zip(real_targets, fake_targets, real, strict=True)],
        [o if flip else t for o, t, flip in zip(real_targets, fake_targets, fake, strict=True)],
    )


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_targets_are_flipped_where_drawn(p: float) -> None:
    trick = NoisyLabels("noisy", p)
    for move_context in (context(), context(3), context(turn=2), context(seed=5)):
        transformed = trick.transform_targets(NUMBERED, move_context)
        real, fake = flip_by_loop(NUMBERED, *draws_for(p, move_context))
        assert transformed.real.tolist() == real
        assert transformed.fake.tolist() == fake
    assert NUMBERED.real.tolist() == list(range(B)), "the input is not changed"


def test_flip_targets_flips_the_given_samples() -> None:
    targets = Targets(torch.tensor([0.9, 0.8, 0.7, 1.0]), torch.tensor([0.1, 0.2, 0.3, 0.0]))
    swap = flip_targets(targets, torch.tensor([True, False, True, False]), torch.tensor([True, True, False, False]))
    assert torch.equal(swap.real, torch.tensor([0.1, 0.8, 0.3, 1.0]))
    assert torch.equal(swap.fake, torch.tensor([0.9, 0.8, 0.3, 0.0]))


def test_probabilities_0_and_1() -> None:
    never = NoisyLabels("noisy", 0.0).transform_targets(NUMBERED, context())
    assert never is NUMBERED
    always = NoisyLabels("noisy", 1.0)
    for at in range(20):
        transformed = always.transform_targets(NUMBERED, context(at))
        assert torch.equal(transformed.real, NUMBERED.fake)
        assert torch.equal(transformed.fake, NUMBERED.real)


def test_soft_targets_keep_their_ranges() -> None:
    """After soft labels, a flipped real sample gets the soft target of its fake, and vice versa."""
    soft, noisy = SoftLabels("soft", (0.7, 1.2), (0.0, 0.3)), NoisyLabels("noisy", 0.25)
    before = soft.transform_targets(HARD, context())
    transformed = apply_target_transforms([soft, noisy], HARD, context())
    real, fake = draws_for(0.25, context())
    for actual, own, other, flips in (
        (transformed.real, before.real, before.fake, real),
        (transformed.fake, before.fake, before.real, fake),
    ):
        expected = torch.where(torch.tensor(flips), other, own)
        assert torch.equal(actual, expected)
        assert bool((((actual >= 0.0) & (actual <= 0.3)) | ((actual >= 0.7) & (actual <= 1.2))).all())
    assert 0.2 < float((transformed.real < 0.5).float().mean()) < 0.3
    assert 0.2 < float((transformed.fake > 0.5).float().mean()) < 0.3


@pytest.mark.parametrize("p", [0.05, 0.4])
def test_in_expectation_both_sides_are_smoothed_by_p(p: float) -> None:
    """E = (1 - p) real + p fake; draws are independent, so both of a pair are flipped with probability p^2."""
    trick, targets = NoisyLabels("noisy", p), Targets(torch.full((B,), 0.9), torch.full((B,), 0.2))
    moves = [trick.transform_targets(targets, context(at, steps=100)) for at in range(100)]
    real, fake = (
        torch.stack([transformed.real for transformed in moves]),
        torch.stack([transformed.fake for transformed in moves]),
    )
    stderr = 0.7 * (p * (1 - p) / real.numel()) ** 0.5
    assert float(real.double().mean()) == pytest.approx((1 - p) * 0.9 + p * 0.2, abs=4 * stderr)
    assert float(fake.double().mean()) == pytest.approx((1 - p) * 0.2 + p * 0.9, abs=4 * stderr)
    both = int(((real < 0.5) & (fake > 0.5)).sum())
    assert binomtest(both, real.numel(), p**2).pvalue > 1e-3
    for targets_of_one in (real[:, 0], real[0]):
        assert 0 < int((targets_of_one < 0.5).sum()) < len(targets_of_one), (
            "draws are shared by neither samples nor moves"
        )


def test_moves_seeds_and_names_have_independent_draws() -> None:
    def flips(move_context: MoveContext, name: str = "noisy") -> Tensor:
        return NoisyLabels(name, 0.5).transform_targets(HARD, move_context).real

    first = flips(context())
    assert torch.equal(first, flips(context()))
    for other in (flips(context(1)), flips(context(turn=1)), flips(context(seed=1)), flips(context(), "noisy_2")):
        assert 0.4 < float((first != other).float().mean()) < 0.6


def test_the_probability_may_follow_a_schedule() -> None:
    schedule = Linear(start=0.5, end=0.0)
    for at, p in ((0, 0.5), (4, 0.3), (9, 0.05)):
        move_context = context(at, steps=10)
        transformed = NoisyLabels("noisy", schedule).transform_targets(HARD, move_context)
        assert (1 - transformed.real).bool().tolist() == draws_for(p, move_context)[0]
        assert transformed.fake.bool().tolist() == draws_for(p, move_context)[1]
    assert NoisyLabels("noisy", schedule).transform_targets(HARD, context(10, steps=10)) is HARD


def test_the_default_is_annealed_to_0() -> None:
    trick = NoisyLabelsConfig().build("noisy", TrickContext({}, DataSpec((2,))))
    assert trick.name == "noisy"
    for at, p in ((0, 0.05), (5, 0.025)):
        move_context = context(at, steps=10)
        assert (1 - trick.transform_targets(HARD, move_context).real).bool().tolist() == draws_for(p, move_context)[0]
    assert trick.transform_targets(HARD, context(10, steps=10)) is HARD


@pytest.mark.parametrize("p", [0.3, 1.0])
def test_ds_loss_uses_the_flipped_targets(p: float) -> None:
    game, metrics = game_of(NoisyLabels("noisy", p), d=TanhDiscriminator()), StepMetrics()
    move = make_move(game, FixedBatches(randn(N, 2)), context(), metrics)
    expected = flip_by_loop(Targets(torch.ones(N), torch.zeros(N)), *draws_for(p, context(), count=N))
    with torch.no_grad():
        scores = move.score("real"), move.score("fake")
        losses = [binary_cross_entropy_with_logits(s, torch.tensor(t)) for s, t in zip(scores, expected, strict=True)]
    assert logged_means(metrics)["d/adversarial"] == pytest.approx(float(sum(losses)) / 2, rel=1e-5)


def test_gs_move_is_unchanged() -> None:
    rows = []
    for tricks in ((), (NoisyLabels("noisy", 1.0),)):
        metrics = StepMetrics()
        make_move(game_of(*tricks, d=TanhDiscriminator()), FixedBatches(randn(N, 2)), context(side=Side.G), metrics)
        rows.append(logged_means(metrics))
    assert rows[0] == rows[1]
    assert NoisyLabels.sides == {Side.D}


@pytest.mark.parametrize("p", [-0.1, 1.1, Linear(start=0.5, end=1.5)])
def test_invalid_probabilities_are_rejected(p: Schedulable) -> None:
    value = p.model_dump() if isinstance(p, Linear) else p
    with pytest.raises(RecipeError, match="probability"):
        recipe("points", {"kind": "noisy_labels", "probability": value})


def test_an_objective_without_targets_is_rejected() -> None:
    tables = {"objective": {"kind": "hinge"}}
    (finding,) = check_compatibility(recipe("points", {"kind": "noisy_labels"}, **tables)).refusals
    assert (finding.field, finding.tip) == ("tricks.0", "T07b")
    assert check_compatibility(recipe("points", {"kind": "noisy_labels"})).refusals == []
