"""Noisy labels (tip T07b): now and then D is told the wrong thing (ganhacks 6).

With probability p a real is asked for what the fake at its place is asked for, and a fake for what its real is: hard
targets are flipped, soft ones keep their ranges. Each sample has a coin of its own. In the mean D's gradient is that of
targets (1 - p) real + p fake: both sides are smoothed by p, but by coins instead of by a number.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from poise.core.hooks import TargetTransform
from poise.core.schedules import Linear, Schedulable, current_value, in_range
from poise.core.types import MoveContext, Targets
from poise.tricks.base import TrickConfig, TrickContext


def flip_targets(targets: Targets, real: Tensor, fake: Tensor) -> Targets:
    """Targets exchanged with the other side's where `real` or `fake` (B, bool) says so."""
    return Targets(
        real=torch.where(real, targets.fake, targets.real),
        fake=torch.where(fake, targets.real, targets.fake),
    )


class NoisyLabelsConfig(TrickConfig):
    """`probability` that a target is flipped; the list says "occasionally", 0.05 that dies out is our reading."""

    kind: Literal["noisy_labels"] = "noisy_labels"
    tip: ClassVar[str] = "T07b"
    source: ClassVar[str] = "ganhacks 6; Salimans et al. 2016, arXiv:1606.03498, for the smoothing it amounts to"
    needs_targets: ClassVar[bool] = True

    probability: Annotated[Schedulable, in_range(0, 1)] = Linear(start=0.05, end=0.0)

    def build(self, name: str, context: TrickContext) -> NoisyLabels:
        """See `NoisyLabels`."""
        return NoisyLabels(name, self.probability)


class NoisyLabels(TargetTransform):
    """A coin for each sample of each of D's moves; acts behind soft labels, which would draw the flips over."""

    rank: ClassVar[int] = 1

    def __init__(self, name: str, probability: Schedulable) -> None:
        super().__init__(name)
        self.probability = probability

    def transform_targets(self, targets: Targets, context: MoveContext) -> Targets:
        """See `flipped`."""
        p = current_value(self.probability, context)
        if p == 0:
            return targets
        generator = context.generator(self.name)
        coins = torch.rand(2, len(targets.real), generator=generator, device=targets.real.device) < p
        return flip_targets(targets, *coins)
