"""Reading tables with a separator: wide, with a column per metric, or long, with a line per metric and step.

Long tables are those of MLflow (`key,value,step`), of TensorBoard's export of one tag (`Wall time,Step,Value`), and
files without a header that have the step and the value of one metric in each line.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from poise.errors import DataError
from poise.watch.column_names import ADVERSARIAL_COLUMNS, PART_COLUMNS, keys_of, quantity_of, shorten_name
from poise.watch.number_formats import SPECIAL, Separator, decimal_separator, is_grouped, parse_number
from poise.watch.resumed_rows import join_curves
from poise.watch.step_column import ends_within_a_line
from poise.watch.text_tables import CUT_NOTE, Flat, Table, is_unfinished, notes_on

KEY_COLUMNS = ("key", "metric", "tag", "name", "metric_name")
_VALUE = rf"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|{SPECIAL}"
SINGLE_METRIC = (
    re.compile(rf"\s*(?P<step>\d+)\s*[:,;\t ]\s*(?P<value>{_VALUE})\s*", re.IGNORECASE),
    re.compile(rf"\s*\d{{10,}} (?P<value>{_VALUE}) (?P<step>\d+)\s*", re.IGNORECASE),
)
"""The lines of a file that holds one metric: `1000: 1.25e+00` (BigGAN-PyTorch), `1000,45.2` (lightweight-gan's
`fid_scores.txt`), and MLflow's `timestamp value step`."""

SEPARATOR_LINE = re.compile(r"\s*\"?sep=.\"?\s*", re.IGNORECASE)
NUM_EXAMINED = 5
METRIC_NAMES = frozenset({*PART_COLUMNS, *ADVERSARIAL_COLUMNS})
SEPARATORS: tuple[Separator, ...] = (".", ",")

_CELL = re.compile(r"[-+]?[\d.,]*\d(?:[eE][-+]?\d+)?")


def parse_csv(text: str, path: Path) -> Table:
    """Parse a table with a header; cells that are not numbers are ignored.

    A last line without a newline is left out if it has fewer cells than the header.
    """
    lines = table_lines(text)
    delimiter = delimiter_of(lines)
    try:
        header, *body = split_cells(lines, delimiter) if lines else [[]]
    except csv.Error as error:
        raise DataError(f"not a readable table: {error}", where=str(path)) from None
    is_open = is_unfinished(text) and bool(body)
    is_cut = is_open and len(body[-1]) < len(header)
    rows = [
        {name.strip(): cell.strip() for name, cell in zip(header, cells, strict=False) if name.strip()}
        for cells in (body[:-1] if is_cut else body)
        if delimiter != " " or (len(cells) == len(header) and all(map(_is_number, cells)))  # or else it is text
    ]
    separator = separator_of(rows)
    table = parse_cells(_pivot(rows, path, separator), separator)
    if is_cut:
        return table._replace(notes=(*table.notes, CUT_NOTE))
    return table._replace(may_be_cut=is_open and bool(table.lines) and bool(table.lines[-1]))


def is_table(text: str) -> bool:
    """Whether a text is a table: its first line names a known metric, and those below it have as many numbers.

    The first `NUM_EXAMINED` lines below the header are examined. In a column that is not a known metric a cell may be
    a text, such as a date; in a table whose columns are separated by blanks all cells are numbers.
    """
    lines = table_lines(text, 1 + NUM_EXAMINED)
    delimiter = delimiter_of(lines)
    try:
        header, *body = split_cells(lines, delimiter) if lines else [[]]
    except csv.Error:
        return False
    if is_unfinished(text) and body and len(lines) <= NUM_EXAMINED and len(body[-1]) < len(header):
        body.pop()
    if len(header) < 2 or not body or any(len(cells) != len(header) for cells in body):
        return False
    if any(parse_number(name) is not None for name in header):
        return False
    known = [_is_metric(name) for name in header]
    return any(known) and all(
        any(cell.strip() for cell in cells)
        and all(_is_number(cell) for cell, is_metric in zip(cells, known, strict=True) if is_metric or delimiter == " ")
        for cells in body
    )


def table_lines(text: str, count: int | None = None) -> list[str]:
    """The first `count` lines of a table, or all: the header and the rows, without blank lines and comments.

    Left out are a line such as Excel's `sep=,`, and lines that begin with # before the header. The last of these is the
    header itself if it is followed by a row of as many numbers: numpy's `# step d_loss`.
    """
    found: list[str] = []
    comment = ""
    for line in text.splitlines():
        if not line.strip() or (not found and SEPARATOR_LINE.fullmatch(line)):
            continue
        if not found and line.startswith("#"):
            comment = line
            continue
        if not found and comment and (header := _header_of(comment, line)):
            found.append(header)
        found.append(line)
        if count is not None and len(found) >= count:
            break
    return found


def _header_of(comment: str, row: str) -> str:
    """The header in a comment before the first row; empty if it is a comment only."""
    header = comment.removeprefix("#").lstrip(" ")
    delimiter = delimiter_of([header, row])
    names, cells = split_cells([header, row], delimiter)
    has_numbers = len(names) == len(cells) > 1 and any(map(_is_number, cells))
    return header if has_numbers and any(map(_is_metric, names)) else ""


def delimiter_of(lines: list[str]) -> str:
    """The sign between the columns; a blank if the header has no other and the first row has as many words."""
    header = lines[0] if lines else ""
    found = max(",;\t", key=header.count)
    num_words = len(header.split())
    is_spaced = found not in header and len(lines) > 1 and 1 < num_words == len(lines[1].split())
    return " " if is_spaced else found


def split_cells(lines: list[str], delimiter: str) -> list[list[str]]:
    """The cells of each line.

    Raises:
        csv.Error: the csv module can't read the table.
    """
    if delimiter == " ":
        return [line.split() for line in lines]
    return list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))


def _is_metric(name: str) -> bool:
    """Whether a name is that of a metric, or of a part of a loss; names of a step alone make no table."""
    name = shorten_name(name.strip())
    return quantity_of(name) is not None or any(key in METRIC_NAMES for key in keys_of(name))


def _is_number(cell: str) -> bool:
    """Whether a cell has a number, with or without a per cent sign, or nothing."""
    cell = _without_percent(cell.strip())
    return not cell or any(parse_number(cell, separator) is not None for separator in SEPARATORS)


def separator_of(rows: Iterable[Mapping[str, str]]) -> Separator:
    """The decimal separator of a table, from all its numbers."""
    cells = (_without_percent(cell) for row in rows for cell in row.values())
    return decimal_separator(cell for cell in cells if _CELL.fullmatch(cell))


def parse_cells(rows: list[dict[str, str]], separator: Separator) -> Table:
    """The numbers in the cells of rows, with or without a per cent sign; other cells are ignored."""
    percent: set[str] = set()
    unclear: set[str] = set()
    parsed: list[Flat] = []
    for row in rows:
        numbers = {name: _without_percent(cell) for name, cell in row.items()}
        percent |= {name for name, cell in row.items() if cell.endswith("%")}
        unclear |= {name for name, number in numbers.items() if separator == "unclear" and is_grouped(number)}
        values = {name: parse_number(number, separator) for name, number in numbers.items()}
        parsed.append({name: value for name, value in values.items() if value is not None})
    return Table(parsed, frozenset(percent), notes_on(separator), frozenset(unclear))


def _without_percent(cell: str) -> str:
    return cell.removesuffix("%").strip()


def _pivot(rows: list[dict[str, str]], path: Path, separator: Separator) -> list[dict[str, str]]:
    """The rows of a long table with a column per metric and a row per step; other tables are returned unchanged."""
    names = {name.lower(): name for name in rows[0]} if rows else {}
    key = next((names[name] for name in KEY_COLUMNS if name in names), None)
    if not {"value", "step"} <= names.keys() or (key is None and not names.keys() <= {"wall time", "step", "value"}):
        return rows
    names_of_rows = [row.get(key, "") if key is not None else metric_of_file(path) for row in rows]
    steps = [parse_number(row.get(names["step"], ""), separator) for row in rows]
    points = [
        (name, step, (row[names["step"]], row.get(names["value"], "")))
        for name, step, row in zip(names_of_rows, steps, rows, strict=True)
        if step is not None and math.isfinite(step)
    ]
    found: list[dict[str, str]] = []
    for _, cells in join_curves(points):
        at = next(step for step, _ in cells.values())
        found.append({"step": at} | {name: value for name, (_, value) in cells.items()})
    return found


def metric_of_file(path: Path) -> str:
    """The metric that a file is named after; TensorBoard's exports are called `run-RUN-tag-TAG.csv`."""
    return re.sub(r"^run-.*-tag-", "", path.name.removesuffix(path.suffix))


def parse_single_metric(text: str, name: str) -> list[Flat] | None:
    """The rows of a file in which each line is the step and the value of one metric; None if it is another file.

    A last line without a newline is left out if it is none of these lines, or if its step decreases.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    for form in reversed(SINGLE_METRIC):
        if not lines or form.fullmatch(lines[0]) is None:
            continue
        matches = [form.fullmatch(line) for line in lines]
        may_be_cut = is_unfinished(text) and len(matches) > 1
        if may_be_cut and matches[-1] is None:
            matches.pop()
        found = [match for match in matches if match is not None]
        if len(found) < len(matches):
            continue
        rows = [{"step": float(match["step"]), name: float(match["value"])} for match in found]
        return rows[:-1] if may_be_cut and ends_within_a_line(rows, "step") else rows
    return None
