"""Reading text logs: common encodings, lines as a terminal shows them, numbers as different libraries print them.

A file becomes rows of names and numbers (`Flat`). The meaning of the names is determined in `columns.py`.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from poise.core.metrics_log import decode_number
from poise.errors import DataError

Flat = dict[str, float]
"""The numbers of one row by name."""

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks with their encodings; UTF-32 comes first, because its mark begins with that of UTF-16."""

ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
"""Terminal escape sequences (ECMA-48): colours and cursor moves, titles and links, single characters."""

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?nan|[-+]?inf(?:inity)?"
WRAPPED = re.compile(
    r"(?:\b(?:\w+\.)*(?:tensor|array|float\d*|float_|int\d+|parameter|variable)\(|<tf\.Tensor:[^<>]{0,200}?numpy=)"
    rf"[\[\s]*({NUMBER})[\]\s]*(?:,(?:[^()]|\([^()]*\))*)?[)>]",
    re.IGNORECASE,
)
"""A scalar as libraries print it: `tensor(0.69, device='cuda:0')`, `np.float32(0.69)`, `array(0.69, dtype=int8)`."""

VALUE = re.compile(rf"[:=]\s*['\"]?({NUMBER})(\s?%)?(?![\w.])", re.IGNORECASE)
NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_./() -]*?)['\"]?\s*$")
MAX_NAME_LENGTH = 100
"""A name and its number in a line of text: `Loss_D: 0.69`, `[G loss: 1.2]`, `d_loss=0.5`, `'d_loss': 0.5`. The number
is searched first, then the name in a bounded number of characters before it, so that the time is linear in the length
of the line."""

DECIMAL_COMMA = re.compile(r"[:=]\s*[-+]?0,\d")
GROUPED = re.compile(r"(?<![\d.,])([1-9]\d{0,2}(?:,\d{3})+)(?![\d,])")
"""Digits in groups of three: 1,234 and 1,234,567.8. A comma after a leading 0 is a decimal comma."""

MIN_ROWS = 4
"""The smallest number of rows in a log. If there are fewer lines, each state of a redrawn line counts as a row."""

DECIMAL_COMMA_NOTES = ("commas in numbers are read as decimal commas",)


class Table(NamedTuple):
    """The numbers in a file.

    Attributes:
        lines: the numbers of each row by name, in order.
        percent: the names whose numbers have a per cent sign.
        notes: the decisions about the text, one sentence each.
    """

    lines: list[Flat]
    percent: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def read_text(path: Path) -> str:
    """The text of a file without terminal escape sequences.

    The encoding is that of the byte order mark, or else UTF-8, or else Latin-1.

    Raises:
        DataError: the file can't be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror or error}", where=str(path)) from None
    mark, encoding = next(((mark, name) for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), (b"", "utf-8"))
    body = data[len(mark) :]
    if not mark and len(body) > 1 and 0 in (any(body[0:40:2]), any(body[1:40:2])) and any(body[:40]):
        encoding = "utf-16-be" if body[0] == 0 else "utf-16-le"  # every other byte is 0: UTF-16 without its mark
    try:
        text = body.decode(encoding, errors="strict" if encoding == "utf-8" else "replace")
    except UnicodeDecodeError:
        text = body.decode("latin-1")
    return ESCAPES.sub("", text.replace("\0", "")).replace("\ufeff", "")


def split_lines(text: str) -> list[str]:
    """The lines as the terminal shows them: of a line that was redrawn, such as a progress bar, the last state.

    If fewer than `MIN_ROWS` of these lines have numbers, the log is a single progress bar, and each state is a line.
    """
    text = re.sub(r"\x08+", "\r", text.replace("\r\n", "\n"))
    final = [next((part for part in reversed(line.split("\r")) if part.strip()), "") for line in text.split("\n")]
    if sum(any(True for _ in find_pairs(line)) for line in final) >= MIN_ROWS or "\r" not in text:
        return final
    return [line for line in re.split(r"[\r\n]+", text) if line.strip()]


def read_table(path: Path) -> Table:
    """Read a CSV or TSV (by its suffix), JSON (by its first character), or else names and numbers in lines of text."""
    text = read_text(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        return parse_csv(text, path)
    if text.lstrip()[:1] in ("{", "["):
        rows = [dict(flatten(row, "")) for row in parse_json_objects(text)]
        if any(rows):
            return Table(rows)
    return parse_lines(text)


def parse_csv(text: str, path: Path) -> Table:
    """Parse a table with a header; cells that are not numbers are ignored."""
    lines = [line for line in text.splitlines() if line.strip()]
    delimiter = max(",;\t", key=(lines[0] if lines else "").count)
    decimal_comma = delimiter != "," and any(
        re.search(r"(?:^|[;\t])\s*\"?[-+]?(?:0|\d{4,}),\d", line) for line in lines[1:]
    )
    rows: list[Flat] = []
    percent: set[str] = set()
    try:
        for line in csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True):
            cells = {name.strip(): cell.strip() for name, cell in line.items() if name and isinstance(cell, str)}
            percent |= {name for name, cell in cells.items() if cell.endswith("%")}
            numbers = {name: parse_number(cell.removesuffix("%"), decimal_comma) for name, cell in cells.items()}
            rows.append({name: number for name, number in numbers.items() if number is not None})
    except csv.Error as error:
        raise DataError(f"not a readable table: {error}", where=str(path)) from None
    return Table(rows, frozenset(percent), DECIMAL_COMMA_NOTES if decimal_comma else ())


def parse_number(cell: str, decimal_comma: bool = False) -> float | None:
    """The number in a cell, or None; it may have a decimal comma or grouped digits, or be printed by a library."""
    cell = WRAPPED.sub(r"\1", cell.strip())
    try:
        return float(cell.replace(",", ".") if decimal_comma else GROUPED.sub(_remove_commas, cell))
    except ValueError:
        return None


def parse_json_objects(text: str) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON document, or of lines with one object each; an array may be unterminated.

    A document may also be an object of columns, `{"d_loss": [...], "g_loss": [...]}`, or contain such rows or columns
    in one of its entries.
    """
    try:
        document = json.loads(text)
    except ValueError:
        for line in text.splitlines():
            try:
                row = json.loads(line.strip().removeprefix("[").rstrip(","))
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row
        return
    yield from _rows_of(document)


def _rows_of(document: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(document, list):
        yield from (row for row in document if isinstance(row, dict))
    elif isinstance(document, dict):
        columns = {name: cells for name, cells in document.items() if isinstance(cells, list)}
        rows = next((cells for cells in columns.values() if cells and isinstance(cells[0], dict)), None)
        inner = next((value for value in document.values() if isinstance(value, dict) and _has_columns(value)), None)
        if rows is not None:
            yield from _rows_of(rows)
        elif _has_columns(document):
            for index in range(max(map(len, columns.values()))):
                yield {name: cells[index] for name, cells in columns.items() if index < len(cells)}
        elif inner is not None:
            yield from _rows_of(inner)
        else:
            yield document


def _has_columns(document: Mapping[str, Any]) -> bool:
    """Whether some entry is a list of numbers that is long enough to be a curve."""
    lists = (cells for cells in document.values() if isinstance(cells, list))
    return any(len(cells) >= MIN_ROWS and not isinstance(cells[0], list | dict) for cells in lists)


def flatten(row: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    """The numbers of a nested object, named by path; an object with a `mean` counts as this number."""
    for name, value in row.items():
        if isinstance(value, dict):
            inner = {"": value["mean"]} if "mean" in value else value
            yield from flatten(inner, f"{prefix}{name}/" if "mean" not in value else f"{prefix}{name}")
        else:
            try:
                yield f"{prefix}{name}", decode_number(value)
            except ValueError:
                continue


def parse_lines(text: str) -> Table:
    """Parse all pairs of a name and a number in each line; names of several words are not shortened."""
    lines = split_lines(text)
    decimal_comma = any(map(DECIMAL_COMMA.search, lines)) and not any(
        re.search(r"[:=]\s*[-+]?\d+\.\d", line) for line in lines
    )
    rows: list[Flat] = []
    percent: set[str] = set()
    for line in lines:
        line = WRAPPED.sub(r"\1", line)
        line = re.sub(r"(?<=\d),(?=\d)", ".", line) if decimal_comma else GROUPED.sub(_remove_commas, line)
        pairs = list(find_pairs(line))
        percent |= {name for name, _, sign in pairs if sign}
        rows.append({name: float(number) for name, number, _ in pairs})
    return Table(rows, frozenset(percent), DECIMAL_COMMA_NOTES if decimal_comma else ())


def find_pairs(line: str) -> Iterator[tuple[str, str, str]]:
    """Each name with its number, and the per cent sign after the number or an empty string."""
    end = 0
    for match in VALUE.finditer(line):
        name = NAME.search(line[max(end, match.start() - MAX_NAME_LENGTH) : match.start()])
        if name is not None:
            end = match.end()
            yield name[1].strip(" -"), match[1], match[2] or ""


def _remove_commas(match: re.Match[str]) -> str:
    return match[1].replace(",", "")
