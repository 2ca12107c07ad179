"""Compares an export with the generator it was made from, before it is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from poise.export.network import GeneratorInputs, seeded

GenerateFn = Callable[[GeneratorInputs], Tensor]
"""Generates samples from inputs, in some engine."""

BATCHES = (1, 5)
"""The batch sizes of the comparison: neither is that of the inputs that the export is traced with."""

TOLERANCE = 1e-3
"""The largest difference that an export may have, relative to the largest absolute value of the samples.

Two levels of grey in 8 bits are 2 / 255 = 8e-3 apart in [-1, 1], so 1e-3 is an eighth of a level and changes no more
than the rounding of a few pixels. Engines sum in different orders: in float32 this makes a difference of about 1e-6 for
the shipped recipes (docs/how-to/export.md). A layer that is missing or different, or bfloat16, makes one above 1e-2.
"""

ROUNDING = 1e-6
"""What is added to the tolerance: some rounding errors of float32 near 1, for samples that are almost zero."""


class Comparison(NamedTuple):
    """The result.

    Attributes:
        difference: the largest absolute difference, in units of the samples; nan if an output is not finite.
        scale: the largest absolute value of the reference.
    """

    difference: float
    scale: float

    @property
    def limit(self) -> float:
        """The largest difference that passes."""
        return TOLERANCE * self.scale + ROUNDING

    @property
    def passed(self) -> bool:
        """Whether the difference is within the limit; False if a number is not finite."""
        return math.isfinite(self.scale) and self.difference <= self.limit


@torch.no_grad()
def compare(reference: GenerateFn, candidate: GenerateFn, batches: Sequence[GeneratorInputs]) -> Comparison:
    """Compare both on every batch, with the same state of PyTorch's global random numbers."""
    difference, scale = torch.zeros(()), torch.zeros(())
    for inputs in batches:
        outputs = []
        for generate in (reference, candidate):
            with seeded(0):
                outputs.append(generate(inputs))
        expected, found = outputs
        if expected.shape != found.shape:
            return Comparison(float("nan"), 1.0)
        difference = torch.maximum(difference, (expected - found).abs().max())  # passes on nan
        scale = torch.maximum(scale, expected.abs().max())
    return Comparison(float(difference), float(scale))
