"""Blur as missing power at high frequencies: the power spectrum of samples compared with that of real images.

A loss whose minimum is the mean of all plausible images blurs edges, and a blurred edge lacks its highest frequencies
(Dosovitskiy & Brox 2016, arXiv:1602.02644, explain why).
"""

from __future__ import annotations

import torch
from torch import Tensor

from poise.measure.base import Measure, MeasuredValue
from poise.measure.sample_set import SampleSet, batch_slices

HIGH = 0.5
"""Frequencies above this fraction of the Nyquist frequency are high."""


def radial_power(images: Tensor) -> Tensor:
    """The radially averaged power spectrum of images, B x C x H x W in [-1, 1].

    The squared modulus of the discrete Fourier transform of each image and channel, divided by the number of pixels and
    averaged over rings of integer radius f from 0 to S / 2, in cycles per S pixels, S being the shorter side; the
    corners beyond S / 2 are left out.

    Returns:
        The mean power at each frequency, S / 2 + 1 values in float64.

    Raises:
        ValueError: the samples are not images.
    """
    if images.dim() != 4:
        raise ValueError(f"a spectrum requires images, found shape {list(images.shape[1:])}")
    height, width = images.shape[2:]
    side = min(height, width)
    power = torch.fft.fft2(images.double()).abs().square().mean((0, 1)) / (height * width)
    rows, columns = (torch.fft.fftfreq(length, 1 / side, dtype=torch.float64) for length in (height, width))
    radii = torch.hypot(rows[:, None], columns[None, :]).round().long()
    inside = radii <= side // 2
    total = torch.zeros(side // 2 + 1, dtype=torch.float64).index_add_(0, radii[inside], power.cpu()[inside])
    return total / radii[inside].bincount()


def spectrum(samples: SampleSet) -> Tensor:
    """The `radial_power` of all samples of a set."""
    first, *rest = (samples.normalized(part) for part in batch_slices(len(samples)))
    total = sum((radial_power(images) * len(images) for images in rest), radial_power(first) * len(first))
    return total / len(samples)


def high_frequencies(fake: Tensor, real: Tensor) -> float:
    """The power of fakes above the frequency `HIGH` divided by that of reals, from the `radial_power` of both.

    1 for equal power, below 1 for blurred images, above 1 for noisy ones.
    """
    first = int(HIGH * (len(real) - 1)) + 1
    weights = torch.arange(first, len(real), dtype=torch.float64)  # a ring of radius f has about 2 pi f entries
    return float((fake[first:] * weights).sum() / (real[first:] * weights).sum())


HIGH_FREQUENCIES = Measure(
    name="high_frequencies",
    description="power in the upper half of the frequencies over that of real images: below 1 blur, above 1 noise",
    better="floor",
    compute=lambda context: MeasuredValue(high_frequencies(spectrum(context.fake), spectrum(context.real))),
)
