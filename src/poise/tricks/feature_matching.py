"""Feature matching (Salimans et al. 2016, arXiv:1606.03498, section 3.1; tip M03): fakes like reals to D's last layer.

G pays ||E f(x) - E f(G(z))||^2, f being D's last hidden layer and the means those of the batch. In the paper this is
all that G pays; here it stands beside the adversarial cost, and a large `weight` comes near the paper.
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
    """`weight` beside the adversarial cost."""

    kind: Literal["feature_matching"] = "feature_matching"
    tip: ClassVar[str] = "M03"
    source: ClassVar[str] = "Salimans et al. 2016, arXiv:1606.03498"

    weight: Annotated[Schedulable, in_range(0)] = 1.0

    @property
    def required_outputs(self) -> frozenset[ExtraOutput]:
        """Features, unless it never weighs anything."""
        return frozenset[ExtraOutput]({"features"}) if any(bounds(self.weight)) else frozenset()

    def build(self, name: str, context: TrickContext) -> FeatureMatching:
        """See `FeatureMatching`."""
        return FeatureMatching(name, self.weight)


class FeatureMatching(LossTerm):
    """Charges G; the reals' features are where it shall go, and take no gradient."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})
    needs_output: ClassVar[frozenset[Origin]] = frozenset({"real"})

    def loss(self, move: MoveData) -> Tensor:
        """See `mean_gap`."""
        return feature_matching_loss(
            move.extra_output("real", "features").detach(), move.extra_output("fake", "features")
        )
