"""The objectives of the original GAN: D is a binary classifier of single images, trained with the cross-entropy.

D's score s is a logit, D = sigmoid(s). G minimises either the negative of D's loss for fake samples (minimax) or
-log D(G(z)) (non-saturating; tip T02), which has the same fixed point and does not lose its gradient when D rejects the
fake samples with confidence. Goodfellow et al. 2014, arXiv:1406.2661, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn.functional import logsigmoid

from poise.core.types import Side, Targets
from poise.objectives.base import Losses, Objective


def cross_entropy(score: Tensor, target: Tensor) -> Tensor:
    """-t log D - (1 - t) log(1 - D) with D = sigmoid(score); per sample, B.

    log D and log(1 - D) are computed as log-sigmoids of s and -s, which do not overflow for any finite s. The loss is
    exact at t = 0 and 1 and linear in t, so it is also defined for targets beyond [0, 1] (soft labels go up to 1.2).
    """
    return -(target * logsigmoid(score) + (1 - target) * logsigmoid(-score))


def non_saturating(fake: Tensor) -> Tensor:
    """-log D(G(z)) = log(1 + exp(-s)); per sample, B."""
    return -logsigmoid(fake)


def minimax(fake: Tensor) -> Tensor:
    """log(1 - D(G(z))) = -log(1 + exp(s)); per sample, B. It saturates where D is confident that the sample is fake."""
    return logsigmoid(-fake)


class CrossEntropy(Objective):
    """The base class of both objectives, with D's loss; at equilibrium it is log 2 per sample."""

    accepts_targets: ClassVar[bool] = True

    @property
    def decision_threshold(self) -> float:
        """0, the logit of probability 1/2."""
        return 0.0

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None) -> Losses:
        """E[-log D(x)] + E[-log(1 - D(G(z)))], or the cross-entropy with `targets` if they are given."""
        if targets is None:
            return -logsigmoid(real), -logsigmoid(-fake)
        return cross_entropy(real, targets.real), cross_entropy(fake, targets.fake)


class NonSaturating(CrossEntropy):
    """G maximises log D(G(z))."""

    kind: Literal["non_saturating"] = "non_saturating"
    g_target_span: ClassVar[float | None] = 1.0

    @property
    def equilibrium(self) -> Mapping[Side, float]:
        """log 2 for both players."""
        return {Side.D: math.log(2), Side.G: math.log(2)}

    def g_losses(self, fake: Tensor, real: Tensor | None) -> Losses:
        """See `non_saturating`."""
        return (non_saturating(fake),)


class Minimax(CrossEntropy):
    """G minimises log(1 - D(G(z))): the original minimax loss, for comparison."""

    kind: Literal["minimax"] = "minimax"

    @property
    def equilibrium(self) -> Mapping[Side, float]:
        """log 2 for D and -log 2 for G."""
        return {Side.D: math.log(2), Side.G: -math.log(2)}

    def g_losses(self, fake: Tensor, real: Tensor | None) -> Losses:
        """See `minimax`."""
        return (minimax(fake),)
