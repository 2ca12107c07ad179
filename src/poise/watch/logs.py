"""Reading logs: a run folder of ours, another trainer's CSV, JSONL, TensorBoard events, or lines of text.

What the columns mean is guessed from their names where nobody says; numbers that nobody asked about are left out.
"""

from __future__ import annotations

import csv
import json
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from poise.entries import nearest
from poise.errors import DataError, RecipeError, SaveError
from poise.rows import Stat, decode, read_lines, sound_measures, sound_row, stats_of
from poise.watch.base import FAMILIES, Family
from poise.watch.heard import SHORT as SHORT_RUN

Numbers = dict[str, Stat]
Flat = dict[str, float]

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
KNOWN |= {"criticloss": "d", "losscritic": "d", "closs": "d", "lossc": "d"}
KNOWN |= {"daccuracy": "accuracy", "dacc": "accuracy", "accd": "accuracy", "fid": "fid", "kid": "kid"}
KNOWN |= {"dgradnorm": "d_norm", "gradnormd": "d_norm", "ggradnorm": "g_norm", "gradnormg": "g_norm"}
KNOWN |= {"wassersteindistance": "wasserstein", "wasserstein": "wasserstein", "wdistance": "wasserstein"}
STEPS = ("step", "globalstep", "iteration", "iterations", "iter", "iters", "progresskimg", "kimg", "nimg", "tick")
"""Column names that are understood, letters and digits only, in small letters."""

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?nan|[-+]?inf"
PAIR = re.compile(rf"([A-Za-z_][A-Za-z0-9_./() -]*?)\s*[:=]\s*({NUMBER})(?![\w.])", re.IGNORECASE)
"""A name and its number in a line of text: `Loss_D: 0.69`, `[G loss: 1.2]`, `d_loss=0.5`."""


class Log(NamedTuple):
    """Rows, by the names of `rows.jsonl`.

    Attributes:
        rows: step and numbers, in order; what was measured after a row comes behind it.
        count: how many rows the log has.
        length: the steps of the whole run.
        family: of the objective, where it is known or can be told.
        monitor: the table `[monitor]` of a run of ours.
    """

    rows: list[tuple[int, Numbers]]
    count: int
    length: int
    family: Family | None
    monitor: dict[str, Any]


def read_log(path: Path, columns: Mapping[str, str] | None = None, pattern: str | None = None) -> Log:
    """The numbers of a run folder or of another trainer's log.

    Args:
        path: a run folder, a .csv, a .jsonl, a folder or file of TensorBoard events, or lines of text.
        columns: which column holds what: the log's names by `step`, a short name or a full one.
        pattern: for text: a regular expression with named groups, `(?P<d>...)`, `(?P<g>...)`, perhaps `(?P<step>...)`.

    Raises:
        DataError: there is no such file, or no row in it.
        SaveError: a file of a run folder is damaged.
        RecipeError: a column is not there, or nothing tells which are the losses.
    """
    if not path.exists():
        raise DataError("there is no such run or log", where=str(path))
    if (path / "rows.jsonl").is_file():
        return _ours(path)
    if pattern is not None:
        rule = _rule(pattern)
        lines: Iterable[Flat] = _matches(path, rule)
        columns = {name: name for name in rule.groupindex} | dict(columns or {})
    elif path.is_dir() or path.name.startswith("events.out.tfevents"):
        lines = _events(path)
    else:
        lines = _of_file(path)
    return _mapped(list(lines), columns or {}, path)


def columns_of(words: str) -> dict[str, str]:
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
            cure = nearest(name, ["step", *SHORT])
            raise RecipeError("no such quantity", where="--columns", found=f"'{name}'", cure=cure)
        told[name] = column
    return told


def _ours(path: Path) -> Log:
    """A run folder: its rows, with what was measured between them."""
    rows = [(line["step"], stats_of(line)) for line in read_lines(path / "rows.jsonl", sound_row, rising=True)]
    measured = read_lines(path / "measures.jsonl", sound_measures, rising=True)
    lines = rows + [(line["step"], measured_of(line)) for line in measured]
    try:
        recipe = tomllib.loads((path / "recipe.toml").read_text("utf-8"))
        steps, kind = int(recipe.get("steps", 0)), recipe.get("objective", {}).get("kind", "")
    except tomllib.TOMLDecodeError as error:
        raise SaveError(
            f"is damaged: {error}", where=str(path / "recipe.toml"), cure="put it back from a copy"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError("not a run folder that can be read", where=str(path), found=str(error)) from None
    if not rows:
        raise DataError("no row has been written yet", where=str(path))
    length = max(SHORT_RUN, steps or rows[-1][0])
    return Log(
        sorted(lines, key=lambda line: line[0]), len(rows), length, FAMILIES.get(kind), recipe.get("monitor", {})
    )


def measured_of(line: Mapping[str, Any]) -> Numbers:
    """A line of `measures.jsonl` as numbers: `measure/fid`, `floor/fid`."""
    told = {f"measure/{name}": Stat.of(float(value)) for name, value in line["measures"].items()}
    return told | {f"floor/{name}": Stat.of(float(value)) for name, value in line["floor"].items()}


def _of_file(path: Path) -> Iterator[Flat]:
    try:
        text = path.read_text("utf-8", errors="replace").lstrip("\ufeff")
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror or error}", where=str(path)) from None
    if path.suffix.lower() in (".csv", ".tsv"):
        return _of_csv(text)
    first = next((line for line in text.splitlines() if line.strip()), "")
    return _of_jsonl(text) if first.lstrip().startswith("{") else _of_text(text)


def _of_csv(text: str) -> Iterator[Flat]:
    """A header, then numbers; cells that are none are passed over."""
    head = text.splitlines()[0] if text.strip() else ""
    mark = max(",;\t", key=head.count)
    for line in csv.DictReader(text.splitlines(), delimiter=mark, skipinitialspace=True):
        yield {name.strip(): number for name, cell in line.items() if name and (number := _number(cell)) is not None}


def _of_jsonl(text: str) -> Iterator[Flat]:
    """An object a line; numbers within objects get names by path, and `mean` stands for its object."""
    for line in text.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if isinstance(told, dict):
            yield dict(_flat(told, ""))


def _flat(told: Mapping[str, Any], root: str) -> Iterator[tuple[str, float]]:
    for name, value in told.items():
        if isinstance(value, dict):
            inner = {"": value["mean"]} if "mean" in value else value
            yield from _flat(inner, f"{root}{name}/" if "mean" not in value else f"{root}{name}")
        else:
            try:
                yield f"{root}{name}", decode(value)
            except ValueError:
                continue


def _of_text(text: str) -> Iterator[Flat]:
    """Every pair of a name and a number in a line. A name of several words is shortened to its end if that is known."""
    for line in text.splitlines():
        yield {_shortened(name): float(number) for name, number in PAIR.findall(line)}


def _shortened(name: str) -> str:
    words = name.strip(" -").split()
    ends = [" ".join(words[start:]) for start in range(len(words))]
    return next((end for end in ends if _plain(end) in KNOWN or _plain(end) in STEPS), ends[0] if ends else name)


def _rule(pattern: str) -> re.Pattern[str]:
    try:
        rule = re.compile(pattern)
    except re.error as error:
        raise RecipeError(f"not a regular expression: {error}", where="--pattern", found=f"'{pattern}'") from None
    if not rule.groupindex:
        raise RecipeError("has no named group", where="--pattern", cure="such as (?P<d>[0-9.]+)")
    return rule


def _matches(path: Path, rule: re.Pattern[str]) -> Iterator[Flat]:
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror or error}", where=str(path)) from None
    for line in text.splitlines():
        if found := rule.search(line):
            yield {name: number for name, cell in found.groupdict().items() if (number := _number(cell)) is not None}


def _events(path: Path) -> Iterator[Flat]:
    """TensorBoard's scalars, step by step."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, TENSORS, EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(path), size_guidance={SCALARS: 0, TENSORS: 0})
    events.Reload()
    rows: dict[int, Flat] = {}
    tags: dict[str, Any] = events.Tags()
    heard = [(tag, event.step, event.value) for tag in tags[SCALARS] for event in events.Scalars(tag)]
    for tag in tags[TENSORS]:  # where TensorFlow 2 puts its scalars
        kind = events.summary_metadata.get(tag)
        if kind is not None and kind.plugin_data.plugin_name == "scalars":
            told = ((event.step, make_ndarray(event.tensor_proto)) for event in events.Tensors(tag))
            heard += [(tag, step, value.item()) for step, value in told if value.size == 1]
    for tag, step, value in heard:
        rows.setdefault(step, {"step": float(step)})[tag] = float(value)
    for step in sorted(rows):
        yield rows[step]


def _number(cell: object) -> float | None:
    try:
        return float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _mapped(lines: list[Flat], columns: Mapping[str, str], path: Path) -> Log:
    """Lines by the log's names as rows by ours."""
    lines = [line for line in lines if line]
    there = list(dict.fromkeys(name for line in lines for name in line))
    if not lines:
        raise DataError("no line with a number in it", where=str(path), cure="for text, say --pattern")
    for column in columns.values():
        if column not in there:
            raise RecipeError("no such column", where="--columns", found=f"'{column}'", cure=nearest(column, there))
    guessed = {KNOWN[_plain(name)]: name for name in reversed(there) if _plain(name) in KNOWN}
    guessed |= {name: name for name in there if name in SHORT.values() or name.startswith(("g/", "d/", "measure/"))}
    told = [*guessed.items(), *columns.items()]  # what was said goes before what is guessed, by either name
    wanted = {SHORT.get(name, name): column for name, column in told if name != "step"}
    if not {"d/adversarial", "g/adversarial"} & wanted.keys():
        shown = ", ".join(there[:12])
        cure = f"say which: --columns d=...,g=...; there is {shown}"
        raise RecipeError("nothing here is called a loss of D or G", where=str(path), cure=cure)
    named = columns.get("step") or next((name for key in STEPS for name in there if _plain(name) == key), None)
    rows: list[tuple[int, Numbers]] = []
    for line in lines:
        numbers = {name: Stat.of(line[column]) for name, column in wanted.items() if column in line}
        if numbers:
            at = math.nan if named is None else line.get(named, math.nan)
            rows.append((round(at) if math.isfinite(at) else len(rows) + 1, numbers))
    if any(later[0] < earlier[0] for earlier, later in pairwise(rows)):  # it starts anew each epoch
        rows = [(place, numbers) for place, (_, numbers) in enumerate(rows, 1)]
    return Log(rows, len(rows), rows[-1][0], _guess(rows), {})


def _guess(rows: list[tuple[int, Numbers]]) -> Family | None:
    """A D whose loss is below 0 again and again has no floor: a critic."""
    losses = [numbers["d/adversarial"].mean for _, numbers in rows if "d/adversarial" in numbers]
    return "wasserstein" if losses and sum(loss < 0 for loss in losses) > 0.05 * len(losses) else None
