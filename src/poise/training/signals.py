"""Signals that ask for an end: Ctrl-C, SIGTERM, and the SIGHUP of a terminal that is closed.

The first asks for an orderly end. A second Ctrl-C within five seconds ends at once: the command line ends its process,
and in anybody else's process (a notebook, a script) `KeyboardInterrupt` is raised, as Python does.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType

from poise.errors import Stopped

HASTE = 5.0
"""Seconds within which a second Ctrl-C is meant to end at once."""

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
"""Those that ask for an end; no system has all of them."""

_owned: list[bool] = [False]


class SignalReceived(BaseException):
    """A signal ends what is going on.

    It is no `Exception`: whoever expects that a damaged file or somebody else's code may raise anything must not take
    it for that.
    """


@contextmanager
def owned_process() -> Iterator[None]:
    """While this is open, the process is the command line's own, and a second Ctrl-C may end it on the spot."""
    before, _owned[0] = _owned[0], True
    try:
        yield
    finally:
        _owned[0] = before


class Signals:
    """While this context is open, `asked` says whether somebody wants the run to end.

    Before `patient` is set there is nothing to save: the signal ends what is going on where it arrives, and the context
    raises `Stopped`. Outside the main thread Python delivers no signals, and nothing is changed.

    Args:
        nothing: what the message says of an end that comes before `patient` is set.
    """

    def __init__(self, nothing: str = " before the first step; there is nothing to save yet") -> None:
        self.requested_by: str | None = None
        self.patient = False
        self._nothing = nothing
        self._since = 0.0
        self._changing = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Signals:
        self._changing = True
        if threading.current_thread() is threading.main_thread():
            for number in _ending():
                with suppress(ValueError, OSError):  # a subinterpreter, or a system that does not let it be handled
                    self._before[number] = signal.signal(number, self._hear)
        self._changing = False
        if self.requested_by:
            self._restore()
            raise Stopped(f"stopped by {self.requested_by}{self._nothing}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._restore()
        if kind is not None and issubclass(kind, SignalReceived):
            raise Stopped(f"stopped by {error}{self._nothing}") from None

    def request_stop(self, who: str) -> None:
        """Ask for an end as a signal does.

        Raises:
            Arrived: there is nothing to save yet.
        """
        self.requested_by = who
        if not self.patient:
            raise SignalReceived(who)

    def interrupt(self) -> None:
        """Break off work that can be done again later, if somebody wants the run to end.

        Raises:
            Arrived: somebody does.
        """
        if self.requested_by:
            raise SignalReceived(self.requested_by)

    def _restore(self) -> None:
        """Put back every handler that was there; a signal that arrives meanwhile waits, so that none is left out."""
        self._changing = True
        for number, handler in self._before.items():
            with suppress(ValueError, OSError):
                signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
        self._before.clear()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        again = self.requested_by is not None and number == signal.SIGINT and time.monotonic() - self._since < HASTE
        self.requested_by, self._since = name, time.monotonic()
        if self._changing:
            return
        if not self.patient:
            raise SignalReceived(name)
        if again:
            if _owned[0]:
                os._exit(130)
            self._restore()
            raise KeyboardInterrupt


def _ending() -> list[signal.Signals]:
    """The signals to look after. A SIGHUP that was ignored before (nohup, disown) stays ignored."""
    known = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    return [number for number in known if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN]
