"""Bins that differ (NDB; Richardson & Weiss 2018, arXiv:1805.12462): does each region get its share of samples?

Real features are cut into cells by k-means; a cell is different if the share of fakes in it is, by a test of two
proportions. What the whole distance hides (a few cells without any fakes) is counted here.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from poise.measure.base import Measure, MeasuredValue, validate_features

BINS, LEAST, Z = 100, 20, 1.96


class BinComparison(NamedTuple):
    """How the shares of fakes and reals compare over the cells.

    Attributes:
        different: share of cells whose proportions differ at the 5 % level, 0 to 1; 0.05 on average for equal laws.
        divergence: Jensen-Shannon divergence of the two histograms, nats, 0 to log 2.
    """

    different: float
    divergence: float


def cells(features: Tensor, count: int) -> npt.NDArray[np.float64]:
    """Centres of k-means, count x d, the same ones for the same features."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # rows that are nearly the same make fewer cells
        found = KMeans(count, n_init=1, random_state=0).fit(features.numpy())
    return np.asarray(found.cluster_centers_, np.float64)


def assigned(features: Tensor, centres: Tensor) -> Tensor:
    """The number of the nearest centre, N."""
    return torch.cdist(features, centres).argmin(1)


def ndb(fake: Tensor, real: Tensor, count: int = BINS) -> BinComparison:
    """See `Bins`; at most `count` cells, fewer where 20 reals to a cell ask for it.

    z = (p - q) / sqrt(s (1 - s) (1 / N + 1 / M)) with the shares p, q of a cell and their common share s; different
    beyond 1.96.

    Raises:
        ValueError: see `matching`.
    """
    fake, real = validate_features(fake, real)
    count = max(2, min(count, len(real) // LEAST))
    centres = torch.from_numpy(cells(real, min(count, len(real.unique(dim=0)))))
    n, m = len(fake), len(real)
    in_fake, in_real = (
        torch.bincount(assigned(pile, centres), minlength=len(centres)).double() for pile in (fake, real)
    )
    p, q, common = in_fake / n, in_real / m, (in_fake + in_real) / (n + m)
    error = (common * (1 - common) * (1 / n + 1 / m)).sqrt()
    z = (p - q) / error.clamp_min(torch.finfo(error.dtype).tiny)
    middle = (p + q) / 2
    divergence = sum(float(torch.xlogy(side, side / middle.clamp_min(1e-300)).sum()) / 2 for side in (p, q))
    return BinComparison(float((z.abs() > Z).double().mean()), max(0.0, divergence))


NDB = Measure(
    name="ndb",
    about="share of k-means cells with too many or too few fakes, 0 to 1 (Richardson 2018); variety",
    better="less",
    compute=lambda context: MeasuredValue(ndb(context.fake.features, context.real.features).different),
)
