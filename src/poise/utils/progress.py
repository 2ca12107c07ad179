"""Progress reports of long work: the work calls `report`, and a caller around it receives the reports by `progress_to`.

The callback is a context variable, so that the functions in between need no parameter for it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from contextvars import ContextVar
from io import StringIO

Progress = Callable[[str, float], None]
"""A callback that gets what is being done and the fraction done, from 0 to 1; "" once the work is over."""

DELAY = 1.0
"""Seconds after which `DelayedProgress` makes its first report."""

INTERVAL = 0.25
"""Seconds between two of its reports."""


def no_progress(what: str, fraction: float) -> None:
    """A callback that ignores all reports."""


_callback: ContextVar[Progress | None] = ContextVar("progress", default=None)


@contextmanager
def progress_to(callback: Progress) -> Iterator[None]:
    """Send the reports that are made in the block to `callback`."""
    previous = _callback.set(callback)
    try:
        yield
    finally:
        _callback.reset(previous)


def report(what: str, fraction: float) -> None:
    """Report what is being done and the fraction done, from 0 to 1, to the callback, if there is one."""
    callback = _callback.get()
    if callback is not None:
        callback(what, fraction)


@contextmanager
def reporting(what: str) -> Iterator[None]:
    """Report that `what` is being done in the block, and at its end that it is over."""
    report(what, 0.0)
    try:
        yield
    finally:
        report("", 1.0)


@contextmanager
def bars_on_terminals_only() -> Iterator[None]:
    """Drop what a library prints to stderr in the block, unless stderr is a terminal.

    Libraries that download or upload draw a bar with carriage returns, even into a log file.
    """
    if sys.stderr is not None and sys.stderr.isatty():
        yield
        return
    with redirect_stderr(StringIO()):
        yield


class DelayedProgress:
    """Reports the progress of work on many items, but only once it has taken more than a second.

    It is a context manager; leaving it clears what was reported. The work may have several phases, which share the
    initial second.
    """

    def __init__(self) -> None:
        self._next_report, self._has_reported = time.monotonic() + DELAY, False
        self.phase("{:,} of {:,}", 0)

    def __enter__(self) -> DelayedProgress:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Clear what was reported."""
        if self._has_reported:
            report("", 1.0)

    def phase(self, template: str, total: int) -> None:
        """Begin a phase; `template` takes the number done and the total: "reading {:,} of {:,} files"."""
        self._template, self._total, self._done = template, total, 0

    def step(self, n: int = 1) -> None:
        """Count `n` more items as done."""
        self._done += n
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report, self._has_reported = now + INTERVAL, True
            report(self._template.format(self._done, self._total), self._done / max(1, self._total))
