"""The hinge (Lim & Ye 2017, arXiv:1705.02894; Miyato et al. 2018; tip M03): D pays only for what is not clear yet.

D wants reals above 1 and fakes below -1, and what is there already costs nothing; G wants its score up, without end.
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
    """Goes with spectral norm, as in SNGAN and SAGAN."""

    kind: Literal["hinge"] = "hinge"

    @property
    def decision_threshold(self) -> float:
        """The middle between the two edges."""
        return 0.0

    @property
    def equilibrium(self) -> Mapping[Side, float]:
        """1 for D, halfway between its edges, and 0 for G there."""
        return {Side.D: 1.0, Side.G: 0.0}

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None) -> Losses:
        """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]."""
        return hinge(real), hinge(-fake)

    def g_losses(self, fake: Tensor, real: Tensor | None) -> Losses:
        """E[-D(G(z))]."""
        return (-fake,)
