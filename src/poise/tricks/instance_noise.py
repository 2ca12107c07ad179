"""Instance noise (tip T14a): blur what D sees until both distributions overlap, then let it clear up.

x + sigma * eps, eps ~ N(0, I), on real and fake alike, with sigma annealed to zero. Arjovsky & Bottou 2017
(arXiv:1701.04862, section 3) for why; Sonderby et al. 2017 (arXiv:1610.04490, section 3.2) for instance
noise with a linearly falling sigma. The list names no figure (ganhacks 13); 0.1 is ours.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from poise.core.hooks import InputTransform
from poise.core.random_streams import normal_like
from poise.core.schedules import Linear, Schedulable, current_value, in_range
from poise.core.types import MoveContext, Origin
from poise.tricks.base import TrickConfig, TrickContext


def add_noise(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """x + sigma * eps with eps ~ N(0, I), same shape, differentiable in x; x itself at sigma 0."""
    if sigma == 0:
        return images
    return images + normal_like(images, sigma, generator)


class InstanceNoiseConfig(TrickConfig):
    """Gaussian noise on D's inputs; sigma in units of the data ([-1, 1] for pictures)."""

    kind: Literal["instance_noise"] = "instance_noise"
    tip: ClassVar[str] = "T14a"
    source: ClassVar[str] = "Arjovsky & Bottou 2017, arXiv:1701.04862; Sonderby et al. 2017, arXiv:1610.04490"

    sigma: Annotated[Schedulable, in_range(0)] = Linear(start=0.1, end=0.0)

    def build(self, name: str, context: TrickContext) -> InstanceNoise:
        """See `InstanceNoise`."""
        return InstanceNoise(name, self.sigma)


class InstanceNoise(InputTransform):
    """Noise of its own for each pile of each move; augmentation acts before it: cutout and resampling weaken it."""

    def __init__(self, name: str, sigma: Schedulable) -> None:
        super().__init__(name)
        self.sigma = sigma

    def transform_input(self, images: Tensor, origin: Origin, context: MoveContext) -> Tensor:
        """See `add_noise`."""
        return add_noise(images, current_value(self.sigma, context), context.generator(f"{self.name}/{origin}"))
