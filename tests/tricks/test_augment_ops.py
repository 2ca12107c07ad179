"""The operations for augmentations, compared with loops over pixels and with PyTorch's resampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from poise.tricks.augment_ops import (
    erase_rectangle,
    per_sample,
    random_integers,
    reflect_indices,
    requires_images,
    resample_images,
    shift_images,
    uniform,
)
from tricks.small import randn

SHAPES = [(3, 8, 8), (1, 5, 5), (4, 6, 9)]


def shift_by_loop(image: NDArray[np.float32], down: int, right: int) -> NDArray[np.float32]:
    """One image, C x H x W, shifted pixel by pixel."""
    out = np.zeros_like(image)
    _, height, width = image.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                out[:, row, column] = image[:, row - down, column - right]
    return out


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_shift_images_equals_a_loop_over_pixels(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    for max_shift in (0, 1, 3, 12):
        limits = max_shift, max(1, max_shift)
        shifts = [
            (d, r)
            for d in range(-max_shift, max_shift + 1, max(1, max_shift // 3))
            for r in (-max_shift, -1, 0, 1, max_shift)
        ]
        shifts = [(d, max(-max_shift, min(max_shift, r))) for d, r in shifts]
        images = randn(len(shifts), *shape).to(memory_format=layout)
        down, right = torch.tensor(shifts).unbind(1)
        shifted = shift_images(images, down, right, limits).numpy()
        for image, actual, (d, r) in zip(images.numpy(), shifted, shifts, strict=True):
            np.testing.assert_array_equal(actual, shift_by_loop(image, d, r))


@pytest.mark.parametrize("shape", SHAPES)
def test_erase_rectangle_equals_a_loop_over_pixels(shape: tuple[int, ...]) -> None:
    _, height, width = shape
    for rows, columns in ((0, 0), (1, 1), (2, 2), (5, 5), (3, 1), (1, 4)):
        corners = [(t, s) for t in range(-6, 11, 2) for s in (-7, -5, -1, 0, 1, 3, 8, 10)]
        images = randn(len(corners), *shape) + 10
        top, left = torch.tensor(corners).unbind(1)
        erased = erase_rectangle(images, top, left, (rows, columns)).numpy()
        for image, actual, (t, s) in zip(images.numpy(), erased, corners, strict=True):
            expected = image.copy()
            for row in range(height):
                for column in range(width):
                    if t <= row < t + rows and s <= column < s + columns:
                        expected[:, row, column] = 0
            np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_reflect_indices_equals_numpys_symmetric_padding(size: int) -> None:
    reach = 5 * size + 3
    expected = np.pad(np.arange(size), reach, mode="symmetric")
    assert reflect_indices(torch.arange(-reach, size + reach), size).tolist() == expected.tolist()


def pixel_coordinates(batch: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """x and y of every pixel, B x H x W each."""
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    return x.expand(batch, -1, -1), y.expand(batch, -1, -1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_resampling_at_integer_coordinates_is_exact(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    images = randn(7, *shape).to(dtype) * 100
    images[0, 0, 0, :2] = torch.tensor([-0.0, 0.0])
    x, y = pixel_coordinates(7, *shape[1:])
    assert torch.equal(resample_images(images, x, y), images)
    assert resample_images(images, x, y).dtype == dtype
    _, height, width = shape
    for right, down in ((1, 0), (0, 1), (-2, 3), (width, -height), (3 * width + 1, 2 * height + 2)):
        reach = 4 * max(height, width)
        wide = np.pad(images.double().numpy(), ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="symmetric")
        expected = wide[:, :, reach + down : reach + down + height, reach + right : reach + right + width]
        np.testing.assert_array_equal(resample_images(images, x + right, y + down).double().numpy(), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", [0.5, 3.0, 30.0])
def test_resampling_equals_grid_sample_with_reflection(shape: tuple[int, ...], spread: float) -> None:
    _, height, width = shape
    images = randn(6, *shape)
    x, y = pixel_coordinates(6, height, width)
    phase = torch.linspace(0, 3, height)[:, None] + torch.linspace(0, 2, width)
    amplitudes = randn(4, 6, seed=1)[:, :, None, None] * spread
    x = x + amplitudes[0] + amplitudes[1] * torch.sin(phase)
    y = y + amplitudes[2] + amplitudes[3] * torch.cos(phase)
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), 3)
    expected = grid_sample(
        images.double(), grid.double(), mode="bilinear", padding_mode="reflection", align_corners=False
    )
    tolerance = 1e-5 if spread < 10 else 1e-4  # at 100 pixels, float32 coordinates are exact to 1e-5
    assert torch.allclose(resample_images(images, x, y).double(), expected, atol=tolerance)


def test_resampling_between_pixels_averages_neighbours() -> None:
    images = torch.arange(9.0).view(1, 1, 3, 3)
    x, y = pixel_coordinates(1, 3, 3)
    assert resample_images(images, x + 0.5, y + 0.5)[0, 0, :2, :2].tolist() == [[2.0, 3.0], [5.0, 6.0]]
    quarter = resample_images(images, x + 0.25, y)[0, 0]
    assert quarter[0].tolist() == [0.25, 1.25, 2.0]  # the last pixel is reflected


def test_first_and_second_derivatives() -> None:
    images = randn(2, 2, 4, 4, dtype=torch.float64).requires_grad_()
    x, y = pixel_coordinates(2, 4, 4)
    x, y = x.double() * 1.3 - 0.7, y.double() * 0.8 + 0.45
    down, right = torch.tensor([1, -2]), torch.tensor([-1, 2])

    def read(images: Tensor) -> Tensor:
        return resample_images(images, x, y).square()

    def shift(images: Tensor) -> Tensor:
        return shift_images(images, down, right, (2, 2)).square()

    def cut(images: Tensor) -> Tensor:
        return erase_rectangle(images, down, right, (2, 2)).square()

    for change in (read, shift, cut):
        assert torch.autograd.gradcheck(change, images)
        assert torch.autograd.gradgradcheck(change, images)


def test_draws_are_uniform_and_integers_include_both_ends() -> None:
    n, like = 20_000, torch.zeros(20_000, 1, 1, 1)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        draws = uniform(like.to(dtype), -0.5, 2.0, torch.Generator().manual_seed(0))
        assert draws.dtype == dtype
        assert draws.shape == (n,)
        assert -0.5 <= draws.min() < -0.48
        assert 1.98 < draws.max() <= 2.0
        assert abs(float(draws.double().mean()) - 0.75) < 5 * 2.5 / math.sqrt(12 * n) + 4e-3
    numbers = random_integers(like, -2, 3, torch.Generator().manual_seed(1))
    counts = torch.bincount(numbers + 2, minlength=6)
    assert len(counts) == 6
    assert (counts - n / 6).abs().max() < 5 * math.sqrt(n * 5 / 36)


def test_per_sample_broadcasts_one_number_per_sample() -> None:
    images = torch.ones(3, 2, 4, 4)
    scaled = images * per_sample(images, torch.tensor([1.0, 2.0, 3.0]))
    assert scaled.mean((1, 2, 3)).tolist() == [1.0, 2.0, 3.0]
    assert per_sample(torch.ones(3, 2), torch.ones(3)).shape == (3, 1)


def test_points_are_rejected_with_a_cure() -> None:
    assert requires_images((3, 8, 8)) is None
    assert requires_images((3, 8, 12)) is None
    misfit = requires_images((2,))
    assert misfit is not None
    assert "points" in misfit[0]
    assert "instance_noise" in misfit[1]
