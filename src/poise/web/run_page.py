"""Everything about one run but its series and images, as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from poise.core.metrics_log import check_alarm, check_measures, parse_jsonl
from poise.errors import CheckpointError, PoiseError, RecipeError
from poise.recipe.toml import MAX_BYTES as MAX_RECIPE_BYTES
from poise.recipe.toml import parse_toml
from poise.runs.folder import parse_info
from poise.runs.frames import MAX_SIZE, Frames, parse_frames
from poise.tips.catalogue import tips
from poise.web.answers import check_png, number
from poise.web.cards import MAX_BYTES, WATCHED, RunEntry, tag_of
from poise.web.files import read_below
from poise.web.references import references

INFO = ("device", "precision", "threads", "cpu_capability", "versions", "data", "parameters")
PARTS = ("run.json", "recipe.toml", "measures.jsonl", "alarms.jsonl")
"""The files that are told in full."""

MOVING = ("changed", "step", "seconds", "images_per_second")
"""What each row changes of a card; the page has it from the card."""

MOST_ALARMS = 2_000
MOST_MEASURES = 5_000
"""Of more lines in a file, so many are told: evenly spaced ones, the first and the last included."""


def run_json(root: Path, entry: RunEntry, names: list[str]) -> dict[str, Any]:
    """The answer to `/api/runs/{id}`. What is damaged or missing is left empty.

    Args:
        root: the runs directory.
        entry: the run.
        names: the names of its series.
    """
    info, (recipe, toml) = _info(root, entry), _recipe(root, entry)
    measures, measure_lines = _lines(root, entry, "measures.jsonl", check_measures)
    alarms, alarm_lines = _lines(root, entry, "alarms.jsonl", check_alarm)
    frames = _frames_span(root, entry)
    return entry.card | {
        "info": {key: info.get(key) for key in INFO},
        "changes": info.get("changes", []),
        "recipe": dict(dotted(recipe)),
        "toml": toml,
        "tips": _tips(recipe),
        "references": references(recipe),
        "measures": _measures(measures),
        "alarms": _alarms(alarms),
        "lines": {"measures": measure_lines, "alarms": alarm_lines},
        "series": names,
        "grids": list(entry.grids),
        "grid_tags": [grid.tag for grid in entry.grids.values()],
        "frames": frames,
        "tag": run_tag(entry, names, has_frames=frames is not None),
    }


def run_tag(entry: RunEntry, names: list[str], *, has_frames: bool) -> str:
    """Is another one whenever the answer to `/api/runs/{id}` is, except for what each row or frame changes.

    Args:
        entry: the run. What changes after it was made, though it may be in the answer, changes the next tag.
        names: the names of its series.
        has_frames: whether it has frames that can be read.
    """
    stamps = dict(zip(WATCHED, entry.signature, strict=False))  # the last one is that of the folder of sample grids
    card = {key: value for key, value in entry.card.items() if key not in MOVING}
    return tag_of(card, [stamps[name] for name in PARTS], entry.grids, names, has_frames)


def _info(root: Path, entry: RunEntry) -> dict[str, Any]:
    try:
        return parse_info(read_below(root, *entry.parts, "run.json", limit=MAX_BYTES), "run.json")
    except (OSError, CheckpointError):
        return {}


def _recipe(root: Path, entry: RunEntry) -> tuple[dict[str, Any], str]:
    """The recipe as a table and as text; the text alone if it can't be parsed."""
    try:
        content = read_below(root, *entry.parts, "recipe.toml", limit=MAX_RECIPE_BYTES)
    except OSError:
        return {}, ""
    text = content.decode("utf-8", "replace")
    try:
        return parse_toml(text, "recipe.toml"), text
    except RecipeError:
        return {}, text


def dotted(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """The leaves of a table by dotted path, such as `network.g.kind` and `tricks[0].kind`."""
    if isinstance(value, dict) and (value or not path):
        parts = [(f"{path}.{key}" if path else str(key), one) for key, one in value.items()]
    elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        parts = [(f"{path}[{at}]", one) for at, one in enumerate(value)]
    else:
        return [(path, value if isinstance(value, str | bool | int | float | list | dict) else str(value))]
    return [leaf for name, one in parts for leaf in dotted(one, name)]


def _tips(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """The tips that a component of the recipe implements, in the order of the catalogue, with the component's path."""
    places = component_paths(recipe)
    found = []
    for tip in tips():
        paths = [path for part in tip.parts for path in places.get((part.at, part.kind), ())]
        if paths:
            entry = tip.as_json()
            kept = {key: entry[key] for key in ("id", "name", "summary", "source", "evidence", "verdicts")}
            found += [kept | {"path": path} for path in paths]
    return found


def component_paths(recipe: dict[str, Any]) -> dict[tuple[str, str], list[str]]:
    """Where the components of a recipe are: by place in the sense of the catalogue and kind, their dotted paths."""
    places: dict[tuple[str, str], list[str]] = {}
    for path, value in dotted(recipe):
        if path.endswith(".kind") and isinstance(value, str):
            component = path.removesuffix(".kind")
            places.setdefault((component.partition("[")[0], value), []).append(component)
    return places


def _measures(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "step": line["step"],
            "measures": {name: number(value) for name, value in line["measures"].items()},
            "floor": {name: number(value) for name, value in line["floor"].items()},
            "n": line.get("n"),
            "features": line.get("features"),
        }
        for line in thinned(lines, MOST_MEASURES)
    ]


def _alarms(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = ("step", "detector", "level", "message", "advice", "tip")
    return [{key: line[key] for key in keys} | {"since": line.get("since")} for line in thinned(lines, MOST_ALARMS)]


def thinned(lines: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """At most so many of the lines, evenly spaced, with the first and the last."""
    if len(lines) <= most:
        return lines
    return [lines[place * (len(lines) - 1) // (most - 1)] for place in range(most)]


def _lines(root: Path, entry: RunEntry, name: str, check: Any) -> tuple[list[dict[str, Any]], int]:
    """The lines of a file of the run and their number.

    If the file is damaged, which the card of the run says, they are counted nevertheless.
    """
    try:
        content = read_below(root, *entry.parts, name, limit=MAX_BYTES)
    except OSError:
        return [], 0
    try:
        return parse_jsonl(content, name, check), count_lines(content)
    except CheckpointError:
        return [], count_lines(content)


def count_lines(content: bytes) -> int:
    """The number of lines that are complete."""
    return content.count(b"\n")


def _frames_span(root: Path, entry: RunEntry) -> dict[str, int] | None:
    """The steps of the first and last frame and the number of frames; None if there are none."""
    try:
        steps = read_run_frames(root, entry).records["step"]
    except (OSError, PoiseError):
        return None
    return {"first": int(steps[0]), "last": int(steps[-1]), "count": len(steps)} if len(steps) else None


def read_run_frames(root: Path, entry: RunEntry) -> Frames:
    """The frames of a run.

    Raises:
        OSError: it has none, or they can't be read.
        CheckpointError: the file is damaged.
    """
    return parse_frames(read_below(root, *entry.parts, "frames.bin", limit=MAX_SIZE), "frames.bin")


def read_grid(root: Path, entry: RunEntry, step: int) -> bytes:
    """The sample grid of a step, as PNG.

    Raises:
        Refused: there is none, or the file is not a PNG file.
    """
    grid = entry.grids.get(step)
    try:
        content = b"" if grid is None else read_below(root, *entry.parts, "samples", grid.name, limit=MAX_BYTES)
    except OSError:
        content = b""
    return check_png(content)
