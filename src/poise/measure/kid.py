"""The kernel distance between two piles' features (KID; Binkowski 2018, arXiv:1801.01401).

The unbiased squared maximum mean discrepancy with k(x, y) = (x.y / d + 1)^3: 0 on average for equal laws, so it may
come out below 0, whatever the number of samples. Published figures are means over random subsets of 1,000; this is the
same estimator on all samples at once, which has the same mean and less variance.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from poise.measure.base import BLOCK, Measure, MeasuredValue, validate_features


def polynomial(a: Tensor, b: Tensor) -> Tensor:
    """k(x, y) = (x.y / d + 1)^3 for all pairs, len(a) x len(b)."""
    return (a @ b.T / a.shape[1] + 1) ** 3


def kid(fake: Tensor, real: Tensor) -> MeasuredValue:
    """The unbiased squared discrepancy and its standard error, for features N x d and M x d.

    mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j). The standard error is that of a
    U-statistic. Its variance is (4 / N) Var h(x) + (4 / M) Var h(y) for the projections h, less the noise that they
    carry, being estimated; and never less than what is left where the laws are equal, 2 Var k_c(x, x') / N^2 +
    2 Var k_c(y, y') / M^2 + 4 Var k_c(x, y) / NM for the kernel k_c centred in both arguments, which is that noise too.

    Raises:
        ValueError: see `matching`.
    """
    x, y = validate_features(fake, real)
    within_x, within_y, across = _within(x), _within(y), _across(x, y)
    value = within_x.mean + within_y.mean - 2 * across.mean
    first = 4 * float((within_x.rows - across.rows).var()) / len(x)
    first += 4 * float((within_y.rows - across.columns).var()) / len(y)
    second = 2 * within_x.rest / len(x) ** 2 + 2 * within_y.rest / len(y) ** 2 + 4 * across.rest / (len(x) * len(y))
    return MeasuredValue(value, max(first - second, second) ** 0.5)


class _Sums(NamedTuple):
    """A kernel matrix, summed up: its mean, the means of rows and columns, the variance that these leave over."""

    mean: float
    rows: Tensor
    columns: Tensor
    rest: float


def _within(x: Tensor) -> _Sums:
    """Of all pairs of two different samples of one pile."""
    n, rows, squares = len(x), [], 0.0
    for start in range(0, n, BLOCK):
        part = polynomial(x[start : start + BLOCK], x)
        part.diagonal(offset=start).zero_()
        rows.append(part.sum(1) / (n - 1))
        squares += float(part.square().sum())
    means = torch.cat(rows)
    mean = float(means.mean())
    rest = squares / (n * (n - 1)) - 2 * float(means.square().mean()) + mean**2
    return _Sums(mean, means, means, max(0.0, rest))


def _across(x: Tensor, y: Tensor) -> _Sums:
    rows, columns, squares = [], torch.zeros(len(y), dtype=x.dtype), 0.0
    for part in (polynomial(some, y) for some in x.split(BLOCK)):
        rows.append(part.mean(1))
        columns += part.sum(0) / len(x)
        squares += float(part.square().sum())
    means = torch.cat(rows)
    mean = float(means.mean())
    rest = squares / (len(x) * len(y)) - float(means.square().mean()) - float(columns.square().mean()) + mean**2
    return _Sums(mean, means, columns, max(0.0, rest))


KID = Measure(
    name="kid",
    about="unbiased squared kernel discrepancy, about 0 and up (Binkowski 2018); sees quality and variety",
    better="less",
    compute=lambda context: kid(context.fake.features, context.real.features),
)
