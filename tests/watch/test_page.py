"""Checks the table of detectors in docs/watching.md against the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from poise.watch.monitor import DETECTORS

PAGE = (Path(__file__).parents[2] / "docs" / "watching.md").read_text("utf-8")


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_is_documented(name: str) -> None:
    detector = DETECTORS[name]
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |") and detector.tip in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    threshold = "" if name == "not_finite" else f"{detector.threshold:g}"
    window = "" if detector.window == 1 else f"{detector.window:,}"
    values = f"{detector.values}" if window else ""
    assert cells[1:7] == [detector.description, threshold, window, values, detector.policy, detector.tip]
