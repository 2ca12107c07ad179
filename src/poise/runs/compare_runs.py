"""Compares two runs by what their folders say: recipes, progress, measures and alarms. Nothing is sampled."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from poise.core.metrics_log import decode_number, encode_number
from poise.measure.catalogue import MEASURES
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs.folder import RunFolder
from poise.utils.remote import with_urls

MISSING = None
"""The value of a field that only the other recipe has."""


class FieldDifference(NamedTuple):
    """A field of the recipe, by its dotted path, and its value in each run; None if a recipe does not have it."""

    field: str
    a: Any
    b: Any


class MeasureHistory(NamedTuple):
    """A measure of a run: its last value, its floor if that is finite, and the best value with its step."""

    last: float
    step: int
    floor: float | None
    best: float | None
    best_step: int | None


class RunFacts(NamedTuple):
    """What a run folder says.

    Attributes:
        path: the folder.
        state: as in `run.json`.
        step: the number of steps done.
        steps: the number of steps that it is to have.
        images: the number of real images seen, step x batch.
        seconds: the time spent training, by the clock.
        device: where, such as "cpu".
        threads: the number of threads.
        data: the kind of its data.
        fingerprint: the fingerprint of its data.
        measures: by name.
        settings: the features and the number of samples of the measures.
        alarms: the number of alarms by detector.
    """

    path: str
    state: str
    step: int
    steps: int
    images: int
    seconds: float
    device: str
    threads: int | None
    data: str
    fingerprint: str
    measures: dict[str, MeasureHistory]
    settings: str
    alarms: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """The facts as an object for JSON."""
        return self._asdict() | {
            "seconds": encode_number(self.seconds),
            "measures": {name: history._asdict() for name, history in self.measures.items()},
        }


class RunComparison(NamedTuple):
    """The facts of two runs, the differences between their recipes, and remarks."""

    a: RunFacts
    b: RunFacts
    recipe: list[FieldDifference]
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """The object that `poise compare RUN RUN --json` prints."""
        return {
            "a": self.a.as_json(),
            "b": self.b.as_json(),
            "recipe": [difference._asdict() for difference in self.recipe],
            "notes": self.notes,
        }


def compare_runs(a: Path, b: Path) -> RunComparison:
    """Compare two run folders.

    Raises:
        CheckpointError: one of them is damaged; names the file.
    """
    folders = RunFolder(a), RunFolder(b)
    recipe_a, recipe_b = (folder.parse_recipe(decode) for folder in folders)
    one, other = run_facts(folders[0], recipe_a), run_facts(folders[1], recipe_b)
    differences = field_differences(named_tables(recipe_a), named_tables(recipe_b))
    notes = []
    if one.fingerprint != other.fingerprint:
        notes.append(f"the runs were trained on different data: {_data_difference(one, other, differences)}")
    if one.measures.keys() & other.measures.keys() and one.settings != other.settings:
        notes.append(f"their measures can't be compared: {one.settings} and {other.settings}")
    return RunComparison(one, other, differences, notes)


def _data_difference(a: RunFacts, b: RunFacts, differences: Sequence[FieldDifference]) -> str:
    """How the data of two runs differ: in their kind, in fields of the recipe, or only in the samples."""
    if a.data != b.data:
        return f"{a.data} and {b.data}"
    fields = [one for one in differences if one.field.startswith("data.")]
    named = ", ".join(f"{one.field} is {one.a} and {one.b}" for one in fields[:3])
    return named or f"the same recipe, but the samples of '{a.data}' have changed"


def run_facts(folder: RunFolder, recipe: Recipe) -> RunFacts:
    """What a run folder says.

    Raises:
        CheckpointError: it is damaged.
    """
    info, lines = folder.read_info(), folder.read_measures()
    last = lines[-1] if lines else {}
    return RunFacts(
        path=with_urls(str(folder.path)),
        state=info["state"],
        step=info["step"],
        steps=info["steps"],
        images=info["step"] * recipe.batch,
        seconds=decode_number(info["seconds"]),
        device=str(info.get("device", "unknown")),
        threads=info.get("threads"),
        data=info["data"]["kind"],
        fingerprint=info["data"]["fingerprint"],
        measures=measure_histories(lines),
        settings=f"{last['features']}, n = {last['n']:,}" if "features" in last and "n" in last else "",
        alarms=dict(Counter(alarm["detector"] for alarm in folder.read_alarms())),
    )


def measure_histories(lines: list[dict[str, Any]]) -> dict[str, MeasureHistory]:
    """The histories of all measures in lines of `measures.jsonl`, by name.

    A value is only compared with those of the same features and n as the last line. A measure that is best near its
    floor has no best value.
    """
    lines = [line for line in lines if all(line.get(key) == lines[-1].get(key) for key in ("features", "n"))]
    histories = {}
    for name in dict.fromkeys(name for line in lines for name in line["measures"]):
        values = [(line["step"], decode_number(line["measures"][name])) for line in lines if name in line["measures"]]
        values = [(step, value) for step, value in values if math.isfinite(value)]
        if not values:
            continue
        step, last = values[-1]
        floor = next(line["floor"].get(name) for line in lines if line["step"] == step)
        better = MEASURES[name].better if name in MEASURES else "floor"
        sign = {"less": 1, "more": -1}.get(better)
        best = min(values, key=lambda pair: sign * pair[1]) if sign else (None, None)
        floor = None if floor is None or not math.isfinite(decode_number(floor)) else decode_number(floor)
        histories[name] = MeasureHistory(last, step, floor, best[1], best[0])
    return histories


def named_tables(recipe: Recipe) -> dict[str, Any]:
    """The canonical form of a recipe, with its tricks by name, so that an added trick does not change the others."""
    table = recipe.canonical()
    return table | {"tricks": dict(zip(recipe.trick_names(), table.get("tricks", []), strict=True))}


def field_differences(a: dict[str, Any], b: dict[str, Any], root: str = "") -> list[FieldDifference]:
    """The fields in which two tables differ, by their dotted paths. A table that only one has is one difference."""
    found: list[FieldDifference] = []
    for key in dict.fromkeys((*a, *b)):
        one, other = a.get(key, MISSING), b.get(key, MISSING)
        if isinstance(one, dict) and isinstance(other, dict) and one.get("kind") == other.get("kind"):
            found += field_differences(one, other, f"{root}{key}.")
        elif one != other:
            found.append(FieldDifference(f"{root}{key}", one, other))
    return found
