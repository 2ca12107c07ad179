"""Functions that stand for a run; workers import them, so this module imports little."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def square(number: int) -> int:
    return number * number


def process_of(_: object) -> int:
    return os.getpid()


def threads(_: object) -> str | None:
    return os.environ.get("OMP_NUM_THREADS")


def fail(message: str) -> None:
    raise ValueError(message)


def die_twice(counter: Path) -> int:
    """Append a byte to the file and die, unless that has happened twice."""
    with counter.open("ab") as file:
        file.write(b".")
    if counter.stat().st_size <= 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return counter.stat().st_size


def die(counter: Path) -> None:
    with counter.open("ab") as file:
        file.write(b".")
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_signal(started: Path) -> str:
    """Run until a signal asks to stop, as training does."""
    from poise.training.signals import Signals

    with Signals() as signals:
        signals.deferred = True
        started.touch()
        for _ in range(6000):
            if signals.requested_by:
                return signals.requested_by
            time.sleep(0.01)
    return ""


def wait_long(started: Path) -> None:
    started.touch()
    time.sleep(60)
