"""An effect as one line of text and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from simulated import family

from poise.study.effects import Effect, Estimate
from poise.study.verdicts import analyse, as_json

KEYS = ["tip", "data", "measure", "effect", "low", "high", "seeds", "failures", "verdict"]


@pytest.fixture(scope="module")
def effect() -> Effect:
    study, results = family(0, [-5.0])
    return analyse(study, results)[0]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "helps +12 % [4, 19], 10 seeds, digits"),
        (
            {"verdict": "harms", "relative": Estimate(-0.034, -0.051, -0.012)},
            "harms -3.4 % [-5.1, -1.2], 10 seeds, digits",
        ),
        (
            {"verdict": "no effect seen", "low": -0.5, "high": 0.7, "relative": Estimate(0.01, -0.05, 0.072)},
            "no effect seen, changes beyond [-5.0, 7.2] % excluded, 10 seeds, digits",
        ),
        (
            {"verdict": "no effect seen", "low": 0.1, "high": 0.7, "p_adjusted": 0.0782},
            "no effect seen (adjusted p 0.078), changes beyond [4, 19] % excluded, 10 seeds, digits",
        ),
        ({"verdict": "too few seeds", "seeds": 1, "relative": None, "effect": None}, "too few seeds, 1 seed, digits"),
        ({"verdict": "too few seeds", "seeds": 4}, "too few seeds +12 % [4, 19], 4 seeds, digits"),
        (
            {"verdict": "unstable", "failures": 5, "control_failures": 0},
            "unstable, 5 runs fail with it and 0 without it, 10 seeds, digits",
        ),
        (
            {"relative": None, "measure": "kid", "effect": -0.0123, "low": -0.02, "high": -0.004},
            "helps -0.012 kid [-0.020, -0.004], 10 seeds, digits",
        ),
        ({"relative": Estimate(-0.00001, -0.5, 0.5)}, "helps 0 % [-50, 50], 10 seeds, digits"),
    ],
)
def test_text(effect: Effect, changes: dict, text: str) -> None:
    shown = effect._replace(relative=Estimate(0.1234, 0.041, 0.192))._replace(**changes)
    assert shown.text == text


def test_json_has_the_keys_that_scripts_use_first(effect: Effect) -> None:
    table = as_json(effect)
    assert list(table)[: len(KEYS)] == KEYS
    assert table["data"] == "digits"
    assert (table["effect"], table["low"], table["high"]) == (effect.effect, effect.low, effect.high)
    assert set(table) == (set(Effect._fields) - {"base"}) | {"data"}
    assert json.loads(json.dumps(table, allow_nan=False)) == table


def test_without_runs_json_has_nulls() -> None:
    study, _ = family(0, [-5.0])
    table = as_json(analyse(study, [])[0])
    assert table["effect"] is None
    assert table["verdict"] == "too few seeds"
    json.dumps(table, allow_nan=False)


def test_effects_import_no_numbers() -> None:
    """`poise tips` shows the text of verdicts."""
    code = "import sys, poise.study.effects; print({'torch', 'numpy', 'scipy'} & set(sys.modules) or '')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
