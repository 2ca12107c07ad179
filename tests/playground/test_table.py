"""The recipe of a game: every choice becomes a recipe that trains, or is refused with the recipe's own reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from poise.core.config import find_components
from poise.errors import RecipeError
from poise.objectives.base import Objective
from poise.playground.commands import GameSpec
from poise.playground.options import (
    DATA,
    DEFAULT_GAME,
    OBJECTIVES,
    PENALTIES,
    RANGES,
    TRICKS,
    WEIGHT_FIELDS,
    options_json,
)
from poise.playground.table import recipe_table
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.decode import decode
from poise.recipe.model import Recipe, differences
from poise.tips.catalogue import find
from poise.tricks.base import TrickConfig


def recipe(**choices: Any) -> Recipe:
    return decode(recipe_table(GameSpec.model_validate(DEFAULT_GAME | choices), 5, None))


@pytest.mark.parametrize(
    "choices",
    [
        *({"data": kind} for kind in DATA if kind != "density"),
        *({"objective": kind} for kind in OBJECTIVES),
        *({"penalty": kind, "penalty_weight": penalty.weight.range.default} for kind, penalty in PENALTIES.items()),
        *({"tricks": [kind]} for kind in TRICKS),
        {name: RANGES[name].min for name in RANGES if name in GameSpec.model_fields},
        {name: RANGES[name].max for name in RANGES if name in GameSpec.model_fields},
    ],
    ids=json.dumps,
)
def test_every_choice_fits_the_default_game(choices: dict[str, Any]) -> None:
    assert not check_compatibility(recipe(**choices), (2,)).refusals


def test_what_is_chosen_stands_in_the_recipe() -> None:
    made = recipe(penalty="wgan_gp", penalty_weight=0.3, tricks=["packing"], lr_d=0.02, d_moves=3, width=9, batch=16)
    assert [trick.tag() for trick in made.tricks] == ["wgan_gp", "packing"]
    table = made.canonical()
    assert table["tricks"][0]["weight"] == 0.3
    assert table["optimizer"]["d"]["lr"] == 0.02
    assert table["optimizer"]["g"]["lr"] == DEFAULT_GAME["lr_g"]
    assert (table["tempo"]["d"], table["batch"], table["seed"]) == (3, 16, 5)
    assert table["network"]["g"]["width"] == table["network"]["d"]["width"] == 9


def test_one_other_choice_is_one_other_field() -> None:
    assert differences(recipe(), recipe(objective="minimax")) == ["objective.kind"]
    assert differences(recipe(), recipe(tricks=["packing"])) == ["tricks"]


def test_what_does_not_fit_together_is_refused_with_the_recipe_s_reason() -> None:
    with pytest.raises(
        RecipeError, match="'soft_labels' changes D's targets, but the objective 'wasserstein' has none"
    ):
        check_compatibility(recipe(objective="wasserstein", tricks=["soft_labels"]), (2,)).raise_first()


def test_the_weight_of_each_penalty_is_a_field_of_it() -> None:
    configs = find_components(TrickConfig, "poise.tricks")
    assert WEIGHT_FIELDS.keys() == PENALTIES.keys()
    for kind, field in WEIGHT_FIELDS.items():
        assert field in configs[kind].model_fields
        weight, widest = PENALTIES[kind].weight, RANGES["penalty_weight"]
        assert weight is not None
        assert widest.min <= weight.range.min <= weight.range.default <= weight.range.max <= widest.max


def test_each_option_is_a_component_with_a_tip_that_exists() -> None:
    options = options_json()
    assert {entry["kind"] for entry in options["objectives"]} <= find_components(Objective, "poise.objectives").keys()
    configs = find_components(TrickConfig, "poise.tricks")
    for entry in options["penalties"] + options["tricks"]:
        assert entry["tip"] == configs[entry["kind"]].tip
    for entry in options["objectives"] + options["penalties"] + options["tricks"]:
        assert find(entry["tip"])
    json.dumps(options, allow_nan=False)
    assert GameSpec.model_validate(options["default"])
