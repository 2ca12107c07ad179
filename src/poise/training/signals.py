"""Ctrl-C and SIGTERM: the first asks for an orderly end, a second Ctrl-C within five seconds ends at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

from poise.errors import Stopped


class Signals:
    """While this context is open, `asked` says whether somebody wants the run to end.

    Before `patient` is set there is nothing to save, and the signal raises `Stopped` where it arrives.
    """

    def __init__(self) -> None:
        self.asked: str | None = None
        self.patient = False
        self._since = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _hear(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if not self.patient:
            raise Stopped(f"stopped by {name} before the first step; there is nothing to save yet")
        if self.asked and number == signal.SIGINT and time.monotonic() - self._since < 5:
            os._exit(130)
        self.asked, self._since = name, time.monotonic()
