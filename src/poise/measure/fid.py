"""The Frechet distance between Gaussians fitted to two sets of features (FID; Heusel 2017, arXiv:1706.08500).

|m_a - m_b|^2 + tr(A + B - 2 (A B)^1/2) with means m and covariances A, B. For any square roots R of the covariances,
R^T R = A, the trace of the last term is the sum of the singular values of R_a R_b^T. No root of a matrix product is
computed, so the value is real, at least 0, and exact for fewer samples than dimensions, where the roots are the centred
features themselves.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from poise.measure.base import Measure, MeasuredValue, validate_features, validate_matrix
from poise.measure.context import EvalContext
from poise.measure.sample_set import SampleSet

TOLERANCE = 1e-9
"""The relative error up to which eigenvalues of a product replace singular values, which are several times slower."""

MIN_DIAGONAL_RATIO = 1e-4
"""The least ratio of the smallest to the largest diagonal entry of a Cholesky factor that is trusted."""


class Gaussian(NamedTuple):
    """A Gaussian: its mean, d, and a square root of its covariance, r x d with root^T root = covariance."""

    mean: Tensor
    root: Tensor

    @classmethod
    def fit(cls, features: Tensor) -> Gaussian:
        """Fit a Gaussian to features, N x d; the covariance is normalised by N - 1."""
        features = features.detach().to("cpu", torch.float64)
        mean = features.mean(0)
        centred = (features - mean) / max(1, len(features) - 1) ** 0.5
        return cls(mean, _compress_root(centred) if len(centred) > centred.shape[1] else centred)


def frechet(a: Gaussian, b: Gaussian) -> float:
    """The squared Frechet (2-Wasserstein) distance between two Gaussians, at least 0.

    Raises:
        ValueError: the distance, or a square of the covariances, is too large for a float64.
    """
    traces = float(a.root.square().sum() + b.root.square().sum())
    squared_mean_distance = float((a.mean - b.mean).square().sum())
    if not math.isfinite(squared_mean_distance + traces * traces):
        raise ValueError("the features are too large for a Frechet distance")
    return max(0.0, squared_mean_distance + traces - 2 * _nuclear_norm(a.root @ b.root.T, traces))


def fid(fake: Tensor, real: Tensor) -> float:
    """The squared Frechet distance of Gaussians fitted to two sets of features (FID; Heusel 2017, arXiv:1706.08500).

    |m_a - m_b|^2 + tr(A + B - 2 (A B)^1/2) with means m and covariances A, B, which are normalised by N - 1 and M - 1.
    At least 0, and 0 for equal sets; lower is better. It is biased upwards by about (d + 5) / 2N of the trace, so it
    must be compared with its floor: the distance between two sets of real features at the same N.

    Args:
        fake: features of fake samples, N x d.
        real: features of real samples, M x d.

    Raises:
        ValueError: see `poise.measure.base.validate_features` and `frechet`.
    """
    fake, real = validate_features(fake, real)
    return frechet(Gaussian.fit(fake), Gaussian.fit(real))


def _compress_root(root: Tensor) -> Tensor:
    """A square root of root^T root, d x d: by Cholesky if that is accurate enough, otherwise by QR, which is slower."""
    factor, failed = torch.linalg.cholesky_ex(root.T @ root, upper=True)
    diagonal = factor.diagonal().abs()
    if not int(failed) and diagonal.min() > MIN_DIAGONAL_RATIO * diagonal.max():
        return factor
    return torch.linalg.qr(root, mode="r").R


def _nuclear_norm(cross: Tensor, scale: float) -> float:
    """The sum of the singular values of a matrix.

    They are the square roots of the eigenvalues of C C^T, which take a third of the time but have an absolute error. If
    its effect on the sum could exceed `TOLERANCE * scale`, the singular values are computed directly.
    """
    if cross.shape[0] > cross.shape[1]:
        cross = cross.T
    squares = torch.linalg.eigvalsh(cross @ cross.T)
    error = torch.finfo(squares.dtype).eps * squares.abs().max()
    roots = squares.clamp_min(0).sqrt()
    effect = torch.minimum(error.sqrt(), error / (2 * roots.clamp_min(torch.finfo(roots.dtype).tiny))).sum()
    return float(roots.sum() if effect <= TOLERANCE * scale else torch.linalg.svdvals(cross).sum())


def _gaussian(samples: SampleSet, name: str) -> Gaussian:
    return samples.cached("gaussian", lambda: Gaussian.fit(validate_matrix(samples.features, name, min_rows=2)))


def _fid(context: EvalContext) -> MeasuredValue:
    return MeasuredValue(frechet(_gaussian(context.fake, "fake features"), _gaussian(context.real, "real features")))


FID = Measure(
    name="fid",
    description="Frechet distance of Gaussians fitted to the features, 0 and up (Heusel 2017); quality and variety",
    better="less",
    compute=_fid,
)
