"""The history of logged metrics, by name and step, and windows of it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from functools import cached_property
from statistics import median

import numpy as np
import numpy.typing as npt

from poise.core.metrics_log import Stat
from poise.watch.formatting import MAX_MAGNITUDE

Numbers = npt.NDArray[np.float64]
MIN_ROWS = 4
"""The smallest number of rows in a window."""

MIN_RUN_LENGTH = 400
"""Shorter runs are treated as if they had this many steps, because their first fifty steps are no sign of failure."""


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
    def std(self) -> float:
        """The standard deviation over all steps, within rows and between them."""
        within = np.array([stat.std for stat in self._stats])
        return float(np.sqrt((within**2).mean() + self.means.var()))

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
    """All rows of one metric."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.stats: list[Stat] = []

    @property
    def age(self) -> int:
        """The number of steps that it covers; the first row is taken to cover as many as the second."""
        return self.steps[-1] - self.steps[0] + (self.steps[1] - self.steps[0] if len(self.steps) > 1 else 0)

    def add(self, step: int, stat: Stat) -> None:
        """Append a row."""
        self.steps.append(step)
        self.stats.append(stat)

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

    A window is available only once the run is as long as the window and the window holds at least four rows.

    Args:
        length: the number of steps of the whole run, if known. A window is never longer than an eighth of it.
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

    def window_length(self, window: int, series: MetricSeries) -> int:
        """The length of a window in steps: `window`, but at most an eighth of the run and at least four rows."""
        steps = series.steps
        interval = (steps[-1] - steps[0]) / (len(steps) - 1) if len(steps) > 1 else math.inf
        length = window if self.length is None else min(window, self.length // 8)
        return int(max(length, MIN_ROWS * interval)) if math.isfinite(interval) else window

    def last(self, name: str, window: int, *, stale: bool = False) -> Window | None:
        """The newest window of a metric, or None if there is none yet or a value in it is not finite.

        Args:
            name: the name of the metric.
            window: the length in steps.
            stale: accept a window whose last row is older than the newest row, for measures, which are rare.
        """
        series = self.series.get(name)
        if series is None or len(series.steps) < MIN_ROWS or not (stale or self.is_fresh(name)):
            return None
        now = series.steps[-1]
        length = self.window_length(window, series)
        start, interval = series.steps[0], series.steps[1] - series.steps[0]
        found = series.between(now - length, now)
        if now - length < start - interval or len(found) < MIN_ROWS:
            return None
        return found if found.is_finite else None

    def early(self, name: str, window: int) -> Window | None:
        """The first window of a metric, without its first row, which is often unstable; None if there is none yet."""
        series = self.series.get(name)
        if series is None or len(series.steps) <= MIN_ROWS:
            return None
        start = series.steps[0]
        found = series.between(start, start + self.window_length(window, series))
        valid = len(found) >= MIN_ROWS - 1 and found.is_finite
        return found if valid and found.steps[-1] < self.step else None

    def before(self, name: str) -> Window | None:
        """All rows before the newest, or None if there are fewer than eight."""
        series = self.series.get(name)
        if series is None or len(series.steps) < 2 * MIN_ROWS + 1 or not self.is_fresh(name):
            return None
        return Window(series.steps[:-1], series.stats[:-1])
