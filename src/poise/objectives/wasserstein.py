"""The Wasserstein distance (Arjovsky, Chintala & Bottou 2017, arXiv:1701.07875).

D is a critic f, and sup over 1-Lipschitz f of E f(x) - E f(G(z)) is the distance. The supremum is only bounded if
something holds f's slope: weight clipping, a gradient penalty, spectral norm.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from poise.core.types import OutputKind, Targets
from poise.objectives.base import Losses, Objective


def distance(real: Tensor, fake: Tensor) -> Tensor:
    """E f(x) - E f(G(z)), 0-dim: the critic's estimate of the distance, which falls as G gets better."""
    return real.mean() - fake.mean()


class Wasserstein(Objective):
    """The critic climbs its estimate of the distance, G descends it. Only differences of scores matter."""

    kind: Literal["wasserstein"] = "wasserstein"
    output_kinds: ClassVar[frozenset[OutputKind]] = frozenset({"score", "energy"})
    needs_lipschitz_bound: ClassVar[bool] = True

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None) -> Losses:
        """E[-f(x)] + E[f(G(z))]."""
        return -real, fake

    def g_losses(self, fake: Tensor, real: Tensor | None) -> Losses:
        """E[-f(G(z))]."""
        return (-fake,)

    def extra_metrics(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """`d/wasserstein`: see `distance`; in units of the critic's Lipschitz constant."""
        return {"wasserstein": distance(real, fake)}
