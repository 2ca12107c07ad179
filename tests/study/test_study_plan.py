"""Plans: every key, and what is refused with which words."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poise.errors import RecipeError
from poise.recipe.decode import validate
from poise.study.expand import expand
from poise.study.plan import MAX_RUNS, Plan, read_plan
from poise.study.records import StudyMeasure

MINIMAL: dict[str, Any] = {
    "name": "small",
    "seeds": 2,
    "base": {"ring": {"recipe": "ring", "measures": ["modes"]}},
    "tip": [{"name": "packing", "set": ['tricks+=[{kind="packing", samples=2}]']}],
}

ALL = """
name = "all"
seeds = [3, 1, 4]
budget = { images = 1_000 }
limit = 50
evaluations = 2
precision = "bf16"
keep_checkpoints = true
leave_out = ["r1"]

[base.ring]
recipe = "ring"
set = ["tricks=[]"]
seeds = 2
measures = ["modes", { name = "high_quality", better = "more" }]
failure = { modes = 3 }

[base.grid]
recipe = "grid"
measures = ["reverse_kl"]

[data.wide]
kind = "ring"
modes = 12

[[tip]]
id = "T07a"
name = "soft labels"
on = ["ring"]
seeds = [0, 1, 2]
expected = "helps"

[[tip]]
id = "T07a"
name = "one-sided"
set = ["tricks=[]"]
against = "soft labels"
budget_factor = 2.0
inverse = true
title = "two sides"

[[factorial]]
name = "both"
id = "T16"
on = ["grid"]
[factorial.factors.pack]
no = []
yes = ['tricks+=[{kind="packing"}]']
"""


def plan_of(**changes: Any) -> Plan:
    return validate(Plan, MINIMAL | changes, "plan.toml")


def test_every_key_is_read(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(ALL)
    plan = read_plan(tmp_path / "plan.toml")
    assert (plan.name, plan.seeds, plan.limit, plan.evaluations) == ("all", (3, 1, 4), 50, 2)
    assert (plan.precision, plan.keep_checkpoints, plan.leave_out) == ("bf16", True, ("r1",))
    assert plan.budget is not None
    assert (plan.budget.images, plan.budget.seconds) == (1000, None)
    assert plan.base["ring"].seeds == (0, 1)
    assert plan.base["grid"].seeds is None
    assert plan.base["ring"].study_measures == (
        StudyMeasure(name="modes", better="more", failure=3.0),
        StudyMeasure(name="high_quality", better="more"),
    )
    assert plan.base["grid"].study_measures == (StudyMeasure(name="reverse_kl", better="less"),)
    assert plan.data == {"wide": {"kind": "ring", "modes": 12}}
    soft, one_sided = plan.tip
    assert (soft.id, soft.set, soft.on, soft.seeds, soft.expected) == ("T07a", None, ("ring",), (0, 1, 2), "helps")
    assert (one_sided.against, one_sided.budget_factor, one_sided.inverse) == ("soft labels", 2.0, True)
    assert plan.factorial[0].factors == {"pack": {"no": (), "yes": ('tricks+=[{kind="packing"}]',)}}


def test_defaults() -> None:
    plan = plan_of()
    assert (plan.seeds, plan.budget, plan.limit, plan.precision) == ((0, 1), None, MAX_RUNS, "fp32")
    assert (plan.evaluations, plan.keep_checkpoints, plan.tip[0].against) == (4, False, "base")


BASE = MINIMAL["base"]["ring"]
TIP = MINIMAL["tip"][0]


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"sedes": 3}, ["sedes", "unknown key", "did you mean 'seeds'?"]),
        ({"seeds": 0}, ["seeds", "from 1 to 10,000", "found 0"]),
        ({"seeds": 10**12}, ["seeds", "from 1 to 10,000"]),
        ({"seeds": []}, ["seeds", "different seeds"]),
        ({"seeds": [1, 1]}, ["seeds", "different seeds"]),
        ({"seeds": [-1]}, ["seeds", "different seeds"]),
        ({"seeds": [2**63]}, ["seeds", "2^63 - 1"]),
        ({"seeds": "3"}, ["seeds", "a number of seeds, or a list"]),
        ({"seeds": [1.5]}, ["seeds", "whole number"]),
        ({"name": "a b"}, ["name", "letters"]),
        ({"budget": {"images": 3, "seconds": 2.0}}, ["budget", "either 'images' or 'seconds'"]),
        ({"budget": {}}, ["budget", "either 'images' or 'seconds'"]),
        ({"budget": {"images": 0}}, ["budget.images", "1"]),
        ({"budget": {"second": 3.0}}, ["budget.second", "did you mean 'seconds'?"]),
        ({"limit": 0}, ["limit"]),
        ({"evaluations": 0}, ["evaluations"]),
        ({"precision": "fp23"}, ["precision", "did you mean 'fp32'?"]),
        ({"base": {}}, ["base", "needs a base"]),
        ({"base": {"a/b": BASE}}, ["base", "not a valid name", "'a/b'"]),
        ({"data": {"": {"kind": "ring"}}}, ["data", "not a valid name"]),
        ({"base": {"a": BASE, "a-b": BASE}, "data": {"b-c": {}, "c": {}}}, ["same name", "'a-b-c'"]),
        ({"base": {"ring": BASE | {"measures": ["mode"]}}}, ["base.ring.measures", "'mode'", "did you mean 'modes'?"]),
        ({"base": {"ring": BASE | {"measures": []}}}, ["base.ring.measures", "names no measure"]),
        ({"base": {"ring": BASE | {"measures": ["modes", "modes"]}}}, ["measures", "more than once", "'modes'"]),
        (
            {"base": {"ring": BASE | {"measures": ["high_quality"]}}},
            ["base.ring.measures", "no direction of its own", '{ name = "high_quality", better = "more" }'],
        ),
        (
            {"base": {"ring": BASE | {"measures": [{"name": "modes", "better": "less"}]}}},
            ["base.ring.measures", "opposite direction", "'modes'", "more is better"],
        ),
        (
            {"base": {"ring": BASE | {"measures": [{"name": "high_quality", "better": "higher"}]}}},
            ["base.ring.measures", "name and direction", '{ name = "high_quality", better = "more" }'],
        ),
        ({"base": {"ring": BASE | {"measures": [5]}}}, ["base.ring.measures", "the name of a measure"]),
        ({"base": {"ring": BASE | {"failure": {"mods": 3.0}}}}, ["base.ring.failure", "'mods'", "'modes'"]),
        ({"base": {"ring": {"measures": ["modes"]}}}, ["base.ring.recipe", "missing"]),
        ({"tip": [TIP | {"on": ["rign"]}]}, ["tip.0.on", "no such base", "'rign'", "did you mean 'ring'?"]),
        ({"tip": [TIP | {"on": []}]}, ["tip.0.on", "names no base"]),
        ({"tip": [TIP | {"name": "base"}]}, ["tip.0.name", "the base itself"]),
        ({"tip": [TIP | {"against": "packing"}]}, ["tip.0.against", "this arm itself"]),
        ({"tip": [{"name": "x"}]}, ["tip.0.set", "needs 'set', or the 'id'"]),
        ({"tip": [TIP | {"expected": "help"}]}, ["tip.0.expected", "did you mean 'helps'?"]),
        ({"tip": [TIP | {"budget_factor": 0.0}]}, ["tip.0.budget_factor"]),
        ({"factorial": [{"name": "f", "factors": {"a": {"one": []}}}]}, ["factors.a", "two levels", "found 1"]),
        ({"factorial": [{"name": "f", "factors": {}}]}, ["factorial.0.factors"]),
        (
            {"factorial": [{"name": "f", "on": ["x"], "factors": {"a": {"one": [], "two": []}}}]},
            ["factorial.0.on", "no such base"],
        ),
    ],
    ids=str,
)
def test_refused(changes: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        plan_of(**changes)
    for part in ["plan.toml", *parts]:
        assert part in str(caught.value)


def test_a_missing_plan_is_called_a_plan(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such plan file"):
        read_plan(tmp_path / "plan.toml")
    with pytest.raises(RecipeError, match="a plan must be a TOML file"):
        read_plan(tmp_path)


KEYS = st.sampled_from([*Plan.model_fields, *BASE, *TIP, "id", "on", "against", "factors", "kind", "x"])
VALUES = st.recursive(
    st.sampled_from(["ring", "modes", "T07", "T07a", "base", "tricks=[]", "tricks=none", "steps=2", "a=[1", "", "none"])
    | st.integers(-2, 3)
    | st.just(2**70)
    | st.floats(allow_nan=True)
    | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes=st.dictionaries(KEYS, VALUES, max_size=3), inside=st.sampled_from(["plan", "base", "tip"]))
def test_any_table_is_a_plan_or_is_refused_in_one_line(changes: dict[str, Any], inside: str) -> None:
    table = dict(MINIMAL)
    table |= {"base": {"ring": BASE | changes}} if inside == "base" else {}
    table |= {"tip": [TIP | changes]} if inside == "tip" else changes if inside == "plan" else {}
    message = ""
    try:
        expand(validate(Plan, table, "plan.toml"), Path())
    except RecipeError as error:
        message = str(error)
    assert "\n" not in message


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=40), at=st.integers(0, len(ALL)))
def test_a_damaged_file_is_refused_in_one_line(text: str, at: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("plan") / "plan.toml"
    path.write_bytes((ALL[:at] + text + ALL[at:]).encode("utf-8", "surrogatepass"))
    message = ""
    try:
        plan = read_plan(path)
    except RecipeError as error:
        message = str(error)
    else:
        assert plan.base.keys() == tomllib.loads(path.read_text("utf-8-sig").replace("\r\n", "\n"))["base"].keys()
    assert "\n" not in message
