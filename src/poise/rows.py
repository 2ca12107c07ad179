"""Rows: plain numbers by name, as training writes them and everything else reads them. No torch.

A row lies on disk as a line of JSON. JSON knows no number that is not finite; such a one is written as its name,
"nan", "inf" or "-inf", so that every line stays valid.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class Stat(NamedTuple):
    """One quantity over one interval."""

    mean: float
    std: float
    min: float
    max: float

    @classmethod
    def of(cls, value: float) -> Stat:
        """A quantity that was looked at once."""
        return cls(value, 0.0, value, value)


class Row(NamedTuple):
    """One line of `rows.jsonl`, as plain numbers.

    Attributes:
        step: steps done.
        images: real pictures seen.
        seconds: time spent training, from the run's beginning, resumed or not.
        stats: by name, `side/quantity`.
    """

    step: int
    images: int
    seconds: float
    stats: dict[str, Stat]


def encode(number: float) -> float | str:
    """A number that JSON knows, or its name."""
    return number if math.isfinite(number) else repr(number)


def decode(told: Any) -> float:
    """The number that `encode` wrote.

    Raises:
        ValueError: it is no number.
    """
    if isinstance(told, str) and told in NOT_FINITE:
        return NOT_FINITE[told]
    if isinstance(told, bool) or not isinstance(told, int | float):
        raise ValueError(f"{told!r} is no number")
    return float(told)


def as_json(row: Row) -> dict[str, Any]:
    """The row as `rows.jsonl` has it."""
    stats = {name: {k: encode(v) for k, v in stat._asdict().items()} for name, stat in row.stats.items()}
    return {"step": row.step, "images": row.images, "seconds": row.seconds, "stats": stats}


def stats_of(line: Mapping[str, Any]) -> dict[str, Stat]:
    """The stats of a line of `rows.jsonl`.

    Raises:
        ValueError, KeyError, TypeError: it is no such line.
    """
    return {name: Stat(*(decode(told[part]) for part in Stat._fields)) for name, told in line["stats"].items()}


def read_lines(path: Path) -> Iterable[dict[str, Any]]:
    """The whole lines of a file; a half-written last one is passed over."""
    for line in path.read_text("utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue
