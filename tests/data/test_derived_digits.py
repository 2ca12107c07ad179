"""Digits beside images that are derived from them, and digits rendered from fonts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from poise.core.random_streams import RandomStreams
from poise.data import derived_digits
from poise.data.derived_digits import BLUR, DigitDomainsConfig, DigitPairsConfig, blurred, inverted, outlines, slanted
from poise.data.digits import DigitsConfig, load_digits
from poise.data.domains import TwoDomains
from poise.data.rendered_digits import BOX, SIDE, render_digits
from poise.data.source import ImageDataset
from poise.data.stacked_digits import StackedConfig
from poise.data.torchvision_data import VisionConfig
from poise.errors import RecipeError


def square(side: int = 16, margin: int = 4) -> np.ndarray:
    image = np.zeros((1, side, side, 1), np.uint8)
    image[:, margin:-margin, margin:-margin] = 255
    return image


def test_the_outline_of_a_square_is_a_frame() -> None:
    frame = outlines(square())[0, ..., 0]
    inside = np.zeros((16, 16), bool)
    inside[4:12, 4:12] = True
    rim = inside.copy()
    rim[5:11, 5:11] = False
    assert np.unique(frame).tolist() == [0, 255]
    # interpolation keeps the square's edges and rounds its corners
    corners = np.zeros((16, 16), bool)
    corners[np.ix_([4, 5, 10, 11], [4, 5, 10, 11])] = True
    assert np.array_equal((frame > 0) & ~corners, rim & ~corners)


def test_a_shape_at_the_border_has_its_outline_there() -> None:
    assert outlines(np.full((1, 4, 4, 1), 255, np.uint8))[0, ..., 0].tolist() == [
        [255, 255, 255, 255],
        [255, 0, 0, 255],
        [255, 0, 0, 255],
        [255, 255, 255, 255],
    ]
    assert not outlines(np.zeros((1, 4, 4, 1), np.uint8)).any()


def test_a_slanted_line_leans_to_the_right() -> None:
    line = np.zeros((1, 9, 9, 1), np.uint8)
    line[:, :, 4] = 200
    leaning = slanted(line, 0.5)[0, ..., 0].astype(float)
    columns = (leaning * np.arange(9)).sum(1) / leaning.sum(1)
    assert columns == pytest.approx(4 + 0.5 * (4 - np.arange(9)))
    assert np.array_equal(slanted(line, 0.0), line)
    assert np.array_equal(inverted(inverted(line)), line)


def test_pairs_are_an_outline_and_its_digit_with_the_digits_label() -> None:
    splits, digits = DigitPairsConfig().load(), DigitsConfig().load()
    for pairs, plain in ((splits.train, digits.train), (splits.held_out, digits.held_out)):
        assert isinstance(pairs, ImageDataset)
        assert isinstance(plain, ImageDataset)
        assert (pairs.parts, pairs.paired, pairs.shape) == ((1, 1), True, (2, 32, 32))
        assert np.array_equal(pairs.images[..., 1:], plain.images)
        assert np.array_equal(pairs.images[..., :1], outlines(plain.images))
        assert np.array_equal(pairs.labels, plain.labels)


def test_no_digit_is_in_both_domains_and_every_class_is() -> None:
    splits = DigitDomainsConfig().load()
    for source in (splits.train, splits.held_out):
        assert isinstance(source, TwoDomains)
        plain, twins = source.domain_sources
        back = {image.tobytes() for image in inverted(slanted(plain.images))}
        assert not back & {image.tobytes() for image in twins.images}
        assert len(plain) == len(twins)
        assert min(plain.class_counts) > 0
        assert min(twins.class_counts) > 0
        assert twins.images.mean() > 128 > plain.images.mean()


def test_rendered_digits_have_the_format_of_the_real_ones() -> None:
    images, labels = render_digits(200, np.random.default_rng(0))
    assert images.shape == (200, SIDE, SIDE, 1)
    assert np.bincount(labels).tolist() == [20] * 10
    for image in images[..., 0]:
        rows, columns = (np.flatnonzero(image.any(axis)) for axis in (1, 0))
        assert max(np.ptp(rows), np.ptp(columns)) + 1 <= BOX
        assert max(np.ptp(rows), np.ptp(columns)) + 1 >= BOX - 2
        assert image.max() > 200
    again, _ = render_digits(200, np.random.default_rng(0))
    assert np.array_equal(images, again)
    assert len({image.tobytes() for image in images}) > 190, "no two digits are alike"
    assert render_digits(0, np.random.default_rng(0))[0].shape == (0, SIDE, SIDE, 1)


def test_blur_spreads_a_point_by_its_standard_deviation() -> None:
    point = np.zeros((1, SIDE, SIDE, 1), np.uint8)
    point[0, 14, 12, 0] = 255
    spread = blurred(point, gain=4.0)[0, :, :, 0].astype(float)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    mean = [(spread * axis).sum() / spread.sum() for axis in (rows, columns)]
    assert mean == pytest.approx([14, 12], abs=0.01)
    assert (spread * (rows - 14) ** 2).sum() / spread.sum() == pytest.approx(BLUR**2, rel=0.1)
    assert spread.max() == pytest.approx(4 * 255 / (2 * np.pi * BLUR**2), rel=0.05)
    assert blurred(np.full((1, SIDE, SIDE, 1), 250, np.uint8)).max() == 255


def test_rendered_digits_are_as_many_as_real_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = DigitDomainsConfig(task="fonts").load()
    assert splits.held_out is not None
    synthetic, real = splits.train.domain_sources
    assert len(synthetic) == len(real) == 4_000
    held_out = splits.held_out.domain_sources[0]
    assert not {image.tobytes() for image in held_out.images} & {image.tobytes() for image in synthetic.images}
    monkeypatch.setattr(derived_digits, "render_digits", render_digits)  # instead of digits that are rendered once
    assert splits.train.fingerprint == DigitDomainsConfig(task="fonts").load().train.fingerprint
    batch = splits.train.batch(0, 4, RandomStreams(0)).images
    assert batch.shape == (4, 32, 32, 2)
    assert batch.dtype == torch.uint8


@pytest.mark.parametrize("config", [DigitPairsConfig(size=(32, 48)), DigitDomainsConfig(size=20)])
def test_sizes_that_the_digits_do_not_have_are_refused(config: DigitPairsConfig | DigitDomainsConfig) -> None:
    with pytest.raises(RecipeError) as refused:
        config.load()
    assert refused.value.where == "data.size"


@pytest.fixture
def mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    """MNIST with the built-in digits as its images."""
    monkeypatch.setattr(
        VisionConfig, "_load_split", lambda *_, **__: ImageDataset(*of_every_class(), tuple("0123456789"))
    )


def of_every_class() -> tuple[np.ndarray, np.ndarray]:
    images, labels = load_digits()
    return images[::50], labels[::50].astype(np.int64)


@pytest.mark.usefixtures("mnist")
@pytest.mark.parametrize("size", [8, 16, 20, 24, 28, 32, 40])
def test_all_digits_are_converted_like_those_of_mnist(size: int) -> None:
    images, _ = of_every_class()
    for config in (DigitPairsConfig(digits="MNIST", size=size), DigitDomainsConfig(digits="MNIST", size=size)):
        train, _ = config.load_digits(None)
        assert np.array_equal(config.convert(images), train.images)
    both = np.concatenate((images, images[::-1]), 3)
    converted = DigitPairsConfig(digits="MNIST", size=size).convert(both)
    assert np.array_equal(converted, np.concatenate((train.images, train.images[::-1]), 3)), "two domains, no alpha"


@pytest.mark.usefixtures("mnist")
@pytest.mark.parametrize("size", [16, 24, 32])
def test_rendered_digits_are_as_high_as_those_of_mnist(size: int) -> None:
    splits = DigitDomainsConfig(digits="MNIST", task="fonts", size=size).load()
    rendered, real = (np.mean([heights_of(image) for image in part.images]) for part in splits.train.domain_sources)  # type: ignore[attr-defined]
    assert rendered == pytest.approx(real, rel=0.12)


def heights_of(image: np.ndarray) -> int:
    return int(np.ptp(np.flatnonzero((image[..., 0] > 100).any(1)))) + 1


@pytest.mark.parametrize("config", [DigitPairsConfig, DigitDomainsConfig, StackedConfig])
def test_the_built_in_digits_have_two_spellings(config: type[StackedConfig | DigitPairsConfig]) -> None:
    """Each kind stores its own, so that the hashes of recipes stay as they were."""
    plain = config()
    assert [config.model_validate({"digits": spelling}) for spelling in ("builtin", "digits")] == [plain, plain]
    assert plain.digits == ("digits" if config is StackedConfig else "builtin")
    with pytest.raises(ValidationError):
        config.model_validate({"digits": "mnist-1"})
