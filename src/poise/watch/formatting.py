"""Ratios and numbers in messages, with safeguards against denominators near zero."""

from __future__ import annotations

import math

MAX_RATIO = 1000.0
"""Larger ratios are not reported as a number: their denominator is close to zero."""

RELATIVE_NOISE = 1e-6
"""A number below this fraction of its scale is rounding noise (float32 has about seven digits)."""

MAX_MAGNITUDE = 1e100
"""Numbers above this are excluded from computations, because their squares and sums would overflow."""


def ratio(now: float, before: float, scale: float = 0.0) -> float | None:
    """now / before, or None if it is meaningless: `before` is 0 or rounding noise, or the ratio exceeds `MAX_RATIO`.

    Args:
        now: the numerator, at least 0.
        before: the denominator.
        scale: the size of the numbers from which both were computed; a spread or a gap below a millionth of it is
            rounding noise.
    """
    if not (math.isfinite(now) and math.isfinite(before)) or before <= RELATIVE_NOISE * abs(scale) or before <= 0:
        return None
    return now / before if now <= MAX_RATIO * before else None


def format_number(value: float) -> str:
    """Two decimals, or three significant digits from 1,000 on."""
    return f"{value:.2f}" if abs(value) < MAX_RATIO else f"{value:.3g}"


def format_factor(value: float) -> str:
    """One decimal below 10, none from there on: 1.2, 57."""
    shown = f"{value:.1f}"
    return shown if float(shown) < 10 else f"{value:.0f}"


def all_between(values: tuple[float, ...], low: float, high: float) -> bool:
    """Whether all values lie in [low, high]."""
    return all(low <= value <= high for value in values)
