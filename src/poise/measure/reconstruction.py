"""How well a run rebuilds pictures that it has not trained on, beside what a linear method does with as few numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from poise.measure.base import Measure, MeasuredValue
from poise.measure.context import EvalContext
from poise.measure.sample_set import SampleSet, batch_slices

WIDEST = 4096
"""Numbers of a picture up to which its principal components are worked out."""


class PrincipalComponents(NamedTuple):
    """The plane of a principal component analysis.

    Attributes:
        mean: D.
        axes: D x k, orthonormal columns, the widest spread first.
    """

    mean: Tensor
    axes: Tensor

    def rebuild(self, rows: Tensor) -> Tensor:
        """The points of the plane that are nearest to `rows`, N x D."""
        return self.mean + (rows - self.mean) @ self.axes @ self.axes.T


def fit_pca(blocks: Iterable[Tensor], k: int) -> PrincipalComponents:
    """The k axes of greatest variance of N rows that come in blocks, n x D each, in float64.

    Eigenvectors of the covariance (Pearson 1901): of all linear codes of k numbers these rebuild with the least mean
    squared error.

    Raises:
        ValueError: rows wider than `WIDEST`, or fewer numbers in a row than k.
    """
    n, total, outer = 0, torch.zeros(1), torch.zeros(1)
    for block in blocks:
        rows = block.double().cpu()
        if not k <= rows.shape[1] <= WIDEST:
            raise ValueError(f"{k} components of rows of {rows.shape[1]:,} numbers (at most {WIDEST:,})")
        n, total, outer = n + len(rows), total + rows.sum(0), outer + rows.T @ rows
    mean = total / n
    _, axes = torch.linalg.eigh(outer / n - mean[:, None] * mean)
    return PrincipalComponents(mean, axes.flip(1)[:, :k])


def mean_squared_error(pile: SampleSet, rebuild: Callable[[Tensor], Tensor]) -> float:
    """The mean squared error per number, in units of [-1, 1], of all samples of a pile."""
    total = 0.0
    for part in batch_slices(len(pile)):
        real = pile.normalized(part)
        total += float((rebuild(real).double() - real).square().flatten(1).mean(1).sum())
    return total / len(pile)


def _rebuilt(context: EvalContext) -> MeasuredValue:
    return MeasuredValue(mean_squared_error(context.real, context.required_reconstructor.rebuild))


def _by_plane(context: EvalContext) -> MeasuredValue:
    train = context.required_train
    plane = fit_pca(
        (train.normalized(part).flatten(1) for part in batch_slices(len(train))), context.required_reconstructor.dim
    )

    def rebuild(real: Tensor) -> Tensor:
        return plane.rebuild(real.flatten(1).double()).reshape(real.shape)

    return MeasuredValue(mean_squared_error(context.real, rebuild))


def _bound_terms(context: EvalContext) -> dict[str, Tensor]:
    """The terms of the evidence lower bound of the real images, N each."""
    bound = context.required_reconstructor.bound
    assert bound is not None
    terms = [bound(context.real.normalized(part)) for part in batch_slices(len(context.real))]
    return {name: torch.cat([some[name] for some in terms]) for name in terms[0]}


def _nats(name: str) -> Callable[[EvalContext], MeasuredValue]:
    def of(context: EvalContext) -> MeasuredValue:
        told = context.cached("bound", lambda: _bound_terms(context))[name].double()
        return MeasuredValue(float(told.mean()), float(told.std() / len(told) ** 0.5) if len(told) > 1 else None)

    return of


RECONSTRUCTION = Measure(
    name="reconstruction",
    about="mean squared error per number of held-out pictures rebuilt from their codes; at least 0",
    better="less",
    compute=_rebuilt,
    requires=frozenset({"coder"}),
    floor="none",
)
PCA = Measure(
    name="pca_reconstruction",
    about="the same by principal components, as many as a code has numbers, of the training pictures (Pearson 1901)",
    better="less",
    compute=_by_plane,
    requires=frozenset({"coder", "train"}),
    floor="none",
)
ELBO = Measure(
    name="elbo",
    about="evidence lower bound of held-out pictures in nats, one draw for each (Kingma & Welling 2014)",
    better="more",
    compute=_nats("elbo"),
    requires=frozenset({"likelihood"}),
    floor="none",
)
NEGATIVE_LIKELIHOOD = Measure(
    name="elbo_reconstruction",
    about="the bound's first part, -log p(x | z) in nats",
    better="less",
    compute=_nats("reconstruction"),
    requires=frozenset({"likelihood"}),
    floor="none",
)
KL = Measure(
    name="elbo_kl",
    about="its second part, the KL from the prior to the codes' regions in nats: 0 says that codes tell nothing",
    better="floor",
    compute=_nats("kl"),
    requires=frozenset({"likelihood"}),
    floor="none",
)
