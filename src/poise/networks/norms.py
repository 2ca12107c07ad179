"""Normalisation, which each player chooses separately (tips T05a to T05c).

`batch` (Ioffe & Szegedy 2015), `instance` (Ulyanov 2016, arXiv:1607.08022), `layer` (Ba 2016), `group` (Wu & He
2018, arXiv:1803.08494) and `virtual` (Salimans 2016, arXiv:1606.03498, section 3.5) are layers between a
convolution and its activation. `spectral` (Miyato 2018, arXiv:1802.05957) is not a layer; it divides every weight by
its largest singular value. `spectral_batch` is both, as in SAGAN's generator (Zhang 2019, arXiv:1805.08318).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm, spectral_norm
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.spectral_norm import SpectralNorm as SpectralNormHook

from poise.core.types import DiscriminatorOutput, to_float32
from poise.errors import RecipeError

Norm = Literal["batch", "spectral", "spectral_batch", "instance", "layer", "group", "virtual", "none"]
BATCH_STATISTICS_NORMS = ("batch", "spectral_batch")
"""The norms with which the output for a sample depends on the other samples of its batch."""

GROUP_SIZE = 16
"""The number of channels per group of `group`."""


def norm_layer(norm: Norm, channels: int, *, flat: bool = False, affine: bool = True) -> list[nn.Module]:
    """The normalisation layer of `norm`, or an empty list: for B x C x H x W, or for B x C if `flat`.

    With `affine` the layer has a learned scale and shift for each channel, which virtual batch norm always has.
    """
    if norm in BATCH_STATISTICS_NORMS:
        return [nn.BatchNorm1d(channels, affine=affine) if flat else nn.BatchNorm2d(channels, affine=affine)]
    if norm == "instance":
        return [nn.InstanceNorm2d(channels, affine=affine)]
    if norm == "layer":
        return [nn.GroupNorm(1, channels, affine=affine)]
    if norm == "group":  # a single group if the channels are not a multiple of the group size
        return [nn.GroupNorm(channels // GROUP_SIZE if channels % GROUP_SIZE == 0 else 1, channels, affine=affine)]
    return [VirtualBatchNorm(channels)] if norm == "virtual" else []


def has_bias(norm: Norm) -> bool:
    """Whether the layer before the norm has a bias; it is redundant if the norm subtracts each channel's mean."""
    return norm in ("none", "spectral", "layer", "group")


def apply_norm(net: nn.Module, norm: Norm, reference: Tensor | None) -> nn.Module:
    """Apply the part of `norm` that concerns the whole network: spectral norm of its weights, or a reference batch.

    Args:
        net: the network, which may be changed in place.
        norm: the kind of normalisation.
        reference: inputs of the network, the reference batch of virtual batch norm; other norms need none.

    Raises:
        RecipeError: virtual batch norm has no reference batch.
    """
    if norm in ("spectral", "spectral_batch"):
        spectral_norm_(net)
    if norm != "virtual":
        return net
    if reference is None or not len(reference):
        cure = "pass inputs of the network as reference"
        raise RecipeError("virtual batch norm needs a reference batch", where="norm", found="none", cure=cure)
    return WithReferenceBatch(net, reference)


def spectral_norm_(net: nn.Module) -> None:
    """Divide the weight of every linear and convolutional layer by its largest singular value, in place.

    The weight is seen as a matrix whose rows are the output channels. The singular value is estimated by one power
    iteration per forward pass in training mode (Miyato 2018, algorithm 1); evaluation mode keeps the estimate. A module
    whose matrix has other rows gives their dimension of the weight in an attribute `matrix_dim`.
    """
    for module in list(net.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            spectral_norm(module, n_power_iterations=1, dim=getattr(module, "matrix_dim", None))


def has_spectral_norm(module: nn.Module) -> bool:
    """Whether a layer's weight has spectral norm: as a parametrisation, or the older hook of PyTorch."""
    found = [*parametrizations_of(module), *module._forward_pre_hooks.values()]
    return any(isinstance(one, _SpectralNorm | SpectralNormHook) for one in found)


def parametrizations_of(module: nn.Module) -> list[Any]:
    """All parametrisations of a layer's own weights."""
    return [one for each in module.parametrizations.values() for one in each] if is_parametrized(module) else []  # type: ignore[union-attr]


def match_spectral_norm_(layer: nn.Module, net: nn.Module) -> None:
    """Apply spectral norm to a layer that is added to `net`, in place, if layers of `net` have it."""
    if any(has_spectral_norm(module) for module in net.modules()):
        spectral_norm(layer)


class VirtualBatchNorm(nn.Module):
    """Normalises each sample by its own statistics and those of a fixed reference batch, the first of the batch.

    The R reference samples have mean m and mean square q; a sample has mean m_i and mean square q_i (over space). The
    sample is normalised with mean (R m + m_i) / (R + 1) and the variance that belongs to the mean square
    (R q + q_i) / (R + 1). The reference batch is normalised by m and q alone. The output for a sample therefore depends
    on no other sample of the batch.
    """

    eps = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.leading = 0
        """The number of reference samples at the start of the batch; set by `WithReferenceBatch`."""

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W, or B x C, to the same shape.

        Raises:
            RecipeError: the batch starts with no reference samples.
        """
        space = tuple(range(2, x.dim()))
        precise = to_float32(x)
        mean, square = (precise, precise.square()) if not space else (precise.mean(space), precise.square().mean(space))
        n = self.leading
        if not n:
            cure = "wrap the network in WithReferenceBatch, as `build` of its config does"
            raise RecipeError("virtual batch norm needs a reference batch", where="norm", found="none", cure=cure)
        reference_mean, reference_square = mean[:n].mean(0), square[:n].mean(0)
        weight = 1 / (n + 1)
        mean = torch.cat((reference_mean.expand(n, -1), reference_mean.lerp(mean[n:], weight)))
        square = torch.cat((reference_square.expand(n, -1), reference_square.lerp(square[n:], weight)))
        scale = self.weight * (square - mean.square()).clamp_min(0).add(self.eps).rsqrt()
        shift = self.bias - mean * scale
        broadcast = (..., *(None for _ in space))
        return (precise * scale[broadcast] + shift[broadcast]).to(x.dtype)


class WithReferenceBatch(nn.Module):
    """A network with virtual batch norms. Each batch passes through it together with the reference batch.

    The output does not contain the reference batch.
    """

    def __init__(self, net: nn.Module, reference: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("reference", reference.clone())
        self.width = getattr(net, "width", None)
        for module in net.modules():
            if isinstance(module, VirtualBatchNorm):
                module.leading = len(reference)

    def forward(self, x: Tensor) -> Tensor | DiscriminatorOutput:
        """The output of the network for `x`."""
        n = len(self.reference)
        output = self.net(torch.cat((self.reference.to(x.dtype), x)))
        return output.select(slice(n, None)) if isinstance(output, DiscriminatorOutput) else output[n:]
