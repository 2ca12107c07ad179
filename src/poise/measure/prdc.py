"""Balls around samples: precision and recall (Kynkaanniemi 2019, arXiv:1904.06991), density and coverage (Naeem 2020,
arXiv:2002.09797).

A ball reaches from a sample to its k-th nearest neighbour in its own pile. Distances are differences, not expanded
squares, so that a copy is at distance 0; a sample on a ball's edge is inside.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from poise.measure.base import BLOCK, Measure, MeasuredValue, validate_features
from poise.measure.context import EvalContext

K = 5


class PRDC(NamedTuple):
    """The four figures.

    Attributes:
        precision: share of fakes inside some real ball; 0 to 1. How many look real.
        recall: share of reals inside some fake ball; 0 to 1. How many G could make.
        density: real balls around a fake, divided by k; 0 and up, 1 on average for equal laws.
        coverage: share of real balls with a fake in them; 0 to 1, and robust to outliers.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean, len(a) x len(b); exactly 0 for equal rows."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def radii(features: Tensor, k: int = K) -> Tensor:
    """From each row to its k-th nearest other row, N; to the farthest where there are fewer."""
    k = min(k, len(features) - 1)
    return torch.cat([distances(some, features).kthvalue(k + 1, dim=1).values for some in features.split(BLOCK)])


def prdc(fake: Tensor, real: Tensor, k: int = K) -> PRDC:
    """See `Balls`; for features N x d and M x d.

    Raises:
        ValueError: see `matching`.
    """
    fake, real = validate_features(fake, real)
    fake_reach, real_reach = radii(fake, k), radii(real, k)
    around, nearest = [], torch.full((len(real),), torch.inf, dtype=real.dtype)
    recalled = torch.zeros(len(real), dtype=torch.bool)
    for some, reach in zip(fake.split(BLOCK), fake_reach.split(BLOCK), strict=True):
        apart = distances(some, real)
        around.append((apart <= real_reach).sum(1))
        recalled |= (apart <= reach[:, None]).any(0)
        nearest = torch.minimum(nearest, apart.min(0).values)
    inside = torch.cat(around)
    return PRDC(
        precision=float((inside > 0).double().mean()),
        recall=float(recalled.double().mean()),
        density=float(inside.double().mean()) / min(k, len(real) - 1),
        coverage=float((nearest <= real_reach).double().mean()),
    )


def _prdc(context: EvalContext) -> PRDC:
    return context.cached("prdc", lambda: prdc(context.fake.features, context.real.features))


PRECISION = Measure(
    name="precision",
    about="share of fakes within the real ones' reach, 0 to 1 (Kynkaanniemi 2019); quality, blind to variety",
    better="more",
    compute=lambda context: MeasuredValue(_prdc(context).precision),
)
RECALL = Measure(
    name="recall",
    about="share of reals within the fakes' reach, 0 to 1 (Kynkaanniemi 2019); variety, fooled by outliers",
    better="more",
    compute=lambda context: MeasuredValue(_prdc(context).recall),
)
DENSITY = Measure(
    name="density",
    about="how crowded with reals it is where the fakes are, 0 and up (Naeem 2020); quality, blind to variety",
    better="more",
    compute=lambda context: MeasuredValue(_prdc(context).density),
)
COVERAGE = Measure(
    name="coverage",
    about="share of reals with a fake beside them, 0 to 1 (Naeem 2020); variety, and quality too",
    better="more",
    compute=lambda context: MeasuredValue(_prdc(context).coverage),
)
