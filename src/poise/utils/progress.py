"""How far a long piece of work is, told to whoever listens: `report` deep inside, `progress_to` around it.

The listener is a context variable, so that nothing in between has to hand it on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Progress = Callable[[str, float], None]
"""Told what is being done, and how far it is, from 0 to 1; told "" when that is over."""

PATIENCE = 1.0
"""Seconds that work may take before `Slow` says anything of it."""

PAUSE = 0.25
"""Seconds between two of its words."""


def silent(what: str, share: float) -> None:
    """Nobody listens."""


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


class SlowWork:
    """Work on many things, of which something is said only once it has taken more than a second.

    Used as a context, whose end takes back what was said. It may have several phases; the second is one for all.
    """

    def __init__(self) -> None:
        self._next, self._told = time.monotonic() + PATIENCE, False
        self.phase("{:,} of {:,}", 0)

    def __enter__(self) -> SlowWork:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take back what was said."""
        if self._told:
            report("", 1.0)

    def phase(self, words: str, total: int) -> None:
        """What is done next, with places for how many are done and how many there are: "reading {:,} of {:,} files"."""
        self._words, self._total, self._done = words, total, 0

    def step(self, n: int = 1) -> None:
        """`n` more are done."""
        self._done += n
        now = time.monotonic()
        if now >= self._next:
            self._next, self._told = now + PAUSE, True
            report(self._words.format(self._done, self._total), self._done / max(1, self._total))
