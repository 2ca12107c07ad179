"""Resampling with a smoothing filter, as in StyleGAN2 (Karras et al. 2020, arXiv:1912.04958; Zhang 2019).

The filter is the outer product of [1, 3, 3, 1] / 8 with itself. Feature maps are smoothed after zeros have been
inserted or before pixels are dropped, so that resampling does not alias (Zhang 2019, arXiv:1904.11486). Everything is a
depthwise convolution, which PyTorch can differentiate any number of times.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d

TAPS = (1.0, 3.0, 3.0, 1.0)
"""The taps of the filter along each axis, before they are divided by their sum."""


def smoothing_kernel() -> Tensor:
    """The filter, 4 x 4, float32, of sum 1."""
    taps = torch.tensor(TAPS)
    return torch.outer(taps, taps) / taps.sum().square()


def _depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    """The kernel for each channel of x: C x 1 x h x w."""
    return kernel.to(x.dtype).expand(x.shape[1], 1, *kernel.shape)


def blur(x: Tensor, kernel: Tensor, padding: int) -> Tensor:
    """Smooth each channel.

    Args:
        x: feature maps, B x C x H x W.
        kernel: the filter, h x w.
        padding: the number of zeros at each border.

    Returns:
        B x C x (H + 2 padding - h + 1) x (W + 2 padding - w + 1).
    """
    return conv2d(x, _depthwise(x, kernel), padding=padding, groups=x.shape[1])


def upsample(x: Tensor, kernel: Tensor) -> Tensor:
    """Double the sides, B x C x H x W to B x C x 2H x 2W: insert zeros and smooth, times 4 to keep the mean."""
    return conv_transpose2d(x, _depthwise(x, 4 * kernel), stride=2, padding=1, groups=x.shape[1])


def downsample(x: Tensor, kernel: Tensor) -> Tensor:
    """Halve the sides, B x C x H x W to B x C x H/2 x W/2: smooth and keep every other pixel."""
    return conv2d(x, _depthwise(x, kernel), stride=2, padding=1, groups=x.shape[1])


def upsampling_convolution(x: Tensor, weight: Tensor, kernel: Tensor) -> Tensor:
    """A 3 x 3 convolution of maps whose sides are doubled, B x I x H x W to B x O x 2H x 2W.

    Zeros are inserted, the maps are convolved and then smoothed.

    Args:
        x: feature maps.
        weight: O x I x 3 x 3.
        kernel: the smoothing filter, 4 x 4.
    """
    return blur(conv_transpose2d(x, weight.transpose(0, 1), stride=2), 4 * kernel, padding=1)
