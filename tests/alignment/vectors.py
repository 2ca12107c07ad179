"""Small clouds, and a slow computation of everything from the formulas."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Matrix = npt.NDArray[np.float64]


def cloud(n: int, dim: int, seed: int) -> Tensor:
    """n rows of length 1 around a common direction, so that there are hubs."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n, dim, generator=generator) + torch.randn(dim, generator=generator)
    return points / points.norm(dim=1, keepdim=True)


def rotation(dim: int, seed: int) -> Tensor:
    """A random orthogonal matrix."""
    return torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(seed)))[0]


def slow_csls(source: Tensor, target: Tensor, k: int) -> Matrix:
    """CSLS of every source and target, entry by entry."""
    x, y = source.double().numpy(), target.double().numpy()
    cosines = [[sum(a * b for a, b in zip(row, other, strict=True)) for other in y] for row in x]
    near_x = [sum(sorted(row, reverse=True)[:k]) / min(k, len(y)) for row in cosines]
    columns = list(zip(*cosines, strict=True))
    near_y = [sum(sorted(column, reverse=True)[:k]) / min(k, len(x)) for column in columns]
    return np.array(
        [[2 * cosines[i][j] - near_x[i] - near_y[j] for j in range(len(y))] for i in range(len(x))], np.float64
    )
