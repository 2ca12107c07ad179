"""Tempo: who moves how often, and in which order (tips T12 and T15)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from poise.core.config import ComponentConfig
from poise.core.hooks import Tempo
from poise.core.move import MoveData
from poise.core.types import MoveContext, MoveCounts, Side


class TempoConfig(ComponentConfig):
    """A tempo in a recipe."""

    def build(self) -> Tempo:
        """The tempo itself."""
        raise NotImplementedError


class TurnBasedConfig(TempoConfig):
    """What all tempos share that let the players take turns.

    `first` moves first in each step. In the run's first `head_start` steps D moves alone: with costs that its
    fakes have no part in (an energy's margin of 0) that is a pretraining on the real samples.
    """

    first: Literal["d", "g"] = "d"
    head_start: int = Field(default=0, ge=0)


class RatioConfig(TurnBasedConfig):
    """`d` moves of D and `g` moves of G in every step; 5 to 1 is usual for the Wasserstein family."""

    kind: Literal["ratio"] = "ratio"
    d: int = Field(default=1, ge=1, le=1000)
    g: int = Field(default=1, ge=1, le=1000)

    def build(self) -> Tempo:
        """See `Ratio`."""
        return Ratio(self.d, self.g, self.head_start, Side(self.first))


class Ratio(Tempo):
    """The same moves in every step."""

    def __init__(self, d: int, g: int, head_start: int = 0, first: Side = Side.D) -> None:
        super().__init__()
        self.max_moves, self.head_start = MoveCounts(d, g), head_start
        self.order = (first, first.opponent)

    def should_move(self, context: MoveContext, last: MoveData | None) -> bool:
        """Until d and g are reached; G sits out the head start."""
        if context.side is Side.D:
            return context.turn < self.max_moves.d
        return context.turn < self.max_moves.g and context.step >= self.head_start


class ThresholdsConfig(TurnBasedConfig):
    """While D's loss is above `d_above`, train D; while G's is above `g_above`, train G (ganhacks 11).

    The loss is the adversarial one as the rows show it, per judged sample. Each player moves at least once and
    at most `d_most` or `g_most` times in a step: an unbounded loop hangs once a loss cannot be reached. The
    list itself advises against balancing by statistics, and this tempo waits for the device after each move.
    """

    kind: Literal["thresholds"] = "thresholds"
    d_above: float = 0.7
    g_above: float = 1.5
    d_most: int = Field(default=5, ge=1, le=1000)
    g_most: int = Field(default=5, ge=1, le=1000)

    def build(self) -> Tempo:
        """See `Thresholds`."""
        most = MoveCounts(self.d_most, self.g_most)
        return Thresholds(self.d_above, self.g_above, most, self.head_start, Side(self.first))


class Thresholds(Ratio):
    """As many moves as a player's own loss asks for, within bounds."""

    def __init__(self, d_above: float, g_above: float, most: MoveCounts, head_start: int, first: Side) -> None:
        super().__init__(*most, head_start, first)
        self.above = {Side.D: d_above, Side.G: g_above}

    def should_move(self, context: MoveContext, last: MoveData | None) -> bool:
        """Once, and then while the loss of the move before is above the threshold."""
        if not super().should_move(context, last):
            return False
        return last is None or float(last.logged["adversarial"]) > self.above[context.side]


class AloneConfig(TempoConfig):
    """G moves alone, once in every step: there is no D to take turns with."""

    kind: Literal["alone"] = "alone"

    def build(self) -> Tempo:
        """See `Alone`."""
        return Alone()


class Alone(Tempo):
    """One move of G."""

    step_kind: ClassVar[Literal["alone"]] = "alone"
    max_moves = MoveCounts(0, 1)

    def should_move(self, context: MoveContext, last: MoveData | None) -> bool:
        """Once, and G only."""
        return context.side is Side.G and context.turn < 1


class SimultaneousConfig(TempoConfig):
    """Both players step at once, each by its gradient at where both stood (Mescheder et al. 2017, arXiv:1705.10461)."""

    kind: Literal["simultaneous"] = "simultaneous"

    def build(self) -> Tempo:
        """See `Simultaneous`."""
        return Simultaneous()


class Simultaneous(Tempo):
    """One move each, made together."""

    step_kind: ClassVar[Literal["simultaneous"]] = "simultaneous"
    max_moves = MoveCounts(1, 1)

    def should_move(self, context: MoveContext, last: MoveData | None) -> bool:
        """Once."""
        return context.turn < 1
