"""How far a long piece of work is, told to whoever listens: `report` deep inside, `progress_to` around it.

The listener is a context variable, so that nothing in between has to hand it on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Progress = Callable[[str, float], None]
"""Told what is being done, and how far it is, from 0 to 1."""

_listener: ContextVar[Progress | None] = ContextVar("progress", default=None)


@contextmanager
def progress_to(listener: Progress) -> Iterator[None]:
    """While this is open, `listener` is told how far work is."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


def report(what: str, share: float) -> None:
    """Tell the listener, if there is one, what is being done and how far it is, from 0 to 1."""
    listener = _listener.get()
    if listener is not None:
        listener(what, share)


class Paced:
    """Progress as sentences: none about what is soon over, and not too many.

    Args:
        say: told a sentence.
        after: seconds of work before the first one.
        every: seconds between two of them.
    """

    def __init__(self, say: Callable[[str], None], after: float = 1.0, every: float = 5.0) -> None:
        self.say, self.every = say, every
        self._next = time.monotonic() + after

    def __call__(self, what: str, share: float) -> None:
        """See `Progress`."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self.every
            self.say(f"{what} ({share:.0%})")
