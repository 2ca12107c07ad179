"""Tests of windows of the metric history against numpy and scipy, and of when a window is available."""

from __future__ import annotations

import math
from statistics import median

import numpy as np
import pytest
from scipy.stats import spearmanr

from poise.core.metrics_log import Stat
from poise.watch.history import MetricHistory, MetricSeries, Window, WindowLength

NAME = "d/adversarial"


def window(means: list[float]) -> Window:
    return Window(list(range(1, len(means) + 1)), [Stat.of(mean) for mean in means])


def window_of_steps(values: np.ndarray) -> Window:
    """One row for each line of values, with one value per step."""
    stats = [Stat(float(row.mean()), float(row.std()), float(row.min()), float(row.max())) for row in values]
    return Window(list(range(len(values))), stats)


def make_history(steps: list[int], length: int | None = None, std: float = 0.0) -> MetricHistory:
    """One row at each step; the value of a row is its index."""
    found = MetricHistory(length)
    for index, step in enumerate(steps):
        found.add(step, {NAME: Stat(float(index), std, index - std, index + std)})
    return found


def window_length(steps: int, values: int = 4) -> WindowLength:
    return WindowLength(steps, values)


def steps_every(interval: int, until: int) -> list[int]:
    return list(range(interval, until + 1, interval))


# ---- windows ---------------------------------------------------------------------------------------------


def test_statistics_of_a_window_equal_those_of_its_steps() -> None:
    values = np.random.default_rng(0).normal(3, 2, (7, 50)) + np.arange(7)[:, None]
    found = window_of_steps(values)
    assert len(found) == 7
    assert found.mean == pytest.approx(values.mean())
    assert found.median == np.median(values.mean(1))
    np.testing.assert_array_equal(found.means, values.mean(1))


def test_spread_within_rows_and_between_rows() -> None:
    """Medians: 4 of the deviations within rows, 1.4826 times 2 of the means' distances from their median."""
    assert Window([1, 2, 3], [Stat(5, 3, 0, 9), Stat(5, 4, 0, 9), Stat(5, 90, 0, 9)]).spread == 4
    assert window([1.0, 3.0, 5.0, 1.0, 99.0]).spread == pytest.approx(1.4826 * 2)
    rows = [Stat(1, 3, 0, 9), Stat(3, 4, 0, 9), Stat(5, 90, 0, 9)]
    assert Window([1, 2, 3], rows).spread == pytest.approx(math.hypot(4, 1.4826 * 2))


def test_the_spread_of_normal_values_is_their_standard_deviation() -> None:
    values = np.random.default_rng(0).normal(3, 2, 20_000)
    assert window(values.tolist()).spread == pytest.approx(2, rel=0.03)
    assert window_of_steps(values.reshape(400, 50)).spread == pytest.approx(2, rel=0.03)


def test_outliers_hardly_change_the_spread() -> None:
    values = np.random.default_rng(0).normal(3, 2, 500).tolist()
    assert window([*values, 1e6, -1e9]).spread == pytest.approx(window(values).spread, rel=0.02)


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


@pytest.mark.parametrize("seed", range(8))
def test_accumulated_results_and_the_median_equal_those_computed_anew(seed: int) -> None:
    random = np.random.default_rng(seed)
    found = MetricSeries()
    for step in range(1, 300):
        value = float(random.choice([random.normal(), random.integers(3), math.inf, -math.inf, math.nan]))
        found.add(step, Stat.of(value))
        if random.random() < 0.5:
            means = np.array([stat.mean for stat in found.stats])
            np.testing.assert_array_equal(found.accumulate(np.maximum, -math.inf), np.maximum.accumulate(means))
            np.testing.assert_array_equal(found.accumulate(count_rows, 0), 1 + np.arange(len(means)))
            past = means[:-1][~np.isnan(means[:-1])].tolist()
            np.testing.assert_equal(found.median_before_newest(), median(past) if past else math.nan)


def count_rows(count: int, mean: float) -> int:
    return count + 1


@pytest.mark.parametrize(
    ("rows", "num_values"),
    [
        ([(10, 0.0, 1), (20, 0.0, 1), (50, 0.0, 1)], [1, 2, 3]),
        ([(10, 0.1, 1), (20, 0.1, 1), (50, 0.0, 1)], [10, 20, 50]),
        ([(10, 0.0, 1), (110, 0.3, 10), (210, 0.3, 10)], [1, 11, 21]),
    ],
    ids=["single values", "statistics", "merged rows of single values"],
)
def test_number_of_values(rows: list[tuple[int, float, int]], num_values: list[int]) -> None:
    """A row of statistics has as many values as it covers steps, also of a metric whose values are all equal."""
    found = MetricHistory()
    for step, std, count in rows:
        found.add(step, {"other": Stat.of(1.0), NAME: Stat(1.0, std, 0.0, 2.0)}, {NAME: count, "other": count})
    assert found.series[NAME].num_values == found.series["other"].num_values == num_values


# ---- the newest window -----------------------------------------------------------------------------------


def first_window(steps: list[int], length: WindowLength, run_length: int | None = None, std: float = 0.0) -> int | None:
    """The first step at which a window is available."""
    for count in range(1, len(steps) + 1):
        if make_history(steps[:count], run_length, std).last(NAME, length) is not None:
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
    assert first_window(steps, window_length(300), length) == first


@pytest.mark.parametrize(
    ("every", "values", "std", "first"),
    [
        (100, 8, 0.0, 800),
        (50, 8, 0.0, 400),
        (25, 8, 0.0, 300),
        (100, 25, 0.0, 2500),
        (100, 8, 0.1, 400),
        (100, 250, 0.1, 400),
    ],
    ids=[
        *("single values", "8 values are longer", "300 steps are longer", "many values"),
        *("statistics", "four rows have enough values"),
    ],
)
def test_a_window_needs_enough_values(every: int, values: int, std: float, first: int) -> None:
    for run_length in (None, 2400):
        assert first_window(steps_every(every, 3000), window_length(300, values), run_length, std) == first
        found = make_history(steps_every(every, 3000), run_length, std).last(NAME, window_length(300, values))
        assert found is not None
        assert found.steps[0] == 3000 + every - first


def test_the_last_window_has_the_newest_rows() -> None:
    found = make_history(steps_every(10, 1000)).last(NAME, window_length(300))
    assert found is not None
    assert found.steps == list(range(710, 1001, 10))
    assert found.means.tolist() == list(range(70, 100))
    short = make_history(steps_every(10, 1000), 1600).last(NAME, window_length(300))
    assert short is not None
    assert short.steps == list(range(810, 1001, 10))
    shortest = make_history(steps_every(10, 1000), 1000).last(NAME, window_length(20))
    assert shortest is not None
    assert shortest.steps == [970, 980, 990, 1000]
    eight = make_history(steps_every(10, 1000), 1000).last(NAME, window_length(20, 8))
    assert eight is not None
    assert eight.steps == list(range(930, 1001, 10))


def test_a_window_of_a_log_whose_interval_changes() -> None:
    """Its number of values counts, not the interval: eight rows, whether they are 10 or 100 steps apart."""
    crowded = [*steps_every(10, 500), *range(600, 1101, 100)]
    history = make_history(crowded)
    found = history.last(NAME, window_length(300, 8))
    assert found is not None
    assert found.steps == [490, 500, *range(600, 1101, 100)]
    assert history.window_steps(NAME, window_length(300, 8)) == 1100 - 480


@pytest.mark.parametrize("every", [1, 7, 100])
def test_windows_remain_when_rows_are_merged(every: int) -> None:
    """After 500 rows of single values, ten become one, which holds ten values."""
    history = make_history(steps_every(every, 500 * every))
    for index in range(51, 100):
        history.add(10 * index * every, {NAME: Stat(500.0, 0.3, 499.0, 501.0)}, {NAME: 10})
        found = history.last(NAME, window_length(1, 25))
        assert found is not None
        merged = min(index - 50, 4)  # four merged rows hold forty values, three thirty
        singles = {1: 15, 2: 5, 3: 1, 4: 0}[merged]
        assert len(found) == merged + singles


@pytest.mark.parametrize(
    ("steps", "length", "covered"),
    [
        (steps_every(10, 1000), window_length(300), 300),
        (steps_every(100, 1000), window_length(300), 400),
        (steps_every(100, 1000), window_length(300, 8), 800),
        (steps_every(100, 300), window_length(200), 200),
        (steps_every(100, 500), window_length(200, 8), 500),
    ],
    ids=["steps", "four rows", "eight values", "three rows", "too few values: all rows"],
)
def test_window_steps(steps: list[int], length: WindowLength, covered: int) -> None:
    assert make_history(steps).window_steps(NAME, length) == covered


def test_a_metric_that_is_not_in_the_newest_row_has_no_window() -> None:
    found = make_history(steps_every(10, 400))
    assert found.is_fresh(NAME)
    assert found.newest(NAME) == Stat.of(39)
    found.add(410, {"other": Stat.of(1)})
    assert not found.is_fresh(NAME)
    assert found.newest(NAME) is None
    assert found.last(NAME, window_length(300)) is None
    assert found.last(NAME, window_length(300), stale=True) is not None
    assert found.running_median(NAME) is None
    assert found.last("nothing", window_length(300)) is None
    assert found.newest("nothing") is None


def test_a_window_with_a_number_that_is_not_finite() -> None:
    found = make_history(steps_every(10, 400))
    found.add(410, {NAME: Stat.of(math.nan)})
    assert found.last(NAME, window_length(300)) is None
    for step in range(420, 711, 10):
        assert found.last(NAME, window_length(300)) is None
        found.add(step, {NAME: Stat.of(1)})
    assert found.last(NAME, window_length(300)) is not None


def test_a_window_has_four_rows_even_if_they_are_far_apart() -> None:
    found = make_history([*range(1, 10), 100, 200]).last(NAME, window_length(50))
    assert found is not None
    assert found.steps == [8, 9, 100, 200]


def test_rows_at_one_step_form_no_window() -> None:
    assert make_history([7] * 9).last(NAME, window_length(300)) is None


# ---- early, running_median ---------------------------------------------------------------------------------------


def test_early_is_the_first_window_without_the_first_row() -> None:
    found = make_history(steps_every(50, 1000)).early(NAME, window_length(300))
    assert found is not None
    assert found.steps == [100, 150, 200, 250, 300, 350]
    assert found.means.tolist() == [1, 2, 3, 4, 5, 6]
    short = make_history(steps_every(50, 1000), 1600).early(NAME, window_length(300))
    assert short is not None
    assert short.steps == [100, 150, 200, 250]
    eight = make_history(steps_every(50, 1000), 1600).early(NAME, window_length(300, 8))
    assert eight is not None
    assert eight.steps == list(range(100, 451, 50))
    statistics = make_history(steps_every(50, 1000), 1600, 0.1).early(NAME, window_length(300, 8))
    assert statistics is not None
    assert statistics.steps == [100, 150, 200, 250]


def test_early_is_the_same_however_the_log_goes_on() -> None:
    steps = [*steps_every(10, 500), *range(600, 2001, 100)]
    found = [make_history(steps[:count]).early(NAME, window_length(300, 25)) for count in (40, 50, len(steps))]
    assert [window.steps for window in found if window is not None] == 3 * [list(range(20, 311, 10))]


def test_early_must_be_over_and_finite() -> None:
    assert make_history(steps_every(50, 350)).early(NAME, window_length(300)) is None
    assert make_history(steps_every(50, 400)).early(NAME, window_length(300)) is not None
    assert make_history(steps_every(50, 250)).early(NAME, window_length(100)) is None
    assert make_history(steps_every(50, 300)).early(NAME, window_length(100)) is not None
    assert make_history(steps_every(50, 450)).early(NAME, window_length(100, 8)) is None
    assert make_history(steps_every(50, 500)).early(NAME, window_length(100, 8)) is not None
    assert make_history([50, 60, 70, 900, 1800]).early(NAME, window_length(1)) is None
    assert make_history(steps_every(50, 400)).early("nothing", window_length(300)) is None
    found = MetricHistory()
    for step in steps_every(50, 600):
        found.add(step, {NAME: Stat.of(math.inf if step == 100 else 1.0)})
    assert found.early(NAME, window_length(300)) is None


def test_early_needs_four_rows_after_the_first() -> None:
    rows = [0, 300, 600, *range(610, 901, 10)]
    for steps, last in ((600, 620), (610, 620), (630, 630)):
        found = make_history(rows).early(NAME, window_length(steps))
        assert found is not None
        assert (found.steps[0], found.steps[-1]) == (300, last)
    short = make_history(steps_every(50, 200))
    short.add(250, {"other": Stat.of(1)})
    assert short.early(NAME, window_length(100)) is None


def test_early_ignores_the_first_row() -> None:
    found = MetricHistory()
    for step in steps_every(50, 600):
        found.add(step, {NAME: Stat.of(math.nan if step == 50 else 1.0)})
    assert found.early(NAME, window_length(300)) is not None


def test_the_running_median_is_that_of_all_rows_but_the_newest() -> None:
    assert make_history(steps_every(10, 80)).running_median(NAME) is None
    found = make_history(steps_every(10, 90))
    assert found.running_median(NAME) == 3.5
    found.add(100, {NAME: Stat.of(1e9)})
    assert found.running_median(NAME) == found.running_median(NAME) == 4
    found.add(110, {NAME: Stat.of(math.nan)})
    found.add(120, {NAME: Stat.of(-1)})
    assert found.running_median(NAME) == 4.5


def test_the_early_window_is_computed_once() -> None:
    history = make_history(steps_every(50, 1000))
    first = history.early(NAME, window_length(300))
    assert first is not None
    before = (first.means.tolist(), first.median, first.spread)
    history.add(1050, {NAME: Stat.of(1e6)})
    again = history.early(NAME, window_length(300))
    assert again is first
    assert (again.means.tolist(), again.median, again.spread) == before
    assert history.early(NAME, window_length(300, 9)) is not first
