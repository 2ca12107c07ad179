"""Historical averaging (tip T20): pull each player's weights towards their mean over the past.

Each player's loss gets the term ||theta - 1/t sum_{i <= t} theta_i||^2, where theta_i are its weights after step i
(Salimans et al. 2016, arXiv:1606.03498, section 3.3). With the mean as a constant, its gradient is 2 (theta - mean),
which is added to the gradients after the backward pass; this takes three passes over the weights and no graph. In games
whose players circle, such as min_x max_y xy, the circle becomes an inward spiral.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from poise.core.hooks import GradientTransform
from poise.core.move import MoveData
from poise.core.schedules import Schedulable, current_value, in_range
from poise.core.types import Side
from poise.tricks.base import TrickConfig, TrickContext

if TYPE_CHECKING:
    from poise.core.player import Player


@torch.no_grad()
def add_pull_(weights: Sequence[Tensor], means: Sequence[Tensor], weight: float) -> Tensor:
    """Add weight x 2 (theta - mean) to each gradient, in place, and return ||theta - mean||^2, 0-dim.

    Weights without a gradient are skipped: they are not updated in this step.
    """
    pairs = [(w, m) for w, m in zip(weights, means, strict=True) if w.grad is not None]
    if not pairs:
        return means[0].new_zeros(())
    differences = torch._foreach_sub([w for w, _ in pairs], [m for _, m in pairs])
    torch._foreach_add_([w.grad for w, _ in pairs if w.grad is not None], differences, alpha=2 * weight)
    return torch.stack(torch._foreach_norm(differences)).square().sum()


@torch.no_grad()
def update_means_(means: Sequence[Tensor], weights: Sequence[Tensor], t: int) -> None:
    """mean_t = mean_(t-1) + (theta_t - mean_(t-1)) / (t + 1), in place; mean_0 are the initial weights."""
    torch._foreach_lerp_(list(means), list(weights), 1 / (t + 1))


class HistoricalAveragingConfig(TrickConfig):
    """`weight` of the squared distance; the paper gives no value, 1 is our choice."""

    kind: Literal["historical_averaging"] = "historical_averaging"
    tip: ClassVar[str] = "T20"
    needs_discriminator: ClassVar[bool] = False
    source: ClassVar[str] = "Salimans et al. 2016, arXiv:1606.03498"

    weight: Annotated[Schedulable, in_range(0)] = 1.0

    def build(self, name: str, context: TrickContext) -> HistoricalAveraging:
        """See `HistoricalAveraging`."""
        return HistoricalAveraging(name, context.networks, self.weight)


class HistoricalAveraging(GradientTransform):
    """Keeps the mean of each player's weights: the initial ones and those after every step, equally weighted."""

    def __init__(self, name: str, nets: Mapping[Side, nn.Module], weight: Schedulable) -> None:
        super().__init__(name)
        self.weight = weight
        self.means = nn.ModuleDict()
        for side, net in nets.items():
            means = nn.Module()
            for k, w in enumerate(net.parameters()):
                means.register_buffer(str(k), w.detach().clone())
            self.means[side.value] = means

    def transform_gradients(self, player: Player, move: MoveData) -> None:
        """See `add_pull_`; logs the squared distance.

        The first move of a step updates the mean with the weights after the last step.
        """
        means, context = list(self.means[player.side.value].buffers()), move.context
        weights = list(player.net.parameters())
        if context.step and context.turn == 0:
            update_means_(means, weights, context.step)
        if weight := current_value(self.weight, context):
            move.logged[self.name] = add_pull_(weights, means, weight)
