"""An auxiliary classifier (AC-GAN: Odena, Olah & Shlens 2017, arXiv:1610.09585; tip T13).

D has a second head that names the class of what it sees. Both players pay its cross-entropy: D on reals and on
fakes (the paper's L_C has both terms), G on its fakes.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from torch import Tensor
from torch.nn.functional import cross_entropy

from poise.core.hooks import LossTerm
from poise.core.move import MoveData
from poise.core.schedules import Schedulable, bounds, in_range
from poise.core.types import ExtraOutput, Origin, Side
from poise.tricks.base import TrickConfig, TrickContext


class AuxiliaryClassifierConfig(TrickConfig):
    """`weight` of the classification beside the adversarial cost; 1 in the paper."""

    kind: Literal["auxiliary_classifier"] = "auxiliary_classifier"
    tip: ClassVar[str] = "T13"
    source: ClassVar[str] = "Odena et al. 2017, arXiv:1610.09585"

    weight: Annotated[Schedulable, in_range(0)] = 1.0

    @property
    def required_outputs(self) -> frozenset[ExtraOutput]:
        """Classes, unless it never weighs anything."""
        return frozenset[ExtraOutput]({"classes"}) if any(bounds(self.weight)) else frozenset()

    def build(self, name: str, context: TrickContext) -> AuxiliaryClassifier:
        """See `AuxiliaryClassifier`."""
        return AuxiliaryClassifier(name, self.weight)


class AuxiliaryClassifier(LossTerm):
    """-E log P(C = c | x) for the piles that the move trains on."""

    def loss(self, move: MoveData) -> Tensor:
        """The sum over both piles in D's move, the fakes alone in G's; tells `class_accuracy` of D on the same."""
        origins: tuple[Origin, ...] = ("real", "fake") if move.context.side is Side.D else ("fake",)
        costs: list[Tensor] = []
        right: list[Tensor] = []
        for origin in origins:
            said, labels = move.extra_output(origin, "classes"), move.labels_of(origin)
            assert labels is not None, "a classifier needs labels"
            costs.append(cross_entropy(said, labels))
            right.append((said.detach().argmax(1) == labels).float().mean())
        move.logged["class_accuracy"] = sum(right[1:], right[0]) / len(right)
        return sum(costs[1:], costs[0])
