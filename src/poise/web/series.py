"""Series in constant memory: the values of each metric as at most 2,048 buckets, whatever the number of rows.

A bucket has the number of its rows, the mean, the sum of squared deviations, and the smallest and largest value, so
that two neighbours can be merged without loss of any of these. When all buckets are full, neighbours are merged.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from poise.core.metrics_log import check_count, decode_number

MAX_BUCKETS = 2048
MAX_BAD = 200
"""The largest number of steps with values that are not finite that is kept for each metric."""

MAX_NAMES = 512
"""Metrics beyond this number are left out; a run has some thirty."""

COUNT, MEAN, SQUARES, MIN, MAX, FIRST, LAST = range(7)
"""The rows of a table of buckets: number of rows, mean, sum of squared deviations from it, extremes, steps."""

Table = np.ndarray[Any, np.dtype[np.float64]]


class Buckets:
    """The values of one metric. Every bucket but the last has as many rows as `width`."""

    def __init__(self) -> None:
        self.width = 1
        self._full: Table = np.empty((7, 64))
        self._length = 0
        self._open: list[float] = []
        self.bad: list[int] = []

    def add(self, step: int, mean: float, std: float, low: float, high: float) -> None:
        """Add a row; a value that is not finite is only noted."""
        if not math.isfinite(mean + low + high) and not all(map(math.isfinite, (mean, low, high))):
            if len(self.bad) < MAX_BAD:
                self.bad.append(step)
            return
        spread = std * std if math.isfinite(std) else 0.0
        bucket = self._open
        if not bucket:
            self._open = [1, mean, spread, low, high, step, step]
        else:
            count = bucket[COUNT] = bucket[COUNT] + 1
            delta = mean - bucket[MEAN]
            bucket[MEAN] += delta / count
            bucket[SQUARES] += spread + delta * (delta * ((count - 1) / count))
            bucket[MIN], bucket[MAX] = min(bucket[MIN], low), max(bucket[MAX], high)
            bucket[LAST] = step
        if self._open[COUNT] >= self.width:
            self._close()

    def _close(self) -> None:
        if self._length == MAX_BUCKETS:
            self._full[:, : MAX_BUCKETS // 2] = merged(self._full, 2)
            self._length, self.width = MAX_BUCKETS // 2, 2 * self.width
            return  # the open bucket is half full now
        if self._length == self._full.shape[1]:
            self._full = np.concatenate([self._full, np.empty_like(self._full)], axis=1)
        self._full[:, self._length] = self._open
        self._length, self._open = self._length + 1, []

    def table(self) -> Table:
        """All buckets, 7 x their number."""
        last = np.array(self._open).reshape(-1, 7).T
        return np.concatenate([self._full[:, : self._length], last], axis=1)


def merged(table: Table, size: int) -> Table:
    """Buckets of which each is made of `size` neighbours, the last one perhaps of fewer."""
    starts = np.arange(0, table.shape[1], size)
    with np.errstate(over="ignore", invalid="ignore"):
        count = np.add.reduceat(table[COUNT], starts)
        mean = np.add.reduceat(table[COUNT] / np.repeat(count, size)[: table.shape[1]] * table[MEAN], starts)
        away = table[MEAN] - np.repeat(mean, size)[: table.shape[1]]
        squares = np.add.reduceat(table[SQUARES] + table[COUNT] * away**2, starts)
    ends = np.minimum(starts + size, table.shape[1]) - 1
    low, high = np.minimum.reduceat(table[MIN], starts), np.maximum.reduceat(table[MAX], starts)
    return np.stack([count, mean, squares, low, high, table[FIRST][starts], table[LAST][ends]])


class RowSeries:
    """The decimated rows of a run.

    Attributes:
        metrics: the buckets of each metric.
        rows: the number of rows.
        first: the step of the first row; None without rows.
        last: that of the last one.
    """

    def __init__(self) -> None:
        self.metrics: dict[str, Buckets] = {}
        self.rows = 0
        self.first: int | None = None
        self.last: int | None = None

    def add_line(self, line: bytes) -> None:
        """Add a line of `rows.jsonl`. A damaged one, and one whose step does not come after the last, is skipped."""
        try:
            row = json.loads(line)
            step, stats = check_count(row["step"]), row["stats"].items()
            if step > 2**53 or (self.last is not None and step <= self.last):
                return
            values = [
                (name, [decode_number(stat[field]) for field in ("mean", "std", "min", "max")]) for name, stat in stats
            ]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        for name, numbers in values:
            metric = self.metrics.get(name)
            if metric is None:
                if len(self.metrics) >= MAX_NAMES:
                    continue
                metric = self.metrics[name] = Buckets()
            metric.add(step, *numbers)
        self.first = step if self.first is None else self.first
        self.last, self.rows = step, self.rows + 1

    def view(self, names: list[str], start: float, end: float, points: int) -> dict[str, dict[str, Any]]:
        """The buckets between two steps, merged until they are at most `points`.

        Returns:
            For each of the names that exist: lists of steps (the middle of each bucket), means, standard deviations,
            smallest and largest values, and the steps with values that are not finite; see `with_gaps`. A bucket may
            have rows from before `start`, and replaces what was told of it when it had fewer: `since` is the step from
            which on nothing of an earlier answer is valid any more. `begin` is the step of the first row of the first
            bucket; None without buckets.
        """
        found = {}
        for name in names:
            metric = self.metrics.get(name)
            if metric is not None:
                table = metric.table()
                table = table[:, (table[LAST] >= start) & (table[FIRST] <= end)]
                since = int(table[FIRST].min(initial=start))
                if table.shape[1] > points:
                    table = merged(table, -(-table.shape[1] // points))
                bad = [step for step in metric.bad if since <= step <= end]
                begin = int(table[FIRST][0]) if table.shape[1] else None
                found[name] = with_gaps(as_lists(table), bad) | {"since": since, "begin": begin}
        return found


def as_lists(table: Table) -> dict[str, list[Any]]:
    """A table of buckets as JSON; null for a number that is too large, seven significant digits for others."""
    with np.errstate(over="ignore", invalid="ignore"):
        std = np.sqrt(table[SQUARES] / table[COUNT])
    steps = (table[FIRST] + (table[LAST] - table[FIRST]) // 2).astype(np.int64).tolist()
    values = {"mean": table[MEAN], "std": std, "min": table[MIN], "max": table[MAX]}
    return {"step": steps} | {name: [short(value) for value in column.tolist()] for name, column in values.items()}


def with_gaps(lists: dict[str, list[Any]], bad: list[int]) -> dict[str, list[Any]]:
    """The lists with `bad`, each of whose steps is inserted into them with nulls, so that a line breaks there.

    Args:
        lists: `as_lists`; a step that is the middle of a bucket too comes after it.
        bad: the steps with values that are not finite, ascending.
    """
    places = np.searchsorted(lists["step"], bad, side="right").tolist()
    for place, step in zip(reversed(places), reversed(bad), strict=True):
        for name, values in lists.items():
            values.insert(place, step if name == "step" else None)
    return lists | {"bad": bad}


def short(value: float) -> float | None:
    """The number with seven significant digits; None if it is not finite."""
    return float(f"{value:.7g}") if math.isfinite(value) else None
