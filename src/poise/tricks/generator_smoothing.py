"""Label smoothing in G's moves (Conneau et al. 2018, arXiv:1710.04087, section 3.1): G's goal is not certainty.

`soft_labels` changes D's targets. The paper's code, MUSE, smooths G's too: G wants D to call its samples real with
probability 1 - e. The cross-entropy is linear in its target t, -t log D - (1 - t) log(1 - D), and log D - log(1 - D) is
the score s, so

    -(1 - e) log D - e log(1 - D) = -log D + e s:

smoothing G's target is adding e times D's mean score to its loss. For least squares, (s - c)^2 / 2, the same term
lowers the target c by e. So it is a loss term, and objectives need not know of it.
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
    needs_targets: ClassVar[bool] = True

    weight: Annotated[Schedulable, in_range(0, below=0.5)] = 0.1

    def build(self, name: str, context: TrickContext) -> GeneratorSmoothing:
        """See `GeneratorSmoothing`."""
        return GeneratorSmoothing(name, self.weight)


class GeneratorSmoothing(LossTerm):
    """Adds the mean score of the fake samples to G's loss."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})
    needs_output: ClassVar[frozenset[Origin]] = frozenset({"fake"})

    def loss(self, move: MoveData) -> Tensor:
        """E[D(G(z))], 0-dim; logged as `g/generator_smoothing`."""
        return move.score("fake").mean()
