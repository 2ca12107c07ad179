"""Minibatch discrimination (tip T16): D compares the samples of a batch, so that a G of one picture is found out.

A statistic of D's last hidden layer across the batch stands beside that layer, just before the score:
D'(x_i) = D(x_i) + <w, o_i>. That is a last linear layer over [features, o], written as a sum; w starts at zero, so that
D starts as it would without. Neither w nor T is spectrally normed, whatever D is (zero has no norm to divide by), so a
critic that only spectral norm bounds is no longer bounded. Each pile is compared in itself, unless the recipe has them
judged together.

Features f_i in R^A go through a tensor T in R^(A x B x C) to B rows of C numbers, and o_ib = sum over j of
exp(-||M_ib - M_jb||_1), the other samples of the pile (Salimans et al. 2016, arXiv:1606.03498, section 3.2). Takes
N^2 B C numbers for a pile of N.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from poise.core.hooks import NetworkTransform
from poise.core.types import DiscriminatorOutput, ExtraOutput, Side, to_float32
from poise.tricks.base import TrickConfig, TrickContext


def closeness(rows: Tensor) -> Tensor:
    """How near each sample is to the others, N x B, from N x B x C: sum over j != i of exp(-||M_ib - M_jb||_1)."""
    first, *others = rows.permute(2, 0, 1).contiguous()  # dims one by one: a sum over five neighbours is slow
    apart = (first[:, None] - first[None]).abs()
    for one in others:
        apart = apart + (one[:, None] - one[None]).abs()
    return torch.exp(-apart).sum(1) - 1


class DiscriminationKernels(nn.Module):
    """`closeness` of features seen through T."""

    def __init__(self, width: int, kernels: int, dims: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, kernels * dims) / width**0.5)
        self.kernels, self.dims = kernels, dims

    def forward(self, features: Tensor) -> Tensor:
        """N x F to N x kernels."""
        return closeness((features @ self.weight).view(-1, self.kernels, self.dims))


class WithBatchStatistic(nn.Module):
    """A D that is told a statistic of the batch."""

    mixes_samples = True

    def __init__(self, net: nn.Module, statistic: nn.Module, count: int) -> None:
        super().__init__()
        self.takes_labels = getattr(net, "takes_labels", False)
        self.width: int = net.width  # type: ignore[assignment]
        self.net, self.statistic = net, statistic
        self.head = nn.Linear(count, 1, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, images: Tensor, *labels: Tensor) -> DiscriminatorOutput:
        """What D says."""
        said: DiscriminatorOutput = self.net(images, *labels)
        assert said.features is not None
        with torch.autocast(images.device.type, enabled=False):  # near copies are all alike in bfloat16
            more = self.head(self.statistic(to_float32(said.features))).squeeze(1)
        return said._replace(score=to_float32(said.score) + more)


class MinibatchDiscriminationConfig(TrickConfig):
    """`kernels` is the paper's B, `dims` its C; no kernels is none."""

    kind: Literal["minibatch_discrimination"] = "minibatch_discrimination"
    tip: ClassVar[str] = "T16"
    source: ClassVar[str] = "Salimans et al. 2016, arXiv:1606.03498"

    kernels: int = Field(default=50, ge=0, le=10_000)
    dims: int = Field(default=5, ge=1, le=1000)

    @property
    def required_outputs(self) -> frozenset[ExtraOutput]:
        """Features."""
        return frozenset[ExtraOutput]({"features"}) if self.kernels else frozenset()

    @property
    def modifies_score(self) -> bool:
        """Yes."""
        return self.kernels > 0

    @property
    def couples_samples(self) -> bool:
        """That is what it is for."""
        return self.kernels > 0

    def comparison_group(self, scores: int) -> int | None:
        """All of them."""
        return scores if self.kernels else None

    def build(self, name: str, context: TrickContext) -> MinibatchDiscrimination:
        """See `Compare`."""
        return MinibatchDiscrimination(name, self.kernels, self.dims)


class MinibatchDiscrimination(NetworkTransform):
    """Dresses D."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.D})

    def __init__(self, name: str, kernels: int, dims: int) -> None:
        super().__init__(name)
        self.kernels, self.dims = kernels, dims

    def transform_network(self, side: Side, net: nn.Module) -> nn.Module:
        """See `Comparing`."""
        if not self.kernels:
            return net
        return WithBatchStatistic(net, DiscriminationKernels(net.width, self.kernels, self.dims), self.kernels)  # type: ignore[arg-type]
