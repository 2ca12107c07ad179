"""Dropout on D's input (Conneau et al. 2018, arXiv:1710.04087, section 3.1): D cannot rely on single coordinates.

In D's moves each entry of a sample, real or fake, is zero with probability p, and the others are divided by 1 - p. In
G's moves D sees the samples as they are, as in the paper's code, whose D is then in evaluation mode.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from poise.core.hooks import InputTransform
from poise.core.schedules import Schedulable, current_value, in_range
from poise.core.types import MoveContext, Origin, Side
from poise.tricks.base import TrickConfig, TrickContext


def drop_entries(samples: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """x * m / (1 - p) with each entry of m 0 with probability p, else 1; x itself if p is 0."""
    if p == 0:
        return samples
    drawn = torch.rand(samples.shape, generator=generator, device=generator.device)
    return samples * (drawn >= p).to(samples.dtype).div_(1 - p)


class InputDropoutConfig(TrickConfig):
    """Dropout on the entries of D's input, in D's moves."""

    kind: Literal["input_dropout"] = "input_dropout"
    tip: ClassVar[str] = "T14a"
    source: ClassVar[str] = "Conneau et al. 2018, arXiv:1710.04087"

    p: Annotated[Schedulable, in_range(0, below=1)] = 0.1

    def build(self, name: str, context: TrickContext) -> InputDropout:
        """See `InputDropout`."""
        return InputDropout(name, self.p)


class InputDropout(InputTransform):
    """Drops entries of D's input, with new draws for each batch of each of D's moves."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.D})

    rank: ClassVar[int] = 1
    """It is the first layer of the paper's D, so it acts after augmentation and noise, on all that D sees."""

    def __init__(self, name: str, p: Schedulable) -> None:
        super().__init__(name)
        self.p = p

    def transform_input(self, images: Tensor, origin: Origin, context: MoveContext) -> Tensor:
        """See `drop_entries`."""
        return drop_entries(images, current_value(self.p, context), context.generator(f"{self.name}/{origin}"))
