"""Soft labels (tip T07a): train D towards targets other than 0 and 1.

Salimans et al. 2016 (arXiv:1606.03498, section 3.4) smooth the real side only, to 0.9: with a smoothed fake side the
optimal D has the model's own density in its numerator, and bad samples have no incentive to move. The advice of
ganhacks 6 is two-sided: real targets from U[0.7, 1.2], fake ones from U[0, 0.3].
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Strict, model_validator
from torch import Tensor

from poise.core.config import reject_value
from poise.core.hooks import TargetTransform
from poise.core.schedules import Schedulable, bounds, current_value, in_range
from poise.core.types import MoveContext, Origin, Targets
from poise.tricks.base import TrickConfig, TrickContext

Bound = Annotated[Schedulable, in_range(0, 2)]
TargetRange = Annotated[tuple[Bound, Bound], Strict(False)]


def uniform_targets(like: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Targets from U[low, high], shape and type of `like`; exactly `low` if both are equal."""
    if low == high:
        return torch.full_like(like, low)
    draws = torch.rand(like.shape, generator=generator, device=generator.device, dtype=like.dtype)
    return draws.mul_(high - low).add_(low)


class SoftLabelsConfig(TrickConfig):
    """Targets drawn per sample from a range per side.

    One-sided smoothing as in the paper is `real = [0.9, 0.9], fake = [0, 0]`.
    """

    kind: Literal["soft_labels"] = "soft_labels"
    tip: ClassVar[str] = "T07a"
    source: ClassVar[str] = "Salimans et al. 2016, arXiv:1606.03498; ganhacks 6"
    needs_targets: ClassVar[bool] = True
    duplicate_note: ClassVar[str] = "only the last one decides D's targets"

    real: TargetRange = (0.7, 1.2)
    fake: TargetRange = (0.0, 0.3)

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        for side, (low, high) in (("real", self.real), ("fake", self.fake)):
            if max(bounds(low)) > min(bounds(high)) and bounds(low) != bounds(high):
                reject_value(f"'{side}' must be [low, high]", found=f"[{low}, {high}]")
        return self

    def build(self, name: str, context: TrickContext) -> SoftLabels:
        """See `SoftLabels`."""
        return SoftLabels(name, self.real, self.fake)


class SoftLabels(TargetTransform):
    """Draws D's targets for each sample of each of D's moves."""

    def __init__(self, name: str, real: tuple[Schedulable, Schedulable], fake: tuple[Schedulable, Schedulable]) -> None:
        super().__init__(name)
        self.real, self.fake = real, fake

    def transform_targets(self, targets: Targets, context: MoveContext) -> Targets:
        """Real targets drawn from `real` and fake ones from `fake`; the given targets are ignored."""
        return Targets(
            real=self._draw(targets.real, "real", self.real, context),
            fake=self._draw(targets.fake, "fake", self.fake, context),
        )

    def _draw(
        self, like: Tensor, origin: Origin, target_range: tuple[Schedulable, Schedulable], context: MoveContext
    ) -> Tensor:
        low, high = (current_value(bound, context) for bound in target_range)
        first = like if like.dim() == 1 else like[:, :1]  # the patches of a sample have the same target
        return uniform_targets(first, low, high, context.generator(f"{self.name}/{origin}")).expand_as(like)
