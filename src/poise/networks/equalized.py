"""Layers with an equalised learning rate (Karras et al. 2018, arXiv:1710.10196, section 4.1).

Weights are stored as N(0, 1) and multiplied by He's constant 1 / sqrt(fan_in) in each forward pass. So Adam, whose
steps do not depend on the scale of the gradient, changes all layers at the same relative speed. With a factor
`lr_multiplier` weights are stored as N(0, 1 / lr_multiplier^2) and multiplied by it, which makes their learning rate
that much smaller. The factor sqrt(2) of He's initialisation is in the activation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from poise.core.double_backward import Conv2d
from poise.networks.blocks import SLOPE

ACTIVATION_GAIN = math.sqrt(2)
"""The factor of the activations, which restores the variance that a LeakyReLU removes, approximately."""


class ScaledLeakyReLU(nn.LeakyReLU):
    """gain x LeakyReLU(x) with slope 0.2; the gain is sqrt(2) in StyleGAN2, and 1 at the end of its residual blocks.

    Args:
        gain: the factor.
    """

    def __init__(self, gain: float = ACTIVATION_GAIN) -> None:
        super().__init__(SLOPE)
        self.gain = gain

    def forward(self, input: Tensor) -> Tensor:
        """The same shape."""
        return super().forward(input) * self.gain

    def extra_repr(self) -> str:
        """See `nn.Module.extra_repr`."""
        return f"{super().extra_repr()}, gain={self.gain:g}"


class EqualizedLinear(nn.Linear):
    """B x I to B x O: x (c w)^T + m b with c = m / sqrt(I), m being `lr_multiplier`.

    Args:
        in_features: I.
        out_features: O.
        bias_init: the initial value of the stored bias b.
        lr_multiplier: m.
    """

    def __init__(
        self, in_features: int, out_features: int, *, bias_init: float = 0.0, lr_multiplier: float = 1.0
    ) -> None:
        super().__init__(in_features, out_features)
        self.lr_multiplier = lr_multiplier
        nn.init.normal_(self.weight, 0.0, 1 / lr_multiplier)
        nn.init.constant_(self.bias, bias_init)

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output."""
        gain = self.lr_multiplier / math.sqrt(self.weight.shape[1])
        return linear(input, self.weight * gain, self.bias * self.lr_multiplier)


class EqualizedConv2d(Conv2d):
    """B x I x H x W to B x O x H' x W': a convolution with the weight w / sqrt(I k^2).

    Args:
        in_channels: I.
        out_channels: O.
        kernel_size: k.
        stride: the stride.
        padding: the zeros at each border.
        bias: whether there is a bias, which starts at 0.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight / math.sqrt(weight[0].numel()), bias)


def normalize_second_moment(x: Tensor) -> Tensor:
    """x / sqrt(mean of x^2 + 1e-8) along the last axis: to a second moment of 1 per coordinate."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-8)
