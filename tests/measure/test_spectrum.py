"""The power spectrum of waves and noise, and the share of high frequencies in blurred and noisy digits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from poise.data.source import DataSplits, ImageDataset
from poise.data.toys import RingConfig
from poise.measure.catalogue import MEASURES, EvaluationResult, select_measures
from poise.measure.evaluator import Evaluator
from poise.measure.sample_set import BATCH_SIZE, SampleSet
from poise.measure.spectrum import HIGH, high_frequencies, radial_power, spectrum
from poise.utils.images import Bytes

MEASURE = select_measures("high_frequencies")


def wave(side: int, f: int, *, across: bool = False, phase: float = 0.0) -> Tensor:
    """cos(2 pi f x / side), 1 x 1 x side x side."""
    x = torch.arange(side, dtype=torch.float64)
    image = (2 * math.pi * f * x / side + phase).cos().expand(1, 1, side, side)
    return image.mT if across else image


def noise(n: int, channels: int, side: int, sigma: float = 1.0, seed: int = 0) -> Tensor:
    shape = (n, channels, side, side)
    return sigma * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- the spectrum


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize(("side", "f"), [(8, 1), (16, 5), (32, 1), (32, 11), (32, 15), (9, 3)])
def test_wave_has_power_at_its_frequency_only(side: int, f: int, across: bool) -> None:
    power = radial_power(wave(side, f, across=across, phase=0.4))
    assert power.shape == (side // 2 + 1,)
    assert power.dtype == torch.float64
    assert float(power[f]) > 0
    assert bool((power[torch.arange(len(power)) != f] < 1e-20).all())


def ring_sizes(side: int) -> list[int]:
    """The number of frequencies in each ring, by counting."""
    along = [k if k <= (side - 1) // 2 else k - side for k in range(side)]
    rings = [round(math.hypot(a, b)) for a in along for b in along]
    return [rings.count(f) for f in range(side // 2 + 1)]


@pytest.mark.parametrize("side", [8, 9, 32])
def test_power_is_a_mean_over_a_ring(side: int) -> None:
    """A wave has two frequencies, each with a quarter of the squared number of pixels."""
    f = side // 2 - 1
    assert float(radial_power(wave(side, f))[f]) == pytest.approx(side**2 / 2 / ring_sizes(side)[f], rel=1e-12)


def test_constant_image_has_power_at_0_only() -> None:
    power = radial_power(torch.full((3, 2, 8, 8), 0.5))
    assert float(power[0]) == pytest.approx(0.25 * 64)
    assert float(power[1:].abs().max()) < 1e-20


@pytest.mark.parametrize("variance", [1.0, 0.04])
@pytest.mark.parametrize("side", [8, 32])
def test_white_noise_has_equal_power_at_every_frequency(side: int, variance: float) -> None:
    power = radial_power(noise(2000, 1, side, variance**0.5))
    error = variance / (2000 * torch.tensor(ring_sizes(side), dtype=torch.float64) / 2).sqrt()
    assert bool(((power - variance).abs() < 5 * error).all())


def test_parseval() -> None:
    """By Parseval's theorem, the power of all rings and of the corners is the sum of squares."""
    images = noise(5, 1, 8)
    inside = float((radial_power(images) * torch.tensor(ring_sizes(8))).sum())
    total = float(images.square().sum()) / 5
    frequencies = torch.fft.fftfreq(8, 1 / 8, dtype=torch.float64)
    corners = torch.hypot(frequencies[:, None], frequencies).round() > 4
    left_out = float((torch.fft.fft2(images).abs().square().mean((0, 1)) / 64)[corners].sum())
    assert inside + left_out == pytest.approx(total, rel=1e-12)


def test_images_and_channels_are_averaged() -> None:
    images = noise(6, 3, 16)
    powers = [radial_power(images[i : i + 1, c : c + 1]) for i in range(6) for c in range(3)]
    torch.testing.assert_close(radial_power(images), torch.stack(powers).mean(0))
    torch.testing.assert_close(radial_power(images.flip(3)), radial_power(images))
    torch.testing.assert_close(radial_power(2 * images), 4 * radial_power(images))


@pytest.mark.parametrize("shape", [(5, 2), (5, 8, 8)])
def test_samples_that_are_not_images_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="requires images"):
        radial_power(torch.zeros(shape))


@pytest.mark.parametrize(("height", "width"), [(8, 16), (24, 8)])
def test_a_wave_in_an_oblong_image_is_at_its_frequency_per_shorter_side(height: int, width: int) -> None:
    """Two periods in eight pixels are two cycles per shorter side, along either axis."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    for axis in (rows, columns):
        power = radial_power((2 * torch.pi * 2 * axis.double() / 8).cos()[None, None])
        assert len(power) == 5
        assert int(power.argmax()) == 2
        assert float(power[torch.arange(5) != 2].abs().max()) < 1e-12
    white = radial_power(torch.randn(2000, 1, height, width, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(white, torch.ones(5, dtype=torch.float64), rtol=0.05, atol=0)


def test_spectrum_is_a_mean_over_all_batches(digits: DataSplits) -> None:
    held_out = digits.held_out
    assert isinstance(held_out, ImageDataset)
    samples = SampleSet(
        torch.from_numpy(held_out.images[: BATCH_SIZE + 37]), lambda images: pytest.fail("no features are needed")
    )
    torch.testing.assert_close(spectrum(samples), radial_power(samples.normalized()))


# ---------------------------------------------------------------- high frequencies


@pytest.mark.parametrize(("side", "first"), [(8, 3), (32, 9), (64, 17)])
def test_only_the_upper_half_is_used(side: int, first: int) -> None:
    real = radial_power(noise(20, 1, side))
    for f in range(side // 2 + 1):
        changed = real.clone()
        changed[f] *= 2
        assert (high_frequencies(changed, real) > 1) is (f >= first)
    assert first > HIGH * side / 2 >= first - 1


def test_high_frequencies_is_a_ratio_of_powers() -> None:
    fake, real = radial_power(noise(50, 1, 16, 0.5)), radial_power(noise(50, 1, 16, 1.0))
    assert high_frequencies(fake, real) == pytest.approx(0.25, rel=1e-9)
    assert high_frequencies(real, real) == 1


def test_rings_are_weighted_by_their_length() -> None:
    """The rings of radius 5 to 8 have equal power, except one with twice as much."""
    real = torch.ones(9, dtype=torch.float64)
    for f in range(5, 9):
        changed = real.clone()
        changed[f] = 2
        assert high_frequencies(changed, real) == pytest.approx(1 + f / (5 + 6 + 7 + 8))


# ---------------------------------------------------------------- on digits


@pytest.fixture(scope="module")
def evaluator(digits: DataSplits) -> Evaluator:
    """An evaluator with 400 held-out digits."""
    return Evaluator(None, digits, "pixels", n=400)


def measured(evaluator: Evaluator, images: Bytes) -> EvaluationResult:
    return evaluator.measure(lambda n: torch.from_numpy(images[:n]), MEASURE)


def score(evaluator: Evaluator, images: Bytes) -> float:
    return measured(evaluator, images).results["high_frequencies"].value.value


def train_images(evaluator: Evaluator) -> Bytes:
    train = evaluator.data.train
    assert isinstance(train, ImageDataset)
    return train.images[np.random.default_rng(0).permutation(len(train))[:400]]


def test_real_digits_score_about_1(evaluator: Evaluator) -> None:
    assert score(evaluator, evaluator.real.samples.numpy()) == 1
    result = measured(evaluator, train_images(evaluator))
    assert result.results["high_frequencies"].value.value == pytest.approx(1, abs=0.08)
    floor = result.results["high_frequencies"].floor
    assert floor is not None
    assert floor.value == pytest.approx(1, abs=0.08)


def test_blur_lowers_the_score(evaluator: Evaluator) -> None:
    digits = train_images(evaluator)
    scores = [score(evaluator, gaussian_filter(digits, (0, sigma, sigma, 0))) for sigma in (0.4, 0.8, 1.5)]
    assert 0.8 > scores[0] > scores[1] > scores[2]
    assert scores[1] < 0.3
    assert scores[2] < 0.05


def test_noise_raises_the_score(evaluator: Evaluator) -> None:
    digits = train_images(evaluator).astype(np.float64)
    rng = np.random.default_rng(0)
    scores = [
        score(evaluator, (digits + rng.normal(0, s, digits.shape)).clip(0, 255).astype(np.uint8)) for s in (20, 60)
    ]
    assert 1.1 < scores[0] < scores[1]


def test_contrast_and_translation(evaluator: Evaluator) -> None:
    """Half the contrast gives a quarter of the power; a cyclic shift does not change it."""
    digits = train_images(evaluator)
    original = score(evaluator, digits)
    assert score(evaluator, digits // 2) == pytest.approx(original / 4, rel=0.03)
    assert score(evaluator, np.roll(digits, 5, 1)) == pytest.approx(original, rel=1e-9)


def test_missing_spectrum_is_a_reason_for_skipping() -> None:
    config = RingConfig()
    points = Evaluator(config, config.load(), n=50).measure(lambda n: torch.zeros(n, 2), MEASURE)
    assert points.results == {}
    assert "requires images" in points.skipped["high_frequencies"]


def test_images_need_not_be_square() -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 12, 1)).astype(np.uint8)
    evaluator = Evaluator(None, DataSplits(ImageDataset(images[:40]), ImageDataset(images[40:])), "pixels")
    assert score(evaluator, images) == pytest.approx(1, abs=0.2)


def test_direction_and_requirements() -> None:
    assert MEASURES["high_frequencies"].better == "floor"
    assert MEASURES["high_frequencies"].requires == set()
