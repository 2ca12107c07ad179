"""Penalties for a slope that is not one (tip T06b): WGAN-GP and DRAGAN.

lambda E (||grad D(x^)|| - 1)^2, or only what exceeds one: [||grad D(x^)|| - 1]^+ squared. They differ in where x^
lies. WGAN-GP: on the lines between reals and fakes (Gulrajani et al. 2017, arXiv:1704.00028, equation 3; one-sided
also Petzka 2018, arXiv:1709.08894). DRAGAN: around the reals, with Gaussian noise as in the paper (Kodali et al. 2017,
arXiv:1705.07215) of the size in its released code, which takes uniform noise and a point on the way to it. Each costs
D a pass of its own; the gradient is taken at the raw picture, before views.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import relu

from poise.core.hooks import LossTerm
from poise.core.move import MoveData
from poise.core.random_streams import normal_like
from poise.core.schedules import Schedulable, bounds, in_range
from poise.core.types import Origin, Side, to_float32
from poise.tricks.base import TrickConfig, TrickContext

Sides = Literal["two", "one"]


def unit_norm_penalty(slope: Tensor, sides: Sides = "two") -> Tensor:
    """(||slope|| - 1)^2 per sample, B, from B x shape; one-sided: nothing where the length is below one.

    The length is taken as sqrt(sum + 1e-12), which keeps its gradient finite where the slope is zero.
    """
    length = to_float32(slope).flatten(1).square().sum(1).add(1e-12).sqrt()
    return (length - 1 if sides == "two" else relu(length - 1)).square()


def interpolate_pairs(real: Tensor, fake: Tensor, generator: torch.Generator, pack: int = 1) -> Tensor:
    """u x + (1 - u) G(z) with u ~ U[0, 1], one for each pair (of packs, where D judges several at once): B x shape."""
    share = torch.rand(len(real) // pack, generator=generator, device=generator.device, dtype=real.dtype)
    return torch.lerp(fake, real, share.repeat_interleave(pack).view(-1, *(1 for _ in real.shape[1:])))


def perturb_real(real: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    """x + spread std(x) eps, eps ~ N(0, I), with std over the whole batch: B x shape."""
    return real + spread * real.std() * normal_like(real, 1.0, generator)


class UnitGradientPenaltyConfig(TrickConfig):
    """What both share; `weight` is the papers' lambda."""

    tip: ClassVar[str] = "T06b"
    needs_independent_scores: ClassVar[bool] = True

    weight: Annotated[Schedulable, in_range(0)] = 10.0
    sides: Sides = "two"
    every: int = Field(default=1, ge=1)

    @property
    def bounds_lipschitz(self) -> bool:
        """Yes, unless it never weighs anything."""
        return any(bounds(self.weight))


class WGANGPConfig(UnitGradientPenaltyConfig):
    """Unit slope on the way from fake to real; on toys a `weight` of 0.1 is faster (the authors' code)."""

    kind: Literal["wgan_gp"] = "wgan_gp"
    source: ClassVar[str] = "Gulrajani et al. 2017, arXiv:1704.00028"

    def build(self, name: str, context: TrickContext) -> WGANGP:
        """See `WGANGP`."""
        return WGANGP(name, self.weight, self.every, self.sides)


class DRAGANConfig(UnitGradientPenaltyConfig):
    """Unit slope around the data; `spread` in units of the batch's own standard deviation."""

    kind: Literal["dragan"] = "dragan"
    source: ClassVar[str] = "Kodali et al. 2017, arXiv:1705.07215"

    spread: float = Field(default=0.5, ge=0)

    def build(self, name: str, context: TrickContext) -> DRAGAN:
        """See `DRAGAN`."""
        return DRAGAN(name, self.weight, self.every, self.sides, self.spread)


class UnitGradientPenalty(LossTerm):
    """Charges D for a slope that is not one, at samples that a subclass chooses."""

    sides = frozenset({Side.D})
    needs_output: ClassVar[frozenset[Origin]] = frozenset({"real"})

    def __init__(self, name: str, weight: Schedulable, every: int, one_or_two: Sides) -> None:
        super().__init__(name, weight, every)
        self.one_or_two = one_or_two

    @abstractmethod
    def penalty_points(self, move: MoveData) -> Tensor:
        """The samples x^, B x shape."""

    def loss(self, move: MoveData) -> Tensor:
        """Mean of `off_unit`."""
        return unit_norm_penalty(move.input_gradient_at(self.penalty_points(move)), self.one_or_two).mean()


class WGANGP(UnitGradientPenalty):
    """On the lines between the piles."""

    def penalty_points(self, move: MoveData) -> Tensor:
        """See `between`."""
        generator = move.context.generator(self.name)
        real = move.samples("real").detach()
        return interpolate_pairs(real, move.fake.detach(), generator, move.pack)


class DRAGAN(UnitGradientPenalty):
    """Around the reals."""

    def __init__(self, name: str, weight: Schedulable, every: int, one_or_two: Sides, spread: float) -> None:
        super().__init__(name, weight, every, one_or_two)
        self.spread = spread

    def penalty_points(self, move: MoveData) -> Tensor:
        """See `around`."""
        return perturb_real(move.samples("real").detach(), self.spread, move.context.generator(self.name))
