"""Consistency (tip M03): D is charged for scoring a picture otherwise when it is moved or mirrored.

E (D(x) - D(T(x)))^2 over the reals, T a random move by a few pixels and a mirror by a coin (CR-GAN: Zhang et al. 2020,
arXiv:1910.12027); the balanced form adds the same over the fakes, or D would be even on reals alone (bCR: Zhao et al.
2021, arXiv:2002.04724). T(x) goes through the same views as x, which draw anew for it: with instance noise D is charged
for what the noise does as well. Costs D another pass for each pile.
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


def shift_and_flip(images: Tensor, most: int, mirror: float, generator: torch.Generator) -> Tensor:
    """Each picture moved by up to `most` pixels, its reflection coming in, and mirrored with probability `mirror`."""
    down, right = (random_integers(images, -most, most, generator) for _ in range(2))
    moved = shift_images(images, down, right, most, "reflect")
    coins = per_sample(images, uniform(images, 0.0, 1.0, generator)) < mirror
    return torch.where(coins, moved.flip(3), moved)


def consistency_loss(score: Tensor, varied: Tensor) -> Tensor:
    """E (D(x) - D(T(x)))^2, 0-dim, from scores, B each."""
    return (score - varied).square().mean()


class ConsistencyConfig(TrickConfig):
    """`weight` is CR-GAN's lambda; `fakes` the share of it that the fakes' part has, 1 in the balanced form.

    `shift` is in parts of the side (4 of 32 pixels in the papers). `mirror = 0` for pictures that must not be, digits.
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
        """Pictures only."""
        return requires_images(shape)

    def build(self, name: str, context: TrickContext) -> Consistency:
        """See `Consistency`."""
        return Consistency(name, self)


class Consistency(LossTerm):
    """Charges D."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.D})
    needs_output: ClassVar[frozenset[Origin]] = frozenset({"real"})

    def __init__(self, name: str, told: ConsistencyConfig) -> None:
        super().__init__(name, told.weight, told.every)
        self.told = told

    def loss(self, move: MoveData) -> Tensor:
        """The reals' unevenness, and the fakes' by its share."""
        cost = self._of(move, "real")
        return cost + self.told.fakes * self._of(move, "fake") if self.told.fakes else cost

    def _of(self, move: MoveData, origin: Origin) -> Tensor:
        images = move.samples(origin).detach()
        most = round(images.shape[2] * self.told.shift)
        generator = move.context.generator(f"{self.name}/{origin}")
        again = move.discriminate(shift_and_flip(images, most, self.told.mirror, generator), move.labels_of(origin))
        return consistency_loss(move.score(origin), to_float32(again.score))
