"""Feature matching (Salimans et al. 2016, arXiv:1606.03498, section 3.1; tip M03): fakes like reals to D's last layer.

G pays ||E f(x) - E f(G(z))||^2, f being D's last hidden layer and the means those of the batch. In the paper this is
all that G pays; here it stands beside the adversarial cost, and a large `weight` comes near the paper.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from torch import Tensor

from poise.core import Exchange, Pile, Said, Side
from poise.dials import Dial, extremes, within
from poise.seams import Stage, Term
from poise.tricks.base import TrickEntry


def mean_gap(real: Tensor, fake: Tensor) -> Tensor:
    """||mean of real - mean of fake||^2, 0-dim, from features, B x F each."""
    return (real.mean(0) - fake.mean(0)).square().sum()


class FeatureMatchingEntry(TrickEntry):
    """`weight` beside the adversarial cost."""

    kind: Literal["feature_matching"] = "feature_matching"
    tip: ClassVar[str] = "M03"
    source: ClassVar[str] = "Salimans et al. 2016, arXiv:1606.03498"

    weight: Annotated[Dial, within(0)] = 1.0

    @property
    def reads(self) -> frozenset[Said]:
        """Features, unless it never weighs anything."""
        return frozenset[Said]({"features"}) if any(extremes(self.weight)) else frozenset()

    def build(self, name: str, stage: Stage) -> FeatureMatching:
        """See `FeatureMatching`."""
        return FeatureMatching(name, self.weight)


class FeatureMatching(Term):
    """Charges G; the reals' features are where it shall go, and take no gradient."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})
    piles: ClassVar[frozenset[Pile]] = frozenset({"real"})

    def cost(self, exchange: Exchange) -> Tensor:
        """See `mean_gap`."""
        return mean_gap(exchange.said("real", "features").detach(), exchange.said("fake", "features"))
