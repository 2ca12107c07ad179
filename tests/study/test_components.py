"""Which components an arm changes, and where their source is."""

from __future__ import annotations

from typing import Literal, get_origin

import pytest

from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_recipe
from poise.recipe.toml import set_value
from poise.study.components import FIELDS, PACKAGE, changed_components


def changed(recipe: str, *changes: str) -> dict[str, str]:
    before, after = load_recipe(recipe), load_recipe(recipe)
    for change in changes:
        set_value(after, change)
    return changed_components(decode(before), decode(after))


@pytest.mark.parametrize(
    ("changes", "components"),
    [
        ([], {}),
        (["steps=3", "batch=8", "log.rows=2"], {}),
        (['tricks+=[{kind="packing"}]'], {"tricks.packing": "tricks/packing.py"}),
        (["network.d.norm='spectral'"], {"network.d.dcgan": "networks/dcgan.py"}),
        (["optimizer.d.lr=1e-3"], {"optimizer.d.adam": "optimizers.py"}),
        (["tempo.d=5"], {"tempo.ratio": "tempo.py"}),
        (["judging='together'"], {"judging": "engine/game.py"}),
        (
            ["objective={kind='hinge'}"],
            {"objective.hinge": "objectives/hinge.py", "objective.non_saturating": "objectives/pointwise.py"},
        ),
        (
            ["conditioning.g={kind='concat'}"],
            {"conditioning.g.concat": "networks/conditioning.py"},
        ),
    ],
    ids=str,
)
def test_changed_components(changes: list[str], components: dict[str, str]) -> None:
    assert changed("dcgan", *changes) == components
    assert all((PACKAGE / file).is_file() for file in components.values())


def test_the_second_trick_of_a_kind_has_a_name_of_its_own() -> None:
    twice = "tricks=[{kind='instance_noise'}, {kind='instance_noise', sigma=0.5}]"
    assert "tricks.instance_noise_2" in changed("ring", twice)


def test_every_field_that_selects_an_algorithm_has_a_file() -> None:
    """A field with named alternatives that is no component would otherwise give verdicts that are never stale."""
    named = {name for name, field in Recipe.model_fields.items() if get_origin(field.annotation) is Literal}
    assert named == set(FIELDS)
