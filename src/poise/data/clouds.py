"""`clouds`: two sets of points of which one is the other, rotated at random, with noise. The true map is known.

A rotation can only be found if no other one maps the points onto each other. Here the points form clusters, and the
cluster of rank r has a weight of r^-zipf, as the words of a language have with 1 (Zipf's law): each looks different.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from poise.data.vectors import MIN_VECTORS, TwoSets, VectorSetsConfig
from poise.data.word_vectors import WordVectors


class RotatedClouds(NamedTuple):
    """Two paired sets of points.

    Attributes:
        a: the points, N x d.
        b: their rotations with noise, N x d.
        rotation: the orthogonal Q, d x d, with b = a Q^T without noise.
    """

    a: Tensor
    b: Tensor
    rotation: Tensor


def random_orthogonal(dim: int, generator: torch.Generator) -> Tensor:
    """A random orthogonal matrix, d x d, uniform over all of them (Mezzadri 2007, arXiv:math-ph/0609050).

    Q of the QR decomposition of a Gaussian matrix, with each column multiplied by the sign of R's diagonal entry.
    """
    q, r = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))
    return (q * r.diagonal().sign()).float()


def rotated_clouds(
    count: int, dim: int, clusters: int, zipf: float, spread: float, noise: float, generator: torch.Generator
) -> RotatedClouds:
    """Points of clusters with Zipf weights, and their rotations.

    Args:
        count: N.
        dim: d.
        clusters: the number of clusters, whose centres are drawn from N(0, I).
        zipf: the exponent of their weights.
        spread: the standard deviation of the points of a cluster, in each coordinate.
        noise: that of the noise of b, relative to the standard deviation of a coordinate of b.
        generator: where all of them are drawn from.
    """
    centres = torch.randn(clusters, dim, generator=generator)
    weights = torch.arange(1, clusters + 1).float() ** -zipf
    members = torch.multinomial(weights, count, replacement=True, generator=generator)
    a = centres[members] + spread * torch.randn(count, dim, generator=generator)
    rotation = random_orthogonal(dim, generator)
    b = a @ rotation.T
    return RotatedClouds(a, b + noise * b.std() * torch.randn(count, dim, generator=generator), rotation)


class CloudsConfig(VectorSetsConfig):
    """Two clouds of `count` points each, one of which is the other, rotated; see `rotated_clouds`.

    The names of the points are their numbers, the same for a point and its rotation. `draw` seeds the clouds.
    """

    kind: Literal["clouds"] = "clouds"
    count: int = Field(default=1000, ge=MIN_VECTORS, le=10**6)
    dim: int = Field(default=50, ge=1, le=4096)
    clusters: int = Field(default=100, ge=1, le=10**6)
    zipf: float = Field(default=1.0, ge=0)
    spread: float = Field(default=0.5, ge=0)
    noise: float = Field(default=0.0, ge=0)
    draw: int = Field(default=0, ge=0, le=2**63 - 1)

    def clouds(self) -> RotatedClouds:
        """The clouds with the rotation."""
        generator = torch.Generator().manual_seed(self.draw)
        return rotated_clouds(self.count, self.dim, self.clusters, self.zipf, self.spread, self.noise, generator)

    def read(self) -> TwoSets:
        """See `rotated_clouds`."""
        clouds = self.clouds()
        names = tuple(map(str, range(self.count)))
        return TwoSets(*(WordVectors(names, points.numpy()) for points in clouds[:2]))
