"""Styles, as in StyleGAN2 (Karras et al. 2020, arXiv:1912.04958): modulated convolutions, and where styles come from.

A mapping network turns z into an intermediate latent w. `StyleBroadcast` gives it to all layers of the synthesis
network, where an affine layer makes a style of it: one factor for each input channel of a convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from poise.core.double_backward import ConvGeometry, convolve
from poise.core.types import to_float32
from poise.networks.equalized import EqualizedLinear, ScaledLeakyReLU, normalize_second_moment

MAPPING_LR_MULTIPLIER = 0.01
"""The learning rate of the mapping network's layers relative to the others (Karras et al. 2019, arXiv:1812.04948)."""

W_MEAN_DECAY = 0.995
"""The decay of the running mean of w, as in the authors' code."""


def convolve_same(x: Tensor, weight: Tensor) -> Tensor:
    """A convolution with an odd kernel that keeps the sides, B x I x H x W to B x O x H x W."""
    return convolve(x, weight, None, ConvGeometry((1, 1), (weight.shape[2] // 2, weight.shape[3] // 2), (1, 1), 1))


def demodulation(weight: Tensor, styles: Tensor) -> Tensor:
    """1 / sqrt(sum_i,k (s_i w_oik)^2 + 1e-8), B x O: what makes the variance of each output channel 1.

    This is equation 3 of the paper for inputs that are independent and have variance 1.

    Args:
        weight: O x I x k x k.
        styles: B x I.
    """
    with torch.autocast(weight.device.type, enabled=False):  # sums of squares need more digits than bfloat16 has
        squares = to_float32(styles).square() @ to_float32(weight).square().sum((2, 3)).T
        return torch.rsqrt(squares + 1e-8)


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    demodulate: bool = True,
    convolve: Callable[[Tensor, Tensor], Tensor] = convolve_same,
) -> Tensor:
    """A convolution whose weights are scaled for each sample: w'_oik = s_i w_oik / sqrt(sum_i,k (s_i w_oik)^2).

    A convolution is linear, so the input channels are scaled by s and the output channels by `demodulation` instead.
    All samples then share one weight, and one ordinary convolution takes the place of one with B groups.

    Args:
        x: feature maps, B x I x H x W.
        weight: O x I x k x k.
        styles: the factors s of the input channels, B x I.
        demodulate: whether to divide by the norm; the paper does so except in the layer that makes the image.
        convolve: the convolution of maps with a weight; `convolve_same`, or one that also resamples.

    Returns:
        B x O x H' x W'.

    Source: Karras et al. 2020, arXiv:1912.04958, equations 1 and 3.
    """
    y = convolve(x * styles[:, :, None, None].to(x.dtype), weight)
    return y * demodulation(weight, styles)[:, :, None, None].to(y.dtype) if demodulate else y


class MappingNetwork(nn.Sequential):
    """z, B x `latent`, to w, B x `style_dim`: z is normalised, and fully connected layers with LeakyReLU follow.

    Source: Karras et al. 2019, arXiv:1812.04948.
    """

    def __init__(self, latent: int, style_dim: int, num_layers: int) -> None:
        layers: list[nn.Module] = []
        for k in range(num_layers):
            in_features = style_dim if k else latent
            layers.append(EqualizedLinear(in_features, style_dim, lr_multiplier=MAPPING_LR_MULTIPLIER))
            layers.append(ScaledLeakyReLU())
        super().__init__(*layers)

    def forward(self, latents: Tensor, num_label_inputs: int = 0) -> Tensor:  # pyrefly: ignore[bad-override]
        """w; the last `num_label_inputs` inputs, an embedding of the label, are normalised separately."""
        z, label = split_inputs(latents, num_label_inputs)
        normalised = normalize_second_moment(z)
        if num_label_inputs:
            normalised = torch.cat((normalised, normalize_second_moment(label)), 1)
        return super().forward(normalised)


def split_inputs(latents: Tensor, num_label_inputs: int) -> tuple[Tensor, Tensor]:
    """The coordinates of z and those of the embedding of the label, which come last."""
    dim = latents.shape[1] - num_label_inputs
    return latents[:, :dim], latents[:, dim:]


class StyleBroadcast(nn.Module):
    """w, B x D, to the w of each layer, B x L x D; mixes styles in training and truncates in evaluation.

    In training mode the buffer `w_mean` follows the mean of w. With probability `mixing`, once per batch, the layers
    from a random crossover on get the w of another latent (Karras et al. 2019, arXiv:1812.04948, section 3.1). The
    draws are from PyTorch's global generator.

    In evaluation mode w becomes w_mean + psi (w - w_mean) with psi = `truncation`, which
    `poise.truncation.truncated_layers` sets. It may be a 0-dim tensor, as in an exported graph, where it is an input
    and no branch can depend on its value.

    Args:
        num_layers: L, at least 2.
        style_dim: D.
        mixing: the probability of mixing.
    """

    takes_truncation: ClassVar[bool] = True
    """That it reads the attribute `truncation`, by which an export finds the layers that truncate."""

    running_statistics: ClassVar[tuple[str, ...]] = ("w_mean",)
    """The buffers that follow the batches, which several ranks average."""

    w_mean: Tensor
    truncation: float | Tensor

    def __init__(self, num_layers: int, style_dim: int, mixing: float) -> None:
        super().__init__()
        self.num_layers, self.mixing, self.truncation = num_layers, mixing, 1.0
        self.register_buffer("w_mean", torch.zeros(style_dim))

    def forward(self, w: Tensor, other: Tensor | None = None) -> Tensor:
        """The w of each layer; `other`, B x D, is the w of the second latents."""
        if self.training:
            with torch.no_grad():
                self.w_mean.lerp_(w.detach().to(self.w_mean.dtype).mean(0), 1 - W_MEAN_DECAY)
        elif isinstance(self.truncation, Tensor) or self.truncation != 1:
            w = self.w_mean.to(w.dtype).lerp(w, self.truncation)
        styles = w[:, None].expand(-1, self.num_layers, -1)
        if other is None:
            return styles.contiguous()
        from_other = torch.arange(self.num_layers, device=w.device) >= self._crossover(w.device)
        return torch.where(from_other[:, None], other[:, None], styles)

    def _crossover(self, device: torch.device) -> Tensor:
        """The first layer that gets the other w, 0-dim: uniform in 1 to L - 1, or L for none; not read on the host."""
        crossover = torch.randint(1, self.num_layers, (), device=device)
        return torch.where(torch.rand((), device=device) < self.mixing, crossover, self.num_layers)

    def extra_repr(self) -> str:
        """See `nn.Module.extra_repr`."""
        return f"layers={self.num_layers}, mixing={self.mixing:g}"
