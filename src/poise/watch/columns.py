"""What the columns of another trainer's log mean, told by their names; and their numbers by the names of `rows.jsonl`.

Where a name is not enough (D's loss in two parts, an accuracy in per cent, steps that begin anew), what was decided is
said in a sentence; where it can't be decided, the column is left out, or refused if it was asked for.
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
from poise.watch.step_column import Numbers, by_step
from poise.watch.text_tables import Flat, Table

SHORT = {
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
"""What `--columns` may call a quantity, beside its full name."""

_LOSS = ("{s}loss", "loss{s}", "err{s}", "{s}err", "{s}errors", "{s}adversarial", "loss{s}loss", "{n}loss", "loss{n}")
KNOWN = {form.format(s="d", n="discriminator"): "d" for form in _LOSS}
KNOWN |= {form.format(s="g", n="generator"): "g" for form in _LOSS}
KNOWN |= {"criticloss": "d", "losscritic": "d", "closs": "d", "lossc": "d", "disloss": "d", "discloss": "d"}
KNOWN |= {"genloss": "g", "ggan": "g", "lossggan": "g"}
KNOWN |= {"daccuracy": "accuracy", "dacc": "accuracy", "accd": "accuracy", "fid": "fid", "kid": "kid"}
KNOWN |= {"dgradnorm": "d_norm", "gradnormd": "d_norm", "ggradnorm": "g_norm", "gradnormg": "g_norm"}
KNOWN |= {"wassersteindistance": "wasserstein", "wasserstein": "wasserstein", "wdistance": "wasserstein"}
"""Column names that are understood, letters and digits only, in small letters."""

BARE = {"d": "d", "g": "g"}
"""Names of one letter, which are losses where both are there and nothing else is called a loss."""

_PART = (
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
PARTS = {
    form.format(s="d", n="discriminator", p=part): ("d", end)
    for form in _PART
    for part, end in (("real", "real"), ("fake", "fake"), ("r", "real"), ("f", "fake"))
    if len(part) > 1 or form in ("{s}loss{p}", "loss{s}{p}")
}
PARTS |= {form.format(s=side, p=end): (side, end) for side in "dg" for end in "ab" for form in _PART[:4]}
"""Names of the two parts of a player's loss: D's of reals and of fakes, and of CycleGAN's two pairs of players."""

PAIRS = (("d", ("real", "fake")), ("d", ("a", "b")), ("g", ("a", "b")))

STEPS = (
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
EPOCHS = ("epoch", "epochs", "globalepoch")

SHARES = ("d/accuracy", "d/real_accuracy", "d/fake_accuracy")
"""Quantities between 0 and 1 that others write in per cent."""


class MappedTable(NamedTuple):
    """Rows by our names, in order, and what was decided on the way."""

    rows: list[tuple[int, Numbers]]
    notes: list[str]


def parse_columns(words: str) -> dict[str, str]:
    """`step=iter,d=loss_D` as a table.

    Raises:
        RecipeError: it is not of that form, or names a quantity that is not known.
    """
    told: dict[str, str] = {}
    for word in filter(None, (part.strip() for part in words.split(","))):
        name, equals, column = (piece.strip() for piece in word.partition("="))
        if not equals or not name or not column:
            raise RecipeError("must be name=column, by commas", where="--columns", found=f"'{word}'")
        if name != "step" and name not in SHORT and "/" not in name:
            cure = did_you_mean(name, ["step", *SHORT])
            raise RecipeError("no such quantity", where="--columns", found=f"'{name}'", cure=cure)
        told[name] = column
    return told


def normalize_name(name: str) -> str:
    """Letters and digits, in small letters."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def quantity_of(name: str) -> str | None:
    """The quantity that a column's name stands for; of a path its last part, and without what the mean was taken over.

    A name of validation is none: its losses are another curve.
    """
    if re.match(r"(val|valid|validation|test|eval)[_/ ]", name.lower()):
        return None
    bare = re.sub(r"^(train|training)[_/ ]|[_/ ](step|epoch|mean|avg)$", "", name, flags=re.IGNORECASE)
    return next(
        (KNOWN[key] for form in (bare, bare.rsplit("/", 1)[-1]) if (key := normalize_name(form)) in KNOWN), None
    )


def shorten_name(name: str) -> str:
    """The end of a name of several words, if that is understood: of `INFO epoch 3 d_loss` that is `d_loss`."""
    words = name.split()
    ends = [" ".join(words[start:]) for start in range(len(words))]
    understood = (end for end in ends if normalize_name(end) in {*KNOWN, *PARTS, *STEPS, *EPOCHS})
    return next(understood, ends[0] if ends else name)


def map_columns(table: Table, columns: Mapping[str, str], where: str) -> MappedTable:
    """A table by the log's names as rows by ours.

    Args:
        table: as it was read.
        columns: which column holds what: the log's names by `step`, a short name or a full one. Several columns that
            are joined by + are averaged; a % at the end says that the numbers are per cent.
        where: the log, for errors.

    Raises:
        DataError: there is no number.
        RecipeError: a column is not there, or nothing tells which are the losses.
    """
    lines = [line for line in table.lines if line]
    there = list(dict.fromkeys(name for line in lines for name in line))
    if not lines:
        raise DataError("no line with a number in it", where=where, cure="for text, say --pattern")
    notes = list(table.notes)
    asked = {SHORT.get(name, name): _asked(column, there) for name, column in columns.items()}
    guesses = _guessed(there, asked, notes)
    wanted = {name: one for name, one in (guesses | asked).items() if name != "step"}
    if not {"d/adversarial", "g/adversarial"} & wanted.keys():
        cure = f"say which: --columns d=...,g=...; there is {', '.join(there[:12])}"
        raise RecipeError("nothing here is called a loss of D or G", where=where, cure=cure)
    for name in [name for name in SHARES if name in wanted]:
        factor = _unit(name, wanted[name], lines, table.percent, name in asked, notes)
        wanted[name] = wanted[name]._replace(factor=factor)
    wanted = {name: column for name, column in wanted.items() if column.factor}
    if "d/adversarial" not in wanted:
        notes.append("D's loss was not found, so nothing is said about it: --columns d=... names it")
    read = [(line, {n: Stat.of(told) for n, c in wanted.items() if (told := c.of(line)) is not None}) for line in lines]
    kept = [(line, numbers) for line, numbers in read if numbers]
    step = asked["step"].names[0] if "step" in asked else _first(STEPS, there)
    return MappedTable(by_step(kept, step, _first(EPOCHS, there), notes), notes)


class Column(NamedTuple):
    """One quantity: the mean of some columns, times a factor; 0 where it is to be left out."""

    names: tuple[str, ...]
    factor: float = 1.0
    percent: bool = False

    def of(self, line: Flat) -> float | None:
        """Its number in a line that has all of its columns."""
        if not all(name in line for name in self.names):
            return None
        return self.factor * (line[self.names[0]] if len(self.names) == 1 else fmean(line[name] for name in self.names))


def _first(keys: Iterable[str], there: list[str]) -> str | None:
    return next((name for key in keys for name in there if normalize_name(name) == key), None)


def _guessed(there: list[str], asked: Mapping[str, Column], notes: list[str]) -> dict[str, Column]:
    """Quantities by what the columns are called: whole losses first, then their parts, then bare letters."""
    found = {SHORT[key]: Column((name,)) for name in reversed(there) if (key := quantity_of(name)) is not None}
    found |= {
        SHORT[KNOWN[normalize_name(name)]]: Column((name,)) for name in reversed(there) if normalize_name(name) in KNOWN
    }
    found |= {
        name: Column((name,)) for name in there if name in SHORT.values() or name.startswith(("g/", "d/", "measure/"))
    }
    parts = {PARTS[normalize_name(name)]: name for name in reversed(there) if normalize_name(name) in PARTS}
    for side, ends in PAIRS:
        both = tuple(parts[side, end] for end in ends if (side, end) in parts)
        if f"{side}/adversarial" not in {*found, *asked} and len(both) == 2:
            found[f"{side}/adversarial"] = Column(both)
            notes.append(f"{side.upper()}'s loss is taken to be the mean of {both[0]} and {both[1]}")
    bare = {BARE[normalize_name(name)]: name for name in reversed(there) if normalize_name(name) in BARE}
    if len(bare) == 2 and not {"d/adversarial", "g/adversarial"} & {*found, *asked}:
        found |= {f"{side}/adversarial": Column((name,)) for side, name in bare.items()}
        notes.append("the columns D and G are taken to be their losses")
    return found


def _asked(column: str, there: list[str]) -> Column:
    """What `--columns` names: a column, or several by +, or one in per cent."""
    if column in there:
        return Column((column,))
    percent, name = column.endswith("%"), column.removesuffix("%").strip()
    names = (name,) if name in there else tuple(part.strip() for part in name.split("+"))
    for part in names:
        if part not in there:
            raise RecipeError("no such column", where="--columns", found=f"'{part}'", cure=did_you_mean(part, there))
    return Column(names, percent=percent)


def _unit(name: str, column: Column, lines: list[Flat], signed: frozenset[str], asked: bool, notes: list[str]) -> float:
    """What to multiply a share's numbers with: 1, 0.01 for per cent, or 0 to leave it out."""
    values = [told for line in lines if (told := column.of(line)) is not None and math.isfinite(told)]
    shown = "+".join(column.names)
    named = any("%" in one or re.search(r"perc|pct", one.lower()) for one in column.names)
    high, whole = max(values, default=0.0), all(value == int(value) for value in values)
    in_range = min(values, default=0.0) >= 0
    if column.percent or named or signed & set(column.names):
        clear = high <= 100
    elif high <= 1 and in_range:
        return 1.0
    else:  # counts of pictures that were judged rightly are whole, and need not end at 100
        clear = 2 < high <= 100 and (not whole or high == 100)
    if clear and in_range:
        notes.append(f"{shown} is read as per cent")
        return 0.01
    reason = f"{shown} is neither a share between 0 and 1 nor clearly per cent (its highest is {high:g})"
    cure = f"write {shown}% if it is per cent"
    if asked:
        raise RecipeError(reason, where="--columns", found=f"'{shown}'", cure=cure)
    short = next((short for short, full in SHORT.items() if full == name), name)
    notes.append(f"{reason}, and is left out: if it is per cent, say --columns {short}={shown}%")
    return 0.0
