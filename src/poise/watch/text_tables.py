"""Text of logs: bytes in any of the usual encodings, lines as a terminal shows them, numbers however they are printed.

Nothing here knows what a column means; it turns a file into rows of names and numbers (`Flat`).
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

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks; the longer ones first, as UTF-32's begins with UTF-16's."""

ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
"""Terminal codes: colours and cursor moves, titles and links, single characters (ECMA-48)."""

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?nan|[-+]?inf(?:inity)?"
WRAPPED = re.compile(
    r"(?:\b(?:\w+\.)*(?:tensor|array|float\d*|float_|int\d+|parameter|variable)\(|<tf\.Tensor:[^<>]{0,200}?numpy=)"
    rf"[\[\s]*({NUMBER})[\]\s]*(?:,(?:[^()]|\([^()]*\))*)?[)>]",
    re.IGNORECASE,
)
"""A scalar as a library prints it: `tensor(0.69, device='cuda:0')`, `np.float32(0.69)`, `array(0.69, dtype=int8)`."""

VALUE = re.compile(rf"[:=]\s*['\"]?({NUMBER})(\s?%)?(?![\w.])", re.IGNORECASE)
NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_./() -]*?)['\"]?\s*$")
LONGEST = 100
"""A name and its number in a line of text: `Loss_D: 0.69`, `[G loss: 1.2]`, `d_loss=0.5`, `'d_loss': 0.5`. The number
is looked for first, then its name in so many characters before it: time does not grow with the square of a line."""

DECIMAL_COMMA = re.compile(r"[:=]\s*[-+]?0,\d")
GROUPED = re.compile(r"(?<![\d.,])([1-9]\d{0,2}(?:,\d{3})+)(?![\d,])")
"""1,234 and 1,234,567.8: digits in groups of three. What begins with 0 is a decimal comma."""

REDRAWN = 4
"""Rows that make a log: with fewer lines, the states of a line that was redrawn are rows of their own."""


DECIMALS = ("commas in numbers are read as decimal commas",)


class Table(NamedTuple):
    """What was found in a file.

    Attributes:
        lines: numbers by name, in order.
        percent: names whose numbers stood before a per cent sign.
        notes: what was decided about the text, a sentence each.
    """

    lines: list[Flat]
    percent: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def read_text(path: Path) -> str:
    """The text of a file, by its mark, as UTF-8, or as Latin-1, without terminal codes.

    Raises:
        DataError: it can't be read.
    """
    try:
        found = path.read_bytes()
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror or error}", where=str(path)) from None
    mark, encoding = next(((mark, name) for mark, name in MARKS if found.startswith(mark)), (b"", "utf-8"))
    body = found[len(mark) :]
    if not mark and len(body) > 1 and 0 in (any(body[0:40:2]), any(body[1:40:2])) and any(body[:40]):
        encoding = "utf-16-be" if body[0] == 0 else "utf-16-le"  # every other byte is 0: the mark was cut off
    try:
        text = body.decode(encoding, errors="strict" if encoding == "utf-8" else "replace")
    except UnicodeDecodeError:
        text = body.decode("latin-1")
    return ESCAPES.sub("", text.replace("\0", "")).replace("\ufeff", "")


def lines_of(text: str) -> list[str]:
    """Lines as they were left on the screen: what a progress bar drew over itself is gone.

    A log of hardly any line that was never redrawn is one long bar: there each of its states is a line.
    """
    text = re.sub(r"\x08+", "\r", text.replace("\r\n", "\n"))
    last = [next((part for part in reversed(line.split("\r")) if part.strip()), "") for line in text.split("\n")]
    if sum(any(True for _ in pairs_of(line)) for line in last) >= REDRAWN or "\r" not in text:
        return last
    return [line for line in re.split(r"[\r\n]+", text) if line.strip()]


def read_table(path: Path) -> Table:
    """A CSV by its name; JSON, an object a line or one array, or else names and numbers in lines, by its first sign."""
    text = read_text(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        return parse_csv(text, path)
    if text.lstrip()[:1] in ("{", "["):
        found = [dict(flatten(told, "")) for told in parse_json_objects(text)]
        if any(found):
            return Table(found)
    return parse_lines(text)


def parse_csv(text: str, path: Path) -> Table:
    """A header, then numbers; cells that are none are passed over."""
    lines = [line for line in text.splitlines() if line.strip()]
    mark = max(",;\t", key=(lines[0] if lines else "").count)
    comma = mark != "," and any(re.search(r"(?:^|[;\t])\s*\"?[-+]?(?:0|\d{4,}),\d", line) for line in lines[1:])
    found: list[Flat] = []
    percent: set[str] = set()
    try:
        for line in csv.DictReader(lines, delimiter=mark, skipinitialspace=True):
            cells = {name.strip(): cell.strip() for name, cell in line.items() if name and isinstance(cell, str)}
            percent |= {name for name, cell in cells.items() if cell.endswith("%")}
            read = {name: parse_number(cell.removesuffix("%"), comma) for name, cell in cells.items()}
            found.append({name: told for name, told in read.items() if told is not None})
    except csv.Error as error:
        raise DataError(f"not a table that can be read: {error}", where=str(path)) from None
    return Table(found, frozenset(percent), DECIMALS if comma else ())


def parse_number(cell: str, comma: bool = False) -> float | None:
    """The number in a cell; with a decimal comma, or digits in groups of three, or as a library prints it."""
    cell = WRAPPED.sub(r"\1", cell.strip())
    try:
        return float(cell.replace(",", ".") if comma else GROUPED.sub(_joined, cell))
    except ValueError:
        return None


def parse_json_objects(text: str) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON document, or of lines that are one each, in an array that is not closed yet too.

    A document may also be an object of columns, `{"d_loss": [...], "g_loss": [...]}`, or hold such rows or columns in
    one of its entries.
    """
    try:
        told = json.loads(text)
    except ValueError:
        for line in text.splitlines():
            try:
                one = json.loads(line.strip().removeprefix("[").rstrip(","))
            except ValueError:
                continue
            if isinstance(one, dict):
                yield one
        return
    yield from _rows_of(told)


def _rows_of(told: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(told, list):
        yield from (one for one in told if isinstance(one, dict))
    elif isinstance(told, dict):
        columns = {name: cells for name, cells in told.items() if isinstance(cells, list)}
        rows = next((cells for cells in columns.values() if cells and isinstance(cells[0], dict)), None)
        inner = next((part for part in told.values() if isinstance(part, dict) and _has_columns(part)), None)
        if rows is not None:
            yield from _rows_of(rows)
        elif _has_columns(told):
            for place in range(max(map(len, columns.values()))):
                yield {name: cells[place] for name, cells in columns.items() if place < len(cells)}
        elif inner is not None:
            yield from _rows_of(inner)
        else:
            yield told


def _has_columns(told: Mapping[str, Any]) -> bool:
    """Whether some entry is a list of numbers long enough to be a curve."""
    lists = (cells for cells in told.values() if isinstance(cells, list))
    return any(len(cells) >= REDRAWN and not isinstance(cells[0], list | dict) for cells in lists)


def flatten(told: Mapping[str, Any], root: str) -> Iterator[tuple[str, float]]:
    """Numbers within objects get names by path, and `mean` stands for its object."""
    for name, value in told.items():
        if isinstance(value, dict):
            inner = {"": value["mean"]} if "mean" in value else value
            yield from flatten(inner, f"{root}{name}/" if "mean" not in value else f"{root}{name}")
        else:
            try:
                yield f"{root}{name}", decode_number(value)
            except ValueError:
                continue


def parse_lines(text: str) -> Table:
    """Every pair of a name and a number in a line; a name of several words is left as it stands."""
    lines = lines_of(text)
    comma = any(map(DECIMAL_COMMA.search, lines)) and not any(re.search(r"[:=]\s*[-+]?\d+\.\d", line) for line in lines)
    found: list[Flat] = []
    percent: set[str] = set()
    for line in lines:
        line = WRAPPED.sub(r"\1", line)
        line = re.sub(r"(?<=\d),(?=\d)", ".", line) if comma else GROUPED.sub(_joined, line)
        pairs = list(pairs_of(line))
        percent |= {name for name, _, sign in pairs if sign}
        found.append({name: float(told) for name, told, _ in pairs})
    return Table(found, frozenset(percent), DECIMALS if comma else ())


def pairs_of(line: str) -> Iterator[tuple[str, str, str]]:
    """Names, numbers, and the per cent sign or nothing behind each."""
    end = 0
    for found in VALUE.finditer(line):
        name = NAME.search(line[max(end, found.start() - LONGEST) : found.start()])
        if name is not None:
            end = found.end()
            yield name[1].strip(" -"), found[1], found[2] or ""


def _joined(found: re.Match[str]) -> str:
    return found[1].replace(",", "")
