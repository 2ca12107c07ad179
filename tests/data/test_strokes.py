"""The width of strokes, measured on bars and compared with another measure on digits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, maximum_filter, zoom

from poise.data.digits import DigitsConfig, load_digits, thickness_bounds, thickness_labels
from poise.data.source import ImageDataset
from poise.data.strokes import stroke_widths, width_bounds, width_classes


def bar(length: int, width: int, level: int = 255) -> np.ndarray:
    image = np.zeros((1, 40, 40, 1), np.uint8)
    image[0, 2 : 2 + length, 3 : 3 + width] = level
    return image


@pytest.mark.parametrize(("length", "width"), [(30, 1), (30, 3), (8, 8)])
def test_bars(length: int, width: int) -> None:
    """Twice the area by the perimeter, but for one corner, whose two differences are one diagonal."""
    perimeter = 2 * (length + width) - 2 + 2**0.5
    assert stroke_widths(bar(length, width)).tolist() == [pytest.approx(2 * length * width / perimeter)]
    assert stroke_widths(bar(width, length)).tolist() == [pytest.approx(2 * length * width / perimeter)]
    assert stroke_widths(bar(length, width, 100)).tolist() == pytest.approx(stroke_widths(bar(length, width)).tolist())


def test_no_stroke_has_no_width() -> None:
    assert stroke_widths(np.zeros((3, 9, 7, 1), np.uint8)).tolist() == [0, 0, 0]
    assert stroke_widths(np.zeros((0, 9, 7, 1), np.uint8)).shape == (0,)


def test_many_images_are_measured_as_each_alone() -> None:
    images = load_digits()[0][::16]
    assert len(images) > 300
    assert stroke_widths(images)[[0, 249, 250, 300]].tolist() == pytest.approx(
        [float(stroke_widths(images[i : i + 1])[0]) for i in (0, 249, 250, 300)]
    )


def test_agrees_with_the_distance_to_the_edge() -> None:
    """Twice the mean distance along the ridge, of digits that are enlarged four times (after Castro et al. 2019)."""

    def ridge_width(image: np.ndarray) -> float:
        distance = distance_transform_edt(zoom(image.astype(float), 4, order=1) > 127)
        ridge = (distance == maximum_filter(distance, size=3)) & (distance > 0)
        return float(2 * distance[ridge].mean() / 4)

    digits = load_digits()[0][::50]
    assert np.corrcoef(stroke_widths(digits), [ridge_width(digit[..., 0]) for digit in digits])[0, 1] > 0.95


def test_terciles() -> None:
    widths = np.array([3.0, 1.0, 2.0, 4.0, 5.0, 6.0, 7.0])
    low, high = width_bounds(widths)
    assert (low, high) == (3.0, 5.0)
    assert width_classes(widths, (low, high)).tolist() == [1, 0, 0, 1, 2, 2, 2]


@pytest.mark.parametrize("size", [8, 28, 32])
def test_digits_by_thickness(size: int) -> None:
    by_digit, by_thickness = DigitsConfig(size=size).load(), DigitsConfig(size=size, labels="thickness").load()
    for one, other in ((by_digit.train, by_thickness.train), (by_digit.held_out, by_thickness.held_out)):
        assert isinstance(one, ImageDataset)
        assert isinstance(other, ImageDataset)
        assert np.array_equal(one.images, other.images)
        assert other.classes == ("thin", "medium", "thick")
        assert one.fingerprint != other.fingerprint
    assert max(by_thickness.train.class_counts) - min(by_thickness.train.class_counts) <= 2
    low, high = thickness_bounds()
    assert 1.5 < low < high < 3.5, "pixels"
    held_out = by_thickness.held_out
    assert isinstance(held_out, ImageDataset)
    assert held_out.labels is not None
    assert np.array_equal(held_out.labels, thickness_labels()[4::5])
    explicit = DigitsConfig(size=size, labels="digit").load().train
    assert explicit.fingerprint == by_digit.train.fingerprint
