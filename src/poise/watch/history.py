"""The history of logged metrics, by name and step, and windows of it."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Mapping
from functools import cached_property
from statistics import median
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from poise.core.metrics_log import Stat
from poise.watch.formatting import MAX_MAGNITUDE

Numbers = npt.NDArray[np.float64]
T = TypeVar("T")
MIN_ROWS = 4
"""The smallest number of rows in a window."""

MAD_TO_STD = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation."""

MIN_RUN_LENGTH = 400
"""Shorter runs are treated as if they had this many steps, because their first fifty steps are no sign of failure."""


class WindowLength(NamedTuple):
    """The length of a window in steps and in values; a window has at least as many of both, and at least four rows.

    In a log of statistics, a row has as many values as it covers steps. In a log of single values, a row has one, or as
    many as were merged into it.
    """

    steps: int
    values: int = MIN_ROWS


class Window:
    """Consecutive rows of one metric.

    Args:
        steps: the step of each row.
        stats: the statistics of each row.
    """

    def __init__(self, steps: list[int], stats: list[Stat]) -> None:
        self.steps, self._stats = steps, stats

    def __len__(self) -> int:
        return len(self.steps)

    @cached_property
    def means(self) -> Numbers:
        """The mean of each row."""
        return np.array([stat.mean for stat in self._stats])

    @cached_property
    def is_finite(self) -> bool:
        """Whether all values are finite and small enough for their squares to be finite too."""
        spreads = np.array([stat.std for stat in self._stats])
        return bool((np.abs(self.means) < MAX_MAGNITUDE).all() and (np.abs(spreads) < MAX_MAGNITUDE).all())

    @property
    def mean(self) -> float:
        """The mean over all rows."""
        return float(self.means.mean())

    @cached_property
    def median(self) -> float:
        """The median of the rows' means."""
        return median(stat.mean for stat in self._stats)

    @cached_property
    def spread(self) -> float:
        """A standard deviation that outliers hardly change: sqrt(w^2 + b^2).

        w is the median of the standard deviations within rows, and b is 1.4826 times the median absolute deviation of
        the rows' means, which for normally distributed values estimates their standard deviation.
        """
        return math.hypot(median(stat.std for stat in self._stats), self.spread_between_rows)

    @property
    def spread_between_rows(self) -> float:
        """The part of `spread` that is between rows: b."""
        middle = self.median
        return MAD_TO_STD * median(abs(stat.mean - middle) for stat in self._stats)

    @property
    def trend(self) -> float:
        """Spearman's rank correlation of the rows' means with time, -1 to 1; 0 if all means are equal."""
        if not len(self) or float(np.ptp(self.means)) == 0:
            return 0.0
        _, rank, count = np.unique(self.means, return_inverse=True, return_counts=True)
        ranks = (np.cumsum(count) - (count + 1) / 2)[rank]  # equal values share the mean of their ranks
        time = np.arange(len(self), dtype=np.float64)
        return float(np.corrcoef(ranks, time)[0, 1])

    def halves(self) -> tuple[Window, Window]:
        """The earlier and the later half."""
        cut = len(self) // 2
        return Window(self.steps[:cut], self._stats[:cut]), Window(self.steps[cut:], self._stats[cut:])


class MetricSeries:
    """All rows of one metric.

    Attributes:
        steps: the step of each row.
        stats: the statistics of each row.
        num_values: the number of values in all rows up to each row, see `WindowLength`.
    """

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.stats: list[Stat] = []
        self.num_values: list[int] = []
        self._accumulated: dict[Callable[..., Any], list[Any]] = {}
        self._sorted: list[float] = []  # the means of the first `_num_sorted` rows, without NaN
        self._num_sorted = 0
        self._first: dict[WindowLength, Window] = {}

    @property
    def age(self) -> int:
        """The number of steps that it covers; the first row is taken to cover as many as the second."""
        return self.steps[-1] - self.steps[0] + (self.steps[1] - self.steps[0] if len(self.steps) > 1 else 0)

    def add(self, step: int, stat: Stat, count: int | None = 1) -> None:
        """Append a row of `count` values; None means one for each step since the row before."""
        if count is None:
            count = step - self.steps[-1] if self.steps else 1
            if len(self.steps) == 1:
                self.num_values[0] = count  # the first row is taken to cover as many steps as the second
        self.num_values.append(count + (self.num_values[-1] if self.num_values else 0))
        self.steps.append(step)
        self.stats.append(stat)

    def accumulate(self, function: Callable[[T, float], T], initial: T) -> list[T]:
        """For each row the `function` of its result for the row before, or of `initial`, and of the row's mean.

        The results are kept, so that a row costs the same time however many there are. The same function must always
        have the same `initial`.
        """
        results: list[T] = self._accumulated.setdefault(function, [])
        for stat in self.stats[len(results) :]:
            results.append(function(results[-1] if results else initial, stat.mean))
        return results

    def median_before_newest(self) -> float:
        """The median of the means of all rows but the newest, without NaN; NaN if there are none.

        Rows that are new since the last call are sorted in, so that a row costs little time however many there are.
        """
        for stat in self.stats[self._num_sorted : -1]:
            if not math.isnan(stat.mean):
                insort(self._sorted, stat.mean)
        self._num_sorted = max(0, len(self.stats) - 1)
        if not self._sorted:
            return math.nan
        middle = len(self._sorted) // 2
        if len(self._sorted) % 2:
            return self._sorted[middle]
        return (self._sorted[middle - 1] + self._sorted[middle]) / 2

    def rows(self, start: int, stop: int) -> Window:
        """The rows of these indices, without `stop`."""
        return Window(self.steps[start:stop], self.stats[start:stop])

    def start_of_last(self, length: WindowLength) -> int:
        """The index of the first row of the newest window; below 0 if there are too few rows or values."""
        by_steps = bisect_right(self.steps, self.steps[-1] - length.steps)
        by_values = bisect_right(self.num_values, self.num_values[-1] - length.values)
        if self.num_values[-1] < length.values:
            by_values = -1
        return min(by_steps, by_values, len(self.steps) - MIN_ROWS)

    def first(self, length: WindowLength) -> Window | None:
        """The first window, which begins with the second row; None if there is none yet.

        The rows in it do not change any more, so it is kept, with the statistics that it has computed.
        """
        if length not in self._first:
            end = self.end_of_first(length)
            if end > len(self.steps):
                return None
            self._first[length] = self.rows(1, end)
        return self._first[length]

    def end_of_first(self, length: WindowLength) -> int:
        """The index after the last row of the first window, which begins with the second row."""
        by_steps = bisect_right(self.steps, self.steps[0] + length.steps)
        by_values = bisect_left(self.num_values, self.num_values[0] + length.values) + 1
        return max(by_steps, by_values, 1 + MIN_ROWS)


class MetricHistory:
    """All rows so far, and windows of them.

    A window has at least four rows, and is available only once the run is as long as the window.

    Args:
        length: the number of steps of the whole run, if known. Windows are not made longer than an eighth of it, except
            to hold enough rows and values.
    """

    def __init__(self, length: int | None = None) -> None:
        self.length = length
        self.series: dict[str, MetricSeries] = {}
        self.step = 0
        self.has_statistics = False  # over several steps: a value had a standard deviation

    def add(self, step: int, stats: Mapping[str, Stat], counts: Mapping[str, int] = MappingProxyType({})) -> None:
        """Append a row; `counts` has the number of rows that were merged into each metric, if they were."""
        self.step = step
        self.has_statistics |= any(stat.std > 0 and counts.get(name, 1) == 1 for name, stat in stats.items())
        for name, stat in stats.items():
            count = None if self.has_statistics else counts.get(name, 1)
            self.series.setdefault(name, MetricSeries()).add(step, stat, count)

    def is_fresh(self, name: str) -> bool:
        """Whether the newest row has this metric."""
        series = self.series.get(name)
        return series is not None and bool(series.steps) and series.steps[-1] == self.step

    def newest(self, name: str) -> Stat | None:
        """The metric in the newest row, or None if that row does not have it."""
        return self.series[name].stats[-1] if self.is_fresh(name) else None

    def limit(self, length: WindowLength) -> WindowLength:
        """The length with steps of at most an eighth of the run."""
        longest = length.steps if self.length is None else self.length // 8
        return length if length.steps <= longest else length._replace(steps=longest)

    def window_steps(self, name: str, length: WindowLength) -> int:
        """The number of steps that the newest window of a metric covers, at least that of `length`."""
        length, steps = self.limit(length), self.series[name].steps
        if len(steps) < MIN_ROWS:
            return length.steps
        start = max(0, self.series[name].start_of_last(length))
        return max(length.steps, steps[-1] - steps[start] + steps[start + 1] - steps[start])

    def last(self, name: str, length: WindowLength, *, stale: bool = False) -> Window | None:
        """The newest window of a metric, or None if there is none yet or a value in it is not finite.

        Args:
            name: the name of the metric.
            length: the length of the window.
            stale: accept a window whose last row is older than the newest row, for measures, which are rare.
        """
        series, length = self.series.get(name), self.limit(length)
        if series is None or not series.steps or not (stale or self.is_fresh(name)):
            return None
        start = series.start_of_last(length)
        if start < 0 or series.age < length.steps:
            return None
        found = series.rows(start, len(series.steps))
        return found if found.is_finite else None

    def early(self, name: str, length: WindowLength) -> Window | None:
        """The first window of a metric, without its first row, which is often unstable; None if there is none yet."""
        series = self.series.get(name)
        if series is None or not series.steps:
            return None
        found = series.first(self.limit(length))
        if found is None or found.steps[-1] >= self.step:
            return None
        return found if found.is_finite else None

    def past(self, name: str, length: WindowLength, count: int) -> Window | None:
        """The rows before the newest window, `count` times as many as it has; None if there are not as many."""
        newest = self.last(name, length)
        if newest is None:
            return None
        series = self.series[name]
        end = len(series.steps) - len(newest)
        found = series.rows(end - count * len(newest), end) if end >= count * len(newest) else None
        return found if found is not None and found.is_finite else None

    def previous_step(self, name: str) -> int:
        """The step of the row before the newest one with this metric; 0 if there is none."""
        steps = self.series[name].steps
        return steps[-2] if len(steps) > 1 else 0

    def running_median(self, name: str) -> float | None:
        """The median of all rows before the newest, see `median_before_newest`; None if there are fewer than eight."""
        series = self.series.get(name)
        if series is None or len(series.steps) < 2 * MIN_ROWS + 1 or not self.is_fresh(name):
            return None
        return series.median_before_newest()
