"""An auxiliary classifier (AC-GAN: Odena, Olah & Shlens 2017, arXiv:1610.09585; tip T13).

D has a second head that names the class of what it sees. Both players pay its cross-entropy: D on reals and on
fakes (the paper's L_C has both terms), G on its fakes.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from torch import Tensor
from torch.nn.functional import cross_entropy

from poise.core import Exchange, Pile, Said, Side
from poise.dials import Dial, extremes, within
from poise.seams import Stage, Term
from poise.tricks.base import TrickEntry


class AuxiliaryClassifierEntry(TrickEntry):
    """`weight` of the classification beside the adversarial cost; 1 in the paper."""

    kind: Literal["auxiliary_classifier"] = "auxiliary_classifier"
    tip: ClassVar[str] = "T13"
    source: ClassVar[str] = "Odena et al. 2017, arXiv:1610.09585"

    weight: Annotated[Dial, within(0)] = 1.0

    @property
    def reads(self) -> frozenset[Said]:
        """Classes, unless it never weighs anything."""
        return frozenset[Said]({"classes"}) if any(extremes(self.weight)) else frozenset()

    def build(self, name: str, stage: Stage) -> AuxiliaryClassifier:
        """See `AuxiliaryClassifier`."""
        return AuxiliaryClassifier(name, self.weight)


class AuxiliaryClassifier(Term):
    """-E log P(C = c | x) for the piles that the move trains on."""

    def cost(self, exchange: Exchange) -> Tensor:
        """The sum over both piles in D's move, the fakes alone in G's; tells `class_accuracy` of D on the same."""
        piles: tuple[Pile, ...] = ("real", "fake") if exchange.moment.side is Side.D else ("fake",)
        costs: list[Tensor] = []
        right: list[Tensor] = []
        for pile in piles:
            said, labels = exchange.said(pile, "classes"), exchange.kinds(pile)
            assert labels is not None, "a classifier needs labels"
            costs.append(cross_entropy(said, labels))
            right.append((said.detach().argmax(1) == labels).float().mean())
        exchange.readings["class_accuracy"] = sum(right[1:], right[0]) / len(right)
        return sum(costs[1:], costs[0])
