"""Progress listeners: objects that are notified as a run proceeds, with plain numbers and sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from poise.core.metrics_log import Row
from poise.core.types import Side
from poise.errors import Stopped
from poise.retired import LISTENER_MEMBERS, adopt
from poise.utils.printing import print_error
from poise.watch.base import Alarm


class StartInfo(NamedTuple):
    """What a listener learns before the first step.

    Attributes:
        name: the recipe's name.
        first: the number of steps done already, in a resumed run.
        steps: the number of steps of the whole run.
        batch: the batch size.
        lines: sentences about the device, the data and the players.
        equilibrium: each player's loss if D can't tell real from fake samples; empty if there is no such number.
        folder: the path of the run folder.
        measure_every: the number of steps between two measurements, 0 if there are none; the last step is measured too.
    """

    name: str
    first: int
    steps: int
    batch: int
    lines: list[str]
    equilibrium: Mapping[Side, float]
    folder: str
    measure_every: int = 0


class ProgressListener(Protocol):
    """Is notified as a run proceeds. All calls come from the training thread and should return at once.

    If a method raises an exception, training continues without the listener; `Stopped` stops the run gracefully, with
    its state saved, after the current step, or after the next one if `on_step` raises it.

    A listener may also have a method `on_progress(what, share)`. It is called while data is read, if that takes long,
    and while the run is measured or a sample grid or checkpoint is written, with a description of the work and the
    fraction that is done, 0 to 1; and with an empty description at the end.
    """

    def on_start(self, start: StartInfo) -> None:
        """Training is about to start."""

    def on_step(self, step: int) -> None:
        """A step has been made; `step` is the number of steps done."""

    def on_row(self, row: Row) -> None:
        """A row has been logged."""

    def on_message(self, sentence: str) -> None:
        """There is a message for the user."""

    def on_alarm(self, alarm: Alarm) -> None:
        """The monitor has raised an alarm."""

    def on_end(self) -> None:
        """Training has ended, with or without an error."""


class NullListener:
    """A listener that does nothing; a base class for listeners that need only some of the methods.

    All calls come from the training thread and should return at once. If a method raises an exception, training goes on
    without the listener; `poise.Stopped` stops the run, with its state saved, after the current step, or after the next
    one if `on_step` raises it. A method `on_progress(what, share)` may be added: it gets a description of long work,
    such as reading data, and the fraction that is done, 0 to 1; and an empty description at the end.
    """

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        adopt(cls, LISTENER_MEMBERS)

    def on_start(self, start: StartInfo) -> None:
        """Training is about to start.

        Args:
            start: has the `name` of the recipe, the number of steps done already (`first`) and of the whole run
                (`steps`), the `batch` size, the path of the run (`folder`) and sentences about the run (`lines`).
        """

    def on_step(self, step: int) -> None:
        """A step has been made; `step` is the number of steps done."""

    def on_row(self, row: Row) -> None:
        """A row has been logged.

        Args:
            row: the line of `rows.jsonl`: `step`, `images`, `seconds` and `stats`, by name, each with `mean`, `std`,
                `min` and `max`.
        """

    def on_message(self, sentence: str) -> None:
        """There is a message for the user."""

    def on_alarm(self, alarm: Alarm) -> None:
        """The monitor has raised an alarm.

        Args:
            alarm: the line of `alarms.jsonl`: `step`, `detector`, `level`, `message`, `advice`, `tip` and `since`.
        """

    def on_end(self) -> None:
        """Training has ended, with or without an error."""


class SafeListener:
    """Forwards all calls to another listener and keeps its errors away from the run.

    After its first error only `on_end` of that listener is called, so that it can clean up. If it raises `Stopped`, the
    run stops after the current step, or after the next one if `on_step` raises it, with its state saved.

    Args:
        listener: the other listener.
        request_stop: called with the message of `Stopped`, which says who wants the run to stop.
    """

    def __init__(self, listener: ProgressListener, request_stop: Callable[[str], None]) -> None:
        self.listener, self.request_stop = listener, request_stop
        adopt(type(listener), LISTENER_MEMBERS)  # a listener need not inherit from `NullListener`
        self.failed = False

    def on_start(self, start: StartInfo) -> None:
        """See `ProgressListener.on_start`."""
        self._forward(self.listener.on_start, start)

    def on_step(self, step: int) -> None:
        """See `ProgressListener.on_step`."""
        self._forward(self.listener.on_step, step)

    def on_row(self, row: Row) -> None:
        """See `ProgressListener.on_row`."""
        self._forward(self.listener.on_row, row)

    def on_message(self, sentence: str) -> None:
        """See `ProgressListener.on_message`."""
        self._forward(self.listener.on_message, sentence)

    def on_alarm(self, alarm: Alarm) -> None:
        """See `ProgressListener.on_alarm`."""
        self._forward(self.listener.on_alarm, alarm)

    def on_progress(self, what: str, share: float) -> None:
        """See `ProgressListener`; not every listener has this method."""
        if (method := getattr(self.listener, "on_progress", None)) is not None:
            self._forward(method, what, share)

    def on_end(self) -> None:
        """See `ProgressListener.on_end`; called even after an error."""
        with suppress(Exception, SystemExit):
            self.listener.on_end()

    def _forward(self, method: Callable[..., None], *args: Any) -> None:
        if self.failed:
            return
        try:
            method(*args)
        except Stopped as stopped:
            self.request_stop(str(stopped) or "the listener")
        except (Exception, SystemExit) as error:  # rich raises SystemExit if a pipe is closed
            self.failed = True
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            print_error(f"the listener {type(self.listener).__name__} failed and is not called any more: {reason}")
