"""The Wasserstein GAN (Arjovsky, Chintala & Bottou 2017, arXiv:1701.07875).

D is a critic f. The Wasserstein-1 distance is the supremum of E f(x) - E f(G(z)) over all 1-Lipschitz functions f. It
is bounded only if the Lipschitz constant of f is limited, by weight clipping, a gradient penalty or spectral norm.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from poise.core.types import OutputKind, Targets
from poise.objectives.base import Losses, Objective


def distance(real: Tensor, fake: Tensor) -> Tensor:
    """E f(x) - E f(G(z)), 0-dim: the critic's estimate of the distance, which falls as G improves."""
    return real.mean() - fake.mean()


class Wasserstein(Objective):
    """The critic maximises its estimate of the distance, G minimises it. Only differences of scores have a meaning."""

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
        """`d/wasserstein`: see `distance`; its scale is the critic's Lipschitz constant."""
        return {"wasserstein": distance(real, fake)}
