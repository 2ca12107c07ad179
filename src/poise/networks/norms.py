"""Normalisation, a choice of each player (tips T05a to T05c).

`batch` (Ioffe & Szegedy 2015), `instance` (Ulyanov 2016, arXiv:1607.08022), `layer` (Ba 2016), `group` (Wu & He
2018, arXiv:1803.08494) and `virtual` (Salimans 2016, arXiv:1606.03498, section 3.5) are layers between a
convolution and its activation. `spectral` (Miyato 2018, arXiv:1802.05957) is none: it divides every weight by
its largest singular value. `spectral_batch` is both, as in SAGAN's generator (Zhang 2019, arXiv:1805.08318).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized

from poise.core.types import DiscriminatorOutput, to_float32

Norm = Literal["batch", "spectral", "spectral_batch", "instance", "layer", "group", "virtual", "none"]
BATCH_STATISTICS_NORMS = ("batch", "spectral_batch")
"""Norms that make a sample's output depend on the other samples of its batch."""

GROUP = 16


def norm_layer(norm: Norm, channels: int, *, flat: bool = False) -> list[nn.Module]:
    """The layer that `norm` puts behind a linear one, or none: B x C x H x W, or B x C if `flat`."""
    if norm in BATCH_STATISTICS_NORMS:
        return [nn.BatchNorm1d(channels) if flat else nn.BatchNorm2d(channels)]
    if norm == "instance":
        return [nn.InstanceNorm2d(channels, affine=True)]
    if norm == "layer":
        return [nn.GroupNorm(1, channels)]
    if norm == "group":  # of 16 channels where that comes out even, else one group
        return [nn.GroupNorm(channels // GROUP if channels % GROUP == 0 else 1, channels)]
    return [VirtualBatchNorm(channels)] if norm == "virtual" else []


def has_bias(norm: Norm) -> bool:
    """Whether the layer before the norm keeps a bias of its own: not if the norm takes each channel's mean away."""
    return norm in ("none", "spectral", "layer", "group")


def apply_norm(net: nn.Module, norm: Norm, reference: Tensor) -> nn.Module:
    """`net` with what `norm` does to it as a whole: weights spectrally normed, or a reference batch that goes along.

    Args:
        reference: inputs of the network, for virtual batch norm.
    """
    if norm in ("spectral", "spectral_batch"):
        spectral_norm_(net)
    return WithReferenceBatch(net, reference) if norm == "virtual" else net


def spectral_norm_(net: nn.Module) -> None:
    """Divide every linear layer's weight by its largest singular value, in place.

    sigma is estimated by one power iteration per forward pass in training, on the weight as a matrix: output
    channels by the rest (Miyato 2018, algorithm 1). Evaluation leaves the estimate as it is. A module whose matrix
    is another one says which of its weight's dimensions are the rows by `matrix_dim`.
    """
    for module in list(net.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            spectral_norm(module, n_power_iterations=1, dim=getattr(module, "matrix_dim", None))


def match_spectral_norm_(layer: nn.Module, net: nn.Module) -> None:
    """Norm a layer that is put beside `net` spectrally, in place, if the network's own are."""
    if any(is_parametrized(module) for module in net.modules()):
        spectral_norm(layer)


class VirtualBatchNorm(nn.Module):
    """Each sample normalised by its own statistics and those of a fixed reference batch, which leads the batch.

    With R reference samples of mean m and mean square q, and a sample's own m_i and q_i (over space), the sample
    is shifted by (R m + m_i) / (R + 1) and divided by the root of the variance that belongs to it. The reference
    itself is normalised by m and q alone. So samples never mix with each other.
    """

    eps = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.leading = 0
        """How many samples of the batch are the reference; set by `Accompanied`."""

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W, or B x C; the same shape."""
        space = tuple(range(2, x.dim()))
        full = to_float32(x)
        mean, square = (full, full.square()) if not space else (full.mean(space), full.square().mean(space))
        n = self.leading
        lead_mean, lead_square = mean[:n].mean(0), square[:n].mean(0)
        share = 1 / (n + 1)
        mean = torch.cat((lead_mean.expand(n, -1), lead_mean.lerp(mean[n:], share)))
        square = torch.cat((lead_square.expand(n, -1), lead_square.lerp(square[n:], share)))
        scale = self.weight * (square - mean.square()).clamp_min(0).add(self.eps).rsqrt()
        shift = self.bias - mean * scale
        over = (..., *(None for _ in space))
        return (full * scale[over] + shift[over]).to(x.dtype)


class WithReferenceBatch(nn.Module):
    """A network with virtual batch norms: the reference batch goes through with every batch, and is left out after."""

    def __init__(self, net: nn.Module, reference: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("reference", reference.clone())
        self.width = getattr(net, "width", None)
        for module in net.modules():
            if isinstance(module, VirtualBatchNorm):
                module.leading = len(reference)

    def forward(self, x: Tensor) -> Tensor | DiscriminatorOutput:
        """What the network says of `x`."""
        n = len(self.reference)
        out = self.net(torch.cat((self.reference.to(x.dtype), x)))
        return out.select(slice(n, None)) if isinstance(out, DiscriminatorOutput) else out[n:]
