"""Who may look on while a run goes: told plain numbers and sentences, never asked for anything."""

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
    """What there is to say before the first step.

    Attributes:
        name: the recipe's name.
        first: steps done already (a resumed run).
        steps: steps in the whole run.
        batch: samples per pile.
        lines: sentences about machine, data and players.
        equilibrium: each player's loss where D can't tell real from fake; empty if there is no such number.
        folder: where the run is written.
    """

    name: str
    first: int
    steps: int
    batch: int
    lines: list[str]
    equilibrium: Mapping[Side, float]
    folder: str


class ProgressListener(Protocol):
    """Looks on. All calls come from the training thread and should return at once.

    Whatever it raises, training goes on without it; `Stopped` asks for an orderly end.

    It may have a method `progress(what, share)` as well: told while the data is read or the run is measured, if that
    takes its time, what is being done and how far it is, 0 to 1; told "" when that is over.
    """

    def on_start(self, start: StartInfo) -> None:
        """Training is about to begin."""

    def on_step(self, step: int) -> None:
        """`step` steps are done; called after each."""

    def on_row(self, row: Row) -> None:
        """A row was written."""

    def on_message(self, sentence: str) -> None:
        """Something the user should know."""

    def on_alarm(self, alarm: Alarm) -> None:
        """A sign of failure was seen."""

    def on_end(self) -> None:
        """Training is over, one way or another."""


class NullListener:
    """A watcher that does not look."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        adopt(cls, LISTENER_MEMBERS)

    def on_start(self, start: StartInfo) -> None:
        """Nothing."""

    def on_step(self, step: int) -> None:
        """Nothing."""

    def on_row(self, row: Row) -> None:
        """Nothing."""

    def on_message(self, sentence: str) -> None:
        """Nothing."""

    def on_alarm(self, alarm: Alarm) -> None:
        """Nothing."""

    def on_end(self) -> None:
        """Nothing."""


class SafeListener:
    """Passes everything on to another watcher, whose errors never reach the run.

    After its first error a watcher is only told of the end, so that it can clean up. One that raises `Stopped` asks for
    an orderly end: the step is finished and saved first.

    Args:
        listener: looks on.
        ask: told who asks for an end.
    """

    def __init__(self, listener: ProgressListener, ask: Callable[[str], None]) -> None:
        self.listener, self.ask = listener, ask
        self.failed = False

    def on_start(self, start: StartInfo) -> None:
        """See `Watcher`."""
        self._pass_on(self.listener.on_start, start)

    def on_step(self, step: int) -> None:
        """See `Watcher`."""
        self._pass_on(self.listener.on_step, step)

    def on_row(self, row: Row) -> None:
        """See `Watcher`."""
        self._pass_on(self.listener.on_row, row)

    def on_message(self, sentence: str) -> None:
        """See `Watcher`."""
        self._pass_on(self.listener.on_message, sentence)

    def on_alarm(self, alarm: Alarm) -> None:
        """See `Watcher`."""
        self._pass_on(self.listener.on_alarm, alarm)

    def on_progress(self, what: str, share: float) -> None:
        """See `Watcher`; not every watcher wants to know."""
        if (method := getattr(self.listener, "on_progress", None)) is not None:
            self._pass_on(method, what, share)

    def on_end(self) -> None:
        """See `Watcher`; told even after an error."""
        with suppress(Exception, SystemExit):
            self.listener.on_end()

    def _pass_on(self, method: Callable[..., None], *told: Any) -> None:
        if self.failed:
            return
        try:
            method(*told)
        except Stopped as stopped:
            self.ask(str(stopped) or "the watcher")
        except (Exception, SystemExit) as error:  # SystemExit: rich raises it where a pipe is closed
            self.failed = True
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            print_error(f"the watcher {type(self.listener).__name__} failed and is not told any more: {what}")
