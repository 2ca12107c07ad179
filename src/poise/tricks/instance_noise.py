"""Instance noise (tip T14a): add noise to D's input so that both distributions overlap, and anneal it.

x + sigma * eps, eps ~ N(0, I), on real and generated samples alike, with sigma annealed to zero. Arjovsky & Bottou 2017
(arXiv:1701.04862, section 3) give the reason, Sonderby et al. 2017 (arXiv:1610.04490, section 3.2) introduce instance
noise with a linearly falling sigma. ganhacks 13 gives no value; 0.1 is our choice.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from poise.core.hooks import InputTransform
from poise.core.random_streams import normal_like
from poise.core.schedules import Linear, Schedulable, current_value, in_range
from poise.core.types import MoveContext, Origin, check_floats
from poise.tricks.base import TrickConfig, TrickContext


def add_noise(images: Tensor, sigma: float, generator: torch.Generator | None = None) -> Tensor:
    """x + sigma * eps with eps ~ N(0, I), same shape, differentiable in x; x itself if sigma is 0.

    Args:
        images: the samples.
        sigma: the standard deviation of the noise.
        generator: random numbers, on the device of the samples; by default PyTorch's global generator of that device.

    Raises:
        RecipeError: the samples are whole numbers.
        ValueError: sigma is below 0, or not a number.
    """
    if not sigma >= 0:
        raise ValueError(f"sigma must be at least 0, found {sigma:g}")
    check_floats(images, "add_noise")
    if sigma == 0:
        return images
    return images + normal_like(images, sigma, generator)


class InstanceNoiseConfig(TrickConfig):
    """Gaussian noise on D's input; `sigma` is in units of the data ([-1, 1] for images)."""

    kind: Literal["instance_noise"] = "instance_noise"
    tip: ClassVar[str] = "T14a"
    source: ClassVar[str] = "Arjovsky & Bottou 2017, arXiv:1701.04862; Sonderby et al. 2017, arXiv:1610.04490"

    sigma: Annotated[Schedulable, in_range(0)] = Linear(start=0.1, end=0.0)

    def build(self, name: str, context: TrickContext) -> InstanceNoise:
        """See `InstanceNoise`."""
        return InstanceNoise(name, self.sigma)


class InstanceNoise(InputTransform):
    """Adds noise, with new draws for each batch of each move.

    It acts after augmentation: cutout and resampling would weaken the noise.
    """

    def __init__(self, name: str, sigma: Schedulable) -> None:
        super().__init__(name)
        self.sigma = sigma

    def transform_input(self, images: Tensor, origin: Origin, context: MoveContext) -> Tensor:
        """See `add_noise`."""
        return add_noise(images, current_value(self.sigma, context), context.generator(f"{self.name}/{origin}"))
