"""Gradient clipping (Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063, algorithm 1): limit the norm of the gradient.

g <- g min(1, c / ||g||), where the norm is taken over all of a player's weights together. Practitioners' lists call a
gradient norm over 100 a sign that training fails (ganhacks 10, tip T11); clipping does not remove the cause. The norm
before clipping is logged as `d/grad_norm`, and the fraction of moves with a clipped gradient under the trick's name.
Adam divides by the size of the gradient, so with Adam clipping in every move has almost no effect, while clipping
occasional spikes does.
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


def clip_grads_(weights: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale all gradients by min(1, max_norm / ||g||), in place, and return ||g|| before it, 0-dim.

    Does not wait for the device.
    """
    grads = [w.grad for w in weights if w.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    if grads:
        factor = (max_norm / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp(max=1)
        torch._foreach_mul_(grads, factor)
    return norm


class GradientClippingConfig(TrickConfig):
    """`max_norm` is the largest gradient norm of each player."""

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
    """Clips both players' gradients, after other tricks have changed them."""

    rank: ClassVar[int] = 1

    def __init__(self, name: str, max_norm: Schedulable) -> None:
        super().__init__(name)
        self.max_norm = max_norm

    def transform_gradients(self, player: Player, move: MoveData) -> None:
        """See `clip_grads_`; logs whether the gradient was clipped."""
        max_norm = current_value(self.max_norm, move.context)
        move.logged[self.name] = (clip_grads_(player.weights, max_norm) > max_norm).float()
