"""Modes: how many G finds, how well it hits them, how evenly, by the published rules.

In the plane a sample belongs to the nearest mode and is good within 3 sigma of it; a mode is found if a good sample
belongs to it (VEEGAN, Srivastava 2017, arXiv:1705.07761; PacGAN, Lin 2018, arXiv:1712.04086; 2,500 samples). With
stacked digits a sample's mode is the number that a classifier reads from its channels (26,000 samples). A perfect
sampler scores 98.89 % good in the plane, 1 - exp(-9/2), and its reverse KL is not 0 but near (modes - 1) / 2N.
"""

from __future__ import annotations

import torch
from torch import Tensor

from poise.measure.base import Measure, MeasuredValue
from poise.measure.context import EvalContext, Modes

REACH = 3.0


def reverse_kl(counts: Tensor) -> float:
    """sum p log(p K) for the shares p of K counts: KL from the model's modes to the uniform law, nats.

    0 for equal counts, log K if one mode has all; infinite if there are none at all. Counting good samples only is what
    PacGAN's released code does.
    """
    total = float(counts.sum())
    if not total:
        return float("inf")
    shares = counts.double() / total
    return max(0.0, float(torch.xlogy(shares, shares * len(counts)).sum()))


def count_modes(points: Tensor, centres: Tensor, sigma: float, reach: float = REACH) -> Modes:
    """For points, N x d, and the centres of round Gaussians, K x d, with standard deviation `sigma`.

    Raises:
        ValueError: no points, or not of the centres' dimension.
    """
    if points.dim() != 2 or not len(points) or points.shape[1] != centres.shape[1]:
        raise ValueError(f"points must be N x {centres.shape[1]}, found {list(points.shape)}")
    distance, nearest = torch.cdist(points.double(), centres.double().to(points.device)).min(1)
    good = distance <= reach * sigma
    counts = torch.bincount(nearest[good], minlength=len(centres))
    return Modes(int((counts > 0).sum()), float(good.double().mean()), reverse_kl(counts))


def count_numbers(numbers: Tensor, total: int) -> Modes:
    """For the modes' numbers, N, each from 0 to total - 1: every sample is good, for a classifier always answers."""
    counts = torch.bincount(numbers, minlength=total)
    return Modes(int((counts > 0).sum()), 1.0, reverse_kl(counts))


def _modes(context: EvalContext) -> Modes:
    assert context.count_modes is not None
    return context.cached("modes", context.count_modes)


MODES = Measure(
    name="modes",
    about="modes found, of those there are (VEEGAN's rule)",
    better="more",
    compute=lambda context: MeasuredValue(float(_modes(context).found)),
    requires=frozenset({"modes"}),
)
HIGH_QUALITY = Measure(
    name="high_quality",
    about="share of points within 3 sigma of a mode, 0 to 0.9889: more means modes that shrank",
    better="floor",
    compute=lambda context: MeasuredValue(_modes(context).good),
    requires=frozenset({"modes", "centres"}),
)
REVERSE_KL = Measure(
    name="reverse_kl",
    about="KL from G's modes to evenly found ones, nats, 0 to log of their number",
    better="less",
    compute=lambda context: MeasuredValue(_modes(context).reverse_kl),
    requires=frozenset({"modes"}),
)
