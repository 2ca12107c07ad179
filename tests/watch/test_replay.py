"""A log heard from the beginning: the same alarms as if it had been heard live."""

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


def constant(value: float, until: int = 600, every: int = 50, name: str = D) -> Rows:
    return [(step, {name: Stat.of(value)}) for step in range(every, until + 1, every)]


def found(alarms: list[Alarm]) -> list[tuple[int, str]]:
    return [(alarm.step, alarm.detector) for alarm in alarms]


def mixed() -> Rows:
    """700 rows of single numbers, 40 of many, and something wrong in each part."""
    rows: Rows = []
    for step in range(1, 741):
        loss = Stat.of(0.7 + 0.1 * math.sin(step)) if step < 700 else Stat(0.7, 0.1, 0.5, 0.9)
        rows.append((step, {D: loss, "g/shades": Stat.of(0.1 if step > 100 else 0.9)}))
        if step % 100 == 50:
            rows[-1][1]["measure/class_balance"] = Stat.of(0.1 if step > 300 else 0.9)
        rows[-1][1][NORM] = BURST if step == 677 else Stat.of(1.0)
    rows[733][1][G] = Stat.of(math.nan)
    return rows


def test_a_replay_is_what_was_heard_live() -> None:
    rows = mixed()
    monitor = Monitor(MonitorConfig(threshold={"saturated": 0.3}), "logistic", 740)
    live = [alarm for step, numbers in rows for alarm in monitor.hear(step, numbers)]
    live += monitor.flush()
    told = replay(log(rows, "logistic", 740, threshold={"saturated": 0.3}))
    assert told.alarms == live
    assert told.inactive_detectors == monitor.inactive_detectors()
    assert found(live) == [
        *[(192, "saturated"), (650, "classes_missing"), (680, "gradient_burst"), (734, "not_finite")],
    ]


def test_the_last_rows_of_a_long_log_are_looked_at() -> None:
    rows = constant(1.0, 503, 1, NORM)
    rows[-1] = (503, {NORM: BURST})
    assert found(replay(log(rows)).alarms) == [(503, "gradient_burst")]


def test_what_was_measured_at_a_rows_step_is_an_entry_of_its_own() -> None:
    """It hides nothing of the row, whose windows go on."""
    measured = {"measure/class_balance": Stat.of(0.1)}
    rows = [entry for row in constant(0.001, 1000) for entry in (row, (row[0], measured))]
    alarms = replay(log(rows, "logistic")).alarms
    assert found(alarms) == [(300, "d_at_zero"), (1000, "classes_missing")]
    assert alarms[0] == replay(log(constant(0.001), "logistic")).alarms[0]


def test_a_sound_log() -> None:
    told = replay(log(constant(0.69), "logistic"))
    assert told.alarms == []
    assert "d_at_zero" not in told.inactive_detectors
    assert {"collapse", "d_never_wrong"} <= set(told.inactive_detectors)


def test_the_length_of_the_log_shortens_windows() -> None:
    assert found(replay(log(constant(0.001), "logistic")).alarms) == [(300, "d_at_zero")]
    assert found(replay(log(constant(0.001), "logistic", 1600)).alarms) == [(200, "d_at_zero")]


@pytest.mark.parametrize(
    ("of_log", "asked", "names"),
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
def test_the_family_that_is_asked_for_goes_first(of_log: Family | None, asked: Family | None, names: list[str]) -> None:
    assert [alarm.detector for alarm in replay(log(constant(0.001), of_log), asked).alarms] == names


def test_a_critics_loss_is_minus_its_estimate() -> None:
    rows = constant(-5.0, 1800)
    [alarm] = replay(log(rows, "wasserstein")).alarms
    assert (alarm.step, alarm.detector) == (1500, "wasserstein_stuck")
    assert "it is 5, and its maximum was 5" in alarm.message
    assert replay(log(rows, "logistic")).alarms == []
    assert rows == constant(-5.0, 1800)


def test_an_estimate_that_was_logged_is_left_alone() -> None:
    losses = constant(-5.0, 1000)
    rows = [(step, {**numbers, "d/wasserstein": Stat.of(10 * 0.8 ** (step / 500))}) for step, numbers in losses]
    assert replay(log(rows, "wasserstein", 2000)).alarms == []
    assert found(replay(log(losses, "wasserstein", 2000)).alarms) == [(750, "wasserstein_stuck")]


def test_a_critics_spread_is_turned_round(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[dict[str, Stat]] = []

    def hear(monitor: Monitor, step: int, numbers: dict[str, Stat]) -> list[Alarm]:
        heard.append(numbers)
        return []

    monkeypatch.setattr(Monitor, "hear", hear)
    loss = Stat(-2.0, 0.5, -3.0, -1.0)
    replay(log([(1, {D: loss}), (2, {G: loss})], "wasserstein"))
    assert heard == [{D: loss, "d/wasserstein": Stat(2.0, 0.5, 1.0, 3.0)}, {G: loss}]


def test_the_runs_own_monitor_is_asked() -> None:
    rows = constant(0.001)
    assert replay(log(rows, "logistic", policy={"d_at_zero": "off"})).alarms == []
    assert replay(log(rows, "logistic", policy={"d_at_zero": "stop"})).alarms[0].level == "failure"
    assert found(replay(log(rows, "logistic", window={"d_at_zero": 400})).alarms) == [(400, "d_at_zero")]


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
def test_a_monitor_that_cannot_be_read(table: dict[str, Any], where: str, part: str) -> None:
    with pytest.raises(RecipeError) as raised:
        replay(log(constant(0.7), "logistic", **table))
    assert str(raised.value).startswith(where)
    assert part in str(raised.value)
