"""The Kullback-Leibler divergence as a game (f-GAN: Nowozin, Cseke & Tomioka 2016, arXiv:1606.00709; tip T08b).

A critic v bounds KL(P || Q) of the data P and G's samples Q from below (equation 9 with table 2's conjugate):

    KL(P || Q) >= E_P[v] - E_Q[exp(v - 1)],    equal at v = 1 + log p / q

D raises the bound. G lowers it, or, as the paper does in practice (section 3.2), raises E_Q[v] instead: where D is at
its best that lowers KL(Q || P), which forgives missing modes, while the bound itself asks for all of P to be covered.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor
from torch.nn.functional import relu

from poise.core.types import Targets
from poise.objectives.base import Losses, Objective

CAP = 5.0
"""The log of p / q up to which the bound is that of the KL; a fake further out costs no more than in proportion."""


def kl_conjugate(v: Tensor) -> Tensor:
    """exp(v - 1), and its tangent from v - 1 = `CAP` on: convex still, and finite for any score. Per sample, B."""
    beyond = relu(v - 1 - CAP)
    return (v - 1 - beyond).exp() + math.exp(CAP) * beyond


class KLDivergence(Objective):
    """`generator`: "bound" lowers the bound, "modified" is the paper's practical step."""

    kind: Literal["kl_divergence"] = "kl_divergence"
    generator: Literal["modified", "bound"] = "modified"

    @property
    def decision_threshold(self) -> float | None:
        """v = 1 where both densities are equal."""
        return 1.0

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None) -> Losses:
        """-E_P[v] + E_Q[exp(v - 1)]."""
        return -real, kl_conjugate(fake)

    def g_losses(self, fake: Tensor, real: Tensor | None) -> Losses:
        """-E_Q[v], or of the bound the part that is G's."""
        return (-fake,) if self.generator == "modified" else (-kl_conjugate(fake),)

    def extra_metrics(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """`d/divergence`: the bound, in nats."""
        return {"divergence": real.mean() - kl_conjugate(fake).mean()}
