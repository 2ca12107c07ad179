"""Relativistic losses: D estimates whether a real sample is more realistic than a fake one.

The paired loss (RpGAN) compares each real sample with one fake sample. Its loss landscape has no basins of collapsed
modes (Sun, Fang & Schwing 2020, arXiv:2011.04926), and R3GAN builds on it (Huang 2024, arXiv:2501.05441). The averaged
loss (RaGAN) compares each sample with the mean score of the opposite batch. Source: Jolicoeur-Martineau 2019,
arXiv:1807.00734.
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
    """-log sigmoid(C(better_i) - C(worse_i)) = softplus(C(worse_i) - C(better_i)); per pair, B."""
    return softplus(worse - better)


def relativistic_average_loss(better: Tensor, worse: Tensor) -> Losses:
    """-log sigmoid(C(better) - E C(worse)) and -log(1 - sigmoid(C(worse) - E C(better))); per sample, B each."""
    return softplus(worse.mean() - better), softplus(worse - better.mean())


class RelativisticBase(Objective):
    """The base class of both objectives: G's loss is D's with real and fake exchanged."""

    is_relativistic: ClassVar[bool] = True
    is_separable: ClassVar[bool] = False
    output_kinds: ClassVar[frozenset[OutputKind]] = frozenset({"score", "energy"})

    @property
    def equilibrium(self) -> Mapping[Side, float]:
        """log 2 for both players."""
        return {Side.D: math.log(2), Side.G: math.log(2)}


class Relativistic(RelativisticBase):
    """Compares real sample i of the batch with fake sample i."""

    kind: Literal["relativistic"] = "relativistic"

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None) -> Losses:
        """See `relativistic_loss`."""
        return (relativistic_loss(real, fake),)

    def g_losses(self, fake: Tensor, real: Tensor | None) -> Losses:
        """See `relativistic_loss`, with real and fake exchanged."""
        assert real is not None
        return (relativistic_loss(fake, real),)


class RelativisticAverage(RelativisticBase):
    """Compares each sample with the mean score of the opposite batch."""

    kind: Literal["relativistic_average"] = "relativistic_average"
    has_per_sample_g_loss: ClassVar[bool] = False  # each loss contains the mean over all fake samples

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None) -> Losses:
        """See `relativistic_average_loss`."""
        return relativistic_average_loss(real, fake)

    def g_losses(self, fake: Tensor, real: Tensor | None) -> Losses:
        """See `relativistic_average_loss`, with real and fake exchanged."""
        assert real is not None
        return relativistic_average_loss(fake, real)
