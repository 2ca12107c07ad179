"""Nearest neighbours between two sets of vectors: by cosine, and by CSLS (Conneau et al. 2018, arXiv:1710.04087).

In many dimensions some vectors, the hubs, are the nearest neighbour of very many others. Cross-domain similarity local
scaling (section 2.3) lowers the similarity to vectors in dense regions,

    CSLS(x, y) = 2 cos(x, y) - r_T(x) - r_S(y),

with r_T(x) the mean cosine of x to its k nearest vectors of the target set, and r_S(y) that of y to its k nearest of
the source set. All functions are exact. They compute the similarities in blocks of rows, so that 200,000 vectors
on either side need tens of megabytes more than the vectors.

Sources are vectors that have been mapped already. All vectors are rows of length 1 (`unit_rows`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from poise.utils.progress import report

NEIGHBOURS = 10
"""The number of neighbours k in the mean similarities of CSLS, as in the paper."""

BLOCK_ENTRIES = 1 << 23
"""The number of similarities that are held at a time: 32 MB."""


class Neighbours(NamedTuple):
    """The nearest targets of n queries, the nearest first.

    Attributes:
        similarity: float, n x k, by the measure that was asked for.
        indices: int64, n x k.
    """

    similarity: Tensor
    indices: Tensor


class MeanSimilarities(NamedTuple):
    """The mean cosine of each vector to its nearest ones of the other set.

    Attributes:
        source: r_T, one for each source.
        target: r_S, one for each target.
    """

    source: Tensor
    target: Tensor


def unit_rows(vectors: Tensor) -> Tensor:
    """Each row divided by its Euclidean norm, n x d; a row of zeros stays."""
    return torch.nn.functional.normalize(vectors, dim=1, eps=torch.finfo(vectors.dtype).tiny)


def similarity_blocks(queries: Tensor, targets: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The cosines of blocks of queries and all targets: the rows of the block, and its rows x targets."""
    rows = max(1, BLOCK_ENTRIES // max(1, len(targets)))
    for start in range(0, len(queries), rows):
        block = slice(start, min(start + rows, len(queries)))
        yield block, queries[block] @ targets.T


def mean_similarity(queries: Tensor, targets: Tensor, k: int = NEIGHBOURS) -> Tensor:
    """The mean cosine of each query to its k nearest targets, or to all of them if there are fewer."""
    k = min(k, len(targets))
    means = [cosines.topk(k, dim=1, sorted=False).values.mean(1) for _, cosines in similarity_blocks(queries, targets)]
    return torch.cat(means)


def mean_similarities(source: Tensor, target: Tensor, k: int = NEIGHBOURS) -> MeanSimilarities:
    """See `MeanSimilarities`; both sets complete, as they decide what is dense."""
    return MeanSimilarities(mean_similarity(source, target, k), mean_similarity(target, source, k))


def nearest_by_cosine(queries: Tensor, targets: Tensor, k: int = 1) -> Neighbours:
    """The k targets with the largest cosine, for each query."""
    k = min(k, len(targets))
    return _join([cosines.topk(k, dim=1) for _, cosines in similarity_blocks(queries, targets)])


def nearest_by_csls(
    queries: Tensor, targets: Tensor, query_means: Tensor, target_means: Tensor, k: int = 1
) -> Neighbours:
    """The k targets with the largest CSLS, for each query.

    Args:
        queries: n x d.
        targets: m x d.
        query_means: the mean similarities of the queries, n.
        target_means: those of the targets, m.
        k: how many; all of them if there are fewer.
    """
    k = min(k, len(targets))
    found = []
    for block, cosines in similarity_blocks(queries, targets):
        scaled = cosines.mul_(2).sub_(query_means[block, None]).sub_(target_means)
        found.append(scaled.topk(k, dim=1))
        report("nearest neighbours", block.stop / len(queries))
    return _join(found)


def _join(blocks: list[torch.return_types.topk]) -> Neighbours:
    return Neighbours(torch.cat([block.values for block in blocks]), torch.cat([block.indices for block in blocks]))


def mutual_pairs(forward: Tensor, backward: Tensor) -> Tensor:
    """The pairs (i, j) in which j is the nearest of i and i that of j: int64, n x 2, by increasing i.

    Args:
        forward: the index of the nearest target of the first sources, n.
        backward: the index of the nearest source of the first targets, m. Targets beyond them have no pair.
    """
    sources = torch.arange(len(forward), device=forward.device)
    known = forward < len(backward)
    sources, targets = sources[known], forward[known]
    return torch.stack((sources, targets), 1)[backward[targets] == sources]


def mutual_csls_pairs(
    source: Tensor, target: Tensor, most_frequent: int | None = None, means: MeanSimilarities | None = None
) -> Tensor:
    """The mutual nearest neighbours by CSLS among the first vectors of both sets: int64, n x 2.

    A neighbour is the nearest of *all* vectors of the other set. So a rare word can be the nearest of a frequent one,
    which then has no pair. MUSE does the same with `S2T&T2S` (`dico_builder.py`).

    Args:
        source: mapped, N x d.
        target: M x d.
        most_frequent: the number of first vectors that pairs are made of; None for all.
        means: the mean similarities of both sets, if they are known.
    """
    means = means or mean_similarities(source, target)
    first = slice(most_frequent)
    forward = nearest_by_csls(source[first], target, means.source[first], means.target)
    backward = nearest_by_csls(target[first], source, means.target[first], means.source)
    return mutual_pairs(forward.indices[:, 0], backward.indices[:, 0])


def mean_cosine_criterion(
    source: Tensor, target: Tensor, most_frequent: int = 10_000, means: MeanSimilarities | None = None
) -> float:
    """The validation criterion that needs no dictionary (section 3.4): higher is better, at most 1.

    The mean cosine between the most frequent sources and their translations, the nearest targets by CSLS.
    MUSE leaves out the translations that are not among the most frequent targets; the paper, and this function, do not.

    Args:
        source: mapped, N x d.
        target: M x d.
        most_frequent: the number of first sources that are translated.
        means: the mean similarities of both sets, if they are known.
    """
    means = means or mean_similarities(source, target)
    first = slice(most_frequent)
    translations = nearest_by_csls(source[first], target, means.source[first], means.target).indices[:, 0]
    return float((source[first] * target[translations]).sum(1).mean())
