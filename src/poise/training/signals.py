"""Signals that stop a run: Ctrl-C (SIGINT), SIGTERM, and the SIGHUP of a terminal that is closed.

The first signal stops the run gracefully, with its state saved. A second Ctrl-C within five seconds stops at once: the
command line exits, and in any other process (a notebook, a script) `KeyboardInterrupt` is raised, as usual in Python.
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

REPEAT_SECONDS = 5.0
"""Seconds within which a second Ctrl-C stops at once."""

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
"""The signals that stop a run; no system has all of them."""

_owned: list[bool] = [False]


class SignalReceived(BaseException):
    """A signal interrupts the current work.

    It is not an `Exception`, so that code which catches any error of a damaged file or of user code does not catch it.
    """


@contextmanager
def owned_process() -> Iterator[None]:
    """Within this context the process belongs to the command line, and a second Ctrl-C may exit it at once."""
    before, _owned[0] = _owned[0], True
    try:
        yield
    finally:
        _owned[0] = before


class Signals:
    """Within this context, `requested_by` is the name of the signal that has asked the run to stop, or None.

    As long as `deferred` is False there is nothing to save: a signal interrupts the work where it arrives, and the
    context raises `Stopped`. When it is True, a signal only sets `requested_by`. Outside the main thread Python
    delivers no signals, and nothing is changed.

    Args:
        suffix: the end of the message of `Stopped` if a signal arrives while `deferred` is False.
        hears_inner: whether a signal of a context within this one stops this one as well if the inner one ends all the
            same, as a run does that is done: what follows it would otherwise begin as if nobody had asked to stop.
    """

    def __init__(
        self, suffix: str = " before the first step; there is nothing to save yet", *, hears_inner: bool = False
    ) -> None:
        self.requested_by: str | None = None
        self.deferred = False
        self._suffix, self._hears_inner = suffix, hears_inner
        self._last_time = 0.0
        self._changing = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Signals:
        self._changing = True
        if threading.current_thread() is threading.main_thread():
            for number in _handled():
                with suppress(ValueError, OSError):  # a subinterpreter, or a system that does not allow it
                    self._previous[number] = signal.signal(number, self._handle)
        for outer in self._outer():
            if outer.requested_by:  # its exception was swallowed by some library
                self.requested_by = outer.requested_by
        self._changing = False
        if self.requested_by:
            self._restore()
            raise Stopped(f"stopped by {self.requested_by}{self._suffix}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        outer = self._outer()
        self._restore()
        if kind is None or issubclass(kind, Stopped):
            self._tell(outer, raising=kind is None)
            return
        # a signal that arrives during an import, or in compiled code, may be turned into another exception
        turned = issubclass(kind, Exception) and self.requested_by is not None and not self.deferred
        if issubclass(kind, SignalReceived) or turned:
            raise Stopped(f"stopped by {self.requested_by or error}{self._suffix}") from None

    def request_stop(self, who: str) -> None:
        """Ask the run to stop, as a signal does.

        Raises:
            SignalReceived: there is nothing to save yet.
        """
        self.requested_by = who
        if not self.deferred:
            raise SignalReceived(who)

    def interrupt(self) -> None:
        """Interrupt work that can be repeated later, if the run has been asked to stop.

        Raises:
            SignalReceived: it has been asked to stop.
        """
        if self.requested_by:
            raise SignalReceived(self.requested_by)

    def _outer(self) -> list[Signals]:
        """The context around this one, whose handlers this one has replaced."""
        handlers = (getattr(handler, "__self__", None) for handler in self._previous.values())
        return [outer for outer in handlers if isinstance(outer, Signals)]

    def _tell(self, contexts: list[Signals], *, raising: bool) -> None:
        """Pass a request on to the contexts that hear inner ones; `raising` interrupts one that is not deferred."""
        for outer in contexts:
            if self.requested_by and outer._hears_inner:
                outer.requested_by = self.requested_by
                if raising and not outer.deferred:
                    raise SignalReceived(self.requested_by)

    def _restore(self) -> None:
        """Restore all previous handlers; a signal that arrives meanwhile is only recorded, so that none is skipped."""
        self._changing = True
        for number, handler in self._previous.items():
            with suppress(ValueError, OSError):
                signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        repeated = self.requested_by is not None and time.monotonic() - self._last_time < REPEAT_SECONDS
        self.requested_by, self._last_time = name, time.monotonic()
        if self._changing:
            return
        if not self.deferred:
            raise SignalReceived(name)
        if repeated and number == signal.SIGINT:
            if _owned[0]:
                os._exit(130)
            self._restore()
            raise KeyboardInterrupt


def _handled() -> list[signal.Signals]:
    """The signals to handle. A SIGHUP that was ignored before (nohup, disown) stays ignored."""
    known = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    return [number for number in known if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN]
