"""The time of a game: when its next step is due, and for how many seconds it has been played."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """A clock that starts at once and can be paused.

    Args:
        speed: the largest number of steps per second.
        now: the time in seconds.
    """

    def __init__(self, speed: float, now: Callable[[], float] = time.monotonic) -> None:
        self.speed, self._now = speed, now
        self._played, self._since, self._due = 0.0, now(), now()
        self.paused = False

    @property
    def seconds(self) -> float:
        """The seconds played, pauses excluded."""
        return self._played + (0.0 if self.paused else self._now() - self._since)

    @property
    def seconds_paused(self) -> float:
        """The length of this pause so far; 0 if there is none."""
        return self._now() - self._since if self.paused else 0.0

    @property
    def wait(self) -> float:
        """The seconds until the next step is due; 0 if it is due now."""
        return max(0.0, self._due - self._now())

    def pause(self) -> None:
        """Stop the clock."""
        if not self.paused:
            self._played, self._since, self.paused = self.seconds, self._now(), True

    def resume(self) -> None:
        """Start the clock again."""
        if self.paused:
            self._since, self._due, self.paused = self._now(), self._now(), False

    def stepped(self) -> None:
        """A step has been made; a late one does not make the next ones hurry."""
        self._due = max(self._due + 1 / self.speed, self._now())
