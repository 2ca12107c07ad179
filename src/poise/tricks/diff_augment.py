"""DiffAugment (Zhao et al. 2020, arXiv:2006.10738; tip M02): D never sees a picture as it is, real or fake.

The same random changes on reals and fakes, in both players' moves, with the gradient passing through: D can't learn a
small set by heart, and G isn't taught to draw the changes, since D's reals have them too. As in the authors' code:

    colour       x + b, b ~ U[-1/2, 1/2]; then its distance from grey times s ~ U[0, 2], then from its mean times
                 c ~ U[1/2, 3/2]
    translation  by up to an eighth of the side, what comes in is grey
    cutout       a square of half the side, somewhere, made grey
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, Strict, field_validator
from torch import Tensor

from poise.core.config import reject_value
from poise.core.hooks import InputTransform
from poise.core.types import MoveContext, Origin, Shape
from poise.tricks.augment_ops import erase_square, per_sample, random_integers, requires_images, shift_images, uniform
from poise.tricks.base import TrickConfig, TrickContext

Policy = Literal["colour", "translation", "cutout"]


def colour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Another brightness, saturation and contrast for each picture."""
    images = images + per_sample(images, uniform(images, -0.5, 0.5, generator))
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * per_sample(images, uniform(images, 0.0, 2.0, generator)) + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * per_sample(images, uniform(images, 0.5, 1.5, generator)) + mean


def translation(images: Tensor, generator: torch.Generator, ratio: float = 0.125) -> Tensor:
    """Each picture moved by whole pixels, up to `ratio` of its side."""
    most = int(images.shape[2] * ratio + 0.5)
    down, right = (random_integers(images, -most, most, generator) for _ in range(2))
    return shift_images(images, down, right, most)


def cutout(images: Tensor, generator: torch.Generator, ratio: float = 0.5) -> Tensor:
    """A square of `ratio` of the side gone from each; its middle is anywhere in the picture."""
    size = images.shape[2]
    side = int(size * ratio + 0.5)
    top, left = (random_integers(images, 0, size - side % 2, generator) - side // 2 for _ in range(2))
    return erase_square(images, top, left, side)


CHANGES: dict[Policy, Callable[[Tensor, torch.Generator], Tensor]] = {
    "colour": colour,
    "translation": translation,
    "cutout": cutout,
}


class DiffAugmentConfig(TrickConfig):
    """`policy`: which changes, in this order; the paper takes all three where data is scarce, fewer where it isn't."""

    kind: Literal["diff_augment"] = "diff_augment"
    tip: ClassVar[str] = "M02"
    source: ClassVar[str] = "Zhao et al. 2020, arXiv:2006.10738"

    policy: Annotated[tuple[Policy, ...], Strict(False), Field(max_length=3)] = ("colour", "translation", "cutout")

    @field_validator("policy")
    @classmethod
    def _each_once(cls, policy: tuple[Policy, ...]) -> tuple[Policy, ...]:
        if len(set(policy)) < len(policy):
            reject_value("names a change twice", found=", ".join(policy))
        return policy

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """Pictures only."""
        return requires_images(shape)

    def build(self, name: str, context: TrickContext) -> DiffAugment:
        """See `DiffAugment`."""
        return DiffAugment(name, self.policy)


class DiffAugment(InputTransform):
    """Draws anew for each pile of each move; acts before noise, which colour and cutout would change."""

    rank: ClassVar[int] = -1

    def __init__(self, name: str, policy: tuple[Policy, ...]) -> None:
        super().__init__(name)
        self.policy = policy

    def transform_input(self, images: Tensor, origin: Origin, context: MoveContext) -> Tensor:
        """All changes of the policy, in its order."""
        for change in self.policy:
            images = CHANGES[change](images, context.generator(f"{self.name}/{origin}/{change}"))
        return images
