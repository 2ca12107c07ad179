"""Verdicts made by hand, for tests of what is shown of them."""

from __future__ import annotations

import dataclasses
from typing import Any

from poise.tips.catalogue import Tip
from poise.tips.verdicts import PACKAGE, ComponentFile, Verdict, file_hash

PACKING = "tricks/packing.py"
RECORD: dict[str, Any] = {
    "tip": "T16",
    "name": "packing",
    "data": "digits",
    "summary": "Digits at 16 pixels, narrow DCGANs, 60,000 images.",
    "measure": "fid",
    "better": "less",
    "effect": -6.0,
    "low": -9.5,
    "high": -2.0,
    "relative": -0.12,
    "relative_low": -0.19,
    "relative_high": -0.04,
    "seeds": 10,
    "failures": 0,
    "control_failures": 1,
    "verdict": "helps",
    "p_adjusted": 0.013,
    "detectable": 3.0,
    "expected": "helps",
    "budget": {"images": 60_000, "steps": 1_875},
    "study": {"name": "tips", "plan": "benchmarks/studies/tips/plan.toml"},
    "recipe": {"treatment": ("0123456789ab",), "control": ("ba9876543210",)},
    "date": "2026-11-27",
    "versions": {"poise": "0.1.0", "torch": "2.9.0"},
    "components": {"tricks.packing": {"file": PACKING, "sha256": file_hash(PACKAGE / PACKING)}},
    "text": "helps -12 % [-19, -4], 10 seeds, digits",
}
ZERO = {"effect": 0.1, "low": -3.0, "high": 4.0, "relative": 0.002, "relative_low": -0.03, "relative_high": 0.04}
POINTS = {"measure": "modes", "better": "more", "data": "grid"}
COVERAGE = {"measure": "coverage", "better": "more", "effect": 0.01, "low": -0.0213, "high": 0.0497}


def verdict(**changes: Any) -> Verdict:
    """A verdict that differs from `RECORD` in the given fields."""
    return Verdict(**(RECORD | changes))


def outdated() -> dict[str, ComponentFile]:
    """A component whose file has changed since."""
    return {"tricks.packing": ComponentFile(file=PACKING, sha256="0" * 64)}


def examples() -> tuple[Verdict, ...]:
    """Two arms on three data sets, with each sort of verdict."""
    unknown = {"relative": None, "relative_low": None, "relative_high": None}
    stddev: dict[str, Any] = {"name": "minibatch standard deviation", "components": outdated()}
    return (
        verdict(),
        verdict(**COVERAGE, verdict="no effect seen", relative=0.013, relative_low=-0.028, relative_high=0.065),
        verdict(**POINTS, **ZERO, verdict="no effect seen"),
        verdict(
            data="colour", better="less", relative=0.051, relative_low=0.0021, relative_high=0.093, verdict="harms"
        ),
        verdict(**stddev, failures=7, control_failures=1, verdict="unstable"),
        verdict(**stddev, **POINTS, **unknown, effect=2.5, low=0.25, high=3.5, seeds=5, verdict="too few seeds"),
    )


def with_examples(tips: tuple[Tip, ...], *ids: str) -> tuple[Tip, ...]:
    """The catalogue in which the tips of these ids have the examples as their verdicts."""
    return tuple(dataclasses.replace(tip, verdicts=examples()) if tip.id in ids else tip for tip in tips)
