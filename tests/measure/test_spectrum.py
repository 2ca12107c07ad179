"""The power spectrum: waves, noise, and how it tells blurred digits and noisy ones from sharp ones."""

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

HERE = select_measures("high_frequencies")


def wave(side: int, f: int, *, across: bool = False, phase: float = 0.0) -> Tensor:
    """cos(2 pi f x / side), 1 x 1 x side x side."""
    x = torch.arange(side, dtype=torch.float64)
    picture = (2 * math.pi * f * x / side + phase).cos().expand(1, 1, side, side)
    return picture.mT if across else picture


def noise(n: int, channels: int, side: int, sigma: float = 1.0, seed: int = 0) -> Tensor:
    shape = (n, channels, side, side)
    return sigma * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- the spectrum


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize(("side", "f"), [(8, 1), (16, 5), (32, 1), (32, 11), (32, 15), (9, 3)])
def test_a_wave_sits_at_its_own_frequency_alone(side: int, f: int, across: bool) -> None:
    power = radial_power(wave(side, f, across=across, phase=0.4))
    assert power.shape == (side // 2 + 1,)
    assert power.dtype == torch.float64
    assert float(power[f]) > 0
    assert bool((power[torch.arange(len(power)) != f] < 1e-20).all())


def places(side: int) -> list[int]:
    """How many frequencies a ring has, by counting."""
    along = [k if k <= (side - 1) // 2 else k - side for k in range(side)]
    rings = [round(math.hypot(a, b)) for a in along for b in along]
    return [rings.count(f) for f in range(side // 2 + 1)]


@pytest.mark.parametrize("side", [8, 9, 32])
def test_a_ring_is_a_mean_over_its_places(side: int) -> None:
    """A wave has two places, each with a quarter of the squared number of pixels: half a pixel's share together."""
    f = side // 2 - 1
    assert float(radial_power(wave(side, f))[f]) == pytest.approx(side**2 / 2 / places(side)[f], rel=1e-12)


def test_one_grey_is_all_at_0() -> None:
    power = radial_power(torch.full((3, 2, 8, 8), 0.5))
    assert float(power[0]) == pytest.approx(0.25 * 64)
    assert float(power[1:].abs().max()) < 1e-20


@pytest.mark.parametrize("variance", [1.0, 0.04])
@pytest.mark.parametrize("side", [8, 32])
def test_white_noise_has_its_variance_at_every_frequency(side: int, variance: float) -> None:
    power = radial_power(noise(2000, 1, side, variance**0.5))
    error = variance / (2000 * torch.tensor(places(side), dtype=torch.float64) / 2).sqrt()
    assert bool(((power - variance).abs() < 5 * error).all())


def test_all_power_is_there() -> None:
    """Parseval: ring by ring, with the corners, it adds up to the sum of squares."""
    images = noise(5, 1, 8)
    inside = float((radial_power(images) * torch.tensor(places(8))).sum())
    whole = float(images.square().sum()) / 5
    along = torch.fft.fftfreq(8, 1 / 8, dtype=torch.float64)
    corners = torch.hypot(along[:, None], along).round() > 4
    left_out = float((torch.fft.fft2(images).abs().square().mean((0, 1)) / 64)[corners].sum())
    assert inside + left_out == pytest.approx(whole, rel=1e-12)


def test_pictures_and_channels_are_averaged() -> None:
    images = noise(6, 3, 16)
    each = [radial_power(images[i : i + 1, c : c + 1]) for i in range(6) for c in range(3)]
    torch.testing.assert_close(radial_power(images), torch.stack(each).mean(0))
    torch.testing.assert_close(radial_power(images.flip(3)), radial_power(images))
    torch.testing.assert_close(radial_power(2 * images), 4 * radial_power(images))


@pytest.mark.parametrize("shape", [(5, 2), (5, 1, 8, 4), (5, 8, 8)])
def test_only_square_pictures_have_one(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="square pictures"):
        radial_power(torch.zeros(shape))


def test_a_pile_in_parts_is_the_mean_of_all(digits: DataSplits) -> None:
    held_out = digits.held_out
    assert isinstance(held_out, ImageDataset)
    pile = SampleSet(torch.from_numpy(held_out.images[: BATCH_SIZE + 37]), lambda images: pytest.fail("nobody asked"))
    torch.testing.assert_close(spectrum(pile), radial_power(pile.normalized()))


# ---------------------------------------------------------------- high frequencies


@pytest.mark.parametrize(("side", "first"), [(8, 3), (32, 9), (64, 17)])
def test_only_the_upper_half_counts(side: int, first: int) -> None:
    real = radial_power(noise(20, 1, side))
    for f in range(side // 2 + 1):
        louder = real.clone()
        louder[f] *= 2
        assert (high_frequencies(louder, real) > 1) is (f >= first)
    assert first > HIGH * side / 2 >= first - 1


def test_it_is_a_ratio_of_powers() -> None:
    fake, real = radial_power(noise(50, 1, 16, 0.5)), radial_power(noise(50, 1, 16, 1.0))
    assert high_frequencies(fake, real) == pytest.approx(0.25, rel=1e-9)
    assert high_frequencies(real, real) == 1


def test_a_ring_weighs_as_its_length() -> None:
    """Rings of radius 5 to 8, of the same power, but for one of twice as much."""
    real = torch.ones(9, dtype=torch.float64)
    for f in range(5, 9):
        louder = real.clone()
        louder[f] = 2
        assert high_frequencies(louder, real) == pytest.approx(1 + f / (5 + 6 + 7 + 8))


# ---------------------------------------------------------------- on digits


@pytest.fixture(scope="module")
def bench(digits: DataSplits) -> Evaluator:
    """400 held-out digits."""
    return Evaluator(None, digits, "pixels", n=400)


def told(bench: Evaluator, images: Bytes) -> EvaluationResult:
    return bench.measure(lambda n: torch.from_numpy(images[:n]), HERE)


def of(bench: Evaluator, images: Bytes) -> float:
    return told(bench, images).results["high_frequencies"].value.value


def train_images(bench: Evaluator) -> Bytes:
    train = bench.data.train
    assert isinstance(train, ImageDataset)
    return train.images[np.random.default_rng(0).permutation(len(train))[:400]]


def test_digits_among_themselves(bench: Evaluator) -> None:
    assert of(bench, bench.real.samples.numpy()) == 1
    result = told(bench, train_images(bench))
    assert result.results["high_frequencies"].value.value == pytest.approx(1, abs=0.08)
    floor = result.results["high_frequencies"].floor
    assert floor is not None
    assert floor.value == pytest.approx(1, abs=0.08)


def test_blur_lies_below_1_the_lower_the_more(bench: Evaluator) -> None:
    digits = train_images(bench)
    seen = [of(bench, gaussian_filter(digits, (0, sigma, sigma, 0))) for sigma in (0.4, 0.8, 1.5)]
    assert 0.8 > seen[0] > seen[1] > seen[2]
    assert seen[1] < 0.3
    assert seen[2] < 0.05


def test_noise_lies_above_1(bench: Evaluator) -> None:
    digits = train_images(bench).astype(np.float64)
    rng = np.random.default_rng(0)
    seen = [of(bench, (digits + rng.normal(0, s, digits.shape)).clip(0, 255).astype(np.uint8)) for s in (20, 60)]
    assert 1.1 < seen[0] < seen[1]


def test_darker_and_moved_digits(bench: Evaluator) -> None:
    """Half the contrast is a quarter of the power; a picture rolled around its border has the same."""
    digits = train_images(bench)
    whole = of(bench, digits)
    assert of(bench, digits // 2) == pytest.approx(whole / 4, rel=0.03)
    assert of(bench, np.roll(digits, 5, 1)) == pytest.approx(whole, rel=1e-9)


def test_where_there_is_no_spectrum_it_is_skipped_with_a_reason() -> None:
    entry = RingConfig()
    points = Evaluator(entry, entry.load(), n=50).measure(lambda n: torch.zeros(n, 2), HERE)
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 12, 1)).astype(np.uint8)
    oblong = told(Evaluator(None, DataSplits(ImageDataset(images[:40]), ImageDataset(images[40:])), "pixels"), images)
    for result in (points, oblong):
        assert result.results == {}
        assert "square pictures" in result.skipped["high_frequencies"]


def test_it_wants_to_be_as_reals_are() -> None:
    assert MEASURES["high_frequencies"].better == "floor"
    assert MEASURES["high_frequencies"].requires == set()
