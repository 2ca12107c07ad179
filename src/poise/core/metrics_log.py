"""Rows of logged metrics, as training writes them and everything else reads them. Does not import torch.

A row is a line of JSON. JSON has no non-finite numbers, so these are written as the strings "nan", "inf" and "-inf".
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
    """The statistics of one metric over one logging interval."""

    mean: float
    std: float
    min: float
    max: float

    @classmethod
    def of(cls, value: float) -> Stat:
        """The statistics of a metric that was measured once."""
        return cls(value, 0.0, value, value)


class Row(NamedTuple):
    """One line of `rows.jsonl`, as plain numbers.

    Attributes:
        step: the number of steps done.
        images: the number of real images used.
        seconds: the time spent training since the beginning of the run, over all resumptions.
        stats: statistics by metric, named `side/quantity`.
    """

    step: int
    images: int
    seconds: float
    stats: dict[str, Stat]


def encode_number(number: float) -> float | str:
    """The number, or a string if it is not finite."""
    return number if math.isfinite(number) else repr(number)


def decode_number(value: Any) -> float:
    """The number that `encode_number` encoded.

    Raises:
        ValueError: it is not a number.
    """
    if isinstance(value, str) and value in NOT_FINITE:
        return NOT_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("an integer is too large for a number") from None


def row_to_json(row: Row) -> dict[str, Any]:
    """The row as an object for `rows.jsonl`."""
    stats = {name: {k: encode_number(v) for k, v in stat._asdict().items()} for name, stat in row.stats.items()}
    return {"step": row.step, "images": row.images, "seconds": row.seconds, "stats": stats}


def stats_from_json(line: Mapping[str, Any]) -> dict[str, Stat]:
    """The statistics in a line of `rows.jsonl`.

    Raises:
        ValueError, KeyError, TypeError: it is not such a line.
    """
    return {name: Stat(*(decode_number(stat[field]) for field in Stat._fields)) for name, stat in line["stats"].items()}


LineCheck = Callable[[Mapping[str, Any]], object]


def check_row(line: Mapping[str, Any]) -> None:
    """Raises ValueError, KeyError or TypeError unless it is a line of `rows.jsonl`."""
    check_count(line["step"])
    check_count(line["images"])
    decode_number(line["seconds"])
    stats_from_json(line)


def check_measures(line: Mapping[str, Any]) -> None:
    """Raises ValueError, KeyError, TypeError or AttributeError unless it is a line of `measures.jsonl`."""
    check_count(line["step"])
    for name in ("measures", "floor"):
        for value in line[name].values():
            decode_number(value)


def check_alarm(line: Mapping[str, Any]) -> None:
    """Raises ValueError, KeyError or TypeError unless it is a line of `alarms.jsonl`; earlier ones have no `since`."""
    check_count(line["step"])
    check_count(line.get("since", 0))
    for name in ("detector", "level", "message", "advice", "tip"):
        if not isinstance(line[name], str):
            raise ValueError(f"{name} is not a string")


def check_count(value: Any) -> int:
    """The value itself, an integer of at least 0.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value


def read_jsonl(
    path: Path, check: LineCheck, *, until: int | None = None, limit: int | None = None, increasing: bool = False
) -> list[dict[str, Any]]:
    """The lines of a `.jsonl` file; none if it does not exist. See `parse_jsonl`.

    Raises:
        CheckpointError: the file can't be read, or a line is damaged; names the file and the line.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        return []  # a device or a pipe has no end
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"can't be read: {error.strerror or error}", where=str(path)) from None
    return parse_jsonl(content, str(path), check, until=until, limit=limit, increasing=increasing)


def parse_jsonl(
    content: bytes,
    where: str,
    check: LineCheck,
    *,
    until: int | None = None,
    limit: int | None = None,
    increasing: bool = False,
) -> list[dict[str, Any]]:
    """The lines in the contents of a `.jsonl` file. An incomplete last line is ignored.

    Args:
        content: the contents.
        where: the name of the file, for errors.
        check: raises ValueError, KeyError or TypeError if a line is not valid.
        until: lines of later steps are left out, and need not be valid.
        limit: the largest number of lines to read; the others need not be valid.
        increasing: whether the step of each line must be greater than that of the line before.

    Raises:
        CheckpointError: a line is damaged; names the file and the line.
    """
    *pieces, last = content.split(b"\n")
    lines: list[dict[str, Any]] = []
    for number, piece in enumerate((*pieces, last), 1):
        if limit is not None and len(lines) >= limit:
            break
        if not piece.strip():
            continue
        try:
            line = json.loads(piece)
            check(line)
            if increasing and lines and line["step"] <= lines[-1]["step"]:
                raise ValueError("its step is not greater than that of the line before")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            if number > len(pieces) or (until is not None and lines and lines[-1]["step"] >= until):
                break
            cure = f"without line {number} the file can be read: delete it, or put the file back from a copy"
            raise CheckpointError(f"line {number} is damaged", where=f"{where}:{number}", cure=cure) from None
        lines.append(line)
    return [line for line in lines if until is None or line["step"] <= until]
