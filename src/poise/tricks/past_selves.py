"""Past selves (tip T09b): a player sometimes plays against a past copy of its opponent (ganhacks 8).

Every `every` steps one of the last `keep` copies, drawn at random, replaces the opponent for `duration` steps: an old G
generates the samples that D learns from, and an old D scores those that G learns from. The player that moves is always
the current one. One step later the next copy of each player is made, so that the newest copy is `every` - `duration` -
1 steps old when it plays. A copy plays as it did then: its weights are constant, and its batch norms use the statistics
of the batch.
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
    """`keep` copies of each player; every `every` steps one of them plays for `duration` steps."""

    kind: Literal["past_selves"] = "past_selves"
    tip: ClassVar[str] = "T09b"
    duplicate_note: ClassVar[str] = "in a step in which both would play, only the last one does"
    source: ClassVar[str] = "ganhacks 8"

    keep: int = Field(default=3, ge=1, le=100)
    every: int = Field(default=500, ge=1)
    duration: int = Field(default=10, ge=0)

    @model_validator(mode="after")
    def _check_duration(self) -> Self:
        if self.duration and self.duration > self.every - 2:
            found = f"{self.duration} of {self.every} steps"
            reject_value("'duration' must be 0 or at most 'every' - 2", found=found, key="duration")
        return self

    @property
    def first_active_step(self) -> int:
        """The first copy plays after `every` steps."""
        return self.every + 1 if self.duration else 0

    def build(self, name: str, context: TrickContext) -> PastSelves:
        """See `PastSelves`."""
        return PastSelves(name, context.networks, self.keep, self.every, self.duration)


class PastSelves(OpponentSwap, PostUpdate):
    """Keeps the copies of both players; which copies exist and which one plays follows from the step."""

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

    def copy_index(self, side: Side, context: MoveContext) -> int | None:
        """The index of the copy that plays `side` in this step; None if the opponent plays itself."""
        num_copies, offset = divmod(context.step, self.every)  # one copy is made in every `every` steps
        if num_copies == 0 or offset >= self.duration:
            return None
        return derive_seed(context.streams.seed, f"{side}/{self.name}", num_copies) % min(num_copies, self.keep)

    def select_network(self, side: Side, net: nn.Module, context: MoveContext) -> nn.Module:
        """A past copy, or `net`."""
        index = self.copy_index(side, context)
        return net if index is None else self.selves[side.value][index]  # type: ignore[index]

    @torch.no_grad()
    def after_update(self, player: Player, move: MoveData) -> None:
        """Replace the oldest copy, one step after the copies have played."""
        num_copies, offset = divmod(move.context.step - self.duration, self.every)
        if offset or not self.duration:
            return
        oldest = self.selves[player.side.value][num_copies % self.keep]  # type: ignore[index]
        oldest.load_state_dict(player.net.state_dict())
