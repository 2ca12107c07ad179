"""Label smoothing in G's moves (Conneau et al. 2018, arXiv:1710.04087, section 3.1): G's goal is not certainty.

`soft_labels` changes D's targets. The paper's code, MUSE, smooths G's too: G wants D to call its samples real with
probability 1 - e. The cross-entropy is linear in its target t, -t log D - (1 - t) log(1 - D), and log D - log(1 - D) is
the score s, so

    -(1 - e) log D - e log(1 - D) = -log D + e s:

smoothing G's target is adding e times D's mean score to its loss. For least squares, (s - c)^2 / 2, adding e (b - a)
times the mean score lowers c by that much, where a target of 1 - e lies between the values b of real and a of fake
samples. So it is a loss term. The minimax loss, log(1 - D), is not that of a classifier with G's target.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from torch import Tensor

from poise.core.hooks import LossTerm
from poise.core.move import MoveData
from poise.core.schedules import Schedulable, in_range
from poise.core.types import Origin, Side
from poise.tricks.base import TrickConfig, TrickContext


class GeneratorSmoothingConfig(TrickConfig):
    """G's target is 1 - `weight`."""

    kind: Literal["generator_smoothing"] = "generator_smoothing"
    tip: ClassVar[str] = "T07a"
    source: ClassVar[str] = "Conneau et al. 2018, arXiv:1710.04087"
    needs_g_target: ClassVar[bool] = True

    weight: Annotated[Schedulable, in_range(0, below=0.5)] = 0.1

    def build(self, name: str, context: TrickContext) -> GeneratorSmoothing:
        """See `GeneratorSmoothing`."""
        span = None if context.objective is None else context.objective.g_target_span
        return GeneratorSmoothing(name, self.weight, 1.0 if span is None else span)


class GeneratorSmoothing(LossTerm):
    """Adds a multiple of the mean score of the fake samples to G's loss; only of those that a selection keeps.

    Args:
        name: the name of the trick.
        weight: by how much the target is lowered.
        span: see `Objective.g_target_span`.
    """

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})
    needs_output: ClassVar[frozenset[Origin]] = frozenset({"fake"})

    def __init__(self, name: str, weight: Schedulable, span: float = 1.0) -> None:
        super().__init__(name, weight)
        self.span = span

    def loss(self, move: MoveData) -> Tensor:
        """span * E[D(G(z))], 0-dim, over the samples whose losses count; logged as `g/generator_smoothing`."""
        return self.span * move.selected_score.mean()
