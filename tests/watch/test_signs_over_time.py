"""Tests of when alarms come: only once there are enough values, not too often, and with the step since when."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pytest

from poise.core.metrics_log import Stat
from poise.watch.base import Alarm, DetectorSettings
from poise.watch.history import MetricHistory, WindowLength
from poise.watch.monitor import DETECTORS, Monitor, MonitorConfig
from watch.test_detectors import (
    ACCURACY,
    CASES,
    EACH_DETECTOR,
    HARMFUL,
    Curve,
    D,
    G,
    Rows,
    first_family,
    make_rows,
    run_monitor,
    single_value,
    step_change,
)

NEEDS_VALUES = {name: detector.values for name, detector in DETECTORS.items() if detector.values > 4}

# ---- enough values ---------------------------------------------------------------------------------------

FROM_THE_START: dict[str, tuple[Mapping[str, float | Curve], int]] = {
    "d_at_zero": ({D: 0.001}, 8),
    "d_spikes": ({D: lambda t: Stat.of(0.6 if t <= 2600 else 0.6 + (t // 100 % 3 - 1))}, 45),
    "g_falling": ({G: lambda t: 2 - t / 10_000, "g/diversity": lambda t: 1 - t / 2500}, 10),
    "g_at_zero": ({D: 0.8, G: 0.05}, 8),
    "losses_apart": ({D: 0.5, G: lambda t: 7 + t / 1000}, 10),
    "losses_constant": ({D: 0.7, G: 0.7}, 25),
    "wasserstein_stuck": ({"d/wasserstein": 5.0}, 24),
    "codes_ignored": ({"g/kl": 0.1}, 8),
    "d_never_wrong": ({ACCURACY: 0.999}, 8),
    "d_fooled": ({ACCURACY: 0.3}, 8),
    "d_never_right": ({ACCURACY: 0.5}, 16),
    "d_knows_by_heart": ({"d/real_accuracy": 0.99}, 8),
    "scores_apart": ({"d/real_score": step_change(3, 12, 900), "d/fake_score": 1.0}, 14),
    "gradient_long": ({"g/grad_norm": 101}, 8),
    "gradient_burst": ({"g/grad_norm": lambda t: 100 if t in (500, 800, 900) else 1}, 9),
    "update_burst": ({"d/update": lambda t: 100 if t in (500, 800, 900) else 1}, 9),
    "slopes_uneven": ({"d/r2": 21.0, "d/r1": 2.0}, 8),
}
"""For each detector that needs more than four values: its sign as early as possible, and the row of the alarm.

`d_never_right` waits for two windows, `wasserstein_stuck` for three. `scores_apart` compares rows 2 to 9, of a gap of
2, with the median of the newest eight, of which five must have the new gap. `d_spikes` compares rows 2 to 26 with the
newest 25. In these, 13 must be away from the middle: two in three of the new rows, so the 19th of them.
"""


def test_every_detector_that_needs_values_is_tested() -> None:
    assert FROM_THE_START.keys() == NEEDS_VALUES.keys()


@pytest.mark.parametrize("name", FROM_THE_START)
def test_no_alarm_before_there_are_enough_values(name: str) -> None:
    """In a log with a row of single values every 100 steps."""
    curves, row = FROM_THE_START[name]
    alarms = run_monitor(make_rows(100, 6000, curves), first_family(name))
    assert [alarm.step // 100 for alarm in alarms if alarm.detector == name][:1] == [row]
    assert row >= NEEDS_VALUES[name]


def test_a_spread_of_four_calm_rows_is_no_reference() -> None:
    rows = make_rows(100, 6000, {D: lambda t: 0.6 if t <= 500 else 0.6 + (t // 100 % 3 - 1) * 0.3})
    assert run_monitor(rows, "logistic") == []


# ---- d_spikes on noise -----------------------------------------------------------------------------------


def first_spike(values: np.ndarray, settings: DetectorSettings, every: int = 10) -> int | None:
    """The first row, of every tenth, in which `d_spikes` finds something, with a row every 100 steps."""
    history = MetricHistory()
    for row, value in enumerate(values.tolist(), 1):
        history.add(100 * row, {D: Stat.of(value)})
        if row % every == 0 and DETECTORS["d_spikes"].detect(history, settings) is not None:
            return row
    return None


HINGE = DetectorSettings(DETECTORS["d_spikes"].threshold, WindowLength(500, DETECTORS["d_spikes"].values), "hinge")


def test_noise_of_constant_spread_does_not_spike() -> None:
    """A hinge loss of 1 with a deviation of 0.3, above the bound of a fifth: 25 values estimate it well enough."""
    noise = np.random.default_rng(0).normal(1, 0.3, (200, 300))
    assert [seed for seed, values in enumerate(noise) if first_spike(values, HINGE) is not None] == []


def test_a_spread_that_grows_fivefold_is_found() -> None:
    """In at least 19 of 20 series, and never before it grows."""
    noise = np.random.default_rng(1).normal(0, 0.15, (60, 300))
    noise[:, 150:] *= 5
    found = [first_spike(1 + values, HINGE) for values in noise]
    rows = [row for row in found if row is not None]
    assert len(rows) >= 57
    assert min(rows) > 150


@pytest.mark.parametrize("outlier", [50.0, -50.0, 1e6])
def test_an_outlier_neither_raises_an_alarm_nor_hides_one(outlier: float) -> None:
    """Wherever it is: among the early rows, in the calm part, or among the spikes."""
    sound = np.random.default_rng(2).normal(1, 0.1, 300)
    spiky = 1 + (sound - 1) * np.where(np.arange(300) < 150, 1, 8)
    usual = first_spike(spiky, HINGE, 1)
    assert usual is not None
    for place in (3, 100, 152):
        for values, row in ((sound, None), (spiky, usual)):
            values = values.copy()
            values[place] = outlier
            found = first_spike(values, HINGE, 1)
            assert (found is None) == (row is None)
            assert found is None or row is None or abs(found - row) <= 2


# ---- repetition ------------------------------------------------------------------------------------------


def only(name: str) -> MonitorConfig:
    """Settings with which the other detectors are off."""
    return MonitorConfig(policy={other: "off" for other in DETECTORS if other != name})


def assert_each_doubling(alarms: list[Alarm], last: int) -> None:
    """That the run is at least twice as long at each alarm as at the one before."""
    steps = [alarm.step for alarm in alarms]
    assert all(later >= 2 * earlier for earlier, later in pairwise(steps))
    assert 1 <= len(steps) <= 1 + math.log2(last / steps[0])


@EACH_DETECTOR
def test_a_sign_that_comes_and_goes_is_reported_once_per_doubling(name: str) -> None:
    """Eight times the rows with the sign, each followed by twice the harmless ones."""
    case, rows = CASES[name], Rows()
    for part in (case.rows, case.harmless, case.harmless) * 8:
        start = rows[-1][0] if rows else 0
        rows += [(start + step, numbers) for step, numbers in part]
    alarms = run_monitor(rows, first_family(name), only(name))
    assert_each_doubling(alarms, rows[-1][0])
    if name not in ("d_never_right", "past_its_best"):  # which compare with all rows before
        assert len(alarms) > 1


@EACH_DETECTOR
def test_ten_thousand_rows_have_few_alarms(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sign is present for two windows, then absent for two, and so on."""
    detector = DETECTORS[name]
    period = 4 * max(detector.window, detector.values, 4)

    def detect(history: MetricHistory, _: DetectorSettings) -> str | None:
        return "the sign" if history.step % period >= period / 2 else None

    monkeypatch.setitem(DETECTORS, name, detector._replace(detect=detect))
    monitor, length = Monitor(only(name)), max(10_000, 20 * period)
    alarms = []
    for step in range(length // 10_000, length + 1, length // 10_000):
        for metric in detector.inputs[:1] or (D,):
            alarms += monitor.hear(step, {metric: Stat(1.0, 0.1, 0.5, 1.5)})
    assert_each_doubling(alarms, length)
    assert len(alarms) >= 3


# ---- since -----------------------------------------------------------------------------------------------


@EACH_DETECTOR
def test_since_is_before_the_sign(name: str) -> None:
    """Without the rows after `since`, the run has raised no alarm, and it is not later than the alarm's window."""
    case, detector = CASES[name], DETECTORS[name]
    [alarm] = run_monitor(case.rows, first_family(name))
    assert 0 <= alarm.since < alarm.step
    assert run_monitor([row for row in case.rows if row[0] <= alarm.since], first_family(name)) == []
    if name not in ("not_finite", "gradient_burst", "update_burst"):  # signs of one row
        assert alarm.since <= alarm.step - detector.window


@pytest.mark.parametrize("name", ["not_finite", "gradient_burst", "update_burst"])
def test_since_of_a_sign_in_one_row_is_the_row_before(name: str) -> None:
    [alarm] = run_monitor(CASES[name].rows, first_family(name))
    assert alarm.since == alarm.step - 50


def test_since_of_past_its_best_is_the_step_of_the_best() -> None:
    alarms = [alarm for family, rows, *_ in HARMFUL.values() for alarm in run_monitor(rows, family)]
    found = [alarm for alarm in alarms if alarm.detector == "past_its_best"]
    assert len(found) >= 5
    for alarm in found:
        assert alarm.message.endswith(f" at step {alarm.since:,}")


@pytest.mark.parametrize("what", HARMFUL)
def test_since_of_harmful_series(what: str) -> None:
    family, rows, *_ = HARMFUL[what]
    [alarm] = run_monitor(rows, family)
    assert 0 <= alarm.since < alarm.step


@pytest.mark.parametrize(
    ("name", "curves", "family"),
    [
        ("d_never_right", {ACCURACY: 0.5}, "logistic"),
        ("collapse", {"g/diversity": 0.4}, "logistic"),
        ("wasserstein_stuck", {"d/wasserstein": 5.0}, "wasserstein"),
    ],
)
def test_what_was_never_sound_has_failed_since_the_start(name: str, curves: Mapping[str, float], family: str) -> None:
    [alarm] = run_monitor(make_rows(25, 2000, curves), family)
    assert (alarm.detector, alarm.since) == (name, 0)
    assert alarm.step >= 2 * DETECTORS[name].window


def test_since_of_a_wasserstein_estimate_that_was_lower_is_the_beginning_of_the_window() -> None:
    [alarm] = run_monitor(make_rows(25, 2000, {"d/wasserstein": single_value(5.0, 2.0, 700)}), "wasserstein")
    assert (alarm.step, alarm.since) == (1500, 1000)


def test_since_when_rows_are_far_apart() -> None:
    """The window is of eight rows, from step 9,000 on; the row before it was sound."""
    [alarm] = run_monitor(make_rows(1000, 20_000, {D: step_change(0.7, 0.0, 8000)}), "logistic")
    assert (alarm.step, alarm.since) == (16_000, 8000)


def test_since_of_measures() -> None:
    """Four measurements every 500 steps; the rows in between do not count."""
    rows = make_rows(50, 4000, {D: 0.7})
    for step, numbers in rows[9::10]:
        numbers["measure/class_balance"] = 1.0 if step <= 1000 else 0.1
    [alarm] = run_monitor(rows, "logistic")
    assert (alarm.detector, alarm.step, alarm.since) == ("classes_missing", 3000, 1000)
