"""Ratios for messages: a figure where it means something, and words where it would not."""

from __future__ import annotations

import math

MOST = 1000.0
"""No ratio above this is told as a figure: what it is divided by is next to nothing."""

NOISE = 1e-6
"""A number below this share of its scale is rounding noise (float32 keeps seven digits)."""

HUGE = 1e100
"""Numbers above this are not reckoned with: their squares and sums would overflow."""


def ratio(now: float, before: float, scale: float = 0.0) -> float | None:
    """now / before, or None where that says nothing: `before` is 0 or rounding noise, or the ratio is above 1,000.

    Args:
        now: at least 0.
        before: what it is divided by.
        scale: of the numbers that both were made of: a spread or a gap below a millionth of it is rounding noise.
    """
    if not (math.isfinite(now) and math.isfinite(before)) or before <= NOISE * abs(scale) or before <= 0:
        return None
    return now / before if now <= MOST * before else None


def format_number(figure: float) -> str:
    """Two places behind the point; of large numbers three digits."""
    return f"{figure:.2f}" if abs(figure) < MOST else f"{figure:.3g}"


def all_between(values: tuple[float, ...], low: float, high: float) -> bool:
    """Whether all are between `low` and `high`."""
    return all(low <= value <= high for value in values)
