"""What of an alarm's advice advances on a recipe, and how the rest is put into words."""

from __future__ import annotations

from typing import Any

import pytest

from poise.errors import RecipeError
from poise.recipe.advice import fit_advice, useful_options

PACK = 'tricks+=[{kind="packing", samples=2}]'
AVERAGE, NOISE = 'tricks+=[{kind="averaged_weights"}]', 'tricks+=[{kind="instance_noise", sigma=0.5}]'
LARGER = "tricks.instance_noise.sigma=0.5"
WEAK = {"kind": "instance_noise", "sigma": 0.1}
FADING = {"kind": "instance_noise", "sigma": {"kind": "linear", "start": 0.5}}
STRONG = {"kind": "instance_noise", "sigma": 0.5}


@pytest.mark.parametrize(
    ("before", "options", "useful"),
    [
        ({"lr": 1e-4}, ("lr=5e-5", "x=1"), ("lr=5e-5", "x=1")),
        ({"d": {"lr": 1e-5}}, ("d.lr=5e-5", "x=1"), ("x=1",)),
        ({"d": {"lr": 5e-5}}, ("d.lr=5e-5",), None),
        ({"d": {"lr": {"kind": "linear", "start": 1e-3}}}, ("d.lr=5e-5",), ("d.lr=5e-5",)),
        ({"tricks": [{"kind": "r1", "gamma": 1.0}]}, ("tricks.r1.gamma=5.0",), ("tricks.r1.gamma=5.0",)),
        ({"tricks": [{"kind": "r1", "gamma": 10.0}]}, ("tricks.r1.gamma=5.0",), None),
        ({"tricks": []}, ("tricks.r1.gamma=5.0",), None),
        ({"tempo": {"kind": "ratio", "d": 5}}, ('tempo={kind="ratio", d=2}',), None),
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
