"""The sizes of feature maps: how often an image can be halved, and which shapes are refused.

Networks that halve or double maps start from a smallest map of h x w pixels, which has the shape of the image. A size
is (height, width). Square images whose side is a power of two are halved down to 4 x 4.
"""

from __future__ import annotations

from itertools import product
from math import ceil, floor, log

from poise.core.types import Shape

Size = tuple[int, int]

MIN_SIDE, MAX_SIDE = 8, 256
"""The range of the sides of images."""

SMALLEST_SIDE = 4
"""Maps are halved while both sides are at least twice as long."""

MAX_SMALLEST_SIDE = 16
"""The largest side of the smallest map.

A single layer makes the smallest map from z, or a score from it. At 16 x 16 this layer has 16 times as many weights as
at 4 x 4, and no convolution relates the distant parts of a larger map.
"""

NUM_SUGGESTIONS = 3
"""The largest number of usable shapes that a refusal names."""


def max_halvings(shape: Shape, smallest: int = SMALLEST_SIDE) -> int:
    """The largest n such that 2^n divides both sides of an image, C x H x W, and leaves at least `smallest` pixels."""
    height, width = shape[1:]
    n = 0
    while (height | width) % 2 ** (n + 1) == 0 and min(height, width) >> (n + 1) >= smallest:
        n += 1
    return n


def num_halvings(shape: Shape, depth: int | None) -> int:
    """The number of halvings from an image, C x H x W, to the smallest map: `depth` if it is given.

    By default it is `max_halvings`, but 2 where that is 1 and both sides are multiples of 4: 8 x 8 to 2 x 2.
    """
    return depth or max(max_halvings(shape), min(2, max_halvings(shape, 2)))


def halved(shape: Shape, n: int) -> Size:
    """Height and width of an image, C x H x W, after n halvings."""
    return shape[1] >> n, shape[2] >> n


def shape_incompatibility(name: str, shape: Shape, depth: int | None = None) -> tuple[str, str] | None:
    """Why a network that halves or doubles maps does not support `shape`, and what to do; None if it does.

    Args:
        name: what the network is called.
        shape: the shape of a sample.
        depth: the number of halvings, if it is given; the smallest map may then have any size of at least 2 x 2.
    """
    if len(shape) != 3:
        return f"a {name} processes images, and the samples are points", "use network kind 'mlp'"
    height, width = shape[1:]
    *others, last = map(_as_toml, nearest_sizes((height, width)))
    cure = f"set data.size to {' or '.join(filter(None, (', '.join(others), last)))}"
    if min(height, width) < MIN_SIDE or max(height, width) > MAX_SIDE:
        return f"a {name} needs images with sides of {MIN_SIDE} to {MAX_SIDE} pixels", cure
    size = f"{height} x {width} pixels{'' if height == width else ' (height x width)'}"
    reason = f"images of {size} can't be halved often enough for a {name}"
    most = max_halvings(shape)
    if most == 0:
        return f"{reason}, because a side is odd", cure
    if depth is not None:
        limit = max_halvings(shape, 2)
        too_large = f"depth {depth} is too large for images of {size}"
        return (too_large, f"use at most {limit}") if depth > limit else None
    if _is_usable((height, width)):
        return None
    limit = f"{MAX_SMALLEST_SIDE} x {MAX_SMALLEST_SIDE}"
    return f"{reason}: its smallest map would have {height >> most} x {width >> most} pixels, more than {limit}", cure


def divisible_sizes(shape: Shape, n: int, smallest: int = 1) -> str:
    """The values of `data.size` next to an image, C x H x W, that can be halved n times, as words.

    Args:
        shape: the shape of the image.
        n: the number of halvings.
        smallest: the smallest side of the smallest map.
    """
    unit = 1 << n
    lower, upper = (
        tuple(max(smallest * unit, round_(side / unit) * unit) for side in shape[1:]) for round_ in (floor, ceil)
    )
    return " or ".join(dict.fromkeys(map(_as_toml, ((lower[0], lower[1]), (upper[0], upper[1])))))


def nearest_sizes(size: Size) -> list[Size]:
    """Up to three usable sizes near (height, width), smallest first; square ones for a square.

    Sizes beyond the range are scaled down first. Both sides are rounded down and up to a multiple of 2^n, with the
    smallest n that makes the smallest map small enough. Of these sizes those with the most similar aspect ratio are
    chosen.
    """
    scale = min(1.0, MAX_SIDE / max(size))
    longest = scale * max(size)
    n = next(n for n in range(1, 9) if longest <= MAX_SMALLEST_SIDE << n)
    heights, widths = (_multiples(scale * side, 1 << n) for side in size)
    square = size[0] == size[1]
    usable = [new for new in product(heights, widths) if _is_usable(new) and (new[0] == new[1] or not square)]
    aspect = log(size[0] / size[1])
    return sorted(sorted(usable, key=lambda new: abs(log(new[0] / new[1]) - aspect))[:NUM_SUGGESTIONS])


def _multiples(side: float, unit: int) -> list[int]:
    """The multiples of `unit` just below and just above `side`, at least four times as large, within the range."""
    least = max(MIN_SIDE, SMALLEST_SIDE * unit)
    return sorted({min(max(round_(side / unit) * unit, least), MAX_SIDE) for round_ in (floor, ceil)})


def _is_usable(size: Size) -> bool:
    """Whether an image of this size can be halved until the smallest map is small enough."""
    n = max_halvings((1, *size))
    return min(size) >= MIN_SIDE and max(size) <= MAX_SIDE and n > 0 and max(size) >> n <= MAX_SMALLEST_SIDE


def _as_toml(size: Size) -> str:
    """The value of `data.size`."""
    return str(size[0]) if size[0] == size[1] else f"[{size[0]}, {size[1]}]"
