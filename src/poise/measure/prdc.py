"""Precision and recall (Kynkaanniemi 2019, arXiv:1904.06991), density and coverage (Naeem 2020, arXiv:2002.09797).

The ball of a sample reaches to its k-th nearest neighbour in its own set. Distances are computed from differences, not
from expanded squares, so that a copy is at distance 0. Balls are closed: a sample on the boundary is inside.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from poise.measure.base import BLOCK_SIZE, Measure, MeasuredValue, validate_features
from poise.measure.context import EvalContext

K = 5


class PRDC(NamedTuple):
    """Precision, recall, density and coverage.

    Attributes:
        precision: the share of fakes inside some real ball, 0 to 1: how many look real.
        recall: the share of reals inside some fake ball, 0 to 1: how many G could generate.
        density: the mean number of real balls around a fake, divided by k; 0 and up, 1 on average for equal
            distributions.
        coverage: the share of real balls that contain a fake, 0 to 1; robust to outliers.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def pairwise_distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances, len(a) x len(b); exactly 0 for equal rows."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def knn_radii(features: Tensor, k: int = K) -> Tensor:
    """The distance from each row to its k-th nearest other row, N; to the farthest if there are fewer than k others."""
    k = min(k, len(features) - 1)
    return torch.cat(
        [pairwise_distances(block, features).kthvalue(k + 1, dim=1).values for block in features.split(BLOCK_SIZE)]
    )


def prdc(fake: Tensor, real: Tensor, k: int = K) -> PRDC:
    """Precision, recall (Kynkaanniemi 2019, arXiv:1904.06991), density and coverage (Naeem 2020, arXiv:2002.09797).

    With r(x) the distance of x to its k-th nearest neighbour in its own set, over fakes y and reals x:

        precision = mean over y of [some x has |y - x| <= r(x)]      0 to 1
        recall    = mean over x of [some y has |x - y| <= r(y)]      0 to 1
        density   = mean over y of the number of x with |y - x| <= r(x), divided by k      0 and up
        coverage  = mean over x of [some y has |y - x| <= r(x)]      0 to 1

    Args:
        fake: features of fake samples, N x d.
        real: features of real samples, M x d.
        k: the number of the neighbour that a ball reaches to, 5 as in the published code of Naeem 2020; 3 in
            Kynkaanniemi 2019. In a set of at most k samples it is their number minus 1.

    Raises:
        ValueError: see `poise.measure.base.validate_features`.
    """
    fake, real = validate_features(fake, real)
    fake_radii, real_radii = knn_radii(fake, k), knn_radii(real, k)
    counts, nearest = [], torch.full((len(real),), torch.inf, dtype=real.dtype)
    is_recalled = torch.zeros(len(real), dtype=torch.bool)
    for block, radii in zip(fake.split(BLOCK_SIZE), fake_radii.split(BLOCK_SIZE), strict=True):
        distances = pairwise_distances(block, real)
        counts.append((distances <= real_radii).sum(1))
        is_recalled |= (distances <= radii[:, None]).any(0)
        nearest = torch.minimum(nearest, distances.min(0).values)
    num_balls = torch.cat(counts)
    return PRDC(
        precision=float((num_balls > 0).double().mean()),
        recall=float(is_recalled.double().mean()),
        density=float(num_balls.double().mean()) / min(k, len(real) - 1),
        coverage=float((nearest <= real_radii).double().mean()),
    )


def _prdc(context: EvalContext) -> PRDC:
    return context.cached("prdc", lambda: prdc(context.fake.features, context.real.features))


PRECISION = Measure(
    name="precision",
    description="share of fakes in a ball around a real, 0 to 1 (Kynkaanniemi 2019); quality, not variety",
    better="more",
    compute=lambda context: MeasuredValue(_prdc(context).precision),
)
RECALL = Measure(
    name="recall",
    description="share of reals in a ball around a fake, 0 to 1 (Kynkaanniemi 2019); variety, raised by outliers",
    better="more",
    compute=lambda context: MeasuredValue(_prdc(context).recall),
)
DENSITY = Measure(
    name="density",
    description="mean number of real balls around a fake over k, 0 and up (Naeem 2020); quality, not variety",
    better="more",
    compute=lambda context: MeasuredValue(_prdc(context).density),
)
COVERAGE = Measure(
    name="coverage",
    description="share of reals with a fake in their ball, 0 to 1 (Naeem 2020); variety and quality",
    better="more",
    compute=lambda context: MeasuredValue(_prdc(context).coverage),
)
