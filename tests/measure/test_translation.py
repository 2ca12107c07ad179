"""Distances between images, against independent calculations and against scikit-image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from poise.measure.translation import ROUNDING, absolute_error, psnr, ssim


def two_images(channels: int = 3, height: int = 20, width: int = 17) -> tuple[Tensor, Tensor]:
    """Two batches of 4 images in [0, 1], of which the second is a disturbed version of the first."""
    rng = np.random.default_rng(5)
    first = rng.random((4, channels, height, width))
    sigma = np.array([0.02, 0.1, 0.3, 0.0])[:, None, None, None]
    second = np.clip(0.7 * first + 0.1 + rng.normal(0, sigma, first.shape), 0, 1)
    return torch.from_numpy(first), torch.from_numpy(second)


def pairs_of(images: Tensor, targets: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(images.numpy(), targets.numpy(), strict=True))


def test_absolute_error_and_psnr_are_those_of_each_image() -> None:
    images, targets = two_images()
    both = pairs_of(images, targets)
    assert absolute_error(images, targets).numpy() == pytest.approx([np.abs(a - b).mean() for a, b in both])
    expected = [10 * np.log10(1 / ((a - b) ** 2).mean()) for a, b in both]
    assert psnr(images, targets).numpy() == pytest.approx(expected)
    assert absolute_error(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).item() == 1
    assert psnr(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).item() == 0


def test_psnr_of_an_equal_image_is_that_of_rounding_to_bytes() -> None:
    images, _ = two_images()
    rounded = (images * 255).round() / 255
    assert psnr(images, images).tolist() == pytest.approx([10 * np.log10(12 * 255**2)] * 4)
    assert (images - rounded).square().mean().item() == pytest.approx(ROUNDING, rel=0.05)


def ssim_by_hand(x: np.ndarray, y: np.ndarray) -> float:
    """The mean over all windows of 11 x 11 in an image, H x W, window by window."""
    axis = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weights = np.outer(axis, axis) / axis.sum() ** 2
    values = []
    for row in range(x.shape[0] - 10):
        for column in range(x.shape[1] - 10):
            p, q = (image[row : row + 11, column : column + 11] for image in (x, y))
            mean_p, mean_q = (weights * p).sum(), (weights * q).sum()
            var_p, var_q = (weights * (p - mean_p) ** 2).sum(), (weights * (q - mean_q) ** 2).sum()
            covariance = (weights * (p - mean_p) * (q - mean_q)).sum()
            means = (2 * mean_p * mean_q + 1e-4) / (mean_p**2 + mean_q**2 + 1e-4)
            values.append(means * (2 * covariance + 9e-4) / (var_p + var_q + 9e-4))
    return float(np.mean(values))


def test_ssim_is_the_mean_over_windows_and_channels() -> None:
    images, targets = two_images()
    expected = [np.mean([ssim_by_hand(x, y) for x, y in zip(a, b, strict=True)]) for a, b in pairs_of(images, targets)]
    assert ssim(images, targets).numpy() == pytest.approx(expected, abs=1e-12)
    assert ssim(images, images).numpy() == pytest.approx([1.0] * 4)
    assert ssim(images, 1 - images).max() < 0
    assert ssim(images[..., :11, :11], targets[..., :11, :11]).shape == (4,)


def test_ssim_is_that_of_scikit_image() -> None:
    """The recorded values are those of scikit-image 0.26.0; if it is installed, they are computed again."""
    images, targets = two_images()
    recorded = [0.935011401159, 0.867234138833, 0.549652151574, 0.935265326873]
    assert ssim(images, targets).numpy() == pytest.approx(recorded, abs=1e-9)
    metrics = pytest.importorskip("skimage.metrics")
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    found = [metrics.structural_similarity(a, b, channel_axis=0, **settings) for a, b in pairs_of(images, targets)]
    assert found == pytest.approx(recorded, abs=1e-9)


@pytest.mark.parametrize("distance", [absolute_error, psnr, ssim])
@pytest.mark.parametrize(
    ("images", "targets", "found"),
    [
        (torch.zeros(4, 3, 16, 16), torch.zeros(4, 1, 16, 16), r"\[4, 3, 16, 16\] and \[4, 1, 16, 16\]"),
        (torch.zeros(4, 3, 16, 16), torch.zeros(1, 3, 16, 16), r"\[4, 3, 16, 16\] and \[1, 3, 16, 16\]"),
        (torch.zeros(3, 16, 16), torch.zeros(3, 16, 16), r"B x C x H x W, found \[3, 16, 16\]"),
        (torch.zeros(4, 3, 16, 16), torch.zeros(4, 3, 16, 16, dtype=torch.uint8), r"found torch\.uint8"),
    ],
)
def test_images_of_other_shapes_or_types_are_refused(
    distance: Callable[[Tensor, Tensor], Tensor], images: Tensor, targets: Tensor, found: str
) -> None:
    with pytest.raises(ValueError, match=found):
        distance(images, targets)


def test_ssim_of_small_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 11 x 11 pixels, found 10 x 17"):
        ssim(*(images[..., :10, :] for images in two_images()))
