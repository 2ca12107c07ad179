"""Blur, as what is missing of the high frequencies: the power spectrum of samples against that of real pictures.

A loss that asks for the mean of all that could be there blurs edges, and a blurred edge is one without its highest
frequencies (Dosovitskiy & Brox 2016, arXiv:1602.02644, on why).
"""

from __future__ import annotations

import torch
from torch import Tensor

from poise.measure.base import Measure, MeasuredValue
from poise.measure.sample_set import SampleSet, batch_slices

HIGH = 0.5
"""Frequencies above this share of the highest that the pixels can hold are high."""


def radial_power(images: Tensor) -> Tensor:
    """Mean power at each frequency from 0 to half the side in waves, from B x C x S x S in [-1, 1].

    Of each picture and channel the squared modulus of the discrete Fourier transform, divided by the number of pixels,
    averaged over the ring of radius f, rounded; the corners beyond S / 2 are left out. S / 2 + 1 numbers, float64.

    Raises:
        ValueError: not square pictures.
    """
    if images.dim() != 4 or images.shape[2] != images.shape[3]:
        raise ValueError(f"a spectrum is of square pictures, found {list(images.shape[1:])}")
    side = images.shape[3]
    power = torch.fft.fft2(images.double()).abs().square().mean((0, 1)) / side**2
    along = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
    rings = torch.hypot(along[:, None], along[None, :]).round().long()
    inside = rings <= side // 2
    total = torch.zeros(side // 2 + 1, dtype=torch.float64).index_add_(0, rings[inside], power.cpu()[inside])
    return total / rings[inside].bincount()


def spectrum(pile: SampleSet) -> Tensor:
    """`radial_power` of all samples of a pile."""
    some = [(part, pile.normalized(part)) for part in batch_slices(len(pile))]
    return sum((radial_power(x) * len(x) for _, x in some[1:]), radial_power(some[0][1]) * len(some[0][1])) / len(pile)


def high_frequencies(fake: Tensor, real: Tensor) -> float:
    """Power of fakes above `HIGH` over that of reals, from `radial_power` of both: 1 if alike, below 1 blur.

    Noise has more than reals have.
    """
    first = int(HIGH * (len(real) - 1)) + 1
    weights = torch.arange(first, len(real), dtype=torch.float64)  # a ring of radius f has about 2 pi f places
    return float((fake[first:] * weights).sum() / (real[first:] * weights).sum())


HIGH_FREQUENCIES = Measure(
    name="high_frequencies",
    about="power in the upper half of the frequencies over that of reals: below 1 blur, above 1 noise",
    better="floor",
    compute=lambda context: MeasuredValue(high_frequencies(spectrum(context.fake), spectrum(context.real))),
)
