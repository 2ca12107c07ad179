"""Who may look on while a run goes: told plain numbers and sentences, never asked for anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from poise.core import Side
from poise.errors import Stopped
from poise.printing import print_error
from poise.rows import Row
from poise.watch.base import Alarm


class Start(NamedTuple):
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


class Watcher(Protocol):
    """Looks on. All calls come from the training thread and should return at once.

    Whatever it raises, training goes on without it; `Stopped` asks for an orderly end.

    It may have a method `progress(what, share)` as well: told while the data is read or the run is measured, if that
    takes its time, what is being done and how far it is, 0 to 1; told "" when that is over.
    """

    def start(self, start: Start) -> None:
        """Training is about to begin."""

    def tick(self, step: int) -> None:
        """`step` steps are done; called after each."""

    def row(self, row: Row) -> None:
        """A row was written."""

    def say(self, sentence: str) -> None:
        """Something the user should know."""

    def alarm(self, alarm: Alarm) -> None:
        """A sign of failure was seen."""

    def end(self) -> None:
        """Training is over, one way or another."""


class Nobody:
    """A watcher that does not look."""

    def start(self, start: Start) -> None:
        """Nothing."""

    def tick(self, step: int) -> None:
        """Nothing."""

    def row(self, row: Row) -> None:
        """Nothing."""

    def say(self, sentence: str) -> None:
        """Nothing."""

    def alarm(self, alarm: Alarm) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class SafeWatcher:
    """Passes everything on to another watcher, whose errors never reach the run.

    After its first error a watcher is only told of the end, so that it can clean up. One that raises `Stopped` asks for
    an orderly end: the step is finished and saved first.

    Args:
        watcher: looks on.
        ask: told who asks for an end.
    """

    def __init__(self, watcher: Watcher, ask: Callable[[str], None]) -> None:
        self.watcher, self.ask = watcher, ask
        self.failed = False

    def start(self, start: Start) -> None:
        """See `Watcher`."""
        self._pass_on(self.watcher.start, start)

    def tick(self, step: int) -> None:
        """See `Watcher`."""
        self._pass_on(self.watcher.tick, step)

    def row(self, row: Row) -> None:
        """See `Watcher`."""
        self._pass_on(self.watcher.row, row)

    def say(self, sentence: str) -> None:
        """See `Watcher`."""
        self._pass_on(self.watcher.say, sentence)

    def alarm(self, alarm: Alarm) -> None:
        """See `Watcher`."""
        self._pass_on(self.watcher.alarm, alarm)

    def progress(self, what: str, share: float) -> None:
        """See `Watcher`; not every watcher wants to know."""
        if (method := getattr(self.watcher, "progress", None)) is not None:
            self._pass_on(method, what, share)

    def end(self) -> None:
        """See `Watcher`; told even after an error."""
        with suppress(Exception, SystemExit):
            self.watcher.end()

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
            print_error(f"the watcher {type(self.watcher).__name__} failed and is not told any more: {what}")
