"""Durations as users write and read them."""

from __future__ import annotations

import pytest

from poise.utils.durations import duration_text, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("1h", 3600),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("1 h 30 m", 5400),
        ("2D", 172_800),
        ("1d2h3m4s", 93_784),
    ],
)
def test_a_duration_is_parsed(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "30", "m", "-5m", "1m1h", "5 minutes", "nan", "infh", "1e3s", "٣m"])
def test_other_texts_are_no_durations(text: str) -> None:
    assert parse_duration(text) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (45.4, "45 s"),
        (89, "89 s"),
        (100, "2 min"),
        (3570, "1 h"),
        (5400, "1 h 30 min"),
        (90_061, "1 d 1 h"),
        (86_460, "1 d 1 min"),
    ],
)
def test_two_units_are_shown(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
