"""The Kullback-Leibler divergence as an f-GAN (Nowozin, Cseke & Tomioka 2016, arXiv:1606.00709; tip T08b).

A critic v gives a lower bound on KL(P || Q) for the data distribution P and G's distribution Q (equation 9 with the
conjugate from table 2):

    KL(P || Q) >= E_P[v] - E_Q[exp(v - 1)],    with equality at v = 1 + log p / q

D maximises the bound. G either minimises it, or maximises E_Q[v] instead, as the paper does in practice (section 3.2).
With an optimal D the latter minimises KL(Q || P), which tolerates missing modes, while the bound itself penalises every
part of P that Q does not cover.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor
from torch.nn.functional import relu

from poise.core.types import Targets
from poise.objectives.base import Losses, Objective

CAP = 5.0
"""The value of log p / q up to which the conjugate is exact; beyond it, the loss of a fake sample grows linearly."""


def kl_conjugate(v: Tensor) -> Tensor:
    """exp(v - 1), continued by its tangent for v - 1 > `CAP`; per sample, B.

    The continuation keeps it convex and finite for any score.
    """
    beyond = relu(v - 1 - CAP)
    return (v - 1 - beyond).exp() + math.exp(CAP) * beyond


class KLDivergence(Objective):
    """`generator` = "bound" minimises the bound, "modified" is the loss that the paper uses in practice."""

    kind: Literal["kl_divergence"] = "kl_divergence"
    generator: Literal["modified", "bound"] = "modified"

    @property
    def decision_threshold(self) -> float | None:
        """1, the value of v where both densities are equal."""
        return 1.0

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None) -> Losses:
        """-E_P[v] + E_Q[exp(v - 1)]."""
        return -real, kl_conjugate(fake)

    def g_losses(self, fake: Tensor, real: Tensor | None) -> Losses:
        """-E_Q[v] for "modified"; for "bound" -E_Q[exp(v - 1)], the part of the bound that depends on G."""
        return (-fake,) if self.generator == "modified" else (-kl_conjugate(fake),)

    def extra_metrics(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """`d/divergence`: the bound, in nats."""
        return {"divergence": real.mean() - kl_conjugate(fake).mean()}
