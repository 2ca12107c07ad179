"""Relativistic costs: D says whether a real is more real than a fake (Jolicoeur-Martineau 2019, arXiv:1807.00734).

Paired (RpGAN), each real is held against one fake; that landscape has no basins of collapsed modes (Sun, Fang &
Schwing 2020, arXiv:2011.04926), and R3GAN builds on it (Huang 2024, arXiv:2501.05441). Averaged (RaGAN), against
the mean of the other pile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn.functional import softplus

from poise.core.types import OutputKind, Side, Targets
from poise.objectives.base import Losses, Objective


def relativistic_loss(better: Tensor, worse: Tensor) -> Tensor:
    """-log sigmoid(C(better_i) - C(worse_i)) = softplus of minus the difference; per pair, B."""
    return softplus(worse - better)


def relativistic_average_loss(better: Tensor, worse: Tensor) -> Losses:
    """-log sigmoid(C(better) - E C(worse)) and -log(1 - sigmoid(C(worse) - E C(better))); per sample, B each."""
    return softplus(worse.mean() - better), softplus(worse - better.mean())


class RelativisticBase(Objective):
    """What both share: G's cost is D's with the piles exchanged, log 2 where nobody can tell."""

    is_relativistic: ClassVar[bool] = True
    is_separable: ClassVar[bool] = False
    output_kinds: ClassVar[frozenset[OutputKind]] = frozenset({"score", "energy"})

    @property
    def equilibrium(self) -> Mapping[Side, float]:
        """log 2 for both."""
        return {Side.D: math.log(2), Side.G: math.log(2)}


class Relativistic(RelativisticBase):
    """Pair by pair: real i of the batch against fake i."""

    kind: Literal["relativistic"] = "relativistic"

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None) -> Losses:
        """See `paired`."""
        return (relativistic_loss(real, fake),)

    def g_losses(self, fake: Tensor, real: Tensor | None) -> Losses:
        """See `paired`, the other way round."""
        assert real is not None
        return (relativistic_loss(fake, real),)


class RelativisticAverage(RelativisticBase):
    """Each sample against the mean of the other pile."""

    kind: Literal["relativistic_average"] = "relativistic_average"
    has_per_sample_g_loss: ClassVar[bool] = False  # every cost has the mean of all fakes in it

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None) -> Losses:
        """See `averaged`."""
        return relativistic_average_loss(real, fake)

    def g_losses(self, fake: Tensor, real: Tensor | None) -> Losses:
        """See `averaged`, the other way round."""
        assert real is not None
        return relativistic_average_loss(fake, real)
