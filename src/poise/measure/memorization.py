"""Memorisation: whether fake samples are nearer to the training images than new real images are.

It provides nearest neighbours for inspection and two measures: C_T (Meehan, Chaudhuri & Dasgupta 2020,
arXiv:2004.05675) and the share of authentic samples (Alaa 2022, arXiv:2102.08921). Distances are Euclidean in features.
Distances between distributions, such as FID, and precision and recall do not detect copies but reward them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from poise.measure.base import BLOCK_SIZE, Measure, MeasuredValue, validate_features
from poise.measure.ndb import assign_cells, kmeans_centres

NUM_CELLS, MIN_CELL_SHARE, EXTRA_CANDIDATES = 5, 0.01, 8


class NearestNeighbours(NamedTuple):
    """The nearest neighbours of N samples: their distances and their indices, N x k each, nearest first."""

    distances: Tensor
    indices: Tensor


def nearest_neighbours(features: Tensor, among: Tensor, k: int = 1) -> NearestNeighbours:
    """The k nearest rows of `among`, M x d, to each row of `features`, N x d.

    A few more than k candidates are found by expanded squares, which is ten times as fast; their distances are then
    computed from differences, so that a copy is at distance 0. Rows whose distances differ by less than the rounding
    error of the expanded squares may be exchanged for the k-th.
    """
    k, num_candidates = min(k, len(among)), min(k + EXTRA_CANDIDATES, len(among))
    distances, indices = [], []
    for block in features.split(BLOCK_SIZE):
        approximate = torch.cdist(block, among, compute_mode="use_mm_for_euclid_dist")
        candidates = approximate.topk(num_candidates, largest=False).indices
        exact = (among[candidates] - block[:, None]).square().sum(2).sqrt().topk(k, largest=False)
        distances.append(exact.values)
        indices.append(candidates.gather(1, exact.indices))
    return NearestNeighbours(torch.cat(distances), torch.cat(indices))


def copying_test(fake: Tensor, held_out: Tensor, train: Tensor, num_cells: int = NUM_CELLS) -> float:
    """C_T: how much nearer fakes are to the training samples than held-out real samples, in standard deviations.

    The test of Meehan, Chaudhuri & Dasgupta 2020 (arXiv:2004.05675), with Euclidean distances; not bounded.

    The training features are partitioned into `num_cells` cells by k-means. In each cell with at least 1 % of the fake
    and of the held-out samples, Z is the standardised Mann-Whitney U of the distances to the nearest training sample,
    fake against held-out. C_T is the mean of Z, weighted by the held-out shares of those cells. Far below 0: copies
    (significant below -3); about 0: as new as held-out samples; far above 0: far from the data.

    Args:
        fake: features of fake samples, N x d.
        held_out: features of real samples that were not trained on, M x d.
        train: features of the training samples, T x d.
        num_cells: the number of k-means cells.

    Raises:
        ValueError: see `poise.measure.base.validate_features`; or no cell has enough fake and held-out samples.
    """
    from scipy.stats import mannwhitneyu

    fake, train = validate_features(fake, train)
    held_out, train = validate_features(held_out, train)
    centres = torch.from_numpy(kmeans_centres(train, min(num_cells, len(train.unique(dim=0)))))
    distances = [nearest_neighbours(features, train).distances[:, 0].numpy() for features in (fake, held_out)]
    assignments = [assign_cells(features, centres).numpy() for features in (fake, held_out)]
    scores, weights = [], []
    for cell in range(len(centres)):
        of_fake, of_held_out = (d[cells == cell] for d, cells in zip(distances, assignments, strict=True))
        n, m = len(of_fake), len(of_held_out)
        if n < max(1, MIN_CELL_SHARE * len(fake)) or m < max(1, MIN_CELL_SHARE * len(held_out)):
            continue
        u = float(mannwhitneyu(of_fake, of_held_out).statistic)
        scores.append((u - n * m / 2) / (n * m * (n + m + 1) / 12) ** 0.5)
        weights.append(m)
    if not scores:
        raise ValueError("no cell of the training features has enough fake and held-out samples")
    return float(np.average(scores, weights=weights))


def authenticity(fake: Tensor, train: Tensor, flipped: Tensor | None = None) -> float:
    """The fraction of authentic fakes, 0 to 1 (Alaa et al. 2022, arXiv:2102.08921).

    A fake sample is authentic if it is farther from its nearest training sample t than t is from its own nearest
    neighbour. A copy is never authentic, but about half of all new samples are not either, so the value must be
    compared with the fraction among held-out samples. Distances are Euclidean. Duplicate training samples count once.

    Args:
        fake: features of fake samples, N x d.
        train: features of the training samples, T x d.
        flipped: features of the flips of the training samples, T x d, if G learns them too. They are training samples
            as well, but the nearest neighbour of t is another image or its flip, not the flip of t, so that
            a symmetric image has no neighbour at distance 0.

    Raises:
        ValueError: see `poise.measure.base.validate_features`; or all training samples are equal.
    """
    fake, train = validate_features(fake, train)
    rows = train if flipped is None else _ordered_pairs(train, validate_features(fake, flipped)[1])
    rows = rows.unique(dim=0)
    if len(rows) < 2:
        raise ValueError("all training samples are equal")
    versions = rows.split(train.shape[1], dim=1)
    known = torch.cat(versions)
    neighbours = nearest_neighbours(fake, known)
    nearest, inverse = neighbours.indices[:, 0].unique(return_inverse=True)
    own = nearest_neighbours(known[nearest], known, 1 + len(versions))
    is_other = own.indices % len(rows) != nearest[:, None] % len(rows)
    own_distances = own.distances.masked_fill(~is_other, torch.inf).amin(1)
    return float((neighbours.distances[:, 0] > own_distances[inverse]).double().mean())


def _ordered_pairs(features: Tensor, flipped: Tensor) -> Tensor:
    """The features of images and of their flips, N x d each, side by side, N x 2d: first those that are less at the
    first difference, so that two images of which one is the flip of the other have equal rows."""
    first_difference = (features != flipped).int().argmax(1, keepdim=True)
    swap = features.gather(1, first_difference) > flipped.gather(1, first_difference)
    return torch.cat((torch.where(swap, flipped, features), torch.where(swap, features, flipped)), 1)


COPYING = Measure(
    name="copying",
    description="C_T: about 0 as new as held-out images, below -3 copies, far above 0 far from the data (Meehan 2020)",
    better="floor",
    compute=lambda context: MeasuredValue(
        copying_test(context.fake.features, context.real.features, torch.cat(context.train_features))
    ),
    floor="halves",
    requires=frozenset({"train", "held out"}),
)
AUTHENTICITY = Measure(
    name="authenticity",
    description="share of fakes not too close to a training image, 0 to 1 (Alaa 2022); compare with the floor",
    better="floor",
    compute=lambda context: MeasuredValue(authenticity(context.fake.features, *context.train_features)),
    floor="real",
    requires=frozenset({"train", "held out"}),
)
