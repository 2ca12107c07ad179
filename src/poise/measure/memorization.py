"""Copying: are fakes nearer to the pictures trained on than new real pictures are?

Nearest neighbours to look at, and two numbers: C_T (Meehan, Chaudhuri & Dasgupta 2020, arXiv:2004.05675) and the share
of authentic samples (Alaa 2022, arXiv:2102.08921). Distances are Euclidean in features; a distance from Gaussians or
from balls does not see copying at all, it rewards it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from poise.measure.base import BLOCK, Measure, MeasuredValue, validate_features
from poise.measure.ndb import assigned, cells

CELLS, SHARE, SPARE = 5, 0.01, 8


class NearestNeighbours(NamedTuple):
    """For each sample its nearest others: their distances and their places, N x k, nearest first."""

    distances: Tensor
    places: Tensor


def nearest_neighbours(features: Tensor, among: Tensor, k: int = 1) -> NearestNeighbours:
    """The k nearest rows of `among`, M x d, to each row of `features`, N x d.

    A few more than k are found by expanded squares, ten times as fast, and their distances worked out as differences: a
    copy is at distance 0. Rows that the squares can't tell from the k-th may stand in for it.
    """
    k, wide = min(k, len(among)), min(k + SPARE, len(among))
    gaps, places = [], []
    for some in features.split(BLOCK):
        rough = torch.cdist(some, among, compute_mode="use_mm_for_euclid_dist").topk(wide, largest=False).indices
        exact = (among[rough] - some[:, None]).square().sum(2).sqrt().topk(k, largest=False)
        gaps.append(exact.values)
        places.append(rough.gather(1, exact.indices))
    return NearestNeighbours(torch.cat(gaps), torch.cat(places))


def copying_test(fake: Tensor, held_out: Tensor, train: Tensor, count: int = CELLS) -> float:
    """C_T: how much nearer fakes lie to the training pictures than held-out real ones do, in standard deviations.

    The training features are cut into `count` cells by k-means. In each cell with at least 1 % of the fakes (and of the
    held-out), Z is the standardised Mann-Whitney U of the distances to the nearest training sample, fakes against
    held-out. C_T is the mean of Z, weighted by the held-out shares of those cells. Far below 0: copies (below -3 it is
    no chance); about 0: as new as new pictures; far above 0: not near the data at all.

    Args:
        fake: N x d.
        held_out: real, never trained on, M x d.
        train: T x d.
        count: cells.

    Raises:
        ValueError: see `matching`; or no cell has enough of both.
    """
    from scipy.stats import mannwhitneyu

    fake, train = validate_features(fake, train)
    held_out, train = validate_features(held_out, train)
    centres = torch.from_numpy(cells(train, min(count, len(train.unique(dim=0)))))
    gaps = [nearest_neighbours(pile, train).distances[:, 0].numpy() for pile in (fake, held_out)]
    homes = [assigned(pile, centres).numpy() for pile in (fake, held_out)]
    scores, weights = [], []
    for cell in range(len(centres)):
        ours, theirs = (gap[home == cell] for gap, home in zip(gaps, homes, strict=True))
        if len(ours) < max(1, SHARE * len(fake)) or len(theirs) < max(1, SHARE * len(held_out)):
            continue
        n, m = len(ours), len(theirs)
        u = float(mannwhitneyu(ours, theirs).statistic)
        scores.append((u - n * m / 2) / (n * m * (n + m + 1) / 12) ** 0.5)
        weights.append(m)
    if not scores:
        raise ValueError("no cell of the training features has enough fakes and held-out samples")
    return float(np.average(scores, weights=weights))


def authenticity(fake: Tensor, train: Tensor) -> float:
    """Share of authentic fakes, 0 to 1: those farther from their nearest training sample t than t from its own nearest.

    A copy is never authentic, and half of what is new is not either: compare with the share among held-out samples.
    Exact repeats among the training samples count once.

    Raises:
        ValueError: see `matching`; or all training samples are the same.
    """
    fake, train = validate_features(fake, train)
    train = train.unique(dim=0)
    if len(train) < 2:
        raise ValueError("all training samples are the same")
    found = nearest_neighbours(fake, train)
    met, which = found.places[:, 0].unique(return_inverse=True)
    own = nearest_neighbours(train[met], train, 2).distances[:, 1]
    return float((found.distances[:, 0] > own[which]).double().mean())


COPYING = Measure(
    name="copying",
    about="C_T: near 0 as new as held-out pictures, below -3 copies, far above 0 far from the data (Meehan 2020)",
    better="floor",
    compute=lambda context: MeasuredValue(
        copying_test(context.fake.features, context.real.features, context.required_train.features)
    ),
    floor="halves",
    requires=frozenset({"train", "held out"}),
)
AUTHENTICITY = Measure(
    name="authenticity",
    about="share of fakes that crowd no training picture, 0 to 1 (Alaa 2022); compare with the floor",
    better="floor",
    compute=lambda context: MeasuredValue(authenticity(context.fake.features, context.required_train.features)),
    floor="real",
    requires=frozenset({"train", "held out"}),
)
