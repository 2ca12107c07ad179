"""Past selves (tip T09b): now and then a player meets the rival as it was (ganhacks 8).

Every `every` steps one of the last `keep` copies, drawn at random, plays in the rival's place for `duration` steps: an
old G draws what D learns from, an old D judges what G learns from. Who moves is always the player of today. One step
later the next copy of each player is made, so that the newest past self is `every` - `duration` - 1 steps old when it
plays. It plays as it was: its weights stand still, its batch norms take the statistics of the batch, as they did.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from poise.core.config import reject_value
from poise.core.hooks import OpponentSwap, PostUpdate
from poise.core.move import MoveData
from poise.core.random_streams import derive_seed
from poise.core.types import MoveContext, Side
from poise.tricks.base import TrickConfig, TrickContext

if TYPE_CHECKING:
    from poise.core.player import Player


class PastSelvesConfig(TrickConfig):
    """`keep` copies of each player; every `every` steps one of them stands in for `duration` steps."""

    kind: Literal["past_selves"] = "past_selves"
    tip: ClassVar[str] = "T09b"
    duplicate_note: ClassVar[str] = "in a step in which both would play, only the last one does"
    source: ClassVar[str] = "ganhacks 8"

    keep: int = Field(default=3, ge=1, le=100)
    every: int = Field(default=500, ge=1)
    duration: int = Field(default=10, ge=0)

    @model_validator(mode="after")
    def _some_of_the_time(self) -> Self:
        if self.duration and self.duration > self.every - 2:
            found = f"{self.duration} of {self.every} steps"
            reject_value("'duration' must leave two steps of 'every', to be of the past", found=found, key="duration")
        return self

    @property
    def first_active_step(self) -> int:
        """The first stand-in comes after one round."""
        return self.every + 1 if self.duration else 0

    def build(self, name: str, context: TrickContext) -> PastSelves:
        """See `PastSelves`."""
        return PastSelves(name, context.networks, self.keep, self.every, self.duration)


class PastSelves(OpponentSwap, PostUpdate):
    """The copies, by side; which of them are there, and who plays, follows from the step."""

    def __init__(self, name: str, nets: Mapping[Side, nn.Module], keep: int, every: int, duration: int) -> None:
        super().__init__(name)
        self.keep, self.every, self.duration = keep, every, duration
        copies = keep if duration else 0
        self.selves = nn.ModuleDict(
            {
                side.value: nn.ModuleList(copy.deepcopy(net).requires_grad_(False) for _ in range(copies))
                for side, net in nets.items()
            }
        )

    def who(self, side: Side, context: MoveContext) -> int | None:
        """Which copy plays `side` in this step; None where the rival plays itself."""
        made, since = divmod(context.step, self.every)  # one copy is made in each round
        if made == 0 or since >= self.duration:
            return None
        return derive_seed(context.streams.seed, f"{side}/{self.name}", made) % min(made, self.keep)

    def select_network(self, side: Side, net: nn.Module, context: MoveContext) -> nn.Module:
        """A past self, or `net`."""
        which = self.who(side, context)
        return net if which is None else self.selves[side.value][which]  # type: ignore[index]

    @torch.no_grad()
    def after_update(self, player: Player, move: MoveData) -> None:
        """Keep a copy one step after the round's stand-ins have played, in place of the oldest."""
        made, since = divmod(move.context.step - self.duration, self.every)
        if since or not self.duration:
            return
        slot = self.selves[player.side.value][made % self.keep]  # type: ignore[index]
        slot.load_state_dict(player.net.state_dict())
