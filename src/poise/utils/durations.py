"""Durations as users write them: 90s, 30m, 1h30m."""

from __future__ import annotations

import re

UNITS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
"""The seconds in each unit, largest first."""

DURATION = re.compile(r"\s*".join(rf"(?:(?P<{unit}>[0-9]+(?:\.[0-9]+)?)\s*{unit})?" for unit in UNITS))


def parse_duration(text: str) -> float | None:
    """The seconds of a duration such as 90s, 30m, 1.5h or 1h30m; None if it is none, or not positive."""
    match = DURATION.fullmatch(text.strip().lower())
    parts = [] if match is None else [float(number) * UNITS[unit] for unit, number in match.groupdict("0").items()]
    return sum(parts) or None


def duration_text(seconds: float) -> str:
    """A duration with its two largest units: 89 s, 30 min, 1 h 30 min, 2 d 3 h."""
    total = max(1, round(seconds))
    if total < 90:
        return f"{total} s"
    total, words = 60 * round(total / 60), list[str]()
    for unit, name in (("d", "d"), ("h", "h"), ("m", "min")):
        count, total = divmod(total, int(UNITS[unit]))
        words += [f"{count} {name}"] if count else []
    return " ".join(words[:2])
