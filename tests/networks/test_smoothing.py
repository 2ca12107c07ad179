"""Resampling with a smoothing filter, against scipy and against zeros inserted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from torch import Tensor
from torch.nn.functional import conv2d, pad

from poise.networks.smoothing import blur, downsample, smoothing_kernel, upsample, upsampling_convolution

KERNEL = smoothing_kernel().double()


@pytest.fixture
def maps() -> Tensor:
    return torch.randn(2, 3, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def with_zeros(x: Tensor) -> Tensor:
    """Twice the sides: pixel (i, j) at (2 i, 2 j)."""
    out = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    out[:, :, ::2, ::2] = x
    return out


def test_the_kernel_is_the_outer_product_of_its_taps() -> None:
    taps = np.array([1, 3, 3, 1]) / 8
    assert np.allclose(smoothing_kernel().numpy(), np.outer(taps, taps))


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_blur_is_the_convolution_of_scipy(maps: Tensor, padding: int) -> None:
    padded = np.pad(maps.numpy(), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    expected = [[convolve2d(channel, KERNEL.numpy(), mode="valid") for channel in sample] for sample in padded]
    assert torch.allclose(blur(maps, KERNEL, padding), torch.tensor(np.array(expected)), atol=1e-12)


def test_upsampling_inserts_zeros_and_smooths(maps: Tensor) -> None:
    expected = blur(pad(with_zeros(maps), (2, 1, 2, 1)), 4 * KERNEL, 0)
    assert torch.allclose(upsample(maps, KERNEL), expected, atol=1e-12)
    inside = upsample(torch.ones(1, 1, 6, 8, dtype=torch.float64), KERNEL)[:, :, 1:-1, 1:-1]
    assert torch.allclose(inside, torch.ones_like(inside)), "a constant stays the same"


def test_downsampling_smooths_and_keeps_every_other_pixel(maps: Tensor) -> None:
    assert torch.allclose(downsample(maps, KERNEL), blur(maps, KERNEL, 1)[:, :, ::2, ::2], atol=1e-12)
    assert downsample(maps, KERNEL).shape == (2, 3, 3, 4)


def test_upsampling_convolution_inserts_zeros_convolves_and_smooths(maps: Tensor) -> None:
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64)
    zeros = pad(with_zeros(maps), (2, 1, 2, 1))  # one zero more than the sides need, for the kernel
    convolved = conv2d(zeros, weight.flip(2, 3))
    expected = blur(convolved, 4 * KERNEL, 1)
    assert torch.allclose(upsampling_convolution(maps, weight, KERNEL), expected, atol=1e-12)
    assert expected.shape == (2, 5, 12, 16)
