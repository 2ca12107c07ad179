"""The original game: D is a classifier that says "real" or "fake" of each picture by itself.

D's score s is a logit, D = sigmoid(s). D pays the cross-entropy of its targets. G either pays what D
gains (minimax) or minus the log of its own success (non-saturating; tip T02), which has the same fixed
point and a gradient where G is losing. Goodfellow et al. 2014, arXiv:1406.2661, section 3.
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

    log D and log(1 - D) are log sigmoids of s and -s: no overflow for any finite s. Exact at t = 0 and 1, and
    linear in t, so that a target beyond [0, 1] (soft labels go up to 1.2) has a meaning too.
    """
    return -(target * logsigmoid(score) + (1 - target) * logsigmoid(-score))


def non_saturating(fake: Tensor) -> Tensor:
    """-log D(G(z)) = log(1 + exp(-s)); per sample, B."""
    return -logsigmoid(fake)


def minimax(fake: Tensor) -> Tensor:
    """log(1 - D(G(z))) = -log(1 + exp(s)); per sample, B. Flat where D is sure that G's picture is fake."""
    return logsigmoid(-fake)


class CrossEntropy(Objective):
    """What both share: D's side, and log 2 as what a D that can't tell pays for each picture."""

    accepts_targets: ClassVar[bool] = True

    @property
    def decision_threshold(self) -> float:
        """A logit of 0: probability one half."""
        return 0.0

    def d_losses(self, real: Tensor, fake: Tensor, targets: Targets | None) -> Losses:
        """E[-log D(x)] + E[-log(1 - D(G(z)))], or the cross-entropy of the targets if there are any."""
        if targets is None:
            return -logsigmoid(real), -logsigmoid(-fake)
        return cross_entropy(real, targets.real), cross_entropy(fake, targets.fake)


class NonSaturating(CrossEntropy):
    """G maximises log D(G(z))."""

    kind: Literal["non_saturating"] = "non_saturating"

    @property
    def equilibrium(self) -> Mapping[Side, float]:
        """log 2 for both."""
        return {Side.D: math.log(2), Side.G: math.log(2)}

    def g_losses(self, fake: Tensor, real: Tensor | None) -> Losses:
        """See `non_saturating`."""
        return (non_saturating(fake),)


class Minimax(CrossEntropy):
    """G minimises log(1 - D(G(z))): the original game, for comparison."""

    kind: Literal["minimax"] = "minimax"

    @property
    def equilibrium(self) -> Mapping[Side, float]:
        """log 2 for D, and what G pays is minus what D gains of it."""
        return {Side.D: math.log(2), Side.G: -math.log(2)}

    def g_losses(self, fake: Tensor, real: Tensor | None) -> Losses:
        """See `minimax`."""
        return (minimax(fake),)
