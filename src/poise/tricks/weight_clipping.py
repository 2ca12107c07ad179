"""Weight clipping (Arjovsky, Chintala & Bottou 2017, arXiv:1701.07875, algorithm 1): the first way to bound a critic.

After each of D's updates, every weight is clamped to [-c, c]. The authors call it "a clearly terrible way to enforce a
Lipschitz constraint"; it is included because the original WGAN uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from poise.core.hooks import PostUpdate
from poise.core.move import MoveData
from poise.core.types import Side
from poise.tricks.base import TrickConfig, TrickContext

if TYPE_CHECKING:
    from poise.core.player import Player


@torch.no_grad()
def clip_(weights: Sequence[Tensor], limit: float) -> None:
    """w <- min(max(w, -limit), limit), in place."""
    torch._foreach_clamp_min_(list(weights), -limit)
    torch._foreach_clamp_max_(list(weights), limit)


class WeightClippingConfig(TrickConfig):
    """All weights of D are kept within [-limit, limit]; 0.01 in the paper."""

    kind: Literal["weight_clipping"] = "weight_clipping"
    tip: ClassVar[str] = "T15"
    duplicate_note: ClassVar[str] = "only the smallest 'limit' makes a difference"
    source: ClassVar[str] = "Arjovsky et al. 2017, arXiv:1701.07875"

    limit: float = Field(default=0.01, gt=0)

    @property
    def bounds_lipschitz(self) -> bool:
        """Always true, although the bound is loose."""
        return True

    def build(self, name: str, context: TrickContext) -> WeightClipping:
        """See `WeightClipping`."""
        return WeightClipping(name, self.limit)


class WeightClipping(PostUpdate):
    """Clips D's weights after its update."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.D})

    rank: ClassVar[int] = -1
    """Copies of D, which `past_selves` takes at the same hook, have the clipped weights."""

    def __init__(self, name: str, limit: float) -> None:
        super().__init__(name)
        self.limit = limit

    def after_update(self, player: Player, move: MoveData) -> None:
        """See `clip_`."""
        clip_(player.weights, self.limit)
