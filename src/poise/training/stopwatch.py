"""The time of training: how long a run has been trained, over all its sessions, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable


class Stopwatch:
    """Measures the time of training. It runs from the beginning.

    Args:
        seconds: the time of earlier sessions.
        step: the number of steps done in them.
        now: the clock, in seconds.
    """

    def __init__(self, seconds: float, step: int, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._started = now() - seconds
        self._counted_from = (step, seconds)

    @property
    def seconds(self) -> float:
        """The time so far, that of earlier sessions included."""
        return self._now() - self._started

    def count_from(self, step: int) -> None:
        """Let the speed be that of the steps after `step`."""
        self._counted_from = (step, self.seconds)

    def exclude(self, seconds: float) -> None:
        """Let the last `seconds`, in which no step was made, not count for the speed."""
        step, start = self._counted_from
        self._counted_from = (step, start + seconds)

    def steps_per_second(self, step: int) -> float:
        """The speed since the last call, or since `count_from`; `step` is the number of steps done."""
        first, start = self._counted_from
        self.count_from(step)
        return (step - first) / max(1e-9, self._counted_from[1] - start)
