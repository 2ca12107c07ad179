"""Noisy labels: targets exchanged where a coin says so, each coin from the move's own stream."""

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
from tricks.small import Bent, Given, N, cloud, game_of, shown

B = 3000
HARD = Targets(torch.ones(B), torch.zeros(B))
NUMBERED = Targets(torch.arange(B).float(), -1 - torch.arange(B).float())
"""Each target another number, so that none can be taken for another."""


def coins(p: float, now: MoveContext, name: str = "noisy", count: int = B) -> tuple[list[bool], list[bool]]:
    """Which reals and which fakes are flipped."""
    draws = torch.rand(2, count, generator=now.generator(name))
    real, fake = ([float(u) < p for u in row] for row in draws)
    return real, fake


def by_hand(targets: Targets, real: list[bool], fake: list[bool]) -> tuple[list[float], list[float]]:
    """Place by place, from the targets as they were."""
    ours, theirs = targets.real.tolist(), targets.fake.tolist()
    return (
        [t if flip else o for o, t, flip in zip(ours, theirs, real, strict=True)],
        [o if flip else t for o, t, flip in zip(ours, theirs, fake, strict=True)],
    )


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_targets_are_exchanged_where_coins_say_so(p: float) -> None:
    trick = NoisyLabels("noisy", p)
    for now in (context(), context(3), context(turn=2), context(seed=5)):
        aimed = trick.transform_targets(NUMBERED, now)
        real, fake = by_hand(NUMBERED, *coins(p, now))
        assert aimed.real.tolist() == real
        assert aimed.fake.tolist() == fake
    assert NUMBERED.real.tolist() == list(range(B)), "what came in is left alone"


def test_flipped_is_where_it_is_told_to() -> None:
    targets = Targets(torch.tensor([0.9, 0.8, 0.7, 1.0]), torch.tensor([0.1, 0.2, 0.3, 0.0]))
    swap = flip_targets(targets, torch.tensor([True, False, True, False]), torch.tensor([True, True, False, False]))
    assert torch.equal(swap.real, torch.tensor([0.1, 0.8, 0.3, 1.0]))
    assert torch.equal(swap.fake, torch.tensor([0.9, 0.8, 0.3, 0.0]))


def test_never_and_always() -> None:
    never = NoisyLabels("noisy", 0.0).transform_targets(NUMBERED, context())
    assert never is NUMBERED
    always = NoisyLabels("noisy", 1.0)
    for at in range(20):
        aimed = always.transform_targets(NUMBERED, context(at))
        assert torch.equal(aimed.real, NUMBERED.fake)
        assert torch.equal(aimed.fake, NUMBERED.real)


def test_soft_targets_keep_their_ranges() -> None:
    """After soft labels, a flipped real is asked for what its own fake was softened to, and the other way round."""
    soft, noisy = SoftLabels("soft", (0.7, 1.2), (0.0, 0.3)), NoisyLabels("noisy", 0.25)
    before = soft.transform_targets(HARD, context())
    aimed = apply_target_transforms([soft, noisy], HARD, context())
    real, fake = coins(0.25, context())
    for now, own, other, flips in (
        (aimed.real, before.real, before.fake, real),
        (aimed.fake, before.fake, before.real, fake),
    ):
        expected = torch.where(torch.tensor(flips), other, own)
        assert torch.equal(now, expected)
        assert bool((((now >= 0.0) & (now <= 0.3)) | ((now >= 0.7) & (now <= 1.2))).all())
    assert 0.2 < float((aimed.real < 0.5).float().mean()) < 0.3
    assert 0.2 < float((aimed.fake > 0.5).float().mean()) < 0.3


@pytest.mark.parametrize("p", [0.05, 0.4])
def test_in_the_mean_both_sides_are_smoothed_by_p(p: float) -> None:
    """E = (1 - p) real + p fake; each coin falls by itself: both of a pair p^2 of the time."""
    trick, targets = NoisyLabels("noisy", p), Targets(torch.full((B,), 0.9), torch.full((B,), 0.2))
    moves = [trick.transform_targets(targets, context(at, steps=100)) for at in range(100)]
    real, fake = torch.stack([aimed.real for aimed in moves]), torch.stack([aimed.fake for aimed in moves])
    spread = 0.7 * (p * (1 - p) / real.numel()) ** 0.5
    assert float(real.double().mean()) == pytest.approx((1 - p) * 0.9 + p * 0.2, abs=4 * spread)
    assert float(fake.double().mean()) == pytest.approx((1 - p) * 0.2 + p * 0.9, abs=4 * spread)
    both = int(((real < 0.5) & (fake > 0.5)).sum())
    assert binomtest(both, real.numel(), p**2).pvalue > 1e-3
    for places in (real[:, 0], real[0]):
        assert 0 < int((places < 0.5).sum()) < len(places), "no place and no move has a coin in common"


def test_every_move_seed_and_name_has_its_own_coins() -> None:
    def flips(now: MoveContext, name: str = "noisy") -> Tensor:
        return NoisyLabels(name, 0.5).transform_targets(HARD, now).real

    first = flips(context())
    assert torch.equal(first, flips(context()))
    for other in (flips(context(1)), flips(context(turn=1)), flips(context(seed=1)), flips(context(), "noisy_2")):
        assert 0.4 < float((first != other).float().mean()) < 0.6


def test_the_probability_is_a_dial_over_the_run() -> None:
    dial = Linear(start=0.5, end=0.0)
    for at, p in ((0, 0.5), (4, 0.3), (9, 0.05)):
        now = context(at, steps=10)
        aimed = NoisyLabels("noisy", dial).transform_targets(HARD, now)
        assert (1 - aimed.real).bool().tolist() == coins(p, now)[0]
        assert aimed.fake.bool().tolist() == coins(p, now)[1]
    assert NoisyLabels("noisy", dial).transform_targets(HARD, context(10, steps=10)) is HARD


def test_the_default_is_occasional_and_dies_out() -> None:
    trick = NoisyLabelsConfig().build("noisy", TrickContext({}, DataSpec((2,))))
    assert trick.name == "noisy"
    for at, p in ((0, 0.05), (5, 0.025)):
        now = context(at, steps=10)
        assert (1 - trick.transform_targets(HARD, now).real).bool().tolist() == coins(p, now)[0]
    assert trick.transform_targets(HARD, context(10, steps=10)) is HARD


@pytest.mark.parametrize("p", [0.3, 1.0])
def test_in_a_game_d_pays_for_the_flipped_targets(p: float) -> None:
    game, metrics = game_of(NoisyLabels("noisy", p), d=Bent()), StepMetrics()
    move = make_move(game, Given(cloud(N, 2)), context(), metrics)
    wanted = by_hand(Targets(torch.ones(N), torch.zeros(N)), *coins(p, context(), count=N))
    with torch.no_grad():
        scores = move.score("real"), move.score("fake")
        paid = [binary_cross_entropy_with_logits(s, torch.tensor(t)) for s, t in zip(scores, wanted, strict=True)]
    assert shown(metrics)["d/adversarial"] == pytest.approx(float(sum(paid)) / 2, rel=1e-5)


def test_gs_move_is_what_it_was() -> None:
    rows = []
    for tricks in ((), (NoisyLabels("noisy", 1.0),)):
        metrics = StepMetrics()
        make_move(game_of(*tricks, d=Bent()), Given(cloud(N, 2)), context(side=Side.G), metrics)
        rows.append(shown(metrics))
    assert rows[0] == rows[1]
    assert NoisyLabels.sides == {Side.D}


@pytest.mark.parametrize("p", [-0.1, 1.1, Linear(start=0.5, end=1.5)])
def test_what_is_no_probability_is_refused(p: Schedulable) -> None:
    told = p.model_dump() if isinstance(p, Linear) else p
    with pytest.raises(RecipeError, match="probability"):
        recipe("points", {"kind": "noisy_labels", "probability": told})


def test_fit_names_an_objective_without_targets() -> None:
    tables = {"objective": {"kind": "hinge"}}
    (refusal,) = check_compatibility(recipe("points", {"kind": "noisy_labels"}, **tables)).refusals
    assert (refusal.field, refusal.tip) == ("tricks.0", "T07b")
    assert check_compatibility(recipe("points", {"kind": "noisy_labels"})).refusals == []
