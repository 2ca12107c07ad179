"""Zero-centred gradient penalties (tip T06b): D is charged for its slope.

R1 = 1/2 E ||grad_x D(x)||^2 over the real pile, weighted by gamma; R2 the same over the fakes (Mescheder, Geiger &
Nowozin 2018, arXiv:1801.04406, equation 9 and below). Differentiated at the raw picture, before views; the gradient
comes from the move's one forward pass, both penalties share one `autograd.grad`, and sums are taken in float32.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from poise.core.hooks import LossTerm
from poise.core.move import MoveData
from poise.core.schedules import Schedulable, bounds, in_range
from poise.core.types import Origin, Side, to_float32
from poise.tricks.base import TrickConfig, TrickContext


def zero_centred_penalty(slope: Tensor) -> Tensor:
    """1/2 ||grad_x D(x)||^2 per sample, B, from the gradient of the score, B x shape."""
    return to_float32(slope).flatten(1).square().sum(1) / 2


class ZeroCentredConfig(TrickConfig):
    """What both share: weight `gamma` (10 in the paper), in every `every`-th step with `every` times the weight.

    Doing it lazily saves time on large pictures and fails on toys and small pictures (Huang et al. 2024,
    arXiv:2501.05441, appendix E).
    """

    tip: ClassVar[str] = "T06b"
    source: ClassVar[str] = "Mescheder et al. 2018, arXiv:1801.04406"
    needs_independent_scores: ClassVar[bool] = True

    gamma: Annotated[Schedulable, in_range(0)] = 10.0
    every: int = Field(default=1, ge=1)

    @property
    def bounds_lipschitz(self) -> bool:
        """Yes, unless it never weighs anything."""
        return any(bounds(self.gamma))


class R1Config(ZeroCentredConfig):
    """R1: D is flat where the data is."""

    kind: Literal["r1"] = "r1"

    def build(self, name: str, context: TrickContext) -> R1:
        """See `R1`."""
        return R1(name, self.gamma, self.every)


class R2Config(ZeroCentredConfig):
    """R2: D is flat where the fakes are. With R1 and without norms it holds what R1 alone does not (Huang 2024)."""

    kind: Literal["r2"] = "r2"

    def build(self, name: str, context: TrickContext) -> R2:
        """See `R2`."""
        return R2(name, self.gamma, self.every)


class R1(LossTerm):
    """Charges D for its slope at the real pile."""

    sides = frozenset({Side.D})
    needs_input_gradient: ClassVar[frozenset[Origin]] = frozenset({"real"})

    def loss(self, move: MoveData) -> Tensor:
        """Mean of `zero_centred` over the real pile."""
        return zero_centred_penalty(move.input_gradient("real")).mean()


class R2(LossTerm):
    """Charges D for its slope at the fake pile."""

    sides = frozenset({Side.D})
    needs_input_gradient: ClassVar[frozenset[Origin]] = frozenset({"fake"})

    def loss(self, move: MoveData) -> Tensor:
        """Mean of `zero_centred` over the fake pile."""
        return zero_centred_penalty(move.input_gradient("fake")).mean()
