"""How often an image can be halved, and which sizes are suggested in place of others."""

from __future__ import annotations

import math

import pytest

from poise.networks.map_sizes import (
    MAX_SIDE,
    MAX_SMALLEST_SIDE,
    MIN_SIDE,
    Size,
    halved,
    max_halvings,
    nearest_sizes,
    num_halvings,
    shape_incompatibility,
)

EVEN = range(MIN_SIDE, MAX_SIDE + 1, 2)


@pytest.mark.parametrize(
    ("size", "smallest", "default", "base"),
    [
        ((8, 8), (4, 4), 2, (2, 2)),
        ((16, 16), (4, 4), 2, (4, 4)),
        ((32, 32), (4, 4), 3, (4, 4)),
        ((256, 256), (4, 4), 6, (4, 4)),
        ((48, 64), (6, 8), 3, (6, 8)),
        ((64, 32), (8, 4), 3, (8, 4)),
        ((24, 40), (6, 10), 2, (6, 10)),
        ((12, 20), (6, 10), 2, (3, 5)),
        ((10, 14), (5, 7), 1, (5, 7)),
    ],
)
def test_halvings(size: Size, smallest: Size, default: int, base: Size) -> None:
    shape = (3, *size)
    assert halved(shape, max_halvings(shape)) == smallest
    assert num_halvings(shape, None) == default
    assert halved(shape, default) == base
    assert num_halvings(shape, 1) == 1


def test_the_number_of_halvings_is_the_largest_possible() -> None:
    for height in range(1, 100):
        for width in (height, 3 * height, 40, 96):
            found = max_halvings((1, height, width), 3)
            whole = [n for n in range(8) if height % 2**n == width % 2**n == 0 and min(height, width) / 2**n >= 3]
            assert found == max(whole, default=0), (height, width)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((50, 70), [(48, 64), (48, 72), (56, 72)]),
        ((100, 100), [(96, 96), (104, 104)]),
        ((27, 27), [(26, 26), (28, 28)]),
        ((7, 7), [(8, 8)]),
        ((300, 300), [(256, 256)]),
        ((640, 480), [(256, 192)]),
        ((1080, 1920), [(144, 256)]),
        ((32, 256), [(64, 256)]),
    ],
)
def test_suggested_sizes(size: Size, expected: list[Size]) -> None:
    assert nearest_sizes(size) == expected
    misfit = shape_incompatibility("network", (3, *size))
    assert misfit is not None
    for height, width in expected:
        assert (str(height) if height == width else f"[{height}, {width}]") in misfit[1]


def test_suggestions_are_usable_and_usable_sizes_suggest_themselves() -> None:
    for height in EVEN[::3]:
        for width in EVEN[::2]:
            suggested = nearest_sizes((height, width))
            assert 1 <= len(suggested) <= 3
            for size in suggested:
                assert shape_incompatibility("network", (1, *size)) is None
            usable = shape_incompatibility("network", (1, height, width)) is None
            assert ((height, width) in suggested) == usable


def test_suggestions_exist_for_any_size() -> None:
    for height in (1, 5, 9, 33, 255, 257, 1000, 4096):
        for width in (1, 2, 31, 100, 333, 4095):
            for size in nearest_sizes((height, width)):
                assert MIN_SIDE <= min(size) <= max(size) <= MAX_SIDE
                assert max(halved((1, *size), max_halvings((1, *size)))) <= MAX_SMALLEST_SIDE
            close = nearest_sizes((height, width))[0]
            if max(height / width, width / height) <= 3 and min(height, width) > MIN_SIDE:
                assert abs(math.log(close[0] / close[1]) - math.log(height / width)) < 0.35


def test_a_given_depth_may_leave_a_large_map() -> None:
    assert shape_incompatibility("network", (3, 50, 70), 1) is None
    assert shape_incompatibility("network", (3, 50, 70), 2) == (
        "depth 2 is too large for images of 50 x 70 pixels (height x width)",
        "use at most 1",
    )
    odd = shape_incompatibility("network", (3, 45, 64), 1)
    assert odd is not None
    assert "odd" in odd[0]
