"""Historical averaging (tip T20): a player is drawn back to where it has been in the mean.

Each player's cost grows by ||theta - 1/t sum_{i <= t} theta_i||^2, theta_i being its weights after step i (Salimans et
al. 2016, arXiv:1606.03498, section 3.3). With the mean held still its gradient is 2 (theta - mean); it is added to what
the backward pass left, which costs three passes over the weights and no graph. In games that circle, such as
min_x max_y xy, the circle becomes a spiral inwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from poise.core import Exchange, Side
from poise.dials import Dial, value, within
from poise.seams import Grads, Stage
from poise.tricks.base import TrickEntry

if TYPE_CHECKING:
    from poise.players import Player


@torch.no_grad()
def pull_(weights: Sequence[Tensor], means: Sequence[Tensor], weight: float) -> Tensor:
    """Add weight x 2 (theta - mean) to each gradient, in place; returns ||theta - mean||^2, 0-dim.

    A weight that has no gradient has not moved in this step, and is left alone.
    """
    pairs = [(w, m) for w, m in zip(weights, means, strict=True) if w.grad is not None]
    if not pairs:
        return means[0].new_zeros(())
    away = torch._foreach_sub([w for w, _ in pairs], [m for _, m in pairs])
    torch._foreach_add_([w.grad for w, _ in pairs if w.grad is not None], away, alpha=2 * weight)
    return torch.stack(torch._foreach_norm(away)).square().sum()


@torch.no_grad()
def gather_(means: Sequence[Tensor], weights: Sequence[Tensor], t: int) -> None:
    """mean_t = mean_(t-1) + (theta_t - mean_(t-1)) / (t + 1), in place; mean_0 is where the player started."""
    torch._foreach_lerp_(list(means), list(weights), 1 / (t + 1))


class HistoricalAveragingEntry(TrickEntry):
    """`weight` of the squared distance; 1 is ours."""

    kind: Literal["historical_averaging"] = "historical_averaging"
    tip: ClassVar[str] = "T20"
    asks_d: ClassVar[bool] = False
    source: ClassVar[str] = "Salimans et al. 2016, arXiv:1606.03498"

    weight: Annotated[Dial, within(0)] = 1.0

    def build(self, name: str, stage: Stage) -> HistoricalAveraging:
        """See `HistoricalAveraging`."""
        return HistoricalAveraging(name, stage.nets, self.weight)


class HistoricalAveraging(Grads):
    """A running mean of each player's weights: that of the start and of every step since, each with the same weight."""

    def __init__(self, name: str, nets: Mapping[Side, nn.Module], weight: Dial) -> None:
        super().__init__(name)
        self.weight = weight
        self.means = nn.ModuleDict()
        for side, net in nets.items():
            kept = nn.Module()
            for k, w in enumerate(net.parameters()):
                kept.register_buffer(str(k), w.detach().clone())
            self.means[side.value] = kept

    def adjust(self, player: Player, exchange: Exchange) -> None:
        """See `pull_`; the rows show the distance. A step's first move takes in what the last step came to."""
        means, moment = list(self.means[player.side.value].buffers()), exchange.moment
        weights = list(player.net.parameters())
        if moment.step and moment.turn == 0:
            gather_(means, weights, moment.step)
        if weight := value(self.weight, moment):
            exchange.readings[self.name] = pull_(weights, means, weight)
