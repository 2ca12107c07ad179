"""Scores for the tests of losses, and a softplus in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contracts.tiny import context
from poise.core.types import Targets
from poise.objectives.base import Losses, Objective

FloatArray = npt.NDArray[np.float64]
DLosses = Callable[[Tensor, Tensor, Targets | None], Losses]
GLosses = Callable[[Tensor, Tensor | None], Losses]

# differences of two of them avoid 20 to 37, where PyTorch's softplus is linear and off by up to 2e-9
GRID = np.concatenate([np.linspace(-9.9, 9.9, 80), [0.0], [s * m for s in (-1, 1) for m in (90, 300, 1e3, 1e4)]])
SMALL_GRID = np.linspace(-8, 8, 23)


def softplus(x: FloatArray) -> FloatArray:
    """log(1 + exp(x)) without overflow."""
    return np.logaddexp(0.0, x)


def score_grid(grid: FloatArray = GRID) -> tuple[Tensor, Tensor]:
    """All pairs of scores of the grid, float64."""
    real, fake = np.meshgrid(grid, grid)
    return torch.from_numpy(real.ravel().copy()), torch.from_numpy(fake.ravel().copy())


def implementations(objective: Objective) -> list[tuple[DLosses, GLosses]]:
    """D's and G's losses, as computed by the configuration and by its module."""
    module = objective.build()
    return [
        (objective.d_losses, objective.g_losses),
        (
            lambda real, fake, targets: module.d_losses(real, fake, targets, context()),
            lambda fake, real: module.g_losses(fake, real, context()),
        ),
    ]


def random_scores(n: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random scores of real and fake samples, float64."""
    generator = torch.Generator().manual_seed(seed)
    real, fake = torch.randn(2, n, dtype=torch.float64, generator=generator) * 3
    return real, fake


def random_scores_with_grad(n: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The same with `requires_grad`."""
    real, fake = random_scores(n, seed)
    return real.requires_grad_(), fake.requires_grad_()
