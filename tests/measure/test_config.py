"""The table `[measure]` of a recipe: its values, errors and round trip; and the selection of measures by name."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from poise.errors import RecipeError
from poise.measure.catalogue import MEASURES, select_measures
from poise.measure.config import MeasureConfig
from poise.recipe.decode import decode
from poise.recipe.model import Recipe, differences
from poise.recipe.shipped import load_recipe, recipe_names


def recipe(**measure: Any) -> Recipe:
    return decode({**load_recipe("ring"), "measure": measure})


def test_defaults() -> None:
    config = recipe().measure
    assert config == MeasureConfig()
    assert config is not None
    assert (config.every, config.measures, config.features, config.n) == (500, ("fid",), "auto", 1000)


def test_the_table_is_optional() -> None:
    plain = decode({key: value for key, value in load_recipe("ring").items() if key != "measure"})
    assert plain.measure is None
    assert "measure" not in plain.canonical()
    assert "[measure]" not in plain.to_toml()


def test_round_trip() -> None:
    changed = recipe(every=7, measures=["coverage", "fid", "ndb"], features="pixels", n=123)
    assert changed.measure is not None
    assert changed.measure.measures == ("coverage", "fid", "ndb")
    table = tomllib.loads(changed.to_toml())
    assert table["measure"] == {"every": 7, "measures": ["coverage", "fid", "ndb"], "features": "pixels", "n": 123}
    assert decode(table) == changed
    assert decode(table).hash == changed.hash != recipe().hash


@pytest.mark.parametrize(
    ("measure", "parts"),
    [
        ({"measures": ["fdi"]}, ["measure.measures", "no such measure", "'fdi'", "did you mean 'fid'?"]),
        ({"measures": ["fid", "zzzzzz"]}, ["no such measure", "'zzzzzz'", "known: ", "coverage"]),
        ({"measures": []}, ["measure.measures"]),
        ({"measures": "fid"}, ["measure.measures"]),
        ({"measures": [7]}, ["measure.measures"]),
        ({"measures": ["vendi", "fid"]}, ["measure.measures", "neither less nor more is better", "'vendi'"]),
        ({"every": 0}, ["measure.every", "found 0"]),
        ({"every": 1.5}, ["measure.every"]),
        ({"n": 9}, ["measure.n", "found 9"]),
        ({"n": 100_001}, ["measure.n", "100001"]),
        ({"features": "d"}, ["measure.features", "'auto', 'pixels', 'classifier' or 'rotations'"]),
        ({"feature": "auto"}, ["measure", "unknown key 'feature'", "did you mean 'features'?"]),
    ],
    ids=str,
)
def test_invalid_values_are_rejected(measure: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(RecipeError) as error:
        recipe(**measure)
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", list(MEASURES))
def test_the_first_measure_must_have_a_direction(name: str) -> None:
    assert recipe(measures=["fid", name]).measure is not None
    if MEASURES[name].better == "floor":
        with pytest.raises(RecipeError, match="neither less nor more is better"):
            recipe(measures=[name])
    else:
        assert recipe(measures=[name]).measure is not None


def test_a_resumed_run_may_change_the_table() -> None:
    plain = decode({key: value for key, value in load_recipe("ring").items() if key != "measure"})
    for old, new in ((plain, recipe()), (recipe(), plain), (recipe(), recipe(every=3, measures=["kid"], n=50))):
        assert differences(old, new) == []
    assert differences(plain, decode({**recipe().canonical(), "batch": 8})) == ["batch"]


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_use_known_measures(name: str) -> None:
    config = decode(load_recipe(name)).measure
    if config is not None:
        assert [measure.name for measure in select_measures(config.measures)] == [
            m for m in MEASURES if m in config.measures
        ]


def test_select_measures() -> None:
    every, quick = (
        [measure.name for measure in select_measures("all")],
        [measure.name for measure in select_measures(None)],
    )
    assert every == list(MEASURES)
    assert set(every) - set(quick) == {"gan_train", "d_probe", "duality_gap"}
    assert [measure.name for measure in select_measures(" kid , fid")] == ["fid", "kid"]
    assert select_measures(["fid", "kid"]) == select_measures("fid,kid")
    for selection in ("all,fid", "", "fid,", "FID"):
        with pytest.raises(RecipeError, match="no such measure"):
            select_measures(selection)


def test_catalogue_names_and_descriptions() -> None:
    for name, measure in MEASURES.items():
        assert measure.name == name
        assert measure.description
        assert "\n" not in measure.description
