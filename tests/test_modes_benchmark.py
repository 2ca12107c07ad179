"""`benchmarks/modes.py`: how the results of several runs are summarised and printed."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def modes(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import modes

    return modes


def test_mean_and_worst_of_several_runs(modes: Any) -> None:
    one = modes.Result(8.0, 0.97, 0.001, 160.0, 0.95, 0.1, 0.0004)
    other = modes.Result(7.0, 0.99, 0.003, 170.0, 0.85, 0.2, 0.0002)
    assert modes.summarise([one, other], mean, mean) == pytest.approx((7.5, 0.98, 0.002, 165.0, 0.9, 0.15, 0.0003))
    assert modes.summarise([one, other], min, max) == (7.0, 0.97, 0.003, 170.0, 0.85, 0.2, 0.0004)


def test_measures_that_a_data_set_does_not_have_are_left_out(modes: Any) -> None:
    stacked = modes.Result(1000.0, None, 0.0325, 1401.0)
    assert modes.summarise([stacked, stacked], min, max) == stacked
    assert modes.describe(stacked).split() == ["1000.0", "modes", "KL", "0.0325", "1401", "CPU", "s"]
    toy = modes.Result(8.0, 0.97, 0.001, 160.0, 0.951, 0.1, 0.0004)
    assert "97.00 % high quality  KL 0.0010 (0.0004)  coverage 0.951  width 1 +- 0.10" in modes.describe(toy)
