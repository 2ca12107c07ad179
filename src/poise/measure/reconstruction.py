"""Reconstruction of held-out images from their latent codes, with principal components as a baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from poise.measure.base import Measure, MeasuredValue
from poise.measure.context import EvalContext
from poise.measure.sample_set import SampleSet, batch_slices

MAX_WIDTH = 4096
"""The largest number of values per image for which principal components are computed."""


class PrincipalComponents(NamedTuple):
    """The affine subspace of a principal component analysis.

    Attributes:
        mean: the mean of the rows, D.
        axes: orthonormal columns in the order of decreasing variance, D x k.
    """

    mean: Tensor
    axes: Tensor

    def reconstruct(self, rows: Tensor) -> Tensor:
        """Project rows, N x D, onto the subspace."""
        return self.mean + (rows - self.mean) @ self.axes @ self.axes.T


def fit_pca(blocks: Iterable[Tensor], k: int) -> PrincipalComponents:
    """The k principal components of N rows that are given in blocks, n x D each; computed in float64.

    Eigenvectors of the covariance (Pearson 1901). Of all linear codes of dimension k they have the least mean squared
    reconstruction error.

    Raises:
        ValueError: rows are wider than `MAX_WIDTH` or narrower than k.
    """
    n, total, outer = 0, torch.zeros(1), torch.zeros(1)
    for block in blocks:
        rows = block.double().cpu()
        if not k <= rows.shape[1] <= MAX_WIDTH:
            raise ValueError(f"{k} components need {k} to {MAX_WIDTH:,} values per image, found {rows.shape[1]:,}")
        n, total, outer = n + len(rows), total + rows.sum(0), outer + rows.T @ rows
    mean = total / n
    _, axes = torch.linalg.eigh(outer / n - mean[:, None] * mean)
    return PrincipalComponents(mean, axes.flip(1)[:, :k])


def mean_squared_error(samples: SampleSet, reconstruct: Callable[[Tensor], Tensor]) -> float:
    """The mean squared error per value of the reconstructions of all samples, for values in [-1, 1]."""
    total = 0.0
    for part in batch_slices(len(samples)):
        real = samples.normalized(part)
        total += float((reconstruct(real).double() - real).square().flatten(1).mean(1).sum())
    return total / len(samples)


def _reconstruction_error(context: EvalContext) -> MeasuredValue:
    return MeasuredValue(mean_squared_error(context.real, context.required_reconstructor.reconstruct))


def _pca_error(context: EvalContext) -> MeasuredValue:
    train = context.required_train
    blocks = (train.normalized(part).flatten(1) for part in batch_slices(len(train)))
    components = fit_pca(blocks, context.required_reconstructor.dim)

    def reconstruct(real: Tensor) -> Tensor:
        return components.reconstruct(real.flatten(1).double()).reshape(real.shape)

    return MeasuredValue(mean_squared_error(context.real, reconstruct))


def _all_elbo_terms(context: EvalContext) -> dict[str, Tensor]:
    """The terms of the evidence lower bound of the real images, N each."""
    elbo_terms = context.required_reconstructor.elbo_terms
    assert elbo_terms is not None
    batches = [elbo_terms(context.real.normalized(part)) for part in batch_slices(len(context.real))]
    return {name: torch.cat([terms[name] for terms in batches]) for name in batches[0]}


def _elbo_term(name: str) -> Callable[[EvalContext], MeasuredValue]:
    def compute(context: EvalContext) -> MeasuredValue:
        values = context.cached("elbo_terms", lambda: _all_elbo_terms(context))[name].double()
        stderr = float(values.std() / len(values) ** 0.5) if len(values) > 1 else None
        return MeasuredValue(float(values.mean()), stderr)

    return compute


RECONSTRUCTION = Measure(
    name="reconstruction",
    description="mean squared error per value of held-out images reconstructed from their codes, 0 and up",
    better="less",
    compute=_reconstruction_error,
    requires=frozenset({"encoder"}),
    floor="none",
)
PCA_RECONSTRUCTION = Measure(
    name="pca_reconstruction",
    description="the same error with an equal number of principal components of the training images (Pearson 1901)",
    better="less",
    compute=_pca_error,
    requires=frozenset({"encoder", "train"}),
    floor="none",
)
ELBO = Measure(
    name="elbo",
    description="evidence lower bound of held-out images in nats, one sample per image (Kingma & Welling 2014)",
    better="more",
    compute=_elbo_term("elbo"),
    requires=frozenset({"likelihood"}),
    floor="none",
)
ELBO_RECONSTRUCTION = Measure(
    name="elbo_reconstruction",
    description="reconstruction term of the bound, -log p(x | z) in nats",
    better="less",
    compute=_elbo_term("reconstruction"),
    requires=frozenset({"likelihood"}),
    floor="none",
)
ELBO_KL = Measure(
    name="elbo_kl",
    description="KL term of the bound, KL(q(z | x) || p(z)) in nats; 0 if codes carry no information about the image",
    better="floor",
    compute=_elbo_term("kl"),
    requires=frozenset({"likelihood"}),
    floor="none",
)
