"""The pulling-away term (Zhao, Mathieu & LeCun 2017, arXiv:1609.03126, section 2.4; tip T16): make fakes differ.

f(S) = 1 / (N (N - 1)) sum over i != j of cos(S_i, S_j)^2, where S are the codes that D's encoder returns for a batch of
generated samples. It is added to G's loss; it is 1 if all codes are parallel and 0 if they are orthogonal.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from poise.core.hooks import LossTerm
from poise.core.move import MoveData
from poise.core.schedules import Schedulable, bounds, in_range
from poise.core.types import ExtraOutput, Side, to_float32
from poise.tricks.base import TrickConfig, TrickContext


def pulling_away(codes: Tensor) -> Tensor:
    """The mean squared cosine of all pairs of different rows, 0-dim, from N x F; 0 for a single row.

    It is computed in float32 or higher precision: the N^2 equal squares of a collapsed batch exceed float16.
    """
    with torch.autocast(codes.device.type, enabled=False):
        unit = normalize(to_float32(codes).flatten(1), dim=1)
        n = len(unit)
        squares = (unit @ unit.T).square()
        return (squares.sum() - squares.diagonal().sum()) / max(1, n * (n - 1))


class PullingAwayConfig(TrickConfig):
    """`weight` of the term, 0.1 in the paper."""

    kind: Literal["pulling_away"] = "pulling_away"
    tip: ClassVar[str] = "T16"
    source: ClassVar[str] = "Zhao et al. 2017, arXiv:1609.03126"

    weight: Annotated[Schedulable, in_range(0)] = 0.1

    @property
    def required_outputs(self) -> frozenset[ExtraOutput]:
        """D's code, or the features of its last hidden layer, unless the weight is always 0."""
        return frozenset[ExtraOutput]({"features"}) if any(bounds(self.weight)) else frozenset()

    def comparison_group(self, num_scores: int) -> int | None:
        """The whole batch."""
        return num_scores if any(bounds(self.weight)) else None

    def build(self, name: str, context: TrickContext) -> PullingAway:
        """See `PullingAway`."""
        return PullingAway(name, self.weight)


class PullingAway(LossTerm):
    """Adds the term to G's loss."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})

    def loss(self, move: MoveData) -> Tensor:
        """See `pulling_away`."""
        return pulling_away(move.extra_output("fake", "features"))
