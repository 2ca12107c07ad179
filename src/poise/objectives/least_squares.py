"""Least-squares GANs (Mao et al. 2017, arXiv:1611.04076).

D regresses its score to b for real samples and to a for fake samples; G moves the score of its samples towards c. A
higher score means more real, as for all objectives, so a is the least of the three. With
b - c = 1 and b - a = 2, G minimises the Pearson chi-square divergence (section 3.2). a = 0 and b = c = 1 is the paper's
other choice, and the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import model_validator
from torch import Tensor

from poise.core.config import reject_value
from poise.core.types import Side, Targets
from poise.objectives.base import Losses, Objective


def half_squared_error(score: Tensor, target: Tensor | float) -> Tensor:
    """(D - target)^2 / 2; per sample, B. The squares of scores up to 1e4 are well within the range of float32."""
    return (score - target).square() / 2


class LeastSquares(Objective):
    """Half the squared distances to `a` (fake samples in D's loss), `b` (real samples) and `c` (G's loss).

    Both b and c are above a: otherwise D would learn nothing, or score real samples lower, or agree with G.
    """

    kind: Literal["least_squares"] = "least_squares"
    accepts_targets: ClassVar[bool] = True
    a: float = 0.0
    b: float = 1.0
    c: float = 1.0

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        for key, value, whose in (("b", self.b, "D's target of real samples"), ("c", self.c, "G's target")):
            if not value > self.a:
                what = f"{whose} must be above a, D's target of fake samples"
                cure = "use a = 0, b = 1, c = 1, or a = -1, b = 1, c = 0"
                reject_value(what, found=f"a = {self.a:g}, {key} = {value:g}", key=key, cure=cure)
        return self

    @property
    def g_target_span(self) -> float:  # type: ignore[override]
        """b - a, as a target t in [0, 1] stands for a + t (b - a)."""
        return self.b - self.a

    @property
    def decision_threshold(self) -> float:
        """The midpoint of a and b."""
        return (self.a + self.b) / 2

    @property
    def equilibrium(self) -> Mapping[Side, float]:
        """The losses at the midpoint of a and b."""
        return {Side.D: (self.b - self.a) ** 2 / 8, Side.G: (self.decision_threshold - self.c) ** 2 / 2}

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None) -> Losses:
        """E[(D(x) - b)^2] / 2 + E[(D(G(z)) - a)^2] / 2; a target t in [0, 1] stands for a + t (b - a)."""
        if targets is None:
            return half_squared_error(real, self.b), half_squared_error(fake, self.a)
        span = self.b - self.a
        return half_squared_error(real, self.a + span * targets.real), half_squared_error(
            fake, self.a + span * targets.fake
        )

    def g_losses(self, fake: Tensor, real: Tensor | None) -> Losses:
        """E[(D(G(z)) - c)^2] / 2."""
        return (half_squared_error(fake, self.c),)
