"""Modes: how many the samples cover, how well and how evenly, by the published rules.

In the plane a sample belongs to the nearest mode and is of high quality within 3 sigma of it; a mode is found if a
high-quality sample belongs to it (VEEGAN, Srivastava 2017, arXiv:1705.07761; PacGAN, Lin 2018, arXiv:1712.04086; 2,500
samples). The mode of a stack of digits is the number that a classifier reads from its channels (26,000 samples). A
perfect sampler has 98.89 % high-quality points in the plane, 1 - exp(-9/2), and a reverse KL of about (modes - 1) / 2N
rather than 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from poise.measure.base import Measure, MeasuredValue
from poise.measure.context import EvalContext, Modes

NUM_SIGMAS = 3.0
"""The distance from a mode, in its standard deviations, up to which a point is of high quality."""


def reverse_kl(counts: Tensor) -> float:
    """KL(model || uniform) over modes, sum p log(p K) for the shares p of K counts, in nats.

    0 for equal counts, log K if one mode has all samples, infinite if all counts are 0. Only high-quality samples are
    counted, as in PacGAN's released code.
    """
    total = float(counts.sum())
    if not total:
        return float("inf")
    shares = counts.double() / total
    return max(0.0, float(torch.xlogy(shares, shares * len(counts)).sum()))


def count_modes(points: Tensor, centres: Tensor, sigma: float, num_sigmas: float = NUM_SIGMAS) -> Modes:
    """Count the modes that points cover (VEEGAN, Srivastava 2017, arXiv:1705.07761; PacGAN, Lin 2018).

    Args:
        points: N x d.
        centres: the means of isotropic Gaussians, K x d.
        sigma: their standard deviation.
        num_sigmas: the distance from a centre, in standard deviations, up to which a point is of high quality.

    Returns:
        `found`, the number of modes with a high-quality point, 0 to K; `high_quality`, the fraction of such points, 0
        to 1; `reverse_kl` of their frequencies in nats, 0 to log K, infinite if there are none; and `std_error`, the
        relative error of the standard deviation of the worst mode, 0 and up.

    Raises:
        ValueError: there are no points, or their dimension is not that of the centres.
    """
    if points.dim() != 2 or not len(points) or points.shape[1] != centres.shape[1]:
        raise ValueError(f"points must be a non-empty N x {centres.shape[1]} matrix, found shape {list(points.shape)}")
    distance, nearest = torch.cdist(points.double(), centres.double().to(points.device)).min(1)
    is_close = distance <= num_sigmas * sigma
    close, modes = points[is_close].double(), nearest[is_close]
    counts = torch.bincount(modes, minlength=len(centres))
    expected = sigma * truncated_std(num_sigmas, points.shape[1])
    std_error = float((mode_stds(close, modes, len(centres)) - expected).abs().max()) / expected if sigma else 0.0
    return Modes(int((counts > 0).sum()), float(is_close.double().mean()), reverse_kl(counts), std_error)


def mode_stds(points: Tensor, modes: Tensor, num_modes: int) -> Tensor:
    """The standard deviation of the points of each mode about their mean, per coordinate, K; 0 for fewer than two.

    Args:
        points: N x d.
        modes: the mode of each point, N, from 0 to K - 1.
        num_modes: K.
    """
    counts = torch.bincount(modes, minlength=num_modes)
    means = points.new_zeros(num_modes, points.shape[1]).index_add_(0, modes, points) / counts.clamp_min(1)[:, None]
    squares = (points - means[modes]).square().sum(1)
    sums = points.new_zeros(num_modes).index_add_(0, modes, squares)
    return (sums / (points.shape[1] * (counts - 1).clamp_min(1))).sqrt()


def truncated_std(num_sigmas: float, dim: int) -> float:
    """The standard deviation per coordinate of a standard normal vector of `dim` coordinates within `num_sigmas` of 0.

    sqrt(F(r^2; d + 2) / F(r^2; d)) with the distribution function F of chi-squared: 0.974 in the plane within 3.
    """
    half = torch.tensor([dim / 2 + 1, dim / 2], dtype=torch.float64)
    inside = torch.special.gammainc(half, torch.full_like(half, num_sigmas**2 / 2))
    return math.sqrt(float(inside[0] / inside[1]))


def count_mode_indices(indices: Tensor, num_modes: int) -> Modes:
    """Count the modes of samples from their mode indices, N, each from 0 to num_modes - 1.

    All samples count as high-quality, because a classifier assigns a mode to every sample.
    """
    counts = torch.bincount(indices, minlength=num_modes)
    return Modes(int((counts > 0).sum()), 1.0, reverse_kl(counts))


def _modes(context: EvalContext) -> Modes:
    assert context.count_modes is not None
    return context.cached("modes", context.count_modes)


MODES = Measure(
    name="modes",
    description="number of modes found (VEEGAN's rule)",
    better="more",
    compute=lambda context: MeasuredValue(float(_modes(context).found)),
    requires=frozenset({"modes"}),
)
HIGH_QUALITY = Measure(
    name="high_quality",
    description="share of points within 3 sigma of a mode, 0 to 0.9889; more means that modes have shrunk",
    better="floor",
    compute=lambda context: MeasuredValue(_modes(context).high_quality),
    requires=frozenset({"modes", "mode centres"}),
)
REVERSE_KL = Measure(
    name="reverse_kl",
    description="KL from the frequencies of the modes to uniform ones in nats, 0 to the log of their number",
    better="less",
    compute=lambda context: MeasuredValue(_modes(context).reverse_kl),
    requires=frozenset({"modes"}),
)
MODE_STD_ERROR = Measure(
    name="mode_std_error",
    description="relative error of a mode's standard deviation, 0 and up; that of the worst mode",
    better="less",
    compute=lambda context: MeasuredValue(_modes(context).std_error),
    requires=frozenset({"modes", "mode centres"}),
)
