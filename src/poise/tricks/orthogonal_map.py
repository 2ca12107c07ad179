"""Orthogonalisation: keep a linear map close to the orthogonal ones (Conneau et al. 2018, arXiv:1710.04087, eq. 7).

After each of G's updates every weight matrix becomes

    W <- (1 + beta) W - beta (W W^T) W.

This keeps the singular vectors and changes each singular value s to s + beta s (1 - s^2), so all of them move towards
1 (Cisse et al. 2017, arXiv:1704.08847). With beta at most 1/2 none overshoots 1 from below, and those up to
sqrt(1 + 2 / beta), 45 at 0.001, do not grow. An orthogonal map keeps lengths and angles, so what is near in the
source is near in its image. The paper states beta = 0.01; its code, MUSE, has 0.001.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from torch import Tensor

from poise.core.hooks import PostUpdate
from poise.core.move import MoveData
from poise.core.schedules import Schedulable, current_value, in_range
from poise.core.types import Side
from poise.tricks.base import TrickConfig, TrickContext
from poise.tricks.orthogonal import weights_with_channel_dim

if TYPE_CHECKING:
    from poise.core.player import Player


@torch.no_grad()
def orthogonalise(matrix: Tensor, beta: float) -> Tensor:
    """(1 + beta) W - beta (W W^T) W, of the shape of W, rows x columns; the smaller of both products is computed."""
    rows, columns = matrix.shape
    cubed = (matrix @ matrix.T) @ matrix if rows <= columns else matrix @ (matrix.T @ matrix)
    return (1 + beta) * matrix - beta * cubed


class OrthogonalMapConfig(TrickConfig):
    """G's weight matrices, whose rows are the weights of one output channel each, are moved towards orthogonal ones."""

    kind: Literal["orthogonal_map"] = "orthogonal_map"
    tip: ClassVar[str] = "T23"
    needs_discriminator: ClassVar[bool] = False
    duplicate_note: ClassVar[str] = "each of them moves the weights once after an update"
    source: ClassVar[str] = "Conneau et al. 2018, arXiv:1710.04087"

    beta: Annotated[Schedulable, in_range(0, 0.5)] = 0.001

    def build(self, name: str, context: TrickContext) -> OrthogonalMap:
        """See `OrthogonalMap`."""
        return OrthogonalMap(name, self.beta)


class OrthogonalMap(PostUpdate):
    """Moves G's weight matrices after its update."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})

    rank: ClassVar[int] = -1
    """Averages of the weights, which are updated at the same hook, take them as they are afterwards."""

    def __init__(self, name: str, beta: Schedulable) -> None:
        super().__init__(name)
        self.beta = beta

    @torch.no_grad()
    def after_update(self, player: Player, move: MoveData) -> None:
        """See `orthogonalise`; embeddings and frozen weights are left out."""
        beta = current_value(self.beta, move.context)
        if not beta:
            return
        for weight, dim in weights_with_channel_dim(player.net):
            if weight.requires_grad:
                rows = weight.transpose(0, dim)
                weight.copy_(orthogonalise(rows.flatten(1), beta).view(rows.shape).transpose(0, dim))
