"""Noisy labels (tip T07b): flip some of D's targets at random (ganhacks 6).

With probability p, a real sample gets the target of the fake sample at its index in the batch, and a fake sample that
of its real one: hard targets are flipped, soft targets keep their ranges. Each sample is flipped independently. In
expectation D's gradient is that of targets (1 - p) real + p fake: both sides are smoothed by p, but at random.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from poise.core.hooks import TargetTransform
from poise.core.schedules import Linear, Schedulable, current_value, in_range
from poise.core.types import MoveContext, Targets, for_patches
from poise.tricks.base import TrickConfig, TrickContext


def flip_targets(targets: Targets, real: Tensor, fake: Tensor) -> Targets:
    """Exchange the targets where `real` or `fake` (bool, B) is true, for all patches of a sample."""
    return Targets(
        real=torch.where(for_patches(real, targets.real), targets.fake, targets.real),
        fake=torch.where(for_patches(fake, targets.fake), targets.real, targets.fake),
    )


class NoisyLabelsConfig(TrickConfig):
    """`probability` that a target is flipped.

    ganhacks says "occasionally"; 0.05, annealed to 0, is our choice.
    """

    kind: Literal["noisy_labels"] = "noisy_labels"
    tip: ClassVar[str] = "T07b"
    source: ClassVar[str] = "ganhacks 6; Salimans et al. 2016, arXiv:1606.03498, for the smoothing it amounts to"
    needs_targets: ClassVar[bool] = True

    probability: Annotated[Schedulable, in_range(0, 1)] = Linear(start=0.05, end=0.0)

    def build(self, name: str, context: TrickContext) -> NoisyLabels:
        """See `NoisyLabels`."""
        return NoisyLabels(name, self.probability)


class NoisyLabels(TargetTransform):
    """Flips D's targets, with new draws in each of D's moves.

    It acts after soft labels, which would overwrite the flipped targets.
    """

    rank: ClassVar[int] = 1

    def __init__(self, name: str, probability: Schedulable) -> None:
        super().__init__(name)
        self.probability = probability

    def transform_targets(self, targets: Targets, context: MoveContext) -> Targets:
        """See `flip_targets`."""
        p = current_value(self.probability, context)
        if p == 0:
            return targets
        generator = context.generator(self.name)
        flipped = torch.rand(2, len(targets.real), generator=generator, device=targets.real.device) < p
        return flip_targets(targets, *flipped)
