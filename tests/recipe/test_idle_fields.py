"""Fields that another field switches off: each is warned of if it was given."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.tiny import findings_of, recipe, suited
from poise.recipe.checks.findings import Findings
from poise.recipe.checks.idle_fields import IDLE_FIELDS, check_idle_fields
from poise.recipe.decode import decode
from poise.recipe.shipped import load_table, recipe_names

Table = dict[str, Any]
ADA = {"kind": "adaptive_augment"}


def alone(**objective: Any) -> Table:
    return suited("points", objective["kind"]) | {"objective": objective}


def networks(kind: str = "mlp", *, g: Table | None = None, d: Table | None = None) -> Table:
    return {"network": {"g": {"kind": kind, "width": 4} | (g or {}), "d": {"kind": kind, "width": 4} | (d or {})}}


CASES: dict[str, tuple[str, Table, list[Table], Table, list[Table], str]] = {
    "a delta": (
        "points",
        alone(kind="reconstruction", delta=2.0),
        [],
        alone(kind="reconstruction", delta=2.0, distance="huber"),
        [],
        "objective.delta",
    ),
    "a sigma": (
        "points",
        alone(kind="elbo", sigma=0.1, likelihood="bernoulli"),
        [],
        alone(kind="elbo", sigma=0.1),
        [],
        "objective.sigma",
    ),
    "a norm of points": (
        "points",
        networks(d={"norm": "layer", "depth": 1}),
        [],
        networks(d={"norm": "layer", "depth": 2}),
        [],
        "network.d.norm",
    ),
    "a norm of images": (
        "pictures",
        networks("dcgan", d={"norm": "layer", "depth": 1}),
        [],
        networks("dcgan", d={"norm": "spectral", "depth": 1}),
        [],
        "network.d.norm",
    ),
    "groups": (
        "points",
        networks(g={"norm": "group", "width": 24}),
        [],
        networks(g={"norm": "group", "width": 32}),
        [],
        "network.g.norm",
    ),
    "a width": (
        "pictures",
        networks("dcgan", g={"width": 8, "widest": 4}),
        [],
        networks("dcgan", g={"width": 4, "widest": 4}),
        [],
        "network.g.width",
    ),
    "a target": (
        "pictures",
        {},
        [ADA | {"target": 0.5, "speed": 0.0, "start": 0.2}],
        {},
        [ADA | {"target": 0.5}],
        "tricks.0.target",
    ),
    "an interval": (
        "pictures",
        {},
        [ADA | {"every": 8, "speed": 0.0, "start": 0.2}],
        {},
        [ADA | {"every": 8}],
        "tricks.0.every",
    ),
    "a policy": (
        "pictures",
        {},
        [ADA | {"policy": ["blit", "blit"]}],
        {},
        [ADA | {"policy": ["blit", "colour"]}],
        "tricks.0.policy",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_field_that_is_given_without_effect_causes_a_warning(
    case: tuple[str, Table, list[Table], Table, list[Table], str],
) -> None:
    world, idle, idle_tricks, active, active_tricks, field = case
    (warning,) = findings_of(recipe(world, *idle_tricks, steps=50, **idle), world).warnings
    assert warning.field == field
    assert "{" not in warning.message
    assert len(warning.cure) > 8
    assert findings_of(recipe(world, *active_tricks, steps=50, **active), world).warnings == []


def test_every_field_of_the_table_has_a_case() -> None:
    named = {(case[5].split(".")[0], case[5].rpartition(".")[2]) for case in CASES.values()}
    assert named == {(field.table.split(".")[0], field.name) for field in IDLE_FIELDS}


def test_defaults_cause_no_warning_even_if_they_are_written_out() -> None:
    """A run's recipe has all fields."""
    fixed = recipe("pictures", ADA | {"speed": 0.0, "start": 0.2}, **networks("dcgan", d={"depth": 1}))
    assert findings_of(decode(fixed.canonical()), "pictures").warnings == []


@pytest.mark.parametrize("name", recipe_names())
def test_no_shipped_recipe_has_an_idle_field(name: str) -> None:
    findings = Findings()
    check_idle_fields(decode(load_table(name)), findings)
    check_idle_fields(decode(decode(load_table(name)).canonical()), findings)
    assert findings == Findings()
