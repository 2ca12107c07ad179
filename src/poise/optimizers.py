"""Optimisers: each player has its own, with its own rate (tip T10)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import Field, Strict
from torch import nn

from poise.dials import Dial, within
from poise.entries import Part

Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerEntry(Part):
    """An optimiser in a recipe; `lr` is a dial, set before every step."""

    lr: Annotated[Dial, within(0)] = 2e-4

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser over `parameters`, fused where the device has it."""
        raise NotImplementedError


class AdamEntry(OptimizerEntry):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980); for GANs with beta1 = 0.5 (Radford 2015)."""

    kind: Literal["adam"] = "adam"
    betas: Annotated[tuple[Beta, Beta], Strict(False)] = (0.5, 0.999)
    eps: float = Field(default=1e-8, gt=0)

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """`torch.optim.Adam`, fused."""
        return torch.optim.Adam(parameters, lr=1.0, betas=self.betas, eps=self.eps, fused=True)
