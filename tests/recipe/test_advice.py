"""What of an alarm's advice advances on a recipe, and how the rest is put into words."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

import pytest
from pydantic import TypeAdapter

from poise.core.schedules import Cosine, Linear, Ramp, Schedulable, Schedule, Staircase, value_at
from poise.errors import RecipeError
from poise.recipe.advice import _scheduled_values, fit_advice, useful_options
from poise.recipe.toml import dotted_fields, set_value

PACK = 'tricks+=[{kind="packing", samples=2}]'
AVERAGE, NOISE = 'tricks+=[{kind="averaged_weights"}]', 'tricks+=[{kind="instance_noise", sigma=0.5}]'
MORE_OF_D = 'tempo={kind="ratio", d=2, g=1}'
BETA = '{kind="linear", start=0.0, end=1.0, until=0.3}'
RAMP = {"kind": "linear", "start": 0.0, "end": 1.0, "until": 0.3}
LARGER = "tricks.instance_noise.sigma=0.5"
WEAK = {"kind": "instance_noise", "sigma": 0.1}
FADING = {"kind": "instance_noise", "sigma": {"kind": "linear", "start": 0.5, "end": 0.0}}
STRONG = {"kind": "instance_noise", "sigma": 0.5}


@pytest.mark.parametrize(
    ("before", "options", "useful"),
    [
        ({"lr": 1e-4}, ("lr=5e-5", "x=1"), ("lr=5e-5", "x=1")),
        ({"d": {"lr": 1e-5}}, ("d.lr=5e-5", "x=1"), ("x=1",)),
        ({"d": {"lr": 5e-5}}, ("d.lr=5e-5",), None),
        ({"d": {"lr": {"kind": "linear", "start": 1e-3, "end": 1e-4}}}, ("d.lr=5e-5",), ("d.lr=5e-5",)),
        ({"tricks": [{"kind": "r1", "gamma": 1.0}]}, ("tricks.r1.gamma=5.0",), ("tricks.r1.gamma=5.0",)),
        ({"tricks": [{"kind": "r1", "gamma": 10.0}]}, ("tricks.r1.gamma=5.0",), None),
        ({"tricks": []}, ("tricks.r1.gamma=5.0",), None),
        ({"tempo": {"kind": "ratio", "d": 5}}, ('tempo={kind="ratio", d=2}',), None),
        ({"tempo": {"kind": "ratio", "d": 2, "g": 1, "first": "d"}}, (MORE_OF_D,), None),
        ({"tempo": {"kind": "ratio", "d": 1, "g": 1, "first": "g"}}, (MORE_OF_D,), ("tempo.d=2",)),
        ({"tempo": {"kind": "ratio", "d": 1, "g": 8}}, (MORE_OF_D,), ("tempo.d=2", "tempo.g=1")),
        ({"tempo": {"kind": "ratio", "d": 5, "g": 8}}, (MORE_OF_D,), ("tempo.g=1",)),
        ({"tempo": {"kind": "thresholds", "d_above": 0.7}}, (MORE_OF_D,), (MORE_OF_D,)),
        ({"objective": {"beta": RAMP | {"after": 0.0}}}, (f"objective.beta={BETA}",), None),
        ({"objective": {"beta": RAMP | {"until": 0.5}}}, (f"objective.beta={BETA}",), (f"objective.beta={BETA}",)),
        ({"objective": {"beta": 0.5}}, (f"objective.beta={BETA}",), (f"objective.beta={BETA}",)),
        ({"tricks": [{"kind": "posterior_kl", "weight": 1e-4}]}, ("tricks.posterior_kl.weight=0.001",), None),
        ({"tempo": {"kind": "simultaneous"}}, ('tempo={kind="ratio", d=2}',), ('tempo={kind="ratio", d=2}',)),
        ({"objective": {"sigma": 0.1}}, ("objective.sigma=0.2",), None),
        ({"tricks": [{"kind": "packing", "samples": 2}]}, (PACK,), None),
        ({"tricks": [{"kind": "averaged_weights", "half_life": 9.0}]}, (AVERAGE, "x=1"), ("x=1",)),
        ({"tricks": []}, (NOISE,), (NOISE,)),
        ({"tricks": [WEAK]}, (NOISE,), (LARGER,)),
        ({"tricks": [FADING]}, (NOISE,), (LARGER,)),
        ({"tricks": [WEAK, WEAK]}, (NOISE,), (NOISE,)),
        ({"tricks": [WEAK, STRONG]}, (NOISE,), None),
    ],
)
def test_options_that_advance(before: dict[str, Any], options: tuple[str, ...], useful: tuple[str, ...] | None) -> None:
    if useful is None:
        with pytest.raises(RecipeError):
            useful_options(before, options)
    else:
        assert useful_options(before, options) == useful


LOWER, STRONGER, NOISIER = "optimizer.d.lr=5e-5", "tricks.r1.gamma=5.0", "tricks.instance_noise.sigma=0.5"


def scheduled(option: str, values: Any) -> dict[str, Any]:
    """A recipe with a schedule of these values, the start and the end or all values, where the option has a number."""
    steps = {"kind": "steps", "values": values, "at": list(range(1, len(values))), "over": "steps"}
    schedule = steps if isinstance(values, list) else {"kind": "cosine", "start": values[0], "end": values[1]}
    optimizers = {side: {"kind": "adam", "lr": schedule if option == LOWER else 1e-3} for side in ("g", "d")}
    kinds = {STRONGER: {"kind": "r1", "gamma": schedule}, NOISIER: {"kind": "instance_noise", "sigma": schedule}}
    return {"optimizer": optimizers, "tricks": [kinds[option]] if option in kinds else []}


@pytest.mark.parametrize(
    ("option", "values", "useful"),
    [
        (LOWER, (2e-5, 1e-6), ()),
        (LOWER, (5e-5, 0.0), ()),
        (LOWER, (0.0, 5e-5), ()),
        (LOWER, [5e-5, 1e-5], ()),
        (LOWER, (2e-3, 1e-4), (LOWER,)),
        (LOWER, (2e-3, 5e-5), (LOWER,)),
        (LOWER, (2e-4, 0.0), ("optimizer.d.lr.start=5e-05",)),
        (LOWER, (2e-4, 1e-6), ("optimizer.d.lr.start=5e-05", "optimizer.d.lr.end=2.5e-07")),
        (LOWER, (0.0, 1e-4), ("optimizer.d.lr.end=5e-05",)),
        (LOWER, [1e-3, 1e-4, 1e-5], ("optimizer.d.lr.values=[5e-05,5e-06,5e-07]",)),
        (STRONGER, (10.0, 50.0), ()),
        (STRONGER, [50.0, 5.0], ()),
        (STRONGER, (0.0, 4.0), (STRONGER,)),
        (STRONGER, (0.0, 10.0), ("tricks.r1.gamma.start=5",)),
        (STRONGER, [1.0, 4.0, 10.0], ("tricks.r1.gamma.values=[5,5,10]",)),
        (NOISIER, (1.0, 0.5), ()),
        (NOISIER, (0.5, 0.0), (NOISIER,)),
        (NOISIER, (1.0, 0.0), ("tricks.instance_noise.sigma.end=0.5",)),
        (NOISE, (1.0, 0.0), ("tricks.instance_noise.sigma.end=0.5",)),
    ],
    ids=str,
)
def test_advice_is_on_the_right_side_of_a_schedule_in_every_step(
    option: str, values: Any, useful: tuple[str, ...]
) -> None:
    table = scheduled(NOISIER if option == NOISE else option, values)
    if not useful:
        with pytest.raises(RecipeError):
            useful_options(table, (option,))
        fitted = fit_advice(f"change it: --set '{option}'", table)
        assert re.search(r"change it \(.* (is at (least|most) [\d.e-]+) already\)", fitted), fitted
        return
    assert useful_options(table, (option,)) == useful
    before, after = decode_schedules(table), decode_schedules(with_options(table, useful))
    (path,) = (path for path in before if before[path] != after[path])
    pairs = [(value_at(after[path], t, t / 10), value_at(before[path], t, t / 10)) for t in range(11)]
    assert all(new <= old if option == LOWER else new >= old for new, old in pairs)
    again = fit_advice(f"change it: --set '{option}'", with_options(table, useful))
    assert "--set" not in again


def with_options(table: dict[str, Any], options: tuple[str, ...]) -> dict[str, Any]:
    changed = deepcopy(table)
    for option in options:
        set_value(changed, option)
    return changed


def decode_schedules(table: dict[str, Any]) -> dict[str, Any]:
    """D's learning rate and the strength of each trick, as numbers or schedules."""
    strengths = {f"tricks.{i}": trick.get("gamma", trick.get("sigma")) for i, trick in enumerate(table["tricks"])}
    given = {"optimizer.d.lr": table["optimizer"]["d"]["lr"]} | strengths
    return {path: TypeAdapter(Schedulable).validate_python(value) for path, value in given.items()}


@pytest.mark.parametrize("kind", [Linear, Cosine, Staircase])
def test_the_values_of_each_schedule_are_found(kind: type[Schedule]) -> None:
    """Those that bound it."""
    given = {"values": [3.0, 1.0, 2.0], "at": [0.2, 0.4]} if kind is Staircase else {"start": 3.0, "end": 1.0}
    schedule = kind(**given)
    values = _scheduled_values(dotted_fields({"lr": schedule.model_dump(mode="json")}), "lr")
    assert [number for row in values.values() for number in row] == list(schedule.bounds())
    assert set(Schedule.__subclasses__()) == {Ramp, Staircase}
    assert set(Ramp.__subclasses__()) == {Linear, Cosine}


BOTH = "lower both rates: --set optimizer.g.lr=5e-5 --set optimizer.d.lr=5e-5; or clip"


def rates(g: float, d: float) -> dict[str, Any]:
    return {"optimizer": {"g": {"lr": g}, "d": {"lr": d}}}


@pytest.mark.parametrize(
    ("table", "advice", "fitted"),
    [
        ({}, "lower the rates", "lower the rates"),
        (rates(1e-3, 1e-3), BOTH, BOTH),
        (
            rates(1e-5, 1e-3),
            BOTH,
            "lower both rates: --set optimizer.d.lr=5e-5 (optimizer.g.lr is 1e-05 already); or clip",
        ),
        (
            rates(1e-5, 5e-5),
            BOTH,
            "lower both rates (optimizer.g.lr is 1e-05 already and optimizer.d.lr is 5e-05 already); or clip",
        ),
        (
            {"tricks": [STRONG]},
            f"weaken D, --set '{NOISE}', or",
            "weaken D (the recipe has instance_noise already), or",
        ),
        ({"tricks": [WEAK]}, f"weaken D: --set '{NOISE}', or", f"weaken D: --set {LARGER}, or"),
        ({"tricks": [WEAK]}, f"weaken D --set '{NOISE}'.", f"weaken D --set {LARGER}."),
        (
            {"tempo": {"kind": "ratio", "d": 3}},
            "let D move more often, --set 'tempo={kind=\"ratio\", d=2}', or",
            "let D move more often (tempo.d is 3 already), or",
        ),
        (
            {"tempo": {"kind": "ratio", "d": 2, "g": 1}},
            f"let D move more often, --set '{MORE_OF_D}', or",
            "let D move more often (tempo.d is 2 already), or",
        ),
        (
            scheduled(LOWER, (2e-5, 1e-6)),
            f"lower it: --set {LOWER}; or clip",
            "lower it (optimizer.d.lr is at most 2e-05 already); or clip",
        ),
        (
            scheduled(LOWER, [1e-3, 1e-5]),
            f"lower it: --set {LOWER}; or clip",
            "lower it: --set 'optimizer.d.lr.values=[5e-05,5e-07]'; or clip",
        ),
        (
            {"conditioning": {"d": {"kind": "projection"}}},
            "use them: --set 'conditioning.d={kind=\"projection\"}'",
            "use them (the recipe has this already)",
        ),
        (
            {"tricks": [{"kind": "r1", "gamma": 7.5}]},
            "raise R1: --set tricks.r1.gamma=5.0 --set tricks.r2.gamma=5.0",
            "raise R1 (tricks.r1.gamma is 7.5 already and tricks.r2.gamma is not in the recipe)",
        ),
    ],
)
def test_advice_says_what_the_recipe_has_already(table: dict[str, Any], advice: str, fitted: str) -> None:
    assert fit_advice(advice, table) == fitted
    assert fit_advice(fitted, table) == fitted


@pytest.mark.parametrize("table", [{"tricks": 5}, {"tricks": [5, {}]}, {"tricks": {"kind": 3}}, {"optimizer": 1}])
def test_advice_for_a_damaged_recipe(table: dict[str, Any]) -> None:
    fitted = fit_advice(f"weaken D: --set optimizer.d.lr=1.0 --set '{NOISE}'", table)
    assert fitted.startswith("weaken D")
