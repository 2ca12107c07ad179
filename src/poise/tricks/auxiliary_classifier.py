"""An auxiliary classifier (AC-GAN: Odena, Olah & Shlens 2017, arXiv:1610.09585; tip T13).

D has a second head that predicts the class of its input. Its cross-entropy is part of both players' losses: D's on real
and on generated samples (the paper's L_C has both terms), G's on generated samples.
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
    """`weight` of the classification loss relative to the adversarial loss; 1 in the paper."""

    kind: Literal["auxiliary_classifier"] = "auxiliary_classifier"
    tip: ClassVar[str] = "T13"
    source: ClassVar[str] = "Odena et al. 2017, arXiv:1610.09585"

    weight: Annotated[Schedulable, in_range(0)] = 1.0

    @property
    def required_outputs(self) -> frozenset[ExtraOutput]:
        """Class logits, unless the weight is always 0."""
        return frozenset[ExtraOutput]({"classes"}) if any(bounds(self.weight)) else frozenset()

    def build(self, name: str, context: TrickContext) -> AuxiliaryClassifier:
        """See `AuxiliaryClassifier`."""
        return AuxiliaryClassifier(name, self.weight)


class AuxiliaryClassifier(LossTerm):
    """-E log P(C = c | x) over the samples of the move."""

    def loss(self, move: MoveData) -> Tensor:
        """The sum over real and generated samples in D's move, over generated ones in G's; logs `class_accuracy`."""
        origins: tuple[Origin, ...] = ("real", "fake") if move.context.side is Side.D else ("fake",)
        losses: list[Tensor] = []
        accuracies: list[Tensor] = []
        for origin in origins:
            logits, labels = move.extra_output(origin, "classes"), move.labels_of(origin)
            assert labels is not None, "a classifier needs labels"
            losses.append(cross_entropy(logits, labels))
            accuracies.append((logits.detach().argmax(1) == labels).float().mean())
        move.logged["class_accuracy"] = sum(accuracies[1:], accuracies[0]) / len(accuracies)
        return sum(losses[1:], losses[0])
