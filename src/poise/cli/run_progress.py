"""The times of a run: how long it has taken, how long it will take, and how long it has not been stepping."""

from __future__ import annotations

import time

from poise.training.listener import StartInfo

LONG_WORK = 3.0
"""Seconds after which the duration of long work is shown."""


def format_duration(seconds: float) -> str:
    """A duration as h:mm:ss, or m:ss below an hour."""
    total = max(0, round(seconds))
    hours, minutes = divmod(total // 60, 60)
    return f"{hours}:{minutes:02}:{total % 60:02}" if hours else f"{minutes}:{total % 60:02}"


class RunProgress:
    """The current step of a run, the elapsed time and an estimate of the remaining time, from a monotonic clock.

    The time of a step is the mean over pairs of successive steps, so neither the preparation of the first step nor a
    roll-back counts. The time of a measurement is that of the last step that ended with one, because the first
    measurement also prepares the real samples.
    """

    def __init__(self, start: StartInfo) -> None:
        self.steps, self.measure_every = start.steps, start.measure_every
        self.step, self.start_time = start.first, time.monotonic()
        self._previous: tuple[int, float] | None = None
        self._step_seconds, self._num_timed = 0.0, 0
        self._measurement: float | None = None

    def on_step(self, step: int) -> None:
        """Record that `step` steps have been made, and measured if that was due."""
        now = time.monotonic()
        if self._previous is not None and self._previous[0] == step - 1:
            seconds = now - self._previous[1]
            if self._num_measurements_after(step - 1) > self._num_measurements_after(step):
                self._measurement = seconds
            else:
                self._step_seconds, self._num_timed = self._step_seconds + seconds, self._num_timed + 1
        self.step, self._previous = step, (step, now)

    def times(self) -> str:
        """The elapsed and the remaining time of this command's training.

        Before the first measurement its duration is unknown, and the remaining time is a lower bound.
        """
        return f"{format_duration(time.monotonic() - self.start_time)} elapsed, {self._remaining()} left"

    def _remaining(self) -> str:
        if self.step < self.steps and not self._num_timed and self._measurement is None:
            return "?"
        num_measurements = self._num_measurements_after(self.step)
        seconds = self._step_seconds / max(1, self._num_timed) * (self.steps - self.step)
        if num_measurements and self._measurement is None:
            return f"at least {format_duration(seconds)}"
        return format_duration(seconds + num_measurements * (self._measurement or 0.0))

    def _num_measurements_after(self, step: int) -> int:
        """How many measurements follow after `step`: at multiples of `measure_every` and at the last step."""
        if not self.measure_every or step >= self.steps:
            return 0
        return self.steps // self.measure_every - step // self.measure_every + (self.steps % self.measure_every != 0)


class LongWork:
    """The work that is reported at the moment, such as reading data or measuring, and since when."""

    def __init__(self) -> None:
        self.what, self._since = "", 0.0

    def report(self, what: str) -> bool:
        """Record what is being done, or, if `what` is empty, that it is over; return whether work has just begun."""
        begins = bool(what) and not self.what
        if begins:
            self._since = time.monotonic()
        self.what = what
        return begins

    @property
    def seconds(self) -> float:
        """How long the work has taken so far."""
        return time.monotonic() - self._since

    def describe(self, share: float = 0.0) -> str:
        """What is being done and the percentage that is done, unless it is 0; after three seconds, also for how long.

        Args:
            share: the fraction of the work that is done, 0 to 1.
        """
        text = f"{self.what} ({share:.0%})" if share else f"{self.what} ..."
        return f"{text} {format_duration(self.seconds)}" if self.seconds >= LONG_WORK else text
