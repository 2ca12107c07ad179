"""The history of logged metrics, by name and step, and windows of it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from functools import cached_property
from statistics import median
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from poise.core.metrics_log import Stat
from poise.watch.formatting import MAX_MAGNITUDE

Numbers = npt.NDArray[np.float64]
MIN_ROWS = 4
"""The smallest number of rows in a window."""

MAD_TO_STD = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation."""

MIN_RUN_LENGTH = 400
"""Shorter runs are treated as if they had this many steps, because their first fifty steps are no sign of failure."""


class WindowLength(NamedTuple):
    """The length of a window: in steps, and in values; the longer of the two counts.

    A row of statistics has as many values as it covers steps; a row of single values, whose standard deviation is 0,
    has one.
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

    @property
    def is_finite(self) -> bool:
        """Whether all values are finite and small enough for their squares to be finite too."""
        spreads = np.array([stat.std for stat in self._stats])
        return bool((np.abs(self.means) < MAX_MAGNITUDE).all() and (np.abs(spreads) < MAX_MAGNITUDE).all())

    @property
    def mean(self) -> float:
        """The mean over all rows."""
        return float(self.means.mean())

    @property
    def median(self) -> float:
        """The median of the rows' means."""
        return median(stat.mean for stat in self._stats)

    @property
    def spread(self) -> float:
        """A standard deviation that outliers hardly change: sqrt(w^2 + b^2).

        w is the median of the standard deviations within rows, and b is 1.4826 times the median absolute deviation of
        the rows' means, which for normally distributed values estimates their standard deviation.
        """
        within = median(stat.std for stat in self._stats)
        between = MAD_TO_STD * float(np.median(np.abs(self.means - np.median(self.means))))
        return math.hypot(within, between)

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
        has_statistics: whether rows are statistics over several steps and not single values.
    """

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.stats: list[Stat] = []
        self.has_statistics = False

    @property
    def age(self) -> int:
        """The number of steps that it covers; the first row is taken to cover as many as the second."""
        return self.steps[-1] - self.steps[0] + (self.steps[1] - self.steps[0] if len(self.steps) > 1 else 0)

    @property
    def interval(self) -> float | None:
        """The mean number of steps between the newest rows, at most nine; None if there is only one row."""
        newest = self.steps[-9:]
        return (newest[-1] - newest[0]) / (len(newest) - 1) if len(newest) > 1 else None

    def add(self, step: int, stat: Stat) -> None:
        """Append a row."""
        self.steps.append(step)
        self.stats.append(stat)
        self.has_statistics |= stat.std > 0

    def drop_after(self, step: int) -> None:
        """Delete the rows after `step`."""
        count = bisect_right(self.steps, step)
        del self.steps[count:], self.stats[count:]

    def between(self, low: int, high: int) -> Window:
        """The rows after step `low`, up to and including step `high`."""
        a, b = bisect_right(self.steps, low), bisect_right(self.steps, high)
        return Window(self.steps[a:b], self.stats[a:b])


class MetricHistory:
    """All rows so far, and windows of them.

    A window has at least four rows, and is available only once the run is as long as the window.

    Args:
        length: the number of steps of the whole run, if known. A window of steps is never longer than an eighth of it.
    """

    def __init__(self, length: int | None = None) -> None:
        self.length = length
        self.series: dict[str, MetricSeries] = {}
        self.step = 0

    def add(self, step: int, stats: Mapping[str, Stat]) -> None:
        """Append a row."""
        self.step = step
        for name, stat in stats.items():
            self.series.setdefault(name, MetricSeries()).add(step, stat)

    def drop_after(self, step: int) -> None:
        """Delete the rows after `step`, after a roll-back to it."""
        self.step = min(self.step, step)
        for series in self.series.values():
            series.drop_after(step)

    def is_fresh(self, name: str) -> bool:
        """Whether the newest row has this metric."""
        series = self.series.get(name)
        return series is not None and bool(series.steps) and series.steps[-1] == self.step

    def newest(self, name: str) -> Stat | None:
        """The metric in the newest row, or None if that row does not have it."""
        return self.series[name].stats[-1] if self.is_fresh(name) else None

    def window_steps(self, name: str, length: WindowLength) -> int:
        """The length of a window of a metric, in steps."""
        series = self.series[name]
        interval = series.interval
        steps = length.steps if self.length is None else min(length.steps, self.length // 8)
        if interval is None:
            return steps
        rows = max(MIN_ROWS, math.ceil(length.values / (interval if series.has_statistics else 1)))
        return int(max(steps, rows * interval))

    def last(self, name: str, length: WindowLength, *, stale: bool = False) -> Window | None:
        """The newest window of a metric, or None if there is none yet or a value in it is not finite.

        Args:
            name: the name of the metric.
            length: the length of the window.
            stale: accept a window whose last row is older than the newest row, for measures, which are rare.
        """
        series = self.series.get(name)
        if series is None or len(series.steps) < MIN_ROWS or not (stale or self.is_fresh(name)):
            return None
        now = series.steps[-1]
        steps = self.window_steps(name, length)
        start, interval = series.steps[0], series.steps[1] - series.steps[0]
        found = series.between(now - steps, now)
        if now - steps < start - interval or len(found) < MIN_ROWS:
            return None
        return found if found.is_finite else None

    def early(self, name: str, length: WindowLength) -> Window | None:
        """The first window of a metric, without its first row, which is often unstable; None if there is none yet."""
        series = self.series.get(name)
        if series is None or len(series.steps) <= MIN_ROWS:
            return None
        start = series.steps[0]
        found = series.between(start, start + self.window_steps(name, length))
        valid = len(found) >= MIN_ROWS - 1 and found.is_finite
        return found if valid and found.steps[-1] < self.step else None

    def previous_step(self, name: str) -> int:
        """The step of the row before the newest one with this metric; 0 if there is none."""
        steps = self.series[name].steps
        return steps[-2] if len(steps) > 1 else 0

    def before(self, name: str) -> Window | None:
        """All rows before the newest, or None if there are fewer than eight."""
        series = self.series.get(name)
        if series is None or len(series.steps) < 2 * MIN_ROWS + 1 or not self.is_fresh(name):
            return None
        return Window(series.steps[:-1], series.stats[:-1])
