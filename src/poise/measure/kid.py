"""The kernel distance between two sets of features (KID; Binkowski 2018, arXiv:1801.01401).

The unbiased squared maximum mean discrepancy with k(x, y) = (x.y / d + 1)^3. Its expectation is 0 for equal
distributions at any number of samples, so an estimate may be below 0. Published values are means over random subsets of
1,000 samples; this is the same estimator on all samples at once, with the same mean and less variance.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from poise.measure.base import BLOCK_SIZE, Measure, MeasuredValue, validate_features


def polynomial_kernel(a: Tensor, b: Tensor) -> Tensor:
    """k(x, y) = (x.y / d + 1)^3 for all pairs, len(a) x len(b)."""
    return (a @ b.T / a.shape[1] + 1) ** 3


def kid(fake: Tensor, real: Tensor) -> MeasuredValue:
    """The unbiased squared MMD of features and its standard error (KID; Binkowski 2018, arXiv:1801.01401).

    mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j) with k(x, y) = (x.y / d + 1)^3. Lower is
    better. Its expectation is 0 for equal distributions, so a value may be below 0. The standard error is that of a
    U-statistic. Its variance is (4 / N) Var h(x) + (4 / M) Var h(y) for the projections h, minus the noise in their
    estimates, and at least the variance for equal distributions, 2 Var k_c(x, x') / N^2 + 2 Var k_c(y, y') / M^2 +
    4 Var k_c(x, y) / NM for the kernel k_c centred in both arguments, which equals that noise.

    Args:
        fake: features of fake samples, N x d.
        real: features of real samples, M x d.

    Raises:
        ValueError: see `poise.measure.base.validate_features`; or the moments are too large for a float64.
    """
    x, y = validate_features(fake, real)
    largest = max(float(features.square().sum(1).max()) for features in (x, y)) / x.shape[1] + 1  # |x.y| <= |x| |y|
    if not math.isfinite(math.prod([largest] * 6) * max(len(x), len(y)) ** 2):  # the sum of the squares of k
        raise ValueError("the features are too large for a kernel distance")
    within_x, within_y, between = _within(x), _within(y), _between(x, y)
    value = within_x.mean + within_y.mean - 2 * between.mean
    first_order = 4 * float((within_x.rows - between.rows).var()) / len(x)
    first_order += 4 * float((within_y.rows - between.columns).var()) / len(y)
    second_order = 2 * within_x.residual / len(x) ** 2 + 2 * within_y.residual / len(y) ** 2
    second_order += 4 * between.residual / (len(x) * len(y))
    return MeasuredValue(value, max(first_order - second_order, second_order) ** 0.5)


class _KernelMoments(NamedTuple):
    """Moments of a kernel matrix: its mean, the means of its rows and columns, and the residual variance."""

    mean: float
    rows: Tensor
    columns: Tensor
    residual: float


def _within(x: Tensor) -> _KernelMoments:
    """The moments over all pairs of two different samples of one set."""
    n, rows, squares = len(x), [], 0.0
    for start in range(0, n, BLOCK_SIZE):
        part = polynomial_kernel(x[start : start + BLOCK_SIZE], x)
        part.diagonal(offset=start).zero_()
        rows.append(part.sum(1) / (n - 1))
        squares += float(part.square().sum())
    means = torch.cat(rows)
    mean = float(means.mean())
    residual = squares / (n * (n - 1)) - 2 * float(means.square().mean()) + mean**2
    return _KernelMoments(mean, means, means, max(0.0, residual))


def _between(x: Tensor, y: Tensor) -> _KernelMoments:
    rows, columns, squares = [], torch.zeros(len(y), dtype=x.dtype), 0.0
    for part in (polynomial_kernel(block, y) for block in x.split(BLOCK_SIZE)):
        rows.append(part.mean(1))
        columns += part.sum(0) / len(x)
        squares += float(part.square().sum())
    means = torch.cat(rows)
    mean = float(means.mean())
    residual = squares / (len(x) * len(y)) - float(means.square().mean()) - float(columns.square().mean()) + mean**2
    return _KernelMoments(mean, means, columns, max(0.0, residual))


KID = Measure(
    name="kid",
    description="unbiased squared MMD with a polynomial kernel, about 0 and up (Binkowski 2018); quality and variety",
    better="less",
    compute=lambda context: kid(context.fake.features, context.real.features),
)
