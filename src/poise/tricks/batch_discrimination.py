"""Minibatch discrimination (tip T16): D compares the samples of a batch, so that a collapsed G is easy to detect.

A statistic of D's last hidden layer across the batch is added before the score: D'(x_i) = D(x_i) + <w, o_i>. That is a
last linear layer over [features, o], written as a sum; w starts at zero, so that D starts as it would without the
trick. Neither w nor T is spectrally normalised, even if D is (a zero weight has no norm to divide by), so a critic that
is bounded by spectral normalisation alone is no longer bounded. Real and generated samples are compared separately,
unless the recipe joins them in one batch.

A tensor T in R^(A x B x C) maps features f_i in R^A to B rows M_ib of C numbers, and o_ib = sum over the other samples
j of the batch of exp(-||M_ib - M_jb||_1) (Salimans et al. 2016, arXiv:1606.03498, section 3.2). A batch of N samples
takes N^2 B C numbers.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from poise.core.hooks import NetworkTransform
from poise.core.types import DiscriminatorOutput, ExtraOutput, Side, for_patches, to_float32
from poise.tricks.base import TrickConfig, TrickContext


def batch_similarity(rows: Tensor) -> Tensor:
    """The similarity of each sample to the others, N x B, from N x B x C.

    This is the sum over j != i of exp(-||M_ib - M_jb||_1).
    """
    first, *others = rows.permute(
        2, 0, 1
    ).contiguous()  # one dimension at a time: summing over a short last axis is slow
    distance = (first[:, None] - first[None]).abs()
    for other in others:
        distance = distance + (other[:, None] - other[None]).abs()
    return torch.exp(-distance).sum(1) - 1


class DiscriminationKernels(nn.Module):
    """`batch_similarity` of features that are mapped by T."""

    def __init__(self, width: int, kernels: int, dims: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, kernels * dims) / width**0.5)
        self.kernels, self.dims = kernels, dims

    def forward(self, features: Tensor) -> Tensor:
        """N x F to N x kernels."""
        return batch_similarity((features @ self.weight).view(-1, self.kernels, self.dims))


class WithBatchStatistic(nn.Module):
    """A discriminator whose score also depends on a statistic of the batch."""

    mixes_samples = True

    def __init__(self, net: nn.Module, statistic: nn.Module, num_statistics: int) -> None:
        super().__init__()
        self.takes_labels = getattr(net, "takes_labels", False)
        self.width: int = net.width  # type: ignore[assignment]
        self.net, self.statistic = net, statistic
        self.head = nn.Linear(num_statistics, 1, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, images: Tensor, *labels: Tensor) -> DiscriminatorOutput:
        """The network's output, with the statistic's contribution added to the score."""
        output: DiscriminatorOutput = self.net(images, *labels)
        assert output.features is not None
        with torch.autocast(images.device.type, enabled=False):  # similar samples would be equal in bfloat16
            contribution = self.head(self.statistic(to_float32(output.features))).squeeze(1)
        score = to_float32(output.score)
        return output._replace(score=score + for_patches(contribution, score))


class MinibatchDiscriminationConfig(TrickConfig):
    """`kernels` is the paper's B, `dims` its C; `kernels = 0` turns the trick off."""

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
        """True unless there are no kernels."""
        return self.kernels > 0

    @property
    def couples_samples(self) -> bool:
        """True unless there are no kernels."""
        return self.kernels > 0

    def comparison_group(self, num_scores: int) -> int | None:
        """The whole batch."""
        return num_scores if self.kernels else None

    def build(self, name: str, context: TrickContext) -> MinibatchDiscrimination:
        """See `MinibatchDiscrimination`."""
        return MinibatchDiscrimination(name, self.kernels, self.dims)


class MinibatchDiscrimination(NetworkTransform):
    """Wraps D in `WithBatchStatistic`."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.D})

    def __init__(self, name: str, kernels: int, dims: int) -> None:
        super().__init__(name)
        self.kernels, self.dims = kernels, dims

    def transform_network(self, side: Side, net: nn.Module) -> nn.Module:
        """See `WithBatchStatistic`."""
        if not self.kernels:
            return net
        return WithBatchStatistic(net, DiscriminationKernels(net.width, self.kernels, self.dims), self.kernels)  # type: ignore[arg-type]
