"""The Frechet distance between two piles' features, each taken for a Gaussian (FID; Heusel 2017, arXiv:1706.08500).

|m_a - m_b|^2 + tr(A + B - 2 (A B)^1/2) with means m and covariances A, B. With any root R of a covariance,
R^T R = A, the last trace is the sum of the singular values of R_a R_b^T: no root of a matrix product is taken, so the
value is real, at least 0 and exact for fewer samples than numbers, where the roots are the centred features themselves.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from poise.measure.base import Measure, MeasuredValue, validate_features
from poise.measure.sample_set import SampleSet

TRUSTED = 1e-9
"""The relative error up to which eigenvalues of a product stand in for singular values, which take several times as
long."""

SAFE = 1e-4
"""How far the diagonal of a Cholesky root may reach down from its largest number."""


class Gaussian(NamedTuple):
    """Features as a Gaussian: their mean, d, and a root of their covariance, r x d with root^T root = covariance."""

    mean: Tensor
    root: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Gaussian:
        """Of features, N x d; the covariance divides by N - 1."""
        features = features.detach().to("cpu", torch.float64)
        mean = features.mean(0)
        centred = (features - mean) / max(1, len(features) - 1) ** 0.5
        return cls(mean, _shorter(centred) if len(centred) > centred.shape[1] else centred)


def frechet(a: Gaussian, b: Gaussian) -> float:
    """The squared Frechet (2-Wasserstein) distance between two Gaussians, at least 0."""
    spread = float(a.root.square().sum() + b.root.square().sum())
    gap = float((a.mean - b.mean).square().sum())
    return max(0.0, gap + spread - 2 * _nuclear(a.root @ b.root.T, spread))


def fid(fake: Tensor, real: Tensor) -> float:
    """The Frechet distance between two piles of features, N x d each, at least 0; 0 for the same pile.

    It is biased upwards by something near (d + 5) / 2N of the trace, so it can only be read beside its floor: the
    distance of real features from other real ones, for the same N.

    Raises:
        ValueError: see `matching`.
    """
    fake, real = validate_features(fake, real)
    return frechet(Gaussian.of(fake), Gaussian.of(real))


def _shorter(root: Tensor) -> Tensor:
    """A root of root^T root with as many rows as columns: Cholesky's where that is safe, else the slower one of QR."""
    triangle, failed = torch.linalg.cholesky_ex(root.T @ root, upper=True)
    edge = triangle.diagonal().abs()
    if not int(failed) and edge.min() > SAFE * edge.max():
        return triangle
    return torch.linalg.qr(root, mode="r").R


def _nuclear(cross: Tensor, scale: float) -> float:
    """The sum of the singular values of a matrix.

    They are the roots of the eigenvalues of C C^T, which come at a third of the time and with an absolute error; where
    its effect on the sum could be more than `TRUSTED` of `scale`, the singular values themselves are worked out.
    """
    if cross.shape[0] > cross.shape[1]:
        cross = cross.T
    squares = torch.linalg.eigvalsh(cross @ cross.T)
    error = torch.finfo(squares.dtype).eps * squares.abs().max()
    roots = squares.clamp_min(0).sqrt()
    effect = torch.minimum(error.sqrt(), error / (2 * roots.clamp_min(torch.finfo(roots.dtype).tiny))).sum()
    return float(roots.sum() if effect <= TRUSTED * scale else torch.linalg.svdvals(cross).sum())


def _gaussian(samples: SampleSet) -> Gaussian:
    return samples.cached("gaussian", lambda: Gaussian.of(samples.features))


FID = Measure(
    name="fid",
    about="Frechet distance of the features' Gaussians, 0 and up (Heusel 2017); sees quality and variety",
    better="less",
    compute=lambda context: MeasuredValue(frechet(_gaussian(context.fake), _gaussian(context.real))),
)
