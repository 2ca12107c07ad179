"""Rows: plain numbers by name, as training writes them and everything else reads them. No torch.

A row lies on disk as a line of JSON. JSON knows no number that is not finite; such a one is written as its name,
"nan", "inf" or "-inf", so that every line stays valid.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from poise.errors import CheckpointError

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


def encode_number(number: float) -> float | str:
    """A number that JSON knows, or its name."""
    return number if math.isfinite(number) else repr(number)


def decode_number(told: Any) -> float:
    """The number that `encode` wrote.

    Raises:
        ValueError: it is no number.
    """
    if isinstance(told, str) and told in NOT_FINITE:
        return NOT_FINITE[told]
    if isinstance(told, bool) or not isinstance(told, int | float):
        raise ValueError(f"{told!r} is no number")
    return float(told)


def row_to_json(row: Row) -> dict[str, Any]:
    """The row as `rows.jsonl` has it."""
    stats = {name: {k: encode_number(v) for k, v in stat._asdict().items()} for name, stat in row.stats.items()}
    return {"step": row.step, "images": row.images, "seconds": row.seconds, "stats": stats}


def stats_from_json(line: Mapping[str, Any]) -> dict[str, Stat]:
    """The stats of a line of `rows.jsonl`.

    Raises:
        ValueError, KeyError, TypeError: it is no such line.
    """
    return {name: Stat(*(decode_number(told[part]) for part in Stat._fields)) for name, told in line["stats"].items()}


LineCheck = Callable[[Mapping[str, Any]], object]


def check_row(line: Mapping[str, Any]) -> None:
    """Raises ValueError, KeyError or TypeError unless it is a line of `rows.jsonl`."""
    check_count(line["step"])
    check_count(line["images"])
    decode_number(line["seconds"])
    stats_from_json(line)


def check_measures(line: Mapping[str, Any]) -> None:
    """Raises ValueError, KeyError or TypeError unless it is a line of `measures.jsonl`."""
    check_count(line["step"])
    for name in ("measures", "floor"):
        for figure in dict(line[name]).values():
            decode_number(figure)


def check_alarm(line: Mapping[str, Any]) -> None:
    """Raises ValueError, KeyError or TypeError unless it is a line of `alarms.jsonl`."""
    check_count(line["step"])
    for name in ("detector", "level", "message", "advice", "tip"):
        if not isinstance(line[name], str):
            raise ValueError(f"{name} is no text")


def check_count(told: Any) -> int:
    """A count.

    Raises:
        ValueError: it is none.
    """
    if isinstance(told, bool) or not isinstance(told, int) or told < 0:
        raise ValueError(f"{told!r} is no count")
    return told


def read_jsonl(
    path: Path, sound: LineCheck, *, until: int | None = None, most: int | None = None, rising: bool = False
) -> list[dict[str, Any]]:
    """The lines of a file of lines; none if it is not there. A last one that is half written is passed over.

    Args:
        path: of a `.jsonl` file.
        sound: raises ValueError, KeyError or TypeError unless a line holds what it should.
        until: lines of a later step are left out, and need not be sound.
        most: later lines are left out, and need not be sound.
        rising: whether each line's step is above that of the line before.

    Raises:
        CheckpointError: a line is damaged; names the file and the line.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        return []  # a device or a pipe has no end
    try:
        *pieces, last = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"can't be read: {error.strerror or error}", where=str(path)) from None
    lines: list[dict[str, Any]] = []
    for number, piece in enumerate((*pieces, last), 1):
        if most is not None and len(lines) >= most:
            break
        if not piece.strip():
            continue
        try:
            line = json.loads(piece)
            sound(line)
            if rising and lines and line["step"] <= lines[-1]["step"]:
                raise ValueError("its step is not above that of the line before")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            if number > len(pieces) or (until is not None and lines and lines[-1]["step"] >= until):
                break
            cure = f"without line {number} the file can be read: delete it, or put the file back from a copy"
            raise CheckpointError(f"line {number} is damaged", where=f"{path}:{number}", cure=cure) from None
        lines.append(line)
    return [line for line in lines if until is None or line["step"] <= until]
