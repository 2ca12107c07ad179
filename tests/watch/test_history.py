"""Tests of windows of the metric history against numpy and scipy, and of when a window is available."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from poise.core.metrics_log import Stat
from poise.watch.history import MetricHistory, MetricSeries, Window

NAME = "d/adversarial"


def window(means: list[float]) -> Window:
    return Window(list(range(1, len(means) + 1)), [Stat.of(mean) for mean in means])


def window_of_steps(values: np.ndarray) -> Window:
    """One row for each line of values, with one value per step."""
    stats = [Stat(float(row.mean()), float(row.std()), float(row.min()), float(row.max())) for row in values]
    return Window(list(range(len(values))), stats)


def make_history(steps: list[int], length: int | None = None, name: str = NAME) -> MetricHistory:
    """One row at each step; the value of a row is its index."""
    found = MetricHistory(length)
    for index, step in enumerate(steps):
        found.add(step, {name: Stat.of(float(index))})
    return found


def steps_every(interval: int, until: int) -> list[int]:
    return list(range(interval, until + 1, interval))


# ---- windows ---------------------------------------------------------------------------------------------


def test_statistics_of_a_window_equal_those_of_its_steps() -> None:
    values = np.random.default_rng(0).normal(3, 2, (7, 50)) + np.arange(7)[:, None]
    found = window_of_steps(values)
    assert len(found) == 7
    assert found.mean == pytest.approx(values.mean())
    assert found.std == pytest.approx(values.std())
    assert found.median == np.median(values.mean(1))
    np.testing.assert_array_equal(found.means, values.mean(1))


def test_std_within_rows_and_between_rows() -> None:
    assert Window([1, 2], [Stat(5, 3, 0, 9), Stat(5, 4, 0, 9)]).std == pytest.approx(math.sqrt(12.5))
    assert window([1.0, 5.0]).std == 2


@pytest.mark.parametrize("seed", range(5))
def test_trend_is_spearmans_correlation(seed: int) -> None:
    values = np.random.default_rng(seed).normal(0, 1, 23).cumsum()
    found = window(values.tolist()).trend
    assert found == pytest.approx(spearmanr(np.arange(23), values).statistic, abs=1e-12)
    assert 0.01 < abs(found) < 0.99


@pytest.mark.parametrize(
    ("means", "trend"),
    [([1, 2, 4, 8], 1), ([9, 3, 1, 0], -1), ([5, 5, 5, 5], 0), ([], 0), ([1, 3, 2, 4], 0.8)],
    ids=["up", "down", "flat", "empty", "nearly up"],
)
def test_trends(means: list[float], trend: float) -> None:
    assert window(means).trend == pytest.approx(trend)


def test_equal_values_share_their_rank() -> None:
    values = [3.0, 3.0, 3.0, 2.0, 2.0, 2.0, 1.0]
    assert window(values).trend == pytest.approx(spearmanr(range(7), values).statistic)


def test_halves() -> None:
    early, late = window([1, 2, 3, 4, 5]).halves()
    assert (early.steps, late.steps) == ([1, 2], [3, 4, 5])
    assert (early.means.tolist(), late.means.tolist()) == ([1, 2], [3, 4, 5])


# ---- series ----------------------------------------------------------------------------------------------


def series() -> MetricSeries:
    found = MetricSeries()
    for step in (10, 20, 30, 40):
        found.add(step, Stat.of(step / 10))
    return found


@pytest.mark.parametrize(
    ("low", "high", "steps"),
    [(10, 30, [20, 30]), (9, 30, [10, 20, 30]), (11, 29, [20]), (-5, 99, [10, 20, 30, 40]), (40, 99, [])],
    ids=str,
)
def test_between_is_after_low_and_up_to_high(low: int, high: int, steps: list[int]) -> None:
    found = series().between(low, high)
    assert found.steps == steps
    assert found.means.tolist() == [step / 10 for step in steps]


@pytest.mark.parametrize(("step", "left"), [(30, 3), (29, 2), (40, 4), (9, 0)], ids=str)
def test_series_drop_after(step: int, left: int) -> None:
    found = series()
    found.drop_after(step)
    assert found.steps == [10, 20, 30, 40][:left]
    assert len(found.stats) == left


# ---- the newest window -----------------------------------------------------------------------------------


def first_window(steps: list[int], window: int, length: int | None = None) -> int | None:
    """The first step at which a window is available."""
    for count in range(1, len(steps) + 1):
        if make_history(steps[:count], length).last(NAME, window) is not None:
            return steps[count - 1]
    return None


@pytest.mark.parametrize(
    ("steps", "length", "first"),
    [
        (steps_every(10, 400), None, 300),
        (steps_every(50, 400), None, 300),
        (steps_every(1, 400), None, 300),
        (steps_every(10, 400), 2400, 300),
        (steps_every(10, 400), 1600, 200),
        (steps_every(10, 400), 80, 40),
        (steps_every(100, 900), 80, 400),
        (steps_every(100, 900), None, 400),
        (steps_every(1, 9), 8, 4),
        (list(range(1000, 2000, 50)), None, 1250),
        (steps_every(10, 290), None, None),
        (steps_every(100, 300), None, None),
    ],
    ids=[
        *("every 10", "every 50", "every step", "a long run", "an eighth of a run", "four rows of a short run"),
        *("four rows far apart", "four rows, no length", "four steps", "started later", "too short", "three rows"),
    ],
)
def test_a_window_needs_a_run_of_its_length(steps: list[int], length: int | None, first: int | None) -> None:
    assert first_window(steps, 300, length) == first


def test_the_last_window_has_the_newest_rows() -> None:
    found = make_history(steps_every(10, 1000)).last(NAME, 300)
    assert found is not None
    assert found.steps == list(range(710, 1001, 10))
    assert found.means.tolist() == list(range(70, 100))
    short = make_history(steps_every(10, 1000), 1600).last(NAME, 300)
    assert short is not None
    assert short.steps == list(range(810, 1001, 10))
    shortest = make_history(steps_every(10, 1000), 1000).last(NAME, 20)
    assert shortest is not None
    assert shortest.steps == [970, 980, 990, 1000]


def test_a_metric_that_is_not_in_the_newest_row_has_no_window() -> None:
    found = make_history(steps_every(10, 400))
    assert found.is_fresh(NAME)
    assert found.newest(NAME) == Stat.of(39)
    found.add(410, {"other": Stat.of(1)})
    assert not found.is_fresh(NAME)
    assert found.newest(NAME) is None
    assert found.last(NAME, 300) is None
    assert found.before(NAME) is None
    assert found.last("nothing", 300) is None
    assert found.newest("nothing") is None


def test_a_window_with_a_number_that_is_not_finite() -> None:
    found = make_history(steps_every(10, 400))
    found.add(410, {NAME: Stat.of(math.nan)})
    assert found.last(NAME, 300) is None
    for step in range(420, 711, 10):
        assert found.last(NAME, 300) is None
        found.add(step, {NAME: Stat.of(1)})
    assert found.last(NAME, 300) is not None


def test_a_window_needs_four_rows() -> None:
    crowded = [*range(1, 10), 100, 200]
    assert make_history(crowded).last(NAME, 50) is None
    assert make_history([*crowded, 201, 202, 203]).last(NAME, 50) is not None


def test_rows_at_one_step_form_no_window() -> None:
    assert make_history([7] * 9).last(NAME, 300) is None


# ---- early, before, drop_after ---------------------------------------------------------------------------


def test_early_is_the_first_window_without_the_first_row() -> None:
    found = make_history(steps_every(50, 1000)).early(NAME, 300)
    assert found is not None
    assert found.steps == [100, 150, 200, 250, 300, 350]
    assert found.means.tolist() == [1, 2, 3, 4, 5, 6]
    short = make_history(steps_every(50, 1000), 1600).early(NAME, 300)
    assert short is not None
    assert short.steps == [100, 150, 200, 250]


def test_early_must_be_over_and_finite() -> None:
    assert make_history(steps_every(50, 350)).early(NAME, 300) is None
    assert make_history(steps_every(50, 400)).early(NAME, 300) is not None
    assert make_history(steps_every(50, 200)).early(NAME, 100) is None
    assert make_history([50, 60, 70, 900, 1800]).early(NAME, 1) is None
    assert make_history(steps_every(50, 400)).early("nothing", 300) is None
    found = MetricHistory()
    for step in steps_every(50, 600):
        found.add(step, {NAME: Stat.of(math.inf if step == 100 else 1.0)})
    assert found.early(NAME, 300) is None


def test_early_needs_three_rows_and_two_others() -> None:
    assert make_history([0, 300, 600, *range(610, 901, 10)]).early(NAME, 600) is None
    assert make_history([0, 300, 600, *range(610, 901, 10)]).early(NAME, 610) is not None
    found = make_history(steps_every(50, 200))
    found.add(250, {"other": Stat.of(1)})
    assert found.early(NAME, 100) is None


def test_early_ignores_the_first_row() -> None:
    found = MetricHistory()
    for step in steps_every(50, 600):
        found.add(step, {NAME: Stat.of(math.nan if step == 50 else 1.0)})
    assert found.early(NAME, 300) is not None


def test_before_has_all_rows_but_the_newest() -> None:
    assert make_history(steps_every(10, 80)).before(NAME) is None
    found = make_history(steps_every(10, 90)).before(NAME)
    assert found is not None
    assert found.steps == steps_every(10, 80)
    assert found.means.tolist() == list(range(8))


def test_drop_after_affects_all_metrics() -> None:
    found = make_history(steps_every(10, 400))
    found.add(410, {"other": Stat.of(1)})
    found.drop_after(205)
    assert found.step == 205
    assert found.series[NAME].steps == steps_every(10, 200)
    assert found.series["other"].steps == []
    assert not found.is_fresh(NAME)
    assert found.newest("other") is None
    found.add(210, {NAME: Stat.of(-1)})
    assert found.newest(NAME) == Stat.of(-1)
    found.drop_after(900)
    assert found.step == 210
