"""Scores to try costs on, and the logarithms of a sigmoid in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contracts.tiny import context
from poise.core.types import Targets
from poise.objectives.base import Losses, Objective

Numbers = npt.NDArray[np.float64]
DCosts = Callable[[Tensor, Tensor, Targets | None], Losses]
GCosts = Callable[[Tensor, Tensor | None], Losses]

# differences of two of them avoid 20 to 37, where PyTorch's softplus is linear already and 2e-9 beside the truth
GRID = np.concatenate([np.linspace(-9.9, 9.9, 80), [0.0], [s * m for s in (-1, 1) for m in (90, 300, 1e3, 1e4)]])
NEAR = np.linspace(-8, 8, 23)


def softplus(x: Numbers) -> Numbers:
    """log(1 + exp(x)) without overflow."""
    return np.logaddexp(0.0, x)


def pairs(grid: Numbers = GRID) -> tuple[Tensor, Tensor]:
    """Every score of the grid beside every other one, float64."""
    real, fake = np.meshgrid(grid, grid)
    return torch.from_numpy(real.ravel().copy()), torch.from_numpy(fake.ravel().copy())


def ways(objective: Objective) -> list[tuple[DCosts, GCosts]]:
    """D's and G's costs: by the entry itself, and by the rule that is at work in a game."""
    rule = objective.build()
    return [
        (objective.d_losses, objective.g_losses),
        (
            lambda real, fake, targets: rule.d_losses(real, fake, targets, context()),
            lambda fake, real: rule.g_losses(fake, real, context()),
        ),
    ]


def near(n: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two piles of float64 scores."""
    generator = torch.Generator().manual_seed(seed)
    real, fake = torch.randn(2, n, dtype=torch.float64, generator=generator) * 3
    return real, fake


def wanting(n: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The same, wanting a gradient."""
    real, fake = near(n, seed)
    return real.requires_grad_(), fake.requires_grad_()
