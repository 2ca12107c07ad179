"""Gradient clipping (Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, algorithm 1): no gradient longer than so much.

g <- g min(1, c / ||g||), with the length taken over all of a player's weights together. The lists call a gradient
norm over 100 a sign that things are going wrong (ganhacks 10, tip T11); clipping doesn't cure what is behind it. The
rows show the norm as it was (`d/grad_norm`), and under the trick's name the share of moves in which it was cut. Adam
divides by the gradient's size, so under Adam a cut in every move changes next to nothing; one of single bursts does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from poise.core.hooks import GradientTransform
from poise.core.move import MoveData
from poise.core.schedules import Schedulable, current_value, in_range
from poise.tricks.base import TrickConfig, TrickContext

if TYPE_CHECKING:
    from poise.core.player import Player


def clip_grads_(weights: Iterable[nn.Parameter], most: float) -> Tensor:
    """Scale all gradients by min(1, most / ||g||), in place; returns ||g|| before, 0-dim. Waits for nothing."""
    grads = [w.grad for w in weights if w.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    if grads:
        shrink = (most / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp(max=1)
        torch._foreach_mul_(grads, shrink)
    return norm


class GradientClippingConfig(TrickConfig):
    """No gradient longer than `max_norm`, for each player."""

    kind: Literal["gradient_clipping"] = "gradient_clipping"
    tip: ClassVar[str] = "T11"
    needs_discriminator: ClassVar[bool] = False
    duplicate_note: ClassVar[str] = "only the smallest 'max_norm' makes a difference"
    source: ClassVar[str] = "Pascanu et al. 2013, arXiv:1211.5063; ganhacks 10"

    max_norm: Annotated[Schedulable, in_range(1e-6)] = 100.0

    def build(self, name: str, context: TrickContext) -> GradientClipping:
        """See `GradientClipping`."""
        return GradientClipping(name, self.max_norm)


class GradientClipping(GradientTransform):
    """Cuts both players' gradients, and what other tricks have added to them."""

    rank: ClassVar[int] = 1

    def __init__(self, name: str, max_norm: Schedulable) -> None:
        super().__init__(name)
        self.max_norm = max_norm

    def transform_gradients(self, player: Player, move: MoveData) -> None:
        """See `clip_grads_`; tells the share of moves that were cut."""
        most = current_value(self.max_norm, move.context)
        move.logged[self.name] = (clip_grads_(player.weights, most) > most).float()
