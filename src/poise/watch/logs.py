"""Reading logs: a run folder of poise, or another trainer's CSV, JSON, TensorBoard events, or lines of text.

The meaning of columns is guessed from their names unless it is given (`columns.py`). Other columns are ignored.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from poise.core.metrics_log import Stat, check_count, check_measures, check_row, read_jsonl, stats_from_json
from poise.errors import CheckpointError, DataError, RecipeError
from poise.watch.base import FAMILIES, Family
from poise.watch.column_names import quantity_of, shorten_name
from poise.watch.columns import map_columns
from poise.watch.csv_tables import is_table, metric_of_file, parse_cells, parse_csv, parse_single_metric, separator_of
from poise.watch.history import MIN_RUN_LENGTH
from poise.watch.json_tables import parse_json
from poise.watch.loss_conventions import guess_family
from poise.watch.metric_folders import read_metric_files
from poise.watch.resumed_rows import Numbers
from poise.watch.tensorboard_events import FILES, read_events
from poise.watch.text_tables import Flat, Table, is_unfinished, parse_lines, read_text, split_lines

PERCENT_SIGN = re.compile(r"\s?%")

DIVERSITY = "g/diversity"
"""poise's own diversity is relative to real samples; another trainer's may have any unit."""

MEASURED = ("measure/", "floor/")
"""The beginnings of the names of metrics that come from `measures.jsonl`."""


class Log(NamedTuple):
    """The rows of a log, by the metric names of `rows.jsonl`.

    Attributes:
        rows: the step and the metrics of each row, in order; measures come after the row of the same step.
        count: the number of logged rows.
        length: the number of steps of the whole run.
        family: the family of the objective, if it is known or could be inferred.
        monitor: the table `[monitor]` of a run's recipe; of another trainer's log, what does not apply to it.
        notes: the decisions about the log, one sentence each.
        has_d_loss: False if D's loss was not found in another trainer's log.
        columns: what `step` and each metric were read from; empty for a run of poise.
        family_source: how the family is known.
        recipe: the recipe of a run; empty for another trainer's log.
        returns: the steps to which a run was rolled back, as far as what follows them was not discarded.
    """

    rows: list[tuple[int, Numbers]]
    count: int
    length: int
    family: Family | None
    monitor: dict[str, Any]
    notes: tuple[str, ...] = ()
    has_d_loss: bool = True
    columns: Mapping[str, str] = MappingProxyType({})
    family_source: str = ""
    recipe: Mapping[str, Any] = MappingProxyType({})
    returns: tuple[int, ...] = ()

    @property
    def row_steps(self) -> list[int]:
        """The steps of the logged rows in increasing order, without those at which only measures were computed."""
        logged = {step for step, numbers in self.rows if not all(name.startswith(MEASURED) for name in numbers)}
        return sorted(logged or {step for step, _ in self.rows})


def read_log(
    path: Path, columns: Mapping[str, str] | None = None, pattern: str | None = None, is_sum: bool | None = None
) -> Log:
    """Read a run folder or another trainer's log.

    Args:
        path: a run folder, a .csv, a .json or .jsonl, a folder or file of TensorBoard events, or lines of text.
        columns: the log's columns for `step` and for metrics, by short or full name.
        pattern: for text: a regular expression with named groups, `(?P<d>...)`, `(?P<g>...)`, and optionally
            `(?P<step>...)`.
        is_sum: whether D's loss is the sum of that on real and on fake samples; None to guess.

    Raises:
        DataError: the log does not exist or has no rows.
        CheckpointError: a file of a run folder is damaged.
        RecipeError: a requested column does not exist, or no column is a loss; or there is an option for the logs of
            other trainers, and this is a run of poise.
    """
    if not path.exists():
        raise DataError("no such run or log", where=str(path))
    if _is_run(path):
        for option, value in (("--columns", columns or None), ("--pattern", pattern), ("--sum", is_sum)):
            if value is not None:
                what = "is for the logs of other trainers: what a run of poise logs is known"
                raise RecipeError(what, where=option, found=str(path), cure="leave it out")
        return _read_run(path)
    if pattern is not None:
        regex = _compile_pattern(pattern)
        table = _match_lines(path, regex)
        columns = {name: name for name in regex.groupindex} | dict(columns or {})
    elif path.name.startswith("events.out.tfevents") or (path.is_dir() and next(path.rglob(FILES), None) is not None):
        table = read_events(path)
    elif path.is_dir():
        table = read_metric_files(path)
    else:
        table = _shorten_names(read_table(path), str(path))
    rows, notes, described = map_columns(table, columns or {}, str(path), is_sum)
    monitor: dict[str, Any] = {}
    unit = described.get(DIVERSITY, DIVERSITY)
    if not unit.endswith(DIVERSITY):
        monitor = {"policy": {"collapse": "off"}}
        notes.append(f"the unit of {unit} is not known: only a fall of the diversity is looked for, and not collapse")
    losses = [numbers["d/adversarial"].mean for _, numbers in rows if "d/adversarial" in numbers]
    family, source = guess_family(losses, {name for line in table.lines for name in line})
    return Log(rows, len(rows), rows[-1][0], family, monitor, tuple(notes), bool(losses), described, source)


def read_table(path: Path) -> Table:
    """Read a file of one metric, a table (by its suffix or its header), JSON (by its first character), or text."""
    text = read_text(path)
    single = parse_single_metric(text, metric_of_file(path))
    if single is not None:
        return Table(single)
    if path.suffix.lower() in (".csv", ".tsv"):
        return parse_csv(text, path)
    table = parse_json(text) if text.lstrip()[:1] in ("{", "[") else None
    return table or (parse_csv(text, path) if is_table(text) else parse_lines(text))


def _is_run(path: Path) -> bool:
    """Whether a folder is a run of poise, which has no rows at first; Sacred's runs have a `run.json` too."""
    return (path / "rows.jsonl").is_file() or all((path / name).is_file() for name in ("run.json", "recipe.toml"))


def _read_run(path: Path) -> Log:
    """The rows and measures of a run folder."""
    rows = [
        (line["step"], stats_from_json(line)) for line in read_jsonl(path / "rows.jsonl", check_row, increasing=True)
    ]
    measured = read_jsonl(path / "measures.jsonl", check_measures, increasing=True)
    lines = rows + [(line["step"], measures_to_metrics(line)) for line in measured]
    try:
        recipe = tomllib.loads((path / "recipe.toml").read_text("utf-8"))
        steps, objective = int(recipe.get("steps", 0)), recipe.get("objective", {}).get("kind", "")
    except tomllib.TOMLDecodeError as error:
        raise CheckpointError(
            f"is damaged: {error}", where=str(path / "recipe.toml"), cure="restore it from a copy"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError("not a readable run folder", where=str(path), found=str(error)) from None
    if not rows:
        raise DataError("no row has been logged yet", where=str(path))
    length = max(MIN_RUN_LENGTH, steps or rows[-1][0])
    lines.sort(key=lambda line: line[0])
    family = FAMILIES.get(objective)
    source = "the recipe's" if family is not None else "pass --loss-family"
    monitor, returns = recipe.get("monitor", {}), _read_returns(path / "run.json")
    return Log(lines, len(rows), length, family, monitor, family_source=source, recipe=recipe, returns=returns)


def _read_returns(path: Path) -> tuple[int, ...]:
    """The steps to which a run was rolled back, by its `run.json`; none if that can't be read or does not tell."""
    try:
        return tuple(sorted(map(check_count, json.loads(path.read_bytes())["returned_to"])))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ()


def measures_to_metrics(line: Mapping[str, Any]) -> Numbers:
    """A line of `measures.jsonl` as metrics: `measure/fid`, `floor/fid`."""
    measures = {f"measure/{name}": Stat.of(float(value)) for name, value in line["measures"].items()}
    return measures | {f"floor/{name}": Stat.of(float(value)) for name, value in line["floor"].items()}


def _shorten_names(table: Table, where: str) -> Table:
    """The table with long column names shortened to their ends, where these are known.

    Of other names in lines of text what follows the last dash is kept: `lr` of `INFO - step 50 - lr`.

    Raises:
        DataError: several runs are exported to one table, `run-1 - d_loss` and `run-2 - d_loss`.
    """
    given = dict.fromkeys(name for line in table.lines for name in line)
    names = {name: shorten_name(name) for name in given}
    if table.is_text:
        names = {name: short.rpartition(" - ")[2] if short == name else short for name, short in names.items()}
    else:
        _refuse_several_runs(names, where)
    lines: list[Flat] = []
    for line in table.lines:
        ends = [names[name] for name in line]
        is_unique = len(set(ends)) == len(ends)
        lines.append(
            {
                end if is_unique or ends.count(end) == 1 else name: value
                for (name, value), end in zip(line.items(), ends, strict=True)
            }
        )
    percent, unclear = (
        frozenset(names[name] for name in group if name in names) for group in (table.percent, table.unclear)
    )
    return table._replace(lines=lines, percent=percent, unclear=unclear)


def _refuse_several_runs(names: Mapping[str, str], where: str) -> None:
    """Raise DataError if a table has the same column of several runs.

    Args:
        names: the shortened name of each column.
        where: the log.
    """
    runs: dict[str, list[str]] = {}
    for name, short in names.items():
        if " - " in name and quantity_of(short) is not None:
            runs.setdefault(short, []).append(name)
    several = next((same for same in runs.values() if len(same) > 1), None)
    if several is not None:
        cure = f"export one of them; the columns are {', '.join(several[:8])}"
        raise DataError("contains several runs", where=where, cure=cure)


def _compile_pattern(pattern: str) -> re.Pattern[str]:
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise RecipeError(f"not a regular expression: {error}", where="--pattern", found=f"'{pattern}'") from None
    if not regex.groupindex:
        raise RecipeError("has no named group", where="--pattern", cure="such as (?P<d>[0-9.]+)")
    return regex


def _match_lines(path: Path, regex: re.Pattern[str]) -> Table:
    """The numbers in the groups of a regular expression, one row for each line in which it is found."""
    text = read_text(path)
    lines = split_lines(text)
    matches = [match for line in lines if (match := regex.search(line)) is not None]
    rows = [{name: _cell_of(match, name) for name in regex.groupindex} for match in matches]
    may_be_cut = is_unfinished(text) and regex.search(lines[-1]) is not None
    return parse_cells(rows, separator_of(rows))._replace(may_be_cut=may_be_cut)


def _cell_of(match: re.Match[str], name: str) -> str:
    """The text of a group, with a per cent sign that follows it; empty if the group has no part in the match."""
    text = (match[name] or "").strip()
    return f"{text}%" if text and PERCENT_SIGN.match(match.string, match.end(name)) else text
