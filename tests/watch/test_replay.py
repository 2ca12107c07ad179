"""Tests of the replay of a log: it raises the same alarms as during training."""

from __future__ import annotations

import math
from typing import Any

import pytest

from poise.core.metrics_log import Stat
from poise.errors import RecipeError
from poise.watch.base import Alarm, Family
from poise.watch.logs import Log
from poise.watch.monitor import DETECTORS, Monitor, MonitorConfig
from poise.watch.replay import replay

D, G, NORM = "d/adversarial", "g/adversarial", "g/grad_norm"
BURST = Stat.of(2 * DETECTORS["gradient_burst"].threshold)
Rows = list[tuple[int, dict[str, Stat]]]


def log(rows: Rows, family: Family | None = None, length: int = 100_000, **monitor: Any) -> Log:
    return Log(rows, len(rows), length, family, monitor)


def constant(value: float, until: int = 600, every: int = 25, name: str = D) -> Rows:
    return [(step, {name: Stat.of(value)}) for step in range(every, until + 1, every)]


def steps_and_names(alarms: list[Alarm]) -> list[tuple[int, str]]:
    return [(alarm.step, alarm.detector) for alarm in alarms]


def mixed() -> Rows:
    """700 rows of single values and 40 rows of statistics, with signs of failure in both."""
    rows: Rows = []
    for step in range(1, 741):
        loss = Stat.of(0.7 + 0.1 * math.sin(step)) if step < 700 else Stat(0.7, 0.1, 0.5, 0.9)
        rows.append((step, {D: loss, "g/shades": Stat.of(0.1 if step > 100 else 0.9)}))
        if step % 100 == 50:
            rows[-1][1]["measure/class_balance"] = Stat.of(0.1 if step > 300 else 0.9)
        rows[-1][1][NORM] = BURST if step == 677 else Stat.of(1.0)
    rows[733][1][G] = Stat.of(math.nan)
    return rows


def test_a_replay_equals_live_monitoring() -> None:
    rows = mixed()
    monitor = Monitor(MonitorConfig(threshold={"saturated": 0.3}), "logistic", 740)
    live = [alarm for step, numbers in rows for alarm in monitor.hear(step, numbers)]
    live += monitor.flush()
    result = replay(log(rows, "logistic", 740, threshold={"saturated": 0.3}))
    assert result.alarms == live
    assert result.inactive_detectors == monitor.inactive_detectors()
    assert steps_and_names(live) == [
        *[(192, "saturated"), (650, "classes_missing"), (680, "gradient_burst"), (734, "not_finite")],
    ]


def test_the_last_rows_of_a_long_log_are_examined() -> None:
    rows = constant(1.0, 503, 1, NORM)
    rows[-1] = (503, {NORM: BURST})
    assert steps_and_names(replay(log(rows)).alarms) == [(503, "gradient_burst")]


def test_measures_at_the_step_of_a_row() -> None:
    """They form a separate entry and do not interrupt the windows of the row's metrics."""
    measured = {"measure/class_balance": Stat.of(0.1)}
    rows = [entry for row in constant(0.001, 1000) for entry in (row, (row[0], measured))]
    alarms = replay(log(rows, "logistic")).alarms
    assert steps_and_names(alarms) == [(300, "d_at_zero"), (1000, "classes_missing")]
    assert alarms[0] == replay(log(constant(0.001), "logistic")).alarms[0]


def test_a_healthy_log() -> None:
    result = replay(log(constant(0.69), "logistic"))
    assert result.alarms == []
    assert "d_at_zero" not in result.inactive_detectors
    assert {"collapse", "d_never_wrong"} <= set(result.inactive_detectors)


def test_the_length_of_the_log_shortens_windows() -> None:
    assert steps_and_names(replay(log(constant(0.001), "logistic")).alarms) == [(300, "d_at_zero")]
    assert steps_and_names(replay(log(constant(0.001), "logistic", 1600)).alarms) == [(200, "d_at_zero")]


@pytest.mark.parametrize(
    ("of_log", "requested", "names"),
    [
        ("logistic", None, ["d_at_zero"]),
        ("wasserstein", "logistic", ["d_at_zero"]),
        ("logistic", "wasserstein", []),
        ("wasserstein", None, []),
        (None, "hinge", ["d_at_zero"]),
        (None, None, ["d_at_zero"]),
    ],
    ids=str,
)
def test_a_requested_family_has_precedence(of_log: Family | None, requested: Family | None, names: list[str]) -> None:
    assert [alarm.detector for alarm in replay(log(constant(0.001), of_log), requested).alarms] == names


def test_the_wasserstein_estimate_is_minus_the_critics_loss() -> None:
    rows = constant(-5.0, 1800)
    [alarm] = replay(log(rows, "wasserstein", 10_000)).alarms
    assert (alarm.step, alarm.detector) == (1500, "wasserstein_stuck")
    assert "it is 5, and its maximum was 5" in alarm.message
    assert replay(log(rows, "logistic")).alarms == []
    assert rows == constant(-5.0, 1800)


def test_a_logged_wasserstein_estimate_is_used() -> None:
    losses = constant(-5.0, 1000)
    rows = [(step, {**numbers, "d/wasserstein": Stat.of(10 * 0.8 ** (step / 500))}) for step, numbers in losses]
    assert replay(log(rows, "wasserstein", 2000)).alarms == []
    assert steps_and_names(replay(log(losses, "wasserstein", 2000)).alarms) == [(750, "wasserstein_stuck")]


def test_the_spread_of_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[dict[str, Stat]] = []

    def hear(monitor: Monitor, step: int, numbers: dict[str, Stat]) -> list[Alarm]:
        received.append(numbers)
        return []

    monkeypatch.setattr(Monitor, "hear", hear)
    loss = Stat(-2.0, 0.5, -3.0, -1.0)
    replay(log([(1, {D: loss}), (2, {G: loss})], "wasserstein"))
    assert received == [{D: loss, "d/wasserstein": Stat(2.0, 0.5, 1.0, 3.0)}, {G: loss}]


def test_the_monitor_table_of_the_run_applies() -> None:
    rows = constant(0.001)
    assert replay(log(rows, "logistic", policy={"d_at_zero": "off"})).alarms == []
    assert replay(log(rows, "logistic", policy={"d_at_zero": "stop"})).alarms[0].level == "failure"
    assert steps_and_names(replay(log(rows, "logistic", window={"d_at_zero": 400})).alarms) == [(400, "d_at_zero")]


@pytest.mark.parametrize(
    ("table", "where", "part"),
    [
        ({"policy": {"colapse": "off"}}, "monitor.policy", "no such detector 'colapse'; did you mean 'collapse'?"),
        ({"window": {"colapse": 9}}, "monitor.window", "no such detector 'colapse'; did you mean 'collapse'?"),
        ({"policy": {"collapse": "scream"}}, "monitor.policy.collapse: ", "'off', 'note', 'warn', 'keep'"),
        ({"window": {"collapse": 0}}, "monitor.window.collapse: ", "greater than or equal to 1"),
        ({"roll_backs": -1}, "monitor.roll_backs: ", "greater than or equal to 0"),
        ({"polcy": {}}, "monitor", "unknown key 'polcy'; did you mean 'policy'?"),
    ],
    ids=str,
)
def test_an_invalid_monitor_table_is_refused(table: dict[str, Any], where: str, part: str) -> None:
    with pytest.raises(RecipeError) as raised:
        replay(log(constant(0.7), "logistic", **table))
    assert str(raised.value).startswith(where)
    assert part in str(raised.value)
