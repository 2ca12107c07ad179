"""Feature matching (Salimans et al. 2016, arXiv:1606.03498, section 3.1; tip M03): match the mean features of D.

G's loss gets the term ||E f(x) - E f(G(z))||^2, where f is D's last hidden layer and the means are over the batch. In
the paper this is G's only loss; here it is added to the adversarial loss, and a large `weight` approaches the paper.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from torch import Tensor

from poise.core.hooks import LossTerm
from poise.core.move import MoveData
from poise.core.schedules import Schedulable, bounds, in_range
from poise.core.types import ExtraOutput, Origin, Side
from poise.tricks.base import TrickConfig, TrickContext


def feature_matching_loss(real: Tensor, fake: Tensor) -> Tensor:
    """||mean of real - mean of fake||^2, 0-dim, from features, B x F each."""
    return (real.mean(0) - fake.mean(0)).square().sum()


class FeatureMatchingConfig(TrickConfig):
    """`weight` relative to the adversarial loss."""

    kind: Literal["feature_matching"] = "feature_matching"
    tip: ClassVar[str] = "M03"
    source: ClassVar[str] = "Salimans et al. 2016, arXiv:1606.03498"

    weight: Annotated[Schedulable, in_range(0)] = 1.0

    @property
    def required_outputs(self) -> frozenset[ExtraOutput]:
        """Features, unless the weight is always 0."""
        return frozenset[ExtraOutput]({"features"}) if any(bounds(self.weight)) else frozenset()

    def build(self, name: str, context: TrickContext) -> FeatureMatching:
        """See `FeatureMatching`."""
        return FeatureMatching(name, self.weight)


class FeatureMatching(LossTerm):
    """Adds the term to G's loss; the features of the real samples are the target and take no gradient."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})
    needs_output: ClassVar[frozenset[Origin]] = frozenset({"real"})

    def loss(self, move: MoveData) -> Tensor:
        """See `feature_matching_loss`."""
        return feature_matching_loss(
            move.extra_output("real", "features").detach(), move.extra_output("fake", "features")
        )
