"""Who may look on while a run goes: told plain numbers and sentences, never asked for anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from poise.core import Side
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
    """Looks on. All calls come from the training thread and should return at once."""

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
