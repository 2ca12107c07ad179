"""A failing run raises its alarm, and a run that follows the advice literally does not."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from poise.core.metrics_log import check_alarm, read_jsonl
from poise.errors import Diverged
from poise.measure import classifier
from poise.recipe.decode import decode
from poise.recipe.toml import set_value
from poise.training.train import train

ADAM = {"kind": "adam", "lr": 1e-3}
SOUND: dict[str, Any] = {
    "batch": 16,
    "data": {"kind": "digits", "size": 16},
    "latent": {"kind": "gaussian", "dim": 16},
    "network": {"g": {"kind": "dcgan", "width": 8}, "d": {"kind": "dcgan", "width": 8}},
    "objective": {"kind": "non_saturating"},
    "optimizer": {"g": ADAM, "d": ADAM},
    "tempo": {"kind": "ratio"},
    "tricks": [],
    "log": {"rows": 10, "samples": 1000, "saves": 1000, "sheet": 4},
}
UNNORMED = {**SOUND["network"], "d": {"kind": "dcgan", "width": 8, "norm": "none"}}
FASTER = {"kind": "adam", "lr": {"kind": "linear", "start": 1e-3, "end": 0.05, "until": 0.5}}
CAUSES: dict[str, dict[str, Any]] = {  # each for about half as many steps again as it takes until the alarm
    "not_finite": {"steps": 60, "optimizer": {"g": {"kind": "adam", "lr": 1e30}, "d": ADAM}},
    "saturated": {"steps": 120, "optimizer": {"g": {"kind": "adam", "lr": 0.5}, "d": ADAM}},
    "d_at_zero": {
        "steps": 150,
        "optimizer": {"g": {"kind": "adam", "lr": 4e-4}, "d": {"kind": "adam", "lr": 4e-3}},
        "tempo": {"kind": "ratio", "d": 2},
    },
    "d_never_wrong": {
        "steps": 150,
        "optimizer": {"g": {"kind": "adam", "lr": 4e-4}, "d": {"kind": "adam", "lr": 4e-3}},
    },
    "d_spikes": {"steps": 160, "network": UNNORMED, "optimizer": {"g": FASTER, "d": FASTER}},
    "labels_wrong": {
        "conditioning": {"g": {"kind": "concat"}},
        "measure": {"every": 40, "measures": ["gan_test"], "n": 200},
        "steps": 240,
    },
}


@pytest.fixture(autouse=True)
def _a_fair_classifier(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must recognise the classes of generated digits."""
    monkeypatch.setenv("POISE_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(classifier, "SAMPLES_SEEN", (6_400, 6_400))


def alarms(table: dict[str, Any], out: Path) -> dict[str, str]:
    """The detectors that raised an alarm, with their advice."""
    try:
        train(decode(table), out, device="cpu", precision="fp32")
    except Diverged:
        assert (out / "alarms.jsonl").is_file()
    lines = read_jsonl(out / "alarms.jsonl", check_alarm) if (out / "alarms.jsonl").is_file() else []
    return {line["detector"]: line["advice"] for line in lines}


def followed(table: dict[str, Any], advice: str) -> dict[str, Any]:
    """The recipe with every `--set` of the advice."""
    result = copy.deepcopy(table)
    changes = re.findall(r"--set (?:'([^']+)'|([^\s,;]+))", advice)
    assert changes
    for quoted, bare in changes:
        set_value(result, quoted or bare)
    return result


SLOW = {"labels_wrong", "d_at_zero", "d_never_wrong", "saturated"}
"""Detectors whose case trains a classifier first, or for several seconds."""


@pytest.mark.parametrize(
    "detector", [pytest.param(one, marks=pytest.mark.slow if one in SLOW else []) for one in CAUSES]
)
def test_following_the_advice_prevents_the_alarm(detector: str, tmp_path: Path) -> None:
    table = {**SOUND, **CAUSES[detector]}
    spoke = alarms({**table, "monitor": {"policy": {detector: "stop"}}}, tmp_path / "fails")  # nothing after it matters
    assert detector in spoke
    assert detector not in alarms(followed(table, spoke[detector]), tmp_path / "advised")
