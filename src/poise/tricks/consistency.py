"""Consistency regularisation (tip M03): D is penalised if its score changes when an image is shifted or flipped.

E (D(x) - D(T(x)))^2 over the real images, where T is a random shift by a few pixels and a random horizontal flip
(CR-GAN: Zhang et al. 2020, arXiv:1910.12027). The balanced form adds the same term over the generated images, because
D would otherwise be consistent on real images only (bCR: Zhao et al. 2021, arXiv:2002.04724). T(x) goes through the
same input transforms as x, with new draws: with instance noise, D is also penalised for the effect of the noise. The
term costs D another forward pass for real and, in the balanced form, for generated images.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from poise.core.hooks import LossTerm
from poise.core.move import MoveData
from poise.core.schedules import Schedulable, in_range
from poise.core.types import Origin, Shape, Side, to_float32
from poise.tricks.augment_ops import per_sample, random_integers, requires_images, shift_images, uniform
from poise.tricks.base import TrickConfig, TrickContext


def max_shift(sides: tuple[int, int], shift: float) -> tuple[int, int]:
    """The largest shifts in pixels, vertical and horizontal: a fraction `shift` of height and width."""
    return round(sides[0] * shift), round(sides[1] * shift)


def shift_and_flip(
    images: Tensor, limits: tuple[int, int], flip_probability: float, generator: torch.Generator
) -> Tensor:
    """Shift each image by up to `limits` pixels, vertically and horizontally, and flip it with `flip_probability`.

    What a shift leaves open is filled by reflection.
    """
    down, right = (random_integers(images, -limit, limit, generator) for limit in limits)
    shifted = shift_images(images, down, right, limits, "reflect")
    flipped = per_sample(images, uniform(images, 0.0, 1.0, generator)) < flip_probability
    return torch.where(flipped, shifted.flip(3), shifted)


def consistency_loss(score: Tensor, augmented_score: Tensor) -> Tensor:
    """E (D(x) - D(T(x)))^2, 0-dim, from scores, B each."""
    return (score - augmented_score).square().mean()


class ConsistencyConfig(TrickConfig):
    """`weight` is CR-GAN's lambda; `fakes` is the relative weight of the generated images, 1 in the balanced form.

    `shift` is a fraction of each side (4 of 32 pixels in the papers). Set `mirror = 0` for images that must not be
    flipped, such as digits.
    """

    kind: Literal["consistency"] = "consistency"
    tip: ClassVar[str] = "M03"
    source: ClassVar[str] = "Zhang et al. 2020, arXiv:1910.12027; Zhao et al. 2021, arXiv:2002.04724"

    weight: Annotated[Schedulable, in_range(0)] = 10.0
    fakes: float = Field(default=0.0, ge=0)
    shift: float = Field(default=0.125, ge=0, le=0.5)
    mirror: float = Field(default=0.5, ge=0, le=1)
    every: int = Field(default=1, ge=1)

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """It needs images."""
        return requires_images(shape)

    def build(self, name: str, context: TrickContext) -> Consistency:
        """See `Consistency`."""
        return Consistency(name, self)


class Consistency(LossTerm):
    """Adds the consistency term to D's loss."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.D})
    needs_output: ClassVar[frozenset[Origin]] = frozenset({"real"})

    def __init__(self, name: str, config: ConsistencyConfig) -> None:
        super().__init__(name, config.weight, config.every)
        self.config = config

    def loss(self, move: MoveData) -> Tensor:
        """The loss of the real images, plus `fakes` times that of the generated images."""
        loss = self._loss_of(move, "real")
        return loss + self.config.fakes * self._loss_of(move, "fake") if self.config.fakes else loss

    def _loss_of(self, move: MoveData, origin: Origin) -> Tensor:
        images = move.samples(origin).detach()
        height, width = images.shape[2:]
        generator = move.context.generator(f"{self.name}/{origin}")
        augmented = shift_and_flip(images, max_shift((height, width), self.config.shift), self.config.mirror, generator)
        output = move.discriminate(augmented, move.labels_of(origin))
        return consistency_loss(move.score(origin), to_float32(output.score))
