"""The Wasserstein distance (Arjovsky, Chintala & Bottou 2017, arXiv:1701.07875).

D is a critic f, and sup over 1-Lipschitz f of E f(x) - E f(G(z)) is the distance. The supremum is only bounded if
something holds f's slope: weight clipping, a gradient penalty, spectral norm.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from poise.core import Judgement, Targets
from poise.objectives.base import Costs, Objective


def distance(real: Tensor, fake: Tensor) -> Tensor:
    """E f(x) - E f(G(z)), 0-dim: the critic's estimate of the distance, which falls as G gets better."""
    return real.mean() - fake.mean()


class Wasserstein(Objective):
    """The critic climbs its estimate of the distance, G descends it. Only differences of scores matter."""

    kind: Literal["wasserstein"] = "wasserstein"
    reads: ClassVar[frozenset[Judgement]] = frozenset({"score", "energy"})
    needs_slope_bound: ClassVar[bool] = True

    def d_costs(self, real: Tensor, fake: Tensor, targets: Targets | None) -> Costs:
        """E[-f(x)] + E[f(G(z))]."""
        return -real, fake

    def g_costs(self, fake: Tensor, real: Tensor | None) -> Costs:
        """E[-f(G(z))]."""
        return (-fake,)

    def readings(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """`d/wasserstein`: see `distance`; in units of the critic's Lipschitz constant."""
        return {"wasserstein": distance(real, fake)}
