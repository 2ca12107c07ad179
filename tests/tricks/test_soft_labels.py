"""Soft labels: within their ranges, uniform, drawn independently, and one-sided exactly if the recipe says so."""

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


def test_targets_are_uniform_in_the_default_ranges() -> None:
    transformed = SoftLabelsConfig().build("soft", {}).transform_targets(HARD, context())
    for targets, low, high in ((transformed.real, 0.7, 1.2), (transformed.fake, 0.0, 0.3)):
        assert targets.shape == (4000,)
        assert targets.dtype == torch.float32
        edges = torch.tensor([low, high])
        assert targets.min() >= edges[0]
        assert targets.max() <= edges[1]
        assert kstest(targets.numpy(), "uniform", args=(low, high - low)).pvalue > 1e-3


def test_one_sided_labels_keep_fake_targets_at_exactly_0() -> None:
    transformed = SoftLabels("soft", (0.9, 0.9), (0.0, 0.0)).transform_targets(HARD, context())
    assert torch.equal(transformed.fake, HARD.fake)
    assert torch.equal(transformed.real, torch.full((4000,), 0.9))


def test_equal_bounds_draw_no_random_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert torch.equal(uniform_targets(HARD.real, 0.25, 0.25, generator), torch.full((4000,), 0.25))
    assert torch.equal(generator.get_state(), before)


def test_moves_sides_and_seeds_have_independent_draws() -> None:
    trick = SoftLabels("soft", (0.7, 1.2), (0.7, 1.2))
    base = trick.transform_targets(HARD, context())
    assert torch.equal(base.real, trick.transform_targets(HARD, context()).real)
    assert not torch.isclose(base.real, base.fake).all()
    for other in (context(1), context(turn=1), context(seed=1)):
        assert not torch.isclose(base.real, trick.transform_targets(HARD, other).real, atol=1e-3).all()
    other = SoftLabels("soft_2", (0.7, 1.2), (0.7, 1.2)).transform_targets(HARD, context())
    assert not torch.isclose(base.real, other.real, atol=1e-3).all()


def test_each_sample_has_its_own_target() -> None:
    assert len(torch.unique(SoftLabels("soft", (0.7, 1.2), (0.0, 0.3)).transform_targets(HARD, context()).real)) > 3900


def test_bounds_may_follow_schedules() -> None:
    trick = SoftLabels("soft", (Linear(start=0.5, end=1.0), Linear(start=0.5, end=1.0)), (0.0, 0.0))
    targets = [trick.transform_targets(HARD, context(at, steps=10)).real.unique().tolist() for at in (0, 5)]
    assert targets == [[0.5], [0.75]]


def test_acts_in_ds_moves_only() -> None:
    assert SoftLabels.sides == {Side.D}


@pytest.mark.parametrize("range_", [[0.9, 0.7], [-0.1, 0.5], [0.5, 2.1], [0.5], [0.1, 0.2, 0.3]])
def test_invalid_ranges_are_rejected(range_: list[float]) -> None:
    with pytest.raises(RecipeError, match=r"tricks\.0"):
        recipe("points", {"kind": "soft_labels", "real": range_})


def test_an_objective_without_targets_is_rejected() -> None:
    """The finding names the tip and a cure."""

    class WithoutTargets(type(recipe("points").objective)):  # type: ignore[misc]
        accepts_targets = False

    changed = recipe("points", {"kind": "soft_labels"}).model_copy(update={"objective": WithoutTargets()})
    (finding,) = check_compatibility(changed).refusals
    assert (finding.field, finding.tip) == ("tricks.0", "T07a")
    assert "soft_labels" in finding.message
    assert finding.cure
    assert check_compatibility(recipe("points", {"kind": "soft_labels"})).refusals == []
