"""Penalties on gradient norms that differ from one (tip T06b): WGAN-GP and DRAGAN.

lambda E (||grad D(x^)|| - 1)^2, or only the excess over one: [||grad D(x^)|| - 1]^+ squared. They differ in the points
x^. WGAN-GP: on the lines between real and generated samples (Gulrajani et al. 2017, arXiv:1704.00028, equation 3;
one-sided also Petzka 2018, arXiv:1709.08894). DRAGAN: around the real samples, with Gaussian noise as in the paper
(Kodali et al. 2017, arXiv:1705.07215) of the size in its released code, which uses uniform noise and a point on the
line towards it. Each costs D another forward and backward pass; the gradient is taken before input transforms.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal, get_args

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


def unit_norm_penalty(gradient: Tensor, sides: Sides = "two") -> Tensor:
    """(||gradient|| - 1)^2 per sample, B, from B x shape; one-sided: 0 if the norm is below one.

    The norm is computed as sqrt(sum + 1e-12), which keeps its derivative finite if the gradient is zero.

    Raises:
        ValueError: `sides` is neither "two" nor "one".
    """
    if sides not in get_args(Sides):
        raise ValueError(f'sides must be "two" or "one", found {sides!r}')
    norm = to_float32(gradient).flatten(1).square().sum(1).add(1e-12).sqrt()
    return (norm - 1 if sides == "two" else relu(norm - 1)).square()


def interpolate_pairs(real: Tensor, fake: Tensor, generator: torch.Generator, pack: int = 1) -> Tensor:
    """u x + (1 - u) G(z) with u ~ U[0, 1], one u for each pair (of packs, if D scores packs): B x shape.

    The samples may have different precisions, as under autocast; the result has the higher one.

    Raises:
        ValueError: the shapes differ, so that there are no pairs.
    """
    if real.shape != fake.shape:
        found = " and ".join(" x ".join(map(str, samples.shape)) for samples in (real, fake))
        raise ValueError(f"real and fake samples must be pairs of one shape, found {found}")
    dtype = torch.promote_types(real.dtype, fake.dtype)
    u = torch.rand(len(real) // pack, generator=generator, device=generator.device, dtype=dtype)
    return torch.lerp(fake.to(dtype), real.to(dtype), u.repeat_interleave(pack).view(-1, *(1 for _ in real.shape[1:])))


def perturb_real(real: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    """x + spread std(x) eps, eps ~ N(0, I), with std over the whole batch: B x shape.

    Raises:
        ValueError: the spread is below 0, or not a number.
    """
    if not spread >= 0:
        raise ValueError(f"the spread must be at least 0, found {spread:g}")
    return real + spread * real.std() * normal_like(real, 1.0, generator)


class UnitGradientPenaltyConfig(TrickConfig):
    """The common fields; `weight` is the papers' lambda."""

    tip: ClassVar[str] = "T06b"
    needs_independent_scores: ClassVar[bool] = True

    weight: Annotated[Schedulable, in_range(0)] = 10.0
    sides: Sides = "two"
    every: int = Field(default=1, ge=1)

    @property
    def bounds_lipschitz(self) -> bool:
        """True unless the weight is always 0."""
        return any(bounds(self.weight))


class WGANGPConfig(UnitGradientPenaltyConfig):
    """Unit gradient norm between generated and real samples; 0.1 is faster on toy data (the authors' code)."""

    kind: Literal["wgan_gp"] = "wgan_gp"
    source: ClassVar[str] = "Gulrajani et al. 2017, arXiv:1704.00028"

    def build(self, name: str, context: TrickContext) -> WGANGP:
        """See `WGANGP`."""
        return WGANGP(name, self.weight, self.every, self.sides)


class DRAGANConfig(UnitGradientPenaltyConfig):
    """Unit gradient norm around the real samples; `spread` is in units of the batch's standard deviation."""

    kind: Literal["dragan"] = "dragan"
    source: ClassVar[str] = "Kodali et al. 2017, arXiv:1705.07215"

    spread: float = Field(default=0.5, ge=0)

    def build(self, name: str, context: TrickContext) -> DRAGAN:
        """See `DRAGAN`."""
        return DRAGAN(name, self.weight, self.every, self.sides, self.spread)


class UnitGradientPenalty(LossTerm):
    """Penalises gradient norms of D that differ from one, at points that a subclass chooses."""

    sides = frozenset({Side.D})
    needs_output: ClassVar[frozenset[Origin]] = frozenset({"real"})

    def __init__(self, name: str, weight: Schedulable, every: int, penalty_sides: Sides) -> None:
        super().__init__(name, weight, every)
        self.penalty_sides = penalty_sides

    @abstractmethod
    def penalty_points(self, move: MoveData) -> Tensor:
        """The points x^, B x shape."""

    def loss(self, move: MoveData) -> Tensor:
        """The mean of `unit_norm_penalty`."""
        return unit_norm_penalty(move.input_gradient_at(self.penalty_points(move)), self.penalty_sides).mean()


class WGANGP(UnitGradientPenalty):
    """The penalty on the lines between real and generated samples."""

    def penalty_points(self, move: MoveData) -> Tensor:
        """See `interpolate_pairs`."""
        generator = move.context.generator(self.name)
        real = move.samples("real").detach()
        return interpolate_pairs(real, move.fake.detach(), generator, move.pack)


class DRAGAN(UnitGradientPenalty):
    """The penalty around the real samples."""

    def __init__(self, name: str, weight: Schedulable, every: int, penalty_sides: Sides, spread: float) -> None:
        super().__init__(name, weight, every, penalty_sides)
        self.spread = spread

    def penalty_points(self, move: MoveData) -> Tensor:
        """See `perturb_real`."""
        return perturb_real(move.samples("real").detach(), self.spread, move.context.generator(self.name))
