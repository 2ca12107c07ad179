"""Zero-centred gradient penalties (tip T06b): penalise the gradient of D with respect to its input.

R1 = 1/2 E ||grad_x D(x)||^2 over the real samples, weighted by gamma; R2 is the same over the generated samples
(Mescheder, Geiger & Nowozin 2018, arXiv:1801.04406, equation 9 and below). The gradient is taken with respect to the
samples before input transforms. It uses the move's only forward pass, both penalties share one `autograd.grad`, and
sums are in float32.
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


def zero_centred_penalty(gradient: Tensor) -> Tensor:
    """1/2 ||grad_x D(x)||^2 per sample, B, from the gradient of the score, B x shape."""
    return to_float32(gradient).flatten(1).square().sum(1) / 2


class ZeroCentredConfig(TrickConfig):
    """The common fields: weight `gamma` (10 in the paper), times `every` in every `every`-th step.

    Lazy regularisation (`every` > 1) saves time on large images and fails on toy data and small images (Huang et al.
    2024, arXiv:2501.05441, appendix E).
    """

    tip: ClassVar[str] = "T06b"
    source: ClassVar[str] = "Mescheder et al. 2018, arXiv:1801.04406"
    needs_independent_scores: ClassVar[bool] = True

    gamma: Annotated[Schedulable, in_range(0)] = 10.0
    every: int = Field(default=1, ge=1)

    @property
    def bounds_lipschitz(self) -> bool:
        """True unless the weight is always 0."""
        return any(bounds(self.gamma))


class R1Config(ZeroCentredConfig):
    """R1: the gradient of D vanishes at real samples."""

    kind: Literal["r1"] = "r1"

    def build(self, name: str, context: TrickContext) -> R1:
        """See `R1`."""
        return R1(name, self.gamma, self.every)


class R2Config(ZeroCentredConfig):
    """R2: the gradient of D vanishes at generated samples.

    With R1 and without norm layers, it stabilises training that R1 alone does not (Huang et al. 2024).
    """

    kind: Literal["r2"] = "r2"

    def build(self, name: str, context: TrickContext) -> R2:
        """See `R2`."""
        return R2(name, self.gamma, self.every)


class R1(LossTerm):
    """Penalises the gradient of D at real samples."""

    sides = frozenset({Side.D})
    needs_input_gradient: ClassVar[frozenset[Origin]] = frozenset({"real"})

    def loss(self, move: MoveData) -> Tensor:
        """The mean of `zero_centred_penalty` over the real samples."""
        return zero_centred_penalty(move.input_gradient("real")).mean()


class R2(LossTerm):
    """Penalises the gradient of D at generated samples."""

    sides = frozenset({Side.D})
    needs_input_gradient: ClassVar[frozenset[Origin]] = frozenset({"fake"})

    def loss(self, move: MoveData) -> Tensor:
        """The mean of `zero_centred_penalty` over the generated samples."""
        return zero_centred_penalty(move.input_gradient("fake")).mean()
