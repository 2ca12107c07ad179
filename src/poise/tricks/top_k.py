"""Top-k training of G (Sinha et al. 2020, arXiv:2002.06224; tip M03): G learns from its best samples only.

In G's move the objective's losses are averaged over the k generated samples with D's highest scores. The paper starts
with the whole batch and lets k fall to half of it. Bad samples may not be near any mode of the data, so their gradients
are dropped; early in training, while D is uninformative, all samples are used.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from torch import Tensor

from poise.core.hooks import SampleSelection
from poise.core.move import MoveData
from poise.core.schedules import Linear, Schedulable, bounds, current_value, in_range
from poise.core.types import Side
from poise.tricks.base import TrickConfig, TrickContext


def top_k_indices(scores: Tensor, fraction: float) -> Tensor:
    """The indices of the k highest scores, k = max(1, round(fraction B))."""
    return scores.topk(max(1, round(fraction * len(scores)))).indices


class TopKConfig(TrickConfig):
    """`fraction` of the batch that is used; from all to half over the first half of the run."""

    kind: Literal["top_k"] = "top_k"
    tip: ClassVar[str] = "M03"
    source: ClassVar[str] = "Sinha et al. 2020, arXiv:2002.06224"

    fraction: Annotated[Schedulable, in_range(0, 1)] = Linear(start=1.0, end=0.5, until=0.5)

    @property
    def selects_samples(self) -> bool:
        """True unless all samples are always used."""
        return min(bounds(self.fraction)) < 1

    def build(self, name: str, context: TrickContext) -> TopK:
        """See `TopK`."""
        return TopK(name, self.fraction)


class TopK(SampleSelection):
    """Selects generated samples by D's scores."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})

    def __init__(self, name: str, fraction: Schedulable) -> None:
        super().__init__(name)
        self.fraction = fraction

    def select_samples(self, scores: Tensor, move: MoveData) -> Tensor | None:
        """See `top_k_indices`."""
        fraction = current_value(self.fraction, move.context)
        return None if fraction >= 1 else top_k_indices(scores, fraction)
