"""What was heard: every number that came, by name and step, and windows of it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from functools import cached_property
from statistics import median

import numpy as np
import numpy.typing as npt

from poise.core.metrics_log import Stat
from poise.watch.formatting import HUGE

Numbers = npt.NDArray[np.float64]
LEAST = 4
"""Rows below which a window says nothing."""

SHORT = 400
"""Steps below which a run of ours is listened to as if it had so many: its first fifty are nobody's failure."""


class Window:
    """Some rows of one quantity, in order.

    Args:
        steps: when each was.
        stats: one for each step.
    """

    def __init__(self, steps: list[int], stats: list[Stat]) -> None:
        self.steps, self._stats = steps, stats

    def __len__(self) -> int:
        return len(self.steps)

    @cached_property
    def means(self) -> Numbers:
        """Row by row."""
        return np.array([stat.mean for stat in self._stats])

    @property
    def is_finite(self) -> bool:
        """Whether all of it can be reckoned with: finite, and not so large that its square would not be."""
        spreads = np.array([stat.std for stat in self._stats])
        return bool((np.abs(self.means) < HUGE).all() and (np.abs(spreads) < HUGE).all())

    @property
    def mean(self) -> float:
        """Over all rows."""
        return float(self.means.mean())

    @property
    def median(self) -> float:
        """Of the rows' means."""
        return median(stat.mean for stat in self._stats)

    @property
    def std(self) -> float:
        """Of the steps, within the rows and between them."""
        within = np.array([stat.std for stat in self._stats])
        return float(np.sqrt((within**2).mean() + self.means.var()))

    @property
    def trend(self) -> float:
        """Spearman's rank correlation of the rows' means with time, -1 to 1; 0 if they are all alike."""
        if not len(self) or float(np.ptp(self.means)) == 0:
            return 0.0
        _, place, count = np.unique(self.means, return_inverse=True, return_counts=True)
        order = (np.cumsum(count) - (count + 1) / 2)[place]  # equal values share their rank
        time = np.arange(len(self), dtype=np.float64)
        return float(np.corrcoef(order, time)[0, 1])

    def halves(self) -> tuple[Window, Window]:
        """The earlier and the later half."""
        cut = len(self) // 2
        return Window(self.steps[:cut], self._stats[:cut]), Window(self.steps[cut:], self._stats[cut:])


class MetricSeries:
    """One quantity from the beginning."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.stats: list[Stat] = []

    @property
    def age(self) -> int:
        """Steps that it is about: the first row's are taken to be as many as the second's."""
        return self.steps[-1] - self.steps[0] + (self.steps[1] - self.steps[0] if len(self.steps) > 1 else 0)

    def add(self, step: int, stat: Stat) -> None:
        """The next row."""
        self.steps.append(step)
        self.stats.append(stat)

    def drop_after(self, step: int) -> None:
        """Forget what came after `step`."""
        keep = bisect_right(self.steps, step)
        del self.steps[keep:], self.stats[keep:]

    def between(self, low: int, high: int) -> Window:
        """The rows after step `low`, up to step `high`."""
        a, b = bisect_right(self.steps, low), bisect_right(self.steps, high)
        return Window(self.steps[a:b], self.stats[a:b])


class MetricHistory:
    """All rows so far. A window is there only when the run is as old as it is long and it holds four rows at least.

    Args:
        length: of the whole run, in steps, where that is known: a window is never longer than an eighth of it.
    """

    def __init__(self, length: int | None = None) -> None:
        self.length = length
        self.series: dict[str, MetricSeries] = {}
        self.step = 0

    def add(self, step: int, stats: Mapping[str, Stat]) -> None:
        """The next row."""
        self.step = step
        for name, stat in stats.items():
            self.series.setdefault(name, MetricSeries()).add(step, stat)

    def drop_after(self, step: int) -> None:
        """Forget what came after `step`: the run went back to it."""
        self.step = min(self.step, step)
        for series in self.series.values():
            series.drop_after(step)

    def is_fresh(self, name: str) -> bool:
        """Whether the newest row has this quantity."""
        series = self.series.get(name)
        return series is not None and bool(series.steps) and series.steps[-1] == self.step

    def newest(self, name: str) -> Stat | None:
        """The newest row's."""
        return self.series[name].stats[-1] if self.is_fresh(name) else None

    def window_length(self, window: int, series: MetricSeries) -> int:
        """`window` steps, or as many as there are for this run: not above an eighth of it, nor below four rows."""
        steps = series.steps
        apart = (steps[-1] - steps[0]) / (len(steps) - 1) if len(steps) > 1 else math.inf
        short = window if self.length is None else min(window, self.length // 8)
        return int(max(short, LEAST * apart)) if math.isfinite(apart) else window

    def last(self, name: str, window: int, *, whole: bool = True, stale: bool = False) -> Window | None:
        """The newest `window` steps of a quantity.

        Args:
            name: of the quantity.
            window: in steps.
            whole: whether all of it must be about finite numbers.
            stale: whether it may have come with an earlier row than the newest: measurings are rare.
        """
        series = self.series.get(name)
        if series is None or len(series.steps) < LEAST or not (stale or self.is_fresh(name)):
            return None
        now = series.steps[-1]
        span, (start, apart) = self.window_length(window, series), (series.steps[0], series.steps[1] - series.steps[0])
        found = series.between(now - span, now)
        if now - span < start - apart or len(found) < LEAST:
            return None
        return found if not whole or found.is_finite else None

    def early(self, name: str, window: int) -> Window | None:
        """The first `window` steps of a quantity, without the first row, which is the beginning's turmoil."""
        series = self.series.get(name)
        if series is None or len(series.steps) <= LEAST:
            return None
        start = series.steps[0]
        found = series.between(start, start + self.window_length(window, series))
        whole = len(found) >= LEAST - 1 and found.is_finite
        return found if whole and found.steps[-1] < self.step else None

    def before(self, name: str) -> Window | None:
        """All rows but the newest: eight at least."""
        series = self.series.get(name)
        if series is None or len(series.steps) < 2 * LEAST + 1 or not self.is_fresh(name):
            return None
        return Window(series.steps[:-1], series.stats[:-1])
