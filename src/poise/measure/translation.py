"""Measures of translated images: how far they are from the true translation, from their source after the way back, and
whether they keep the class of their source.

The distances are functions of images in [0, 1], B x C x H x W, with one value per image, B.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from poise.measure.base import Measure, MeasuredValue
from poise.measure.classifier_scores import accuracy
from poise.measure.context import EvalContext
from poise.measure.sample_set import batch_slices

WINDOW, SIGMA = 11, 1.5
"""The side of the window of SSIM, and the standard deviation of its Gaussian weights."""

K1, K2 = 0.01, 0.03
"""The constants of SSIM, for a range of values of 1."""

ROUNDING = (1 / 255) ** 2 / 12
"""The mean squared error of rounding to 8 bits, for pixels from 0 to 1."""

ImageDistance = Callable[[Tensor, Tensor], Tensor]


def _check_images(images: Tensor, targets: Tensor) -> None:
    """Raises ValueError unless both are B x C x H x W of one shape, and floating-point numbers."""
    if images.shape != targets.shape or images.dim() != 4:
        found = " and ".join(str(list(values.shape)) for values in (images, targets))
        raise ValueError(f"images and targets must have the same shape, B x C x H x W, found {found}")
    for values in (images, targets):
        if not values.is_floating_point():
            raise ValueError(f"images must be floating-point numbers from 0 to 1, found {values.dtype}")


def absolute_error(images: Tensor, targets: Tensor) -> Tensor:
    """The mean absolute difference over all values of an image, 0 to 1, B.

    Raises:
        ValueError: the shapes differ, or the values are not floating-point numbers.
    """
    _check_images(images, targets)
    return (images - targets).abs().flatten(1).mean(1)


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """The peak signal-to-noise ratio in dB, 10 log10(1 / MSE) for values from 0 to 1, B.

    The mean squared error is taken as at least that of rounding to 8 bits, so that an image that is equal to its target
    has 58.9 dB and not infinitely many.

    Raises:
        ValueError: the shapes differ, or the values are not floating-point numbers.
    """
    _check_images(images, targets)
    return -10 * (images - targets).square().flatten(1).mean(1).clamp_min(ROUNDING).log10()


def ssim(images: Tensor, targets: Tensor) -> Tensor:
    """The structural similarity, -1 to 1, B (Wang et al. 2004, IEEE Transactions on Image Processing 13, equation 13).

    (2 m_x m_y + C1) (2 s_xy + C2) / ((m_x^2 + m_y^2 + C1) (s_x^2 + s_y^2 + C2)), with the means, variances and the
    covariance under a Gaussian window of 11 x 11 with a standard deviation of 1.5, C1 = 0.01^2 and C2 = 0.03^2. It is
    averaged over all windows that lie within the image, and over channels. scikit-image's `structural_similarity`
    with these settings is the same.

    Raises:
        ValueError: the shapes differ, the values are not floating-point numbers, or the images are smaller than the
            window.
    """
    _check_images(images, targets)
    if min(images.shape[2:]) < WINDOW:
        found = " x ".join(map(str, images.shape[2:]))
        raise ValueError(f"ssim needs images of at least {WINDOW} x {WINDOW} pixels, found {found}")
    x, y = images, targets
    mean_x, mean_y, xx, yy, xy = (_smooth(values) for values in (x, y, x * x, y * y, x * y))
    c1, c2 = K1**2, K2**2
    means = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    variances = xx - mean_x.square() + yy - mean_y.square()
    return (means * (2 * (xy - mean_x * mean_y) + c2) / (variances + c2)).flatten(1).mean(1)


def _smooth(values: Tensor) -> Tensor:
    """The mean of values under the window, at every place where it lies within the image."""
    offsets = torch.arange(WINDOW, dtype=values.dtype) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    weights = (weights / weights.sum()).to(values.device)
    channels = values.flatten(0, 1)[:, None]
    smoothed = conv2d(conv2d(channels, weights[None, None, :, None]), weights[None, None, None, :])
    return smoothed[:, 0].unflatten(0, values.shape[:2])


def _mean(values: Tensor) -> MeasuredValue:
    """The mean of one value per image, with its standard error."""
    values = values.double()
    return MeasuredValue(float(values.mean()), float(values.std() / len(values) ** 0.5) if len(values) > 1 else None)


def _from_targets(distance: ImageDistance) -> Callable[[EvalContext], MeasuredValue]:
    """The mean distance of the samples from their true translations."""

    def compute(context: EvalContext) -> MeasuredValue:
        targets, samples = context.required_translation.targets, context.fake.samples
        assert targets is not None
        return _mean(torch.cat([distance(_unit(samples[p]), _unit(targets[p])) for p in batch_slices(len(samples))]))

    return compute


def _unit(images: Tensor) -> Tensor:
    """uint8, B x H x W x C, as float64 in [0, 1], B x C x H x W."""
    return images.permute(0, 3, 1, 2).double() / 255


def _cycle_error(context: EvalContext) -> MeasuredValue:
    cycle_errors = context.required_translation.cycle_errors
    assert cycle_errors is not None
    return _mean(cycle_errors())


L1 = Measure(
    name="l1",
    description="mean absolute difference from the true translation, 0 to 1 for pixels from 0 to 1; blur scores well",
    better="less",
    compute=_from_targets(absolute_error),
    requires=frozenset({"targets"}),
    floor="none",
    has_baseline=True,
)
PSNR = Measure(
    name="psnr",
    description="peak signal-to-noise ratio against the true translation in dB, up to 58.9; blur scores well",
    better="more",
    compute=_from_targets(psnr),
    requires=frozenset({"targets"}),
    floor="none",
    has_baseline=True,
)
SSIM = Measure(
    name="ssim",
    description="structural similarity to the true translation, -1 to 1 (Wang 2004)",
    better="more",
    compute=_from_targets(ssim),
    requires=frozenset({"targets"}),
    floor="none",
    has_baseline=True,
)
CYCLE_ERROR = Measure(
    name="cycle_error",
    description="mean absolute difference between an image and its translation there and back, 0 to 1 (Zhu 2017)",
    better="less",
    compute=_cycle_error,
    requires=frozenset({"cycle"}),
    floor="none",
)
CLASS_AGREEMENT = Measure(
    name="class_agreement",
    description="share of translations that a classifier of the target domain gives the class of their source, 0 to 1",
    better="more",
    compute=lambda context: MeasuredValue(accuracy(context.fake.logits, context.fake.required_labels)),
    floor="real",
    requires=frozenset({"class logits", "labels", "source labels"}),
)
