"""Tempo: how many moves each player makes in a step (tips T12 and T15)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from poise.core import Moment, Moves
from poise.entries import Part
from poise.seams import Tempo


class TempoEntry(Part):
    """A tempo in a recipe."""

    def build(self) -> Tempo:
        """The tempo itself."""
        raise NotImplementedError


class RatioEntry(TempoEntry):
    """`d` moves of D, then `g` moves of G, in every step; 5 to 1 is usual for the Wasserstein family."""

    kind: Literal["ratio"] = "ratio"
    d: int = Field(default=1, ge=1, le=1000)
    g: int = Field(default=1, ge=1, le=1000)

    def build(self) -> Tempo:
        """See `Ratio`."""
        return Ratio(self.d, self.g)


class Ratio(Tempo):
    """The same moves in every step."""

    def __init__(self, d: int, g: int) -> None:
        super().__init__()
        self.most = Moves(d, g)

    def moves(self, moment: Moment) -> Moves:
        """(d, g), always."""
        return self.most
