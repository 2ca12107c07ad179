"""Reading text logs: common encodings, lines as a terminal shows them, names and numbers in lines.

A file becomes rows of names and numbers (`Flat`). The meaning of the names is determined in `columns.py`.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from poise.errors import DataError
from poise.watch.column_names import STEP_COLUMNS, is_known, normalize_name, shorten_name
from poise.watch.number_formats import TOKEN, WRAPPED, Separator, decimal_separator, is_grouped, parse_number

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

VALUE = re.compile(rf"[:=]\s*['\"]?({TOKEN})(\s?%)?", re.IGNORECASE)
NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_./() -]*?)['\"]?\s*$")
MAX_NAME_LENGTH = 100
"""A name and its number in a line of text: `Loss_D: 0.69`, `[G loss: 1.2]`, `d_loss=0.5`, `'d_loss': 0.5`. The number
is searched first, then the name in a bounded number of characters before it, so that the time is linear in the length
of the line."""

_WORD = r"[A-Za-z_][\w/()]{0,40}"
SPACED = re.compile(rf"(?<![\w.])((?:{_WORD} ){{0,2}}{_WORD})[ \t]{{1,20}}({TOKEN})(\s?%)?", re.IGNORECASE)
"""A name and its number without a sign between them, `d_loss 0.69`, `fid50k 35.1`. They are read in a text without
other pairs, and only if the name is known."""

COUNTER = re.compile(r"\[\s{0,9}(?:([A-Za-z]{1,12}):?\s{1,9})?(\d{1,9})\s{0,9}(?:/\s{0,9}(\d{1,9})\s{0,9})?\]")
SNAPSHOT = re.compile(r"network-snapshot-(\d{1,9})\b")
"""The network that StyleGAN has measured, in its logs and `metric-*` files; its number is thousands of images."""

COUNTED_STEP = "epoch and batch"
"""Counters in brackets, `[3/25][50/1583]` or `[Epoch 3/200] [Batch 50/938]`, and the column made of them: the number of
epochs times the number of batches, plus the batch."""

STEP_COUNTER = re.compile(r"\b(step|iter|iters|iteration|itr):?\s{0,9}\[\s{0,9}(\d{1,9})/\d{1,9}\]", re.IGNORECASE)
"""A step in brackets, in a line without an epoch: `Iteration [50/2000]`."""

SPACED_STEP = re.compile(
    r"(?<![\w.-])(epoch|(?:global |train |training )?step|steps|iter|iters|iteration|iterations|itr|batch)[ \t]{1,3}#?"
    r"(\d{1,12})(?![\w%]|[.,:]\d)",
    re.IGNORECASE,
)
"""A step or an epoch without a sign before its number, in a line that has pairs: `Step 50 | d_loss: 0.7`."""

BRACKETED = re.compile(
    r"([:=]\s{0,9})\[\s{0,9}([-+]?(?:\d{0,20}\.\d{1,20}(?:e[-+]?\d{1,9})?|\d{1,20}e[-+]?\d{1,9}))\s{0,9}\]",
    re.IGNORECASE,
)
"""A number with a point or an exponent in brackets, which is no counter: `D/latent_real: [0.6931]`."""

EVALUATION_LINE = re.compile(r"\W{0,9}(?:samples?|val|valid|validation|test|eval|evaluation)\b", re.IGNORECASE)
"""Lines such as DCGAN-tensorflow's `[Sample] d_loss: ...`, whose losses are not those of a training step."""

CONDITION = re.compile(r"\s\(([^()]{1,80}[:=][^()]{1,80})\)(\s{0,9}[:=]\s{0,9}\S{1,40})")
"""Names with pairs in brackets: `FID score (Step: 2000, Using valid moments): 45.3`."""

MIN_ROWS = 4
"""The smallest number of rows in a log. If there are fewer lines, each state of a redrawn line counts as a row."""

DECIMAL_COMMA_NOTES = ("commas in numbers are read as decimal commas",)


class Table(NamedTuple):
    """The numbers in a file.

    Attributes:
        lines: the numbers of each row by name, in order.
        percent: the names whose numbers have a per cent sign.
        notes: the decisions about the text, one sentence each.
        unclear: the names of numbers such as 1,386, if nothing in the file tells what the comma means.
        may_be_cut: whether the last row is of a line without a newline, which may be incomplete.
        is_text: whether the names are those before numbers in lines of text, with other words before them.
    """

    lines: list[Flat]
    percent: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    unclear: frozenset[str] = frozenset()
    may_be_cut: bool = False
    is_text: bool = False


CUT_NOTE = "the last line is incomplete, as in a log that is being written, and is left out"


def is_unfinished(text: str) -> bool:
    """Whether the last line has no newline at its end."""
    return bool(text) and text[-1] not in "\r\n"


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


def parse_lines(text: str) -> Table:
    """Parse all pairs of a name and a number in each line; names of several words are not shortened.

    Names in lines of an evaluation begin with `val/`.
    """
    lines = [BRACKETED.sub(r"\1\2", WRAPPED.sub(r"\1", line)) for line in split_lines(text)]
    lines = [CONDITION.sub(r"\2 \1", line) for line in lines]
    found = [list(find_pairs(line)) for line in lines]
    if not any(found):
        found = [list(find_spaced_pairs(line)) for line in lines]
    separator = decimal_separator(number for pairs in found for _, number, _ in pairs)
    rows: list[Flat] = []
    percent: set[str] = set()
    unclear: set[str] = set()
    for line, pairs in zip(lines, found, strict=True):
        prefix = "val/" if EVALUATION_LINE.match(line) else ""
        values = {prefix + name: parse_number(number, separator) for name, number, _ in pairs}
        percent |= {prefix + name for name, _, sign in pairs if sign}
        unclear |= {prefix + name for name, number, _ in pairs if separator == "unclear" and is_grouped(number)}
        row = {name: value for name, value in values.items() if value is not None}
        rows.append((_count_step(line) or _spaced_step(line, row)) | row if row and not prefix else row)
    may_be_cut = is_unfinished(text) and bool(rows[-1])
    return Table(rows, frozenset(percent), notes_on(separator), frozenset(unclear), may_be_cut, is_text=True)


def notes_on(separator: Separator) -> tuple[str, ...]:
    """The decision about the decimal separator."""
    return DECIMAL_COMMA_NOTES if separator == "," else ()


def find_pairs(line: str) -> Iterator[tuple[str, str, str]]:
    """Each name with its number, and the per cent sign after the number or an empty string."""
    end = 0
    for match in VALUE.finditer(line):
        name = NAME.search(line[max(end, match.start() - MAX_NAME_LENGTH) : match.start()])
        if name is not None:
            end = match.end()
            yield name[1].strip(" -"), match[1], match[2] or ""


def find_spaced_pairs(line: str) -> Iterator[tuple[str, str, str]]:
    """Each known name with the number after it, as `find_pairs` yields them; and the step of a snapshot of StyleGAN."""
    if (snapshot := SNAPSHOT.search(line)) is not None:
        yield "kimg", snapshot[1], ""
    for match in SPACED.finditer(line):
        if is_known(shorten_name(match[1])):
            yield match[1], match[2], match[3] or ""


def _spaced_step(line: str, row: Flat) -> Flat:
    """The step, and the epoch, that stand in a line without a sign; none if the line has a step with one."""
    if any(_is_step_name(name) for name in row):
        return {}
    found = {match[1].lower(): float(match[2]) for match in SPACED_STEP.finditer(line)}
    return found if found.keys() - {"epoch"} else {}


@lru_cache(maxsize=1024)
def _is_step_name(name: str) -> bool:
    return normalize_name(name.rsplit(" ", 1)[-1]) in STEP_COLUMNS


def _count_step(line: str) -> Flat:
    """The step by counters in brackets: `[3/25][50/1583]` is step 3 x 1583 + 50, `Iteration [50/2000]` is step 50."""
    step = STEP_COUNTER.search(line)
    counters = [(match[1] or "", int(match[2]), int(match[3] or 0)) for match in COUNTER.finditer(line)]
    if len(counters) < 2 or not counters[1][2]:
        return {} if step is None else {step[1]: float(step[2])}
    (_, epoch, _), (_, batch, batches), *_ = counters
    return {COUNTED_STEP: float(epoch * batches + batch)}
