"""Reading logs: a run folder of ours, another trainer's CSV, JSON, TensorBoard events, or lines of text.

What the columns mean is guessed from their names where nobody says (`columns.py`); numbers that nobody asked about are
left out.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from poise.core.metrics_log import Stat, check_measures, check_row, read_jsonl, stats_from_json
from poise.errors import CheckpointError, DataError, RecipeError
from poise.watch.base import FAMILIES, Family
from poise.watch.columns import KNOWN, SHORT, Numbers, map_columns, parse_columns, shorten_name
from poise.watch.history import MIN_RUN_LENGTH
from poise.watch.tensorboard_events import read_events
from poise.watch.text_tables import Flat, Table, lines_of, parse_number, read_table, read_text

__all__ = ["KNOWN", "SHORT", "Log", "measures_to_metrics", "parse_columns", "read_log"]


class Log(NamedTuple):
    """Rows, by the names of `rows.jsonl`.

    Attributes:
        rows: step and numbers, in order; what was measured after a row comes behind it.
        count: how many rows the log has.
        length: the steps of the whole run.
        family: of the objective, where it is known or can be told.
        monitor: the table `[monitor]` of a run of ours.
        notes: what was decided about the log, a sentence each.
        judged: whether D's loss was found; that a run of ours may have none is no matter.
    """

    rows: list[tuple[int, Numbers]]
    count: int
    length: int
    family: Family | None
    monitor: dict[str, Any]
    notes: tuple[str, ...] = ()
    judged: bool = True


def read_log(path: Path, columns: Mapping[str, str] | None = None, pattern: str | None = None) -> Log:
    """The numbers of a run folder or of another trainer's log.

    Args:
        path: a run folder, a .csv, a .json or .jsonl, a folder or file of TensorBoard events, or lines of text.
        columns: which column holds what: the log's names by `step`, a short name or a full one.
        pattern: for text: a regular expression with named groups, `(?P<d>...)`, `(?P<g>...)`, perhaps `(?P<step>...)`.

    Raises:
        DataError: there is no such file, or no row in it.
        CheckpointError: a file of a run folder is damaged.
        RecipeError: a column is not there, or nothing tells which are the losses.
    """
    if not path.exists():
        raise DataError("there is no such run or log", where=str(path))
    if (path / "rows.jsonl").is_file():
        return _ours(path)
    if pattern is not None:
        rule = _rule(pattern)
        table = _matches(path, rule)
        columns = {name: name for name in rule.groupindex} | dict(columns or {})
    elif path.is_dir() or path.name.startswith("events.out.tfevents"):
        table = read_events(path)
    else:
        table = _named(read_table(path))
    rows, notes = map_columns(table, columns or {}, str(path))
    judged = any("d/adversarial" in numbers for _, numbers in rows)
    return Log(rows, len(rows), rows[-1][0], _guess(rows), {}, tuple(notes), judged)


def _ours(path: Path) -> Log:
    """A run folder: its rows, with what was measured between them."""
    rows = [
        (line["step"], stats_from_json(line)) for line in read_jsonl(path / "rows.jsonl", check_row, increasing=True)
    ]
    measured = read_jsonl(path / "measures.jsonl", check_measures, increasing=True)
    lines = rows + [(line["step"], measures_to_metrics(line)) for line in measured]
    try:
        recipe = tomllib.loads((path / "recipe.toml").read_text("utf-8"))
        steps, kind = int(recipe.get("steps", 0)), recipe.get("objective", {}).get("kind", "")
    except tomllib.TOMLDecodeError as error:
        raise CheckpointError(
            f"is damaged: {error}", where=str(path / "recipe.toml"), cure="put it back from a copy"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError("not a run folder that can be read", where=str(path), found=str(error)) from None
    if not rows:
        raise DataError("no row has been written yet", where=str(path))
    length = max(MIN_RUN_LENGTH, steps or rows[-1][0])
    return Log(
        sorted(lines, key=lambda line: line[0]), len(rows), length, FAMILIES.get(kind), recipe.get("monitor", {})
    )


def measures_to_metrics(line: Mapping[str, Any]) -> Numbers:
    """A line of `measures.jsonl` as numbers: `measure/fid`, `floor/fid`."""
    told = {f"measure/{name}": Stat.of(float(value)) for name, value in line["measures"].items()}
    return told | {f"floor/{name}": Stat.of(float(value)) for name, value in line["floor"].items()}


def _named(table: Table) -> Table:
    """Names of several words shortened to their end, where that is understood."""
    names = {name: shorten_name(name) for line in table.lines for name in line}
    lines = [{names[name]: told for name, told in line.items()} for line in table.lines]
    return table._replace(lines=lines, percent=frozenset(names[name] for name in table.percent))


def _rule(pattern: str) -> re.Pattern[str]:
    try:
        rule = re.compile(pattern)
    except re.error as error:
        raise RecipeError(f"not a regular expression: {error}", where="--pattern", found=f"'{pattern}'") from None
    if not rule.groupindex:
        raise RecipeError("has no named group", where="--pattern", cure="such as (?P<d>[0-9.]+)")
    return rule


def _matches(path: Path, rule: re.Pattern[str]) -> Table:
    found = (rule.search(line) for line in lines_of(read_text(path)))
    groups = ({name: parse_number(cell) for name, cell in one.groupdict("").items()} for one in found if one)
    lines: list[Flat] = [{name: told for name, told in one.items() if told is not None} for one in groups]
    return Table(lines)


def _guess(rows: list[tuple[int, Numbers]]) -> Family | None:
    """A D whose loss is below 0 again and again has no floor: a critic."""
    losses = [numbers["d/adversarial"].mean for _, numbers in rows if "d/adversarial" in numbers]
    return "wasserstein" if losses and sum(loss < 0 for loss in losses) > 0.05 * len(losses) else None
