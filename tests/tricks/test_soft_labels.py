"""Soft labels: within their ranges, uniform, drawn anew, and one-sided exactly when the recipe says so."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest

from contracts.tiny import context, recipe
from poise.core.schedules import Linear
from poise.core.types import Side, Targets
from poise.errors import RecipeError
from poise.recipe.checks.compatibility import check_compatibility
from poise.tricks.soft_labels import SoftLabels, SoftLabelsConfig, uniform_targets

HARD = Targets(torch.ones(4000), torch.zeros(4000))


def test_default_ranges_hold_and_are_filled_evenly() -> None:
    aimed = SoftLabelsConfig().build("soft", {}).transform_targets(HARD, context())
    for targets, low, high in ((aimed.real, 0.7, 1.2), (aimed.fake, 0.0, 0.3)):
        assert targets.shape == (4000,)
        assert targets.dtype == torch.float32
        edges = torch.tensor([low, high])
        assert targets.min() >= edges[0]
        assert targets.max() <= edges[1]
        assert kstest(targets.numpy(), "uniform", args=(low, high - low)).pvalue > 1e-3


def test_one_sided_leaves_the_fakes_at_exactly_zero() -> None:
    aimed = SoftLabels("soft", (0.9, 0.9), (0.0, 0.0)).transform_targets(HARD, context())
    assert torch.equal(aimed.fake, HARD.fake)
    assert torch.equal(aimed.real, torch.full((4000,), 0.9))


def test_ends_that_meet_draw_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert torch.equal(uniform_targets(HARD.real, 0.25, 0.25, generator), torch.full((4000,), 0.25))
    assert torch.equal(generator.get_state(), before)


def test_every_move_side_and_seed_draws_its_own() -> None:
    trick = SoftLabels("soft", (0.7, 1.2), (0.7, 1.2))
    base = trick.transform_targets(HARD, context())
    assert torch.equal(base.real, trick.transform_targets(HARD, context()).real)
    assert not torch.isclose(base.real, base.fake).all()
    for other in (context(1), context(turn=1), context(seed=1)):
        assert not torch.isclose(base.real, trick.transform_targets(HARD, other).real, atol=1e-3).all()
    other = SoftLabels("soft_2", (0.7, 1.2), (0.7, 1.2)).transform_targets(HARD, context())
    assert not torch.isclose(base.real, other.real, atol=1e-3).all()


def test_targets_are_per_sample() -> None:
    assert len(torch.unique(SoftLabels("soft", (0.7, 1.2), (0.0, 0.3)).transform_targets(HARD, context()).real)) > 3900


def test_edges_are_dials() -> None:
    trick = SoftLabels("soft", (Linear(start=0.5, end=1.0), Linear(start=0.5, end=1.0)), (0.0, 0.0))
    asked = [trick.transform_targets(HARD, context(at, steps=10)).real.unique().tolist() for at in (0, 5)]
    assert asked == [[0.5], [0.75]]


def test_acts_in_ds_moves_only() -> None:
    assert SoftLabels.sides == {Side.D}


@pytest.mark.parametrize("span", [[0.9, 0.7], [-0.1, 0.5], [0.5, 2.1], [0.5], [0.1, 0.2, 0.3]])
def test_a_span_that_is_none_is_refused(span: list[float]) -> None:
    with pytest.raises(RecipeError, match=r"tricks\.0"):
        recipe("points", {"kind": "soft_labels", "real": span})


def test_fit_names_what_takes_no_targets() -> None:
    """The check asks the objective; an objective without targets is refused, with the tip and a cure."""

    class Blunt(type(recipe("points").objective)):  # type: ignore[misc]
        accepts_targets = False

    told = recipe("points", {"kind": "soft_labels"}).model_copy(update={"objective": Blunt()})
    (refusal,) = check_compatibility(told).refusals
    assert (refusal.field, refusal.tip) == ("tricks.0", "T07a")
    assert "soft_labels" in refusal.message
    assert refusal.cure
    assert check_compatibility(recipe("points", {"kind": "soft_labels"})).refusals == []
