"""Tempos: how often each player moves, and in which order (tips T12 and T15)."""

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
        """The tempo for training."""
        raise NotImplementedError


class TurnBasedConfig(TempoConfig):
    """The base class of tempos in which the players take turns.

    `first` is the player that moves first in each step. In the first `head_start` steps of the run only D moves. If its
    loss does not depend on fake samples (an energy with a margin of 0), D is thereby pretrained on the real samples.
    """

    first: Literal["d", "g"] = "d"
    head_start: int = Field(default=0, ge=0)


class RatioConfig(TurnBasedConfig):
    """`d` moves of D and `g` moves of G in every step (Goodfellow 2014, arXiv:1406.2661, algorithm 1: k to 1).

    5 to 1 is usual for the Wasserstein family (Arjovsky 2017, arXiv:1701.07875).
    """

    kind: Literal["ratio"] = "ratio"
    d: int = Field(default=1, ge=1, le=1000)
    g: int = Field(default=1, ge=1, le=1000)

    def build(self) -> Tempo:
        """See `Ratio`."""
        return Ratio(self.d, self.g, self.head_start, Side(self.first))


class Ratio(Tempo):
    """A fixed number of moves of each player in every step."""

    def __init__(self, d: int, g: int, head_start: int = 0, first: Side = Side.D) -> None:
        super().__init__()
        self.max_moves, self.head_start = MoveCounts(d, g), head_start
        self.order = (first, first.opponent)

    def should_move(self, context: MoveContext, last: MoveData | None) -> bool:
        """True until the player has made its d or g moves; G does not move during the head start."""
        if context.side is Side.D:
            return context.turn < self.max_moves.d
        return context.turn < self.max_moves.g and context.step >= self.head_start


class ThresholdsConfig(TurnBasedConfig):
    """Each player moves while its loss is above its threshold, `d_above` or `g_above` (ganhacks, item 11).

    The loss is the adversarial loss per discriminated sample, as it is logged. Each player moves at least once and at
    most `d_most` or `g_most` times in a step, as an unbounded loop would hang if the threshold cannot be reached.
    ganhacks itself advises against balancing the players by statistics, and this tempo waits for the device after each
    move.
    """

    kind: Literal["thresholds"] = "thresholds"
    d_above: float = 0.7
    g_above: float = 1.5
    d_most: int = Field(default=5, ge=1, le=1000)
    g_most: int = Field(default=5, ge=1, le=1000)

    def build(self) -> Tempo:
        """See `Thresholds`."""
        max_moves = MoveCounts(self.d_most, self.g_most)
        return Thresholds(self.d_above, self.g_above, max_moves, self.head_start, Side(self.first))


class Thresholds(Ratio):
    """As many moves as it takes for a player's loss to fall below its threshold, up to a maximum."""

    def __init__(self, d_above: float, g_above: float, max_moves: MoveCounts, head_start: int, first: Side) -> None:
        super().__init__(*max_moves, head_start, first)
        self.thresholds = {Side.D: d_above, Side.G: g_above}

    def should_move(self, context: MoveContext, last: MoveData | None) -> bool:
        """True for the first move, then while the loss of the last move is above the threshold."""
        if not super().should_move(context, last):
            return False
        return last is None or float(context.ranks.mean(last.logged["adversarial"])) > self.thresholds[context.side]


class AloneConfig(TempoConfig):
    """Only G moves, once in every step, for training without a discriminator."""

    kind: Literal["alone"] = "alone"

    def build(self) -> Tempo:
        """See `Alone`."""
        return Alone()


class Alone(Tempo):
    """One move of G in every step, none of D."""

    step_kind: ClassVar[Literal["alone"]] = "alone"
    max_moves = MoveCounts(0, 1)

    def should_move(self, context: MoveContext, last: MoveData | None) -> bool:
        """True for G's first move."""
        return context.side is Side.G and context.turn < 1


class SimultaneousConfig(TempoConfig):
    """Both players compute their gradients before either is updated (Mescheder et al. 2017, arXiv:1705.10461)."""

    kind: Literal["simultaneous"] = "simultaneous"

    def build(self) -> Tempo:
        """See `Simultaneous`."""
        return Simultaneous()


class Simultaneous(Tempo):
    """One simultaneous move of each player in every step."""

    step_kind: ClassVar[Literal["simultaneous"]] = "simultaneous"
    max_moves = MoveCounts(1, 1)

    def should_move(self, context: MoveContext, last: MoveData | None) -> bool:
        """True for each player's first move."""
        return context.turn < 1
