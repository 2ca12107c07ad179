"""The number of statistically different bins (NDB; Richardson & Weiss 2018, arXiv:1805.12462).

The real features are partitioned into cells by k-means. A cell is different if a two-proportion z-test rejects that
fake and real samples fall into it equally often. This detects missing regions that a distance between the whole sets
hides, such as a few cells without any fakes.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poise.measure.base import Measure, MeasuredValue, validate_features

NUM_CELLS, MIN_PER_CELL, Z = 100, 20, 1.96


class BinComparison(NamedTuple):
    """Comparison of the histograms of fake and real samples over the cells.

    Attributes:
        share_different: the share of cells whose proportions differ at the 5 % level, 0 to 1; 0.05 on average for equal
            distributions.
        js_divergence: the Jensen-Shannon divergence between the two histograms, in nats, 0 to log 2.
    """

    share_different: float
    js_divergence: float


def kmeans_centres(features: Tensor, num_cells: int) -> npt.NDArray[np.float64]:
    """The centres of k-means, num_cells x d, for features N x d; deterministic."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near-duplicate rows give fewer cells
        kmeans = KMeans(num_cells, n_init=1, random_state=0).fit(features.numpy())
    return np.asarray(kmeans.cluster_centers_, np.float64)


def assign_cells(features: Tensor, centres: Tensor) -> Tensor:
    """The index of the nearest centre for each row, N."""
    return torch.cdist(features, centres).argmin(1)


def ndb(fake: Tensor, real: Tensor, num_cells: int = NUM_CELLS) -> BinComparison:
    """Compare features over the k-means cells of the real ones (NDB; Richardson & Weiss 2018, arXiv:1805.12462).

    There are at most `num_cells` cells, the paper's bins, with 20 real samples each on average.
    z = (p - q) / sqrt(s (1 - s) (1 / N + 1 / M)) with the fractions p, q of the fake and of the real samples in a cell
    and the pooled fraction s; the cell is different if |z| > 1.96.

    Args:
        fake: features of fake samples, N x d.
        real: features of real samples, M x d.
        num_cells: the largest number of cells.

    Returns:
        The fraction of the cells that are different, 0 to 1 (NDB / K in the paper, and not their number), and the
        Jensen-Shannon divergence between the two histograms in nats, 0 to log 2.

    Raises:
        ValueError: see `poise.measure.base.validate_features`.
    """
    fake, real = validate_features(fake, real)
    num_cells = max(2, min(num_cells, len(real) // MIN_PER_CELL))
    centres = torch.from_numpy(kmeans_centres(real, min(num_cells, len(real.unique(dim=0)))))
    n, m = len(fake), len(real)
    fake_counts, real_counts = (
        torch.bincount(assign_cells(features, centres), minlength=len(centres)).double() for features in (fake, real)
    )
    p, q, pooled = fake_counts / n, real_counts / m, (fake_counts + real_counts) / (n + m)
    error = (pooled * (1 - pooled) * (1 / n + 1 / m)).sqrt()
    z = (p - q) / error.clamp_min(torch.finfo(error.dtype).tiny)
    mixture = (p + q) / 2
    divergence = sum(float(torch.xlogy(share, share / mixture.clamp_min(1e-300)).sum()) / 2 for share in (p, q))
    return BinComparison(float((z.abs() > Z).double().mean()), max(0.0, divergence))


NDB = Measure(
    name="ndb",
    description="share of k-means cells with too many or too few fakes, 0 to 1 (Richardson 2018); variety",
    better="less",
    compute=lambda context: MeasuredValue(ndb(context.fake.features, context.real.features).share_different),
)
