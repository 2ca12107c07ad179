"""How well a run rebuilds pictures that it has not trained on, beside what a linear method does with as few numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from poise.measure.base import Figure, Measure
from poise.measure.sitting import Pile, Sitting, parts

WIDEST = 4096
"""Numbers of a picture up to which its principal components are worked out."""


class Coder(NamedTuple):
    """What a run can do with pictures of others.

    Attributes:
        dim: how many numbers are left of a picture.
        rebuild: pictures, B x shape, made anew from their codes.
        bound: `reconstruction`, `kl` and `elbo` of pictures in nats, B each; None where there is no likelihood.
    """

    dim: int
    rebuild: Callable[[Tensor], Tensor]
    bound: Callable[[Tensor], dict[str, Tensor]] | None = None


class Components(NamedTuple):
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


def principal(blocks: Iterable[Tensor], k: int) -> Components:
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
    return Components(mean, axes.flip(1)[:, :k])


def mean_squared(pile: Pile, rebuild: Callable[[Tensor], Tensor]) -> float:
    """The mean squared error per number, in units of [-1, 1], of all samples of a pile."""
    total = 0.0
    for part in parts(len(pile)):
        real = pile.signed(part)
        total += float((rebuild(real).double() - real).square().flatten(1).mean(1).sum())
    return total / len(pile)


def _rebuilt(sitting: Sitting) -> Figure:
    return Figure(mean_squared(sitting.real, sitting.known_coder.rebuild))


def _by_plane(sitting: Sitting) -> Figure:
    train = sitting.known_train
    plane = principal((train.signed(part).flatten(1) for part in parts(len(train))), sitting.known_coder.dim)

    def rebuild(real: Tensor) -> Tensor:
        return plane.rebuild(real.flatten(1).double()).reshape(real.shape)

    return Figure(mean_squared(sitting.real, rebuild))


def _nats(name: str) -> Callable[[Sitting], Figure]:
    def of(sitting: Sitting) -> Figure:
        told = sitting.bounds[name].double()
        return Figure(float(told.mean()), float(told.std() / len(told) ** 0.5) if len(told) > 1 else None)

    return of


RECONSTRUCTION = Measure(
    name="reconstruction",
    about="mean squared error per number of held-out pictures rebuilt from their codes; at least 0",
    better="less",
    of=_rebuilt,
    needs=frozenset({"coder"}),
    floor="none",
)
PCA = Measure(
    name="pca_reconstruction",
    about="the same by principal components, as many as a code has numbers, of the training pictures (Pearson 1901)",
    better="less",
    of=_by_plane,
    needs=frozenset({"coder", "train"}),
    floor="none",
)
ELBO = Measure(
    name="elbo",
    about="evidence lower bound of held-out pictures in nats, one draw for each (Kingma & Welling 2014)",
    better="more",
    of=_nats("elbo"),
    needs=frozenset({"likelihood"}),
    floor="none",
)
NEGATIVE_LIKELIHOOD = Measure(
    name="elbo_reconstruction",
    about="the bound's first part, -log p(x | z) in nats",
    better="less",
    of=_nats("reconstruction"),
    needs=frozenset({"likelihood"}),
    floor="none",
)
KL = Measure(
    name="elbo_kl",
    about="its second part, the KL from the prior to the codes' regions in nats: 0 says that codes tell nothing",
    better="floor",
    of=_nats("kl"),
    needs=frozenset({"likelihood"}),
    floor="none",
)
