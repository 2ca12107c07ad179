"""Procrustes' problem, and the refinement of a map by it (Conneau et al. 2018, arXiv:1710.04087, section 2.2).

A map W, d x d, takes a source x, a row, to x W^T. With known pairs the best orthogonal map has a closed form; without,
the pairs are those of which each is the nearest neighbour of the other under the current map, and both steps alternate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from poise.alignment.neighbours import (
    mean_cosine_criterion,
    mean_similarities,
    mutual_csls_pairs,
    nearest_by_csls,
    unit_rows,
)

MOST_FREQUENT = 15_000
"""The number of first vectors that pairs are made of; vectors of rare words are noisy."""


def procrustes(source: Tensor, target: Tensor) -> Tensor:
    """The orthogonal W, d x d, with the smallest sum of ||W x_i - y_i||^2 over paired rows (Schoenemann 1966).

    W = U V^T with U S V^T the singular value decomposition of sum_i y_i x_i^T. Computed in float64.

    Args:
        source: the x_i, n x d.
        target: the y_i, n x d.
    """
    products = target.double().T @ source.double()
    u, _, vt = torch.linalg.svd(products)
    return (u @ vt).to(source.dtype)


def apply_map(weights: Tensor, source: Tensor) -> Tensor:
    """The mapped sources, x W^T for each row x, scaled to length 1."""
    return unit_rows(source @ weights.T)


class Round(NamedTuple):
    """A map of the refinement.

    Attributes:
        weights: W, d x d.
        criterion: see `mean_cosine_criterion`.
        pairs: the number of mutual nearest neighbours that it was fitted to; 0 for the map at the start.
    """

    weights: Tensor
    criterion: float
    pairs: int


class Refinement(NamedTuple):
    """All rounds of a refinement, the first of which is the map at the start."""

    rounds: tuple[Round, ...]

    @property
    def best(self) -> Round:
        """The round with the highest criterion, the earlier one of equals."""
        return max(self.rounds, key=lambda found: found.criterion)


def refine(
    weights: Tensor,
    source: Tensor,
    target: Tensor,
    rounds: int = 5,
    most_frequent: int = MOST_FREQUENT,
    notify: Callable[[Round], None] | None = None,
) -> Refinement:
    """Alternate between pairs of mutual nearest neighbours by CSLS and Procrustes' map of these pairs.

    It ends early if the pairs are those of the round before, so that nothing would change any more, or if no pair is
    mutual, which happens only to a map that aligns nothing.

    Args:
        weights: the map at the start, d x d.
        source: N x d, rows of length 1, the most frequent first.
        target: M x d, the same.
        rounds: the number of maps that are fitted; 5 in the paper's code.
        most_frequent: the number of first vectors that pairs are made of.
        notify: is called with each round.
    """
    found: list[Round] = []
    pairs, fitted = torch.empty(0, 2), weights
    for number in range(rounds + 1):
        mapped = apply_map(fitted, source)
        means = mean_similarities(mapped, target)
        found.append(Round(fitted, mean_cosine_criterion(mapped, target, means=means), len(pairs)))
        if notify is not None:
            notify(found[-1])
        if number == rounds:
            break
        before, pairs = pairs, mutual_csls_pairs(mapped, target, most_frequent, means)
        if len(pairs) == 0 or torch.equal(pairs, before):
            break
        fitted = procrustes(source[pairs[:, 0]], target[pairs[:, 1]])
    return Refinement(tuple(found))


def num_pairs(best: Round, source: Tensor, target: Tensor, most_frequent: int = MOST_FREQUENT) -> int:
    """The number of pairs that a map was fitted to, or that it has, if it is the map before the first round."""
    return best.pairs or len(mutual_csls_pairs(apply_map(best.weights, source), target, most_frequent))


def share_of_pairs(pairs: int, source: Tensor, target: Tensor) -> float:
    """The share of the vectors of the smaller set that have a pair, 0 to 1, of those that pairs are made of."""
    return pairs / min(len(source), len(target), MOST_FREQUENT)


def held_out_agreement(weights: Tensor, source: Tensor, target: Tensor, most_frequent: int = MOST_FREQUENT) -> float:
    """The share of a map's pairs that maps fitted to other pairs confirm, 0 to 1; it needs no dictionary.

    The mutual nearest neighbours under the map are divided into two halves. Procrustes' map of at most 2 d pairs of
    each half, spread evenly over it, translates the sources of the other half, and a pair is confirmed if its source
    gets the same target again. A wrong map has such pairs too, but they are coincidences, which other coincidences do
    not predict. A map fitted to far more pairs than d would predict them nevertheless, because the many pairs that fit
    one wrong map determine this map; hence the limit.

    Args:
        weights: the map, d x d.
        source: N x d, rows of length 1, the most frequent first.
        target: M x d, the same.
        most_frequent: see `refine`.

    Returns:
        0 if there are fewer than two pairs.
    """
    pairs = mutual_csls_pairs(apply_map(weights, source), target, most_frequent)
    if len(pairs) < 2:
        return 0.0
    confirmed = 0
    for half, held_out in ((pairs[::2], pairs[1::2]), (pairs[1::2], pairs[::2])):
        count = min(len(half), 2 * len(weights))
        fitted = half[torch.linspace(0, len(half) - 1, count).round().long()]
        mapped = apply_map(procrustes(source[fitted[:, 0]], target[fitted[:, 1]]), source)
        means = mean_similarities(mapped, target)
        rows = held_out[:, 0]
        found = nearest_by_csls(mapped[rows], target, means.source[rows], means.target).indices[:, 0]
        confirmed += int((found == held_out[:, 1]).sum())
    return confirmed / len(pairs)
