"""Interpretation of the columns of other trainers' logs: from their names to the metric names of `rows.jsonl`.

If a name is not enough (D's loss in two parts, an accuracy in per cent, steps that restart), each decision is recorded
as a note. A column that can't be interpreted is ignored, or refused if it was requested.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable, Mapping
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

from poise.core.config import did_you_mean
from poise.core.metrics_log import Stat
from poise.errors import DataError, RecipeError
from poise.watch.column_names import (
    ADVERSARIAL_COLUMNS,
    BARE_PARTS,
    BARE_STEP_COLUMNS,
    EPOCH_COLUMNS,
    KNOWN_COLUMNS,
    LETTER_COLUMNS,
    LOSS_PARTS,
    PART_COLUMNS,
    SHORT_NAMES,
    STEP_COLUMNS,
    is_step,
    keys_of,
    normalize_name,
    quantity_of,
)
from poise.watch.loss_conventions import class_loss_among, parts_are_summed, recognise_trainer, starts_as_a_sum
from poise.watch.resumed_rows import Numbers, is_measured_only
from poise.watch.step_column import ends_within_a_line, fill_column, is_newest_first, join_lines, order_by_step
from poise.watch.text_tables import CUT_NOTE, MIN_ROWS, Flat, Table

FRACTIONS = ("d/accuracy", "d/real_accuracy", "d/fake_accuracy")
"""Metrics between 0 and 1 that other trainers may log in per cent."""


class MappedTable(NamedTuple):
    """A log in terms of the metrics of `rows.jsonl`.

    Attributes:
        rows: the step and the metrics of each row, in order.
        notes: the decisions about the log, one sentence each.
        columns: what `step` and each metric were read from.
    """

    rows: list[tuple[int, Numbers]]
    notes: list[str]
    columns: dict[str, str]


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


def map_columns(table: Table, columns: Mapping[str, str], where: str, is_sum: bool | None = None) -> MappedTable:
    """Convert a table with the log's column names to rows of metrics.

    Args:
        table: the table as it was read.
        columns: the columns for `step` and for metrics, by short or full name. Columns joined by + are averaged; a
            trailing % declares the numbers to be per cent.
        where: the log, for error messages.
        is_sum: whether D's loss is the sum of that on real and on fake samples; None to guess.

    Raises:
        DataError: the table has no numbers, commas in a column can't be understood, or no line has all parts of a loss.
        RecipeError: a requested column does not exist, or no column is a loss or a measure.
    """
    lines = [line for line in table.lines if line]
    names = list(dict.fromkeys(name for line in lines for name in line))
    if not lines:
        what = "no line contains a number with a name, such as d_loss: 0.69"
        raise DataError(what, where=where, cure="for text, pass --pattern")
    notes = list(table.notes)
    requested = {SHORT_NAMES.get(name, name): _requested_column(column, names) for name, column in columns.items()}
    guessed = _guess_columns(names, requested, notes)
    selected = {name: column for name, column in (guessed | requested).items() if name != "step"}
    if not _has_loss_or_measure(selected):
        cure = f"name them with --columns d=...,g=...; the columns are {', '.join(names[:12])}"
        raise RecipeError("no column is recognised as a loss of D or G", where=where, cure=cure)
    for column in selected.values():
        if unclear := table.unclear & set(column.names):
            raise DataError(
                f"the commas in {min(unclear)} may be decimal commas or separate thousands",
                where=where,
                cure="write its numbers with a decimal point",
            )
    step = requested["step"].names[0] if "step" in requested else _find_step(names, lines)
    epoch = _find_column(EPOCH_COLUMNS, names)
    used = {name for column in selected.values() for name in column.names}
    if table.may_be_cut and ends_within_a_line(lines, step):
        lines.pop()
        notes.append(CUT_NOTE)
    if is_newest_first(lines, step):
        lines.reverse()
        notes.append(f"{step} decreases from line to line: the log is read from its end")
    fill_column(lines, step, used)
    lines = join_lines(lines, step, used.union(*_loss_parts(names).values()))
    selected = _without_unknown_means(selected, requested, lines, where, notes)
    for name in [name for name in FRACTIONS if name in selected]:
        if selected[name].offset:
            continue
        factor = _fraction_factor(name, selected[name], lines, table.percent, name in requested, notes)
        selected[name] = selected[name]._replace(factor=factor)
    selected = {name: column for name, column in selected.items() if column.factor}
    if "d/adversarial" not in selected:
        notes.append("D's loss was not found, so its detectors are inactive; name its column with --columns d=...")
    elif (reason := _reason_to_halve(selected, lines, names, is_sum)) is not None:
        trainer = recognise_trainer(names) if is_sum is None else None
        of_both = trainer is not None and not trainer.is_sum
        for name in ("d/adversarial", "g/adversarial") if of_both else ("d/adversarial",):
            if name in selected:
                selected[name] = selected[name]._replace(factor=0.5)
        subject = "the losses of D and G are" if of_both else "D's loss is"
        notes.append(f"{subject} halved: {reason}")
    if "d/adversarial" in selected and len(selected["d/adversarial"].names) == 1:
        class_loss = class_loss_among(names)
        if class_loss is not None and normalize_name(selected["d/adversarial"].names[0]) not in ADVERSARIAL_COLUMNS:
            notes.append(
                f"D's loss may include a class loss, as there is a column {class_loss}; if the adversarial loss alone "
                "has a column, name it with --columns d=..."
            )
    rows = [
        (line, {name: Stat.of(value) for name, column in selected.items() if (value := column.value(line)) is not None})
        for line in lines
    ]
    rows = _without_impossible_fids([(line, numbers) for line, numbers in rows if numbers], notes)
    rows = _without_repeated_measures(_without_missing_values(rows, notes), notes)
    if not rows:
        raise DataError(
            "has no loss, and no FID above 0", where=where, cure="name the losses with --columns d=...,g=..."
        )
    ordered = _without_untrained_d(order_by_step(rows, step, epoch, notes), notes)
    described = {name: column.description for name, column in selected.items()}
    return MappedTable(ordered, notes, {"step": step or "counted rows"} | described)


def _has_loss_or_measure(selected: Iterable[str]) -> bool:
    return any(name in ("d/adversarial", "g/adversarial") or name.startswith("measure/") for name in selected)


def _without_unknown_means(
    selected: Mapping[str, Column], requested: Container[str], lines: list[Flat], where: str, notes: list[str]
) -> dict[str, Column]:
    """The selected metrics but the means of several columns that no line has all of; notes on those that are guessed.

    Raises:
        DataError: no loss and no measure is left.
        RecipeError: such a mean was requested.
    """
    known: dict[str, Column] = {}
    for name, column in selected.items():
        label = " and ".join(column.names)
        if any(column.value(line) is not None for line in lines):
            known[name] = column
            if len(column.names) > 1 and name not in requested:
                notes.append(f"{_loss_title(name)} is taken to be the mean of {label}")
            continue
        unknown = f"{label} are never logged in the same line or step"
        if name in requested:
            raise RecipeError(unknown, where="--columns", found=f"'{'+'.join(column.names)}'")
        notes.append(f"{unknown}, so their mean can't be computed")
    if not _has_loss_or_measure(known):
        raise DataError(notes[-1], where=where, cure="log the step in each line, or all losses in one line")
    return known


def _reason_to_halve(
    selected: Mapping[str, Column], lines: list[Flat], names: list[str], is_sum: bool | None
) -> str | None:
    """Why D's loss is twice that of the detectors; None if it is taken to be the same."""
    column = selected["d/adversarial"]
    if is_sum is not None:
        return "it is the sum of that on real and on fake samples (--sum)" if is_sum else None
    trainer = recognise_trainer(names)
    if len(column.names) != 1 and (trainer is None or trainer.is_sum):
        return None
    if len(parts := _loss_parts(names).get(("d", "real", "fake"), ())) == 2:
        summed = parts_are_summed(lines, column.names[0], parts)
        if summed is not None:
            return f"it is the sum of {parts[0]} and {parts[1]}" if summed else None
    losses = {
        side: [value for line in lines if (value := selected[f"{side}/adversarial"].value(line)) is not None]
        for side in "dg"
        if f"{side}/adversarial" in selected
    }
    if sum(loss < 0 for loss in losses["d"]) > 0.05 * len(losses["d"]):
        return None  # a critic, whose loss has no scale
    if trainer is not None:
        return trainer.reason
    if starts_as_a_sum(losses["d"], losses.get("g", [])):
        return (
            "it starts near 2 ln 2 and G's near ln 2, as the sum on real and on fake samples does "
            "(otherwise pass --no-sum)"
        )
    return None


def _without_impossible_fids(rows: list[tuple[Flat, Numbers]], notes: list[str]) -> list[tuple[Flat, Numbers]]:
    """The rows without FIDs of 0 or less, which stand where none was measured; KID, an unbiased estimate, may be."""
    fid = "measure/fid"
    found = [numbers for _, numbers in rows if fid in numbers and -math.inf < numbers[fid].mean <= 0]
    if found:
        what = f"{len(found):,} values of fid that are 0 or less"
        notes.append(f"{what} are taken for rows in which it was not measured")
    for numbers in found:
        del numbers[fid]
    return [(line, numbers) for line, numbers in rows if numbers]


def _without_missing_values(rows: list[tuple[Flat, Numbers]], notes: list[str]) -> list[tuple[Flat, Numbers]]:
    """The rows without values that are NaN where a metric was not logged, as pandas writes them.

    These are NaN values that are followed by a finite one, and as many at the end as there are between two finite ones.
    If there are more at the end, all those are kept: that run has diverged. So are all NaN values of a metric that has
    no others, unless it is a measure beside losses.
    """
    for name in sorted({name for _, numbers in rows for name in numbers}):
        is_measure = name.startswith("measure/")
        values = [
            (index, numbers[name].mean)
            for index, (_, numbers) in enumerate(rows)
            if name in numbers and not (is_measure and is_measured_only(numbers))
        ]
        logged = [count for count, (_, value) in enumerate(values) if math.isfinite(value)]
        if len(logged) == len(values) or (not logged and not is_measure):
            continue
        bounds = logged if len(logged) > 1 else [-1, *logged]
        longest_gap = max((b - a - 1 for a, b in pairwise(bounds)), default=len(values))
        last = logged[-1] if logged else -1
        known = values if len(values) - 1 - last <= longest_gap else values[: last + 1]
        missing = [index for index, value in known if math.isnan(value)]
        if missing:
            what, verb = (name.partition("/")[2], "measured") if is_measure else (_loss_title(name), "logged")
            notes.append(
                f"{len(missing):,} values of {what} that are NaN are taken for rows in which it was not {verb}"
            )
        for index in missing:
            del rows[index][1][name]
    return [(line, numbers) for line, numbers in rows if numbers]


def _loss_title(name: str) -> str:
    """`D's loss` for `d/adversarial`; other names as they are."""
    return f"{name[0].upper()}'s loss" if name in ("d/adversarial", "g/adversarial") else name


def _without_repeated_measures(rows: list[tuple[Flat, Numbers]], notes: list[str]) -> list[tuple[Flat, Numbers]]:
    """The rows without measures that are repeated from the row before, as lightweight-gan prints the last FID."""
    for name in sorted({name for _, numbers in rows for name in numbers if name.startswith("measure/")}):
        values = [(index, numbers[name].mean) for index, (_, numbers) in enumerate(rows) if name in numbers]
        repeated = [b for (_, before), (b, after) in pairwise(values) if before == after]
        if len(repeated) <= 0.5 * len(values):
            continue
        notes.append(
            f"{len(repeated):,} repeated values of {name.partition('/')[2]} are taken for the last measurement"
        )
        for index in repeated:
            del rows[index][1][name]
    return [(line, numbers) for line, numbers in rows if numbers]


def _without_untrained_d(rows: list[tuple[int, Numbers]], notes: list[str]) -> list[tuple[int, Numbers]]:
    """The rows without the losses from before D is trained, where VQGAN logs 0 for D's loss.

    This is assumed if D's loss is exactly 0 in the first four rows or more, and never again after them.
    """
    losses = [numbers["d/adversarial"].mean for _, numbers in rows if "d/adversarial" in numbers]
    count = next((index for index, loss in enumerate(losses) if loss != 0), 0)
    if count < MIN_ROWS or 0 in losses[count:]:
        return rows
    steps = [step for step, numbers in rows if "d/adversarial" in numbers]
    until = f"D's loss is exactly 0 before step {steps[count]:,}"
    notes.append(f"{until}, as if D were not trained yet: the losses there are left out")
    kept = [
        (step, {n: stat for n, stat in numbers.items() if step >= steps[count] or not n.endswith("/adversarial")})
        for step, numbers in rows
    ]
    return [(step, numbers) for step, numbers in kept if numbers]


class Column(NamedTuple):
    """A metric: the mean of some columns, times a factor, plus an offset; the factor 0 marks a column to be ignored."""

    names: tuple[str, ...]
    factor: float = 1.0
    percent: bool = False
    offset: float = 0.0

    @property
    def description(self) -> str:
        """What the metric is read from: `D_A + D_B, averaged`, `Loss_D, halved`."""
        joined = " + ".join(self.names)
        parts = [joined, *(["averaged"] if len(self.names) > 1 else [])]
        factors = {0.5: "halved", 0.01: "in per cent"}
        if self.offset:
            parts.append("its mean sign r_t as a fraction")
        elif self.factor in factors:
            parts.append(factors[self.factor])
        return ", ".join(parts)

    def value(self, line: Flat) -> float | None:
        """The metric in a line, or None if the line lacks one of the columns."""
        if not all(name in line for name in self.names):
            return None
        mean = line[self.names[0]] if len(self.names) == 1 else fmean(line[name] for name in self.names)
        return self.factor * mean + self.offset


def _find_column(keys: Iterable[str], names: list[str]) -> str | None:
    """The column with the first of these normalised names; the end of a path counts only if no whole name does."""
    matches = [
        (normalize_name(name) != key, place, name)
        for place, key in enumerate(keys)
        for name in names
        if is_step(name, key)
    ]
    return min(matches, key=lambda match: match[:2])[2] if matches else None


def _find_step(names: list[str], lines: list[Flat]) -> str | None:
    """The column of the step, which is not the same in all lines."""
    left = list(names)
    while (found := _find_column((*STEP_COLUMNS, *BARE_STEP_COLUMNS), left)) is not None and _is_constant(lines, found):
        left.remove(found)
    return found


def _is_constant(lines: list[Flat], name: str) -> bool:
    """Whether a column has the same number in four lines or more, as a batch size or a number of steps to be done."""
    values = [line[name] for line in lines if name in line]
    return len(values) >= MIN_ROWS and len(set(values)) == 1


def _guess_columns(names: list[str], requested: Mapping[str, Column], notes: list[str]) -> dict[str, Column]:
    """The metrics that the column names indicate: total losses first, then losses in parts, then one-letter names."""
    last_first = list(reversed(names))  # of columns with the same meaning the last one in this order is used
    ordered = sorted(last_first, key=lambda name: name.lower().endswith("_step"))
    found = {SHORT_NAMES[key]: _column_of(name, key) for name in ordered if (key := quantity_of(name)) is not None}
    known = {name: KNOWN_COLUMNS[key] for name in names if (key := normalize_name(name)) in KNOWN_COLUMNS}
    found |= {SHORT_NAMES[key]: _column_of(name, key) for name, key in reversed(known.items())}
    alone = {name: key for name in names for key in keys_of(name) if key in ADVERSARIAL_COLUMNS}
    found |= {f"{ADVERSARIAL_COLUMNS[key]}/adversarial": Column((name,)) for name, key in reversed(alone.items())}
    found |= {
        name: Column((name,))
        for name in names
        if name in SHORT_NAMES.values() or name.startswith(("g/", "d/", "measure/"))
    }
    for (side, *_), both in _loss_parts(names).items():
        if f"{side}/adversarial" not in {*found, *requested}:
            found[f"{side}/adversarial"] = Column(both)
    letters = {LETTER_COLUMNS[key]: name for name in reversed(names) if (key := normalize_name(name)) in LETTER_COLUMNS}
    if len(letters) == 2 and not {"d/adversarial", "g/adversarial"} & {*found, *requested}:
        found |= {f"{side}/adversarial": Column((name,)) for side, name in letters.items()}
        notes.append("the columns D and G are taken to be the losses of D and G")
    return found


def _column_of(name: str, quantity: str) -> Column:
    """The column of a quantity; r_t, the mean sign of D's scores, becomes the share of positive ones, (1 + r_t) / 2."""
    return Column((name,), factor=0.5, offset=0.5) if quantity == "r_t" else Column((name,))


def _loss_parts(names: list[str]) -> dict[tuple[str, str, str], tuple[str, ...]]:
    """The two columns of each loss in parts, by player and labels."""
    keys = {name: [key for key in keys_of(name) if key in PART_COLUMNS] for name in reversed(names)}
    ordered = sorted(keys, key=lambda name: not BARE_PARTS.issuperset(keys[name]))
    parts = {PART_COLUMNS[key]: name for name in ordered for key in keys[name]}
    return {
        (side, labels[0], labels[1]): (parts[side, labels[0]], parts[side, labels[1]])
        for side, labels in LOSS_PARTS
        if all((side, label) in parts for label in labels)
    }


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
