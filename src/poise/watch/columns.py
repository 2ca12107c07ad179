"""Interpretation of the columns of other trainers' logs: from their names to the metric names of `rows.jsonl`.

If a name is not enough (D's loss in two parts, an accuracy in per cent, steps that restart), each decision is recorded
as a note. A column that can't be interpreted is ignored, or refused if it was requested.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import NamedTuple

from poise.core.config import did_you_mean
from poise.core.metrics_log import Stat
from poise.errors import DataError, RecipeError
from poise.watch.step_column import Numbers, order_by_step
from poise.watch.text_tables import Flat, Table

SHORT_NAMES = {
    "d": "d/adversarial",
    "g": "g/adversarial",
    "accuracy": "d/accuracy",
    "d_norm": "d/grad_norm",
    "g_norm": "g/grad_norm",
    "real": "d/real_score",
    "fake": "d/fake_score",
    "wasserstein": "d/wasserstein",
    "diversity": "g/diversity",
    "fid": "measure/fid",
    "kid": "measure/kid",
    "coverage": "measure/coverage",
}
"""The short names that `--columns` accepts beside the full names of metrics."""

_LOSS_FORMS = (
    "{s}loss",
    "loss{s}",
    "err{s}",
    "{s}err",
    "{s}errors",
    "{s}adversarial",
    "loss{s}loss",
    "{n}loss",
    "loss{n}",
)
KNOWN_COLUMNS = {form.format(s="d", n="discriminator"): "d" for form in _LOSS_FORMS}
KNOWN_COLUMNS |= {form.format(s="g", n="generator"): "g" for form in _LOSS_FORMS}
KNOWN_COLUMNS |= {"criticloss": "d", "losscritic": "d", "closs": "d", "lossc": "d", "disloss": "d", "discloss": "d"}
KNOWN_COLUMNS |= {"genloss": "g", "ggan": "g", "lossggan": "g"}
KNOWN_COLUMNS |= {"daccuracy": "accuracy", "dacc": "accuracy", "accd": "accuracy", "fid": "fid", "kid": "kid"}
KNOWN_COLUMNS |= {"dgradnorm": "d_norm", "gradnormd": "d_norm", "ggradnorm": "g_norm", "gradnormg": "g_norm"}
KNOWN_COLUMNS |= {"wassersteindistance": "wasserstein", "wasserstein": "wasserstein", "wdistance": "wasserstein"}
"""The short name for each known column name, which is normalised to lower-case letters and digits."""

LETTER_COLUMNS = {"d": "d", "g": "g"}
"""One-letter names. They are losses if both are present and no other column is a loss."""

_PART_FORMS = (
    "{s}loss{p}",
    "{s}{p}loss",
    "loss{s}{p}",
    "{s}{p}",
    "err{s}{p}",
    "{p}{s}loss",
    "{s}losson{p}",
    "{n}loss{p}",
    "loss{p}{s}",
)
PART_COLUMNS = {
    form.format(s="d", n="discriminator", p=part): ("d", origin)
    for form in _PART_FORMS
    for part, origin in (("real", "real"), ("fake", "fake"), ("r", "real"), ("f", "fake"))
    if len(part) > 1 or form in ("{s}loss{p}", "loss{s}{p}")
}
PART_COLUMNS |= {
    form.format(s=side, p=part): (side, part) for side in "dg" for part in "ab" for form in _PART_FORMS[:4]
}
"""The player and the part for each name of a partial loss: on real or fake samples, or of one of CycleGAN's pairs."""

LOSS_PARTS = (("d", ("real", "fake")), ("d", ("a", "b")), ("g", ("a", "b")))
"""The parts whose mean is the loss of a player."""

STEP_COLUMNS = (
    "step",
    "globalstep",
    "iteration",
    "iterations",
    "iter",
    "iters",
    "itr",
    "progresskimg",
    "kimg",
    "nimg",
    "tick",
)
EPOCH_COLUMNS = ("epoch", "epochs", "globalepoch")

FRACTIONS = ("d/accuracy", "d/real_accuracy", "d/fake_accuracy")
"""Metrics between 0 and 1 that other trainers may log in per cent."""


class MappedTable(NamedTuple):
    """A log in terms of the metrics of `rows.jsonl`.

    Attributes:
        rows: the step and the metrics of each row, in order.
        notes: the decisions about the log, one sentence each.
    """

    rows: list[tuple[int, Numbers]]
    notes: list[str]


def parse_columns(text: str) -> dict[str, str]:
    """Parse `step=iter,d=loss_D` into a dictionary.

    Raises:
        RecipeError: the text does not have this form, or names an unknown metric.
    """
    columns: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, column = (piece.strip() for piece in item.partition("="))
        if not equals or not name or not column:
            raise RecipeError("must be name=column, separated by commas", where="--columns", found=f"'{item}'")
        if name != "step" and name not in SHORT_NAMES and "/" not in name:
            cure = did_you_mean(name, ["step", *SHORT_NAMES])
            raise RecipeError("no such metric", where="--columns", found=f"'{name}'", cure=cure)
        columns[name] = column
    return columns


def normalize_name(name: str) -> str:
    """The letters and digits of a name, in lower case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def quantity_of(name: str) -> str | None:
    """The short name of the metric that a column holds, or None if the name is unknown.

    Of a path, the last component is looked up too; a prefix `train` and a suffix such as `epoch` or `mean` are ignored.
    Validation columns are not interpreted, because their losses form a separate curve.
    """
    if re.match(r"(val|valid|validation|test|eval)[_/ ]", name.lower()):
        return None
    bare = re.sub(r"^(train|training)[_/ ]|[_/ ](step|epoch|mean|avg)$", "", name, flags=re.IGNORECASE)
    keys = (normalize_name(form) for form in (bare, bare.rsplit("/", 1)[-1]))
    return next((KNOWN_COLUMNS[key] for key in keys if key in KNOWN_COLUMNS), None)


def shorten_name(name: str) -> str:
    """The end of a name of several words, if it is known: `d_loss` for `INFO epoch 3 d_loss`."""
    words = name.split()
    ends = [" ".join(words[start:]) for start in range(len(words))]
    known = {*KNOWN_COLUMNS, *PART_COLUMNS, *STEP_COLUMNS, *EPOCH_COLUMNS}
    return next((end for end in ends if normalize_name(end) in known), ends[0] if ends else name)


def map_columns(table: Table, columns: Mapping[str, str], where: str) -> MappedTable:
    """Convert a table with the log's column names to rows of metrics.

    Args:
        table: the table as it was read.
        columns: the columns for `step` and for metrics, by short or full name. Columns joined by + are averaged; a
            trailing % declares the numbers to be per cent.
        where: the log, for error messages.

    Raises:
        DataError: the table has no numbers.
        RecipeError: a requested column does not exist, or no column is a loss.
    """
    lines = [line for line in table.lines if line]
    names = list(dict.fromkeys(name for line in lines for name in line))
    if not lines:
        raise DataError("no line contains a number", where=where, cure="for text, pass --pattern")
    notes = list(table.notes)
    requested = {SHORT_NAMES.get(name, name): _requested_column(column, names) for name, column in columns.items()}
    guessed = _guess_columns(names, requested, notes)
    selected = {name: column for name, column in (guessed | requested).items() if name != "step"}
    if not {"d/adversarial", "g/adversarial"} & selected.keys():
        cure = f"name them with --columns d=...,g=...; the columns are {', '.join(names[:12])}"
        raise RecipeError("no column is recognised as a loss of D or G", where=where, cure=cure)
    for name in [name for name in FRACTIONS if name in selected]:
        factor = _fraction_factor(name, selected[name], lines, table.percent, name in requested, notes)
        selected[name] = selected[name]._replace(factor=factor)
    selected = {name: column for name, column in selected.items() if column.factor}
    if "d/adversarial" not in selected:
        notes.append("D's loss was not found, so its detectors are inactive; name its column with --columns d=...")
    rows = [
        (line, {name: Stat.of(value) for name, column in selected.items() if (value := column.value(line)) is not None})
        for line in lines
    ]
    rows = [(line, numbers) for line, numbers in rows if numbers]
    step = requested["step"].names[0] if "step" in requested else _find_column(STEP_COLUMNS, names)
    return MappedTable(order_by_step(rows, step, _find_column(EPOCH_COLUMNS, names), notes), notes)


class Column(NamedTuple):
    """A metric as the mean of some columns, times a factor; the factor 0 marks a column to be ignored."""

    names: tuple[str, ...]
    factor: float = 1.0
    percent: bool = False

    def value(self, line: Flat) -> float | None:
        """The metric in a line, or None if the line lacks one of the columns."""
        if not all(name in line for name in self.names):
            return None
        return self.factor * (line[self.names[0]] if len(self.names) == 1 else fmean(line[name] for name in self.names))


def _find_column(keys: Iterable[str], names: list[str]) -> str | None:
    return next((name for key in keys for name in names if normalize_name(name) == key), None)


def _guess_columns(names: list[str], requested: Mapping[str, Column], notes: list[str]) -> dict[str, Column]:
    """The metrics that the column names indicate: total losses first, then losses in parts, then one-letter names."""
    known = {name: KNOWN_COLUMNS[key] for name in names if (key := normalize_name(name)) in KNOWN_COLUMNS}
    found = {SHORT_NAMES[key]: Column((name,)) for name in reversed(names) if (key := quantity_of(name)) is not None}
    found |= {SHORT_NAMES[key]: Column((name,)) for name, key in reversed(known.items())}
    found |= {
        name: Column((name,))
        for name in names
        if name in SHORT_NAMES.values() or name.startswith(("g/", "d/", "measure/"))
    }
    parts = {PART_COLUMNS[key]: name for name in reversed(names) if (key := normalize_name(name)) in PART_COLUMNS}
    for side, labels in LOSS_PARTS:
        both = tuple(parts[side, label] for label in labels if (side, label) in parts)
        if f"{side}/adversarial" not in {*found, *requested} and len(both) == 2:
            found[f"{side}/adversarial"] = Column(both)
            notes.append(f"{side.upper()}'s loss is taken to be the mean of {both[0]} and {both[1]}")
    letters = {LETTER_COLUMNS[key]: name for name in reversed(names) if (key := normalize_name(name)) in LETTER_COLUMNS}
    if len(letters) == 2 and not {"d/adversarial", "g/adversarial"} & {*found, *requested}:
        found |= {f"{side}/adversarial": Column((name,)) for side, name in letters.items()}
        notes.append("the columns D and G are taken to be the losses of D and G")
    return found


def _requested_column(column: str, names: list[str]) -> Column:
    """What `--columns` requests: a column, several joined by +, or one in per cent."""
    if column in names:
        return Column((column,))
    percent, name = column.endswith("%"), column.removesuffix("%").strip()
    parts = (name,) if name in names else tuple(part.strip() for part in name.split("+"))
    for part in parts:
        if part not in names:
            raise RecipeError("no such column", where="--columns", found=f"'{part}'", cure=did_you_mean(part, names))
    return Column(parts, percent=percent)


def _fraction_factor(
    name: str, column: Column, lines: list[Flat], percent: frozenset[str], requested: bool, notes: list[str]
) -> float:
    """The factor that makes a column a fraction: 1, 0.01 for per cent, or 0 to ignore the column.

    Args:
        name: the metric.
        column: its column.
        lines: the rows of the log.
        percent: the columns whose numbers have a per cent sign in the log.
        requested: whether the column was requested; an unclear one is then an error.
        notes: the decision is appended here.
    """
    values = [value for line in lines if (value := column.value(line)) is not None and math.isfinite(value)]
    label = "+".join(column.names)
    named_percent = any("%" in part or re.search(r"perc|pct", part.lower()) for part in column.names)
    highest, all_integers = max(values, default=0.0), all(value == int(value) for value in values)
    not_negative = min(values, default=0.0) >= 0
    if column.percent or named_percent or percent & set(column.names):
        is_percent = highest <= 100
    elif highest <= 1 and not_negative:
        return 1.0
    else:  # integers below 100 may be counts of correctly classified images
        is_percent = 2 < highest <= 100 and (not all_integers or highest == 100)
    if is_percent and not_negative:
        notes.append(f"{label} is read as per cent")
        return 0.01
    reason = f"{label} is neither a fraction between 0 and 1 nor clearly per cent (its maximum is {highest:g})"
    if requested:
        cure = f"write {label}% if it is per cent"
        raise RecipeError(reason, where="--columns", found=f"'{label}'", cure=cure)
    short = next((short for short, full in SHORT_NAMES.items() if full == name), name)
    notes.append(f"{reason}, and is ignored: if it is per cent, pass --columns {short}={label}%")
    return 0.0
