"""The hinge loss (Lim & Ye 2017, arXiv:1705.02894; Miyato et al. 2018; tip M03).

D's loss is zero for real samples with a score above 1 and for fake samples with a score below -1. G maximises the score
of its samples, without a bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor
from torch.nn.functional import relu

from poise.core.types import Side, Targets
from poise.objectives.base import Losses, Objective


def hinge(score: Tensor) -> Tensor:
    """max(0, 1 - s); per sample, B."""
    return relu(1 - score)


class Hinge(Objective):
    """The hinge loss; usually combined with spectral norm, as in SNGAN and SAGAN."""

    kind: Literal["hinge"] = "hinge"

    @property
    def decision_threshold(self) -> float:
        """0, halfway between the margins at -1 and 1."""
        return 0.0

    @property
    def equilibrium(self) -> Mapping[Side, float]:
        """1 for D and 0 for G, at a score of 0."""
        return {Side.D: 1.0, Side.G: 0.0}

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None) -> Losses:
        """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]."""
        return hinge(real), hinge(-fake)

    def g_losses(self, fake: Tensor, real: Tensor | None) -> Losses:
        """E[-D(G(z))]."""
        return (-fake,)
