"""Tests of the monitor: when detectors run, when an alarm is repeated, and what a roll-back deletes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

import poise
from poise.core.metrics_log import Stat
from poise.errors import RecipeError
from poise.recipe import shipped
from poise.recipe.decode import decode
from poise.watch.base import ALL_FAMILIES, FAMILIES, LEVELS, Alarm, DetectorSettings
from poise.watch.history import MetricHistory, MetricSeries, WindowLength
from poise.watch.monitor import DETECTORS, Monitor, MonitorConfig, idle_settings

D, NORM, BALANCE = "d/adversarial", "g/grad_norm", "measure/class_balance"
BURST = 2 * DETECTORS["gradient_burst"].threshold
"""A gradient norm that raises an alarm at once after nine rows with norm 1."""


def steps(alarms: list[Alarm]) -> list[int]:
    return [alarm.step for alarm in alarms]


# ---- repeated alarms -------------------------------------------------------------------------------------

QUIET = [(step, 1.0) for step in range(1, 10)]


def burst_steps(*bursts: int) -> list[int]:
    """The steps of the alarms about bursts at these steps, with a row every 10 steps and a window of 100."""
    monitor = Monitor(MonitorConfig(window={"gradient_burst": 100}))
    norms = {step: BURST if step in bursts else 1.0 for step in range(10, max(bursts) + 50, 10)}
    alarms = [alarm for step, norm in norms.items() for alarm in monitor.hear(step, {NORM: norm})]
    assert {alarm.detector for alarm in alarms} == {"gradient_burst"}
    return steps(alarms)


@pytest.mark.parametrize(
    ("bursts", "found"),
    [
        ([100, 210], [100, 210]),
        ([100, 200], [100]),
        ([100, 150, 250], [100]),
        ([100, 150, 260, 270], [100, 260]),
        ([200, 310], [200]),
        ([200, 310, 350, 390], [200]),
        ([200, 310, 400], [200, 400]),
        ([200, 310, 390, 480, 500], [200, 480]),
        ([200, 310, 420], [200, 420]),
        ([200, *range(210, 500, 10)], [200]),
        ([100, 210, 410, 420, 530, 840], [100, 210, 420, 840]),
    ],
    ids=[
        *("absent for a window", "absent for less", "a window since the first", "again, once"),
        *("not twice as long", "still not", "present when it is", "present soon after", "absent again"),
        *("present all the time", "each doubling"),
    ],
)
def test_an_alarm_is_repeated_after_a_window_without_its_sign(bursts: list[int], found: list[int]) -> None:
    """Once the run is twice as long as at the last alarm."""
    assert burst_steps(*bursts) == found


def test_one_alarm_while_the_sign_persists() -> None:
    monitor = Monitor(family="logistic")
    alarms = [alarm for step in range(25, 5001, 25) for alarm in monitor.hear(step, {D: 0.001})]
    assert [(alarm.step, alarm.detector) for alarm in alarms] == [(300, "d_at_zero")]


def test_detectors_are_independent() -> None:
    monitor = Monitor(family="logistic")
    alarms = []
    for step in range(25, 1001, 25):
        alarms += monitor.hear(step, {D: 0.001, "g/shades": 0.1 if step > 500 else 0.9})
    assert [(alarm.step, alarm.detector) for alarm in alarms] == [(300, "d_at_zero"), (800, "saturated")]


def test_simultaneous_alarms_come_in_the_order_of_the_detectors() -> None:
    monitor = Monitor(family="logistic")
    alarms = [a for step in range(25, 301, 25) for a in monitor.hear(step, {"g/shades": 0.1, D: 0.001})]
    assert [alarm.detector for alarm in alarms] == ["d_at_zero", "saturated"]


@pytest.mark.parametrize(
    ("name", "values"),
    [(BALANCE, [0.1] * 6), ("measure/gan_test", [0.1] * 6), ("measure/fid", [10, 20, 20, 20, 20, 20])],
)
def test_rare_measures_raise_one_alarm(name: str, values: list[float]) -> None:
    """Even if the measurements are farther apart than the configured window."""
    monitor = Monitor(MonitorConfig(window={"classes_missing": 200, "labels_wrong": 200}))
    alarms = []
    for step in range(50, 3001, 50):
        numbers = {D: 0.7} | ({name: values[step // 500 - 1]} if step % 500 == 0 else {})
        alarms += monitor.hear(step, numbers)
    assert len(alarms) == 1


def test_an_alarm_is_open_while_its_sign_is_present() -> None:
    monitor = Monitor(family="logistic")
    for step in range(25, 301, 25):
        (*_, last) = [None, *monitor.hear(step, {D: 0.001})]
    assert monitor.open_alarms() == [last]
    monitor.hear(325, {D: 0.7, "g/shades": 0.9})
    assert monitor.open_alarms() == []  # although it would not be raised again within a window
    assert monitor.hear(350, {D: 0.001}) == []


# ---- batches of rows -------------------------------------------------------------------------------------


def examined_steps(monkeypatch: pytest.MonkeyPatch, rows: list[tuple[int, dict[str, float | Stat]]]) -> list[int]:
    """The steps at which the monitor runs its detectors."""
    examined: list[int] = []
    add = MetricHistory.add

    def recording_add(history: MetricHistory, step: int, *rest: Any) -> None:
        examined.append(step)
        add(history, step, *rest)

    monkeypatch.setattr(MetricHistory, "add", recording_add)
    monitor = Monitor()
    for step, numbers in rows:
        monitor.hear(step, numbers)
    return examined


def test_500_rows_are_examined_one_by_one_and_then_ten_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(step, {D: 0.7}) for step in range(1, 536)]
    assert examined_steps(monkeypatch, rows) == [*range(1, 501), 510, 520, 530]


@pytest.mark.parametrize("urgent", [math.nan, math.inf, Stat(0.7, 0.1, 0.5, 0.9), Stat(0.7, 0.0, 0.7, math.inf)])
def test_urgent_rows_are_examined_at_once(monkeypatch: pytest.MonkeyPatch, urgent: float | Stat) -> None:
    rows = [(step, {D: urgent if step == 514 else 0.7, "g/update": 1.0}) for step in range(1, 530)]
    assert examined_steps(monkeypatch, rows)[499:] == [500, 510, 514, 524]


def test_rows_of_statistics_are_examined_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(step, {D: Stat(0.7, 0.1, 0.5, 0.9)}) for step in range(1, 600)]
    assert examined_steps(monkeypatch, rows) == list(range(1, 600))


def test_ten_rows_are_merged() -> None:
    monitor = Monitor()
    for step in range(1, 501):
        monitor.hear(step, {D: 0.7})
    values = np.random.default_rng(0).normal(1, 0.3, 10)
    for step, value in enumerate(values, 501):
        monitor.hear(step, {D: value} | ({"g/update": 2.0 * step} if step > 508 else {}))
    stat = monitor.history.newest(D)
    assert stat is not None
    assert stat == pytest.approx((values.mean(), values.std(), values.min(), values.max()))
    assert monitor.history.newest("g/update") == (1019, 1, 1018, 1020)
    assert monitor.history.step == 510


def test_merging_keeps_the_spread_of_statistics() -> None:
    monitor = Monitor()
    for step in range(1, 501):
        monitor.hear(step, {D: 0.7})
    monitor.hear(501, {D: 1.0})
    monitor.hear(502, {D: Stat(3.0, 2.0, -4.0, 9.0)})
    assert monitor.history.newest(D) == pytest.approx((2.0, math.sqrt(3), -4.0, 9.0))


def test_flush_examines_pending_rows() -> None:
    monitor = Monitor(family="logistic")
    for step in range(1, 501):
        assert monitor.hear(step, {NORM: 1.0}) == []
    for step in range(501, 505):
        assert monitor.hear(step, {NORM: BURST}) == []
    [alarm] = monitor.flush()
    assert (alarm.step, alarm.detector) == (504, "gradient_burst")
    assert monitor.flush() == []
    assert Monitor().flush() == []


# ---- alarms of another length of the run -----------------------------------------------------------------


def at_zero(step: int) -> Alarm:
    return Alarm(step, "d_at_zero", "warning", "it was at zero", "weaken it", "T11")


@pytest.mark.parametrize(
    ("logged", "until", "later"),
    [
        ([300], 400, []),
        ([75], 400, []),
        ([75, 200], 400, []),
        ([], 400, [425]),
        ([], 299, []),
        ([310], 305, [425]),
    ],
)
def test_alarms_that_were_raised_take_the_place_of_those_that_were_found(
    logged: list[int], until: int, later: list[int]
) -> None:
    """This monitor finds the sign at 300; those after `until` are left as they are."""
    monitor = Monitor(family="logistic")
    found = [alarm for step in range(25, 401, 25) for alarm in monitor.hear(step, {D: 0.001})]
    monitor.recall(map(at_zero, logged), until)
    again = [alarm for step in range(425, 901, 25) for alarm in monitor.hear(step, {D: 0.001})]
    assert (steps(found), steps(again)) == ([300], later)
    expected = [step for step in logged if step <= until][-1:] or later or [300]
    assert steps(monitor.open_alarms()) == expected


def test_recalled_alarms_of_values_that_are_not_finite_change_nothing() -> None:
    monitor = Monitor(family="logistic")
    monitor.hear(25, {D: 0.5})
    monitor.recall([Alarm(20, "not_finite", "failure", "", "", "T11")], 25)
    assert steps(monitor.hear(30, {D: math.nan})) == [30]


# ---- the whole series ------------------------------------------------------------------------------------

LASTING_SIGNS = {
    "d/wasserstein": lambda row: 1.0 + min(row, 100) / 100,
    "d/accuracy": lambda row: 0.5,
    "g/diversity": lambda row: 0.9 if row < 9 else 0.1,
    "g/update": lambda row: 1.0,
    "g/grad_norm": lambda row: 1.0,
    "measure/fid": lambda row: 5.0 if row < 9 else 50.0,
}
"""Metrics by the number of the row, with signs that compare the newest rows with all rows so far."""


class CountedList(list[Any]):
    """A list that counts the elements that are read."""

    count = 0

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        CountedList.count += len(found) if isinstance(index, slice) else 1
        return found

    def __iter__(self) -> Any:
        CountedList.count += len(self)
        return super().__iter__()


def test_a_late_row_reads_hardly_more_elements_than_an_early_one(monkeypatch: pytest.MonkeyPatch) -> None:
    create = MetricSeries.__init__

    def create_counted(series: MetricSeries) -> None:
        create(series)
        series.steps, series.stats = CountedList(), CountedList()

    monkeypatch.setattr(MetricSeries, "__init__", create_counted)
    monitor, counts = Monitor(), []
    for row in range(700):
        before = CountedList.count
        monitor.hear(50 * (row + 1), {name: Stat(f(row), 0.1, f(row), f(row)) for name, f in LASTING_SIGNS.items()})
        counts.append(CountedList.count - before)
    signs = {"wasserstein_stuck", "d_never_right", "collapse", "past_its_best"}
    assert signs <= {alarm.detector for alarm in monitor.open_alarms()}
    assert sum(counts[600:]) < 1.1 * sum(counts[200:300])  # a binary search takes a step more for twice the rows


@pytest.mark.parametrize("seed", range(3))
def test_detectors_find_the_same_in_a_history_that_they_have_followed_and_in_a_new_one(seed: int) -> None:
    """What is kept from row to row is what would be computed anew."""
    random = np.random.default_rng(seed)
    rows: list[tuple[int, dict[str, Stat]]] = []
    history, found = MetricHistory(), set()
    for row in range(1, 200):
        stats = {name: noisy(f(row), random) for name, f in LASTING_SIGNS.items()}
        rows.append((50 * row, stats | ({NORM: Stat.of(BURST)} if row % 20 == 0 else {})))
        history.add(*rows[-1])
        detected = detections(history)
        if row % 5 == 0:
            anew = MetricHistory()
            for step, stats in rows:
                anew.add(step, stats)
            assert detected == detections(anew)
        found |= {name for name, _ in detected}
    assert {"wasserstein_stuck", "d_never_right", "collapse", "past_its_best", "gradient_burst"} <= found


def noisy(value: float, random: np.random.Generator) -> Stat:
    return Stat.of(float(random.choice([value * random.uniform(0.9, 1), value, math.nan], p=[0.9, 0.095, 0.005])))


def detections(history: MetricHistory) -> list[tuple[str, Any]]:
    """What each detector finds, by its default settings."""
    settings = {
        name: DetectorSettings(detector.threshold, WindowLength(detector.window, detector.values), None)
        for name, detector in DETECTORS.items()
    }
    found = ((name, detector.detect(history, settings[name])) for name, detector in DETECTORS.items())
    return [(name, detection) for name, detection in found if detection is not None]


# ---- configuration ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", LEVELS)
def test_levels_by_policy(policy: str) -> None:
    monitor = Monitor(MonitorConfig.model_validate({"policy": {"gradient_burst": policy}}))
    [alarm] = [alarm for step, value in [*QUIET, (10, BURST)] for alarm in monitor.hear(step, {NORM: value})]
    assert (alarm.step, alarm.detector) == (10, "gradient_burst")
    levels = {"note": "note", "warn": "warning", "keep": "warning"}
    assert alarm.level == levels.get(policy, "failure")


@pytest.mark.parametrize("length", [0, -5, "100", 1.5, True, math.nan])
def test_a_length_that_is_no_number_of_steps_is_refused(length: Any) -> None:
    with pytest.raises(RecipeError, match=r"^length: must be a whole number above 0, found .*; give the number"):
        Monitor(length=length)


@pytest.mark.parametrize("length", [1, np.int64(4000), None])
def test_lengths(length: Any) -> None:
    assert Monitor(length=length).history.length == length


@pytest.mark.parametrize("family", [*sorted(ALL_FAMILIES), None])
def test_settings_that_cannot_act(family: Any) -> None:
    """Those of detectors that do not run for the family, that have no threshold or window, and no others."""
    every = dict.fromkeys(DETECTORS, 2.0)
    config = MonitorConfig(policy=dict.fromkeys(DETECTORS, "warn"), threshold=every, window=dict.fromkeys(DETECTORS, 9))
    running = {detector.name for detector in Monitor(config, family)._detectors}
    found = {(table, name) for table, name, _ in idle_settings(config, family)}
    assert {name for table, name in found if table == "policy"} == DETECTORS.keys() - running
    assert {name for table, name in found if table == "threshold"} == (DETECTORS.keys() - running) | {"not_finite"}
    without_window = {"not_finite", "past_its_best"}
    assert {name for table, name in found if table == "window"} == (DETECTORS.keys() - running) | without_window
    assert idle_settings(MonitorConfig(policy=dict.fromkeys(DETECTORS, "off"), threshold=every), family) == []


def test_policy_of() -> None:
    config = MonitorConfig(policy={"collapse": "off"})
    assert config.policy_of("collapse") == "off"
    assert {name: MonitorConfig().policy_of(name) for name in DETECTORS} == {n: d.policy for n, d in DETECTORS.items()}


@pytest.mark.parametrize("key", ["policy", "threshold", "window"])
def test_unknown_detectors_are_refused(key: str) -> None:
    table = shipped.load_table("dcgan") | {"monitor": {key: {"colapse": "warn" if key == "policy" else 1}}}
    with pytest.raises(RecipeError) as raised:
        decode(table)
    assert str(raised.value).startswith(f"monitor.{key}.colapse: no such detector 'colapse'")
    assert "did you mean 'collapse'?" in str(raised.value)


@pytest.mark.parametrize(
    "table",
    [
        {"policy": {"collapse": "scream"}},
        {"window": {"collapse": 0}},
        {"threshold": {"collapse": math.nan}},
        {"threshold": {"collapse": "low"}},
        {"roll_backs": -1},
        {"roll_backs": 101},
        {"back_off": 0.0},
        {"back_off": 1.1},
        {"polcy": {}},
    ],
    ids=str,
)
def test_invalid_values_are_refused(table: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MonitorConfig.model_validate(table)


def test_values_at_the_bounds_are_accepted() -> None:
    config = MonitorConfig(window={"collapse": 1}, roll_backs=0, back_off=1.0)
    assert (config.roll_backs, config.back_off, config.window) == (0, 1.0, {"collapse": 1})
    assert (MonitorConfig().roll_backs, MonitorConfig().back_off) == (3, 0.5)
    assert MonitorConfig(roll_backs=100).roll_backs == 100


def test_family_accepts_the_name_of_an_objective() -> None:
    assert Monitor(family="non_saturating").family == "logistic"
    assert Monitor(family="relativistic_average").family == "relativistic"
    assert Monitor(family="hinge").family == "hinge"
    assert Monitor(family="rebuilding").family == "reconstruction", "the name of version 0.1"
    assert Monitor().family is None
    assert {kind: Monitor(family=kind).family for kind in FAMILIES} == FAMILIES
    assert {family: Monitor(family=family).family for family in ALL_FAMILIES} == {
        family: family for family in ALL_FAMILIES
    }


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("bce", "logistic"),
        ("BCE", "logistic"),
        ("lsgan", "least_squares"),
        ("wgan", "wasserstein"),
        ("began", "energy"),
    ],
)
def test_a_family_is_known_by_the_usual_names_of_its_objectives(name: str, family: str) -> None:
    assert Monitor(family=name).family == family


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("hnge", "did you mean 'hinge'?"),
        ("logstic", "did you mean 'logistic'?"),
        ("non-saturating", "did you mean 'non_saturating'?"),
        ("cycle", "known: began, divergence, "),
        ("", "known: "),
    ],
    ids=str,
)
def test_unknown_families_are_refused(name: str, cure: str) -> None:
    with pytest.raises(RecipeError) as raised:
        Monitor(family=name)
    assert str(raised.value).startswith(f"family: no such family of losses, found '{name}'")
    assert cure in str(raised.value)


def test_inactive_detectors_have_none_of_their_inputs() -> None:
    monitor = Monitor(MonitorConfig(policy={"d_spikes": "off", "saturated": "off"}), "wasserstein")
    monitor.hear(1, {"g/diversity": 1.0})
    assert monitor.inactive_detectors() == [
        *(
            "losses_constant",
            "wasserstein_stuck",
            "codes_ignored",
            "d_fooled",
            "d_never_right",
            "d_shifted",
            "updates_grown",
        ),
        *("gradient_burst", "update_burst", "slopes_uneven"),
        *("labels_ignored", "labels_wrong", "classes_missing", "past_its_best", "memorising"),
    ]
    monitor.hear(2, {NORM: 1.0, "d/r1": 1.0, BALANCE: 1.0})
    assert monitor.inactive_detectors() == [
        *("losses_constant", "wasserstein_stuck", "codes_ignored"),
        *("d_fooled", "d_never_right", "d_shifted"),
        "update_burst",
        "labels_ignored",
        "labels_wrong",
        "past_its_best",
        "memorising",
    ]


# ---- stand-alone use -------------------------------------------------------------------------------------


def test_plain_floats_in_a_custom_loop() -> None:
    monitor = poise.Monitor(family="logistic")
    alarms = []
    for step in range(1, 400):
        alarms += monitor.hear(step, {D: np.float32(0.001), "g/adversarial": 1 + step % 2})
    [alarm] = alarms
    assert isinstance(alarm, poise.Alarm)
    assert (alarm.step, alarm.detector, alarm.level) == (300, "d_at_zero", "warning")


@pytest.mark.parametrize(
    ("numbers", "parts"),
    [
        (
            {"loss_D": 0.7, "loss_G": 0.8},
            ["'loss_D', 'loss_G'", "rename 'loss_D' to 'd/adversarial'", "rename 'loss_G' to 'g/adversarial'"],
        ),
        ({"d/loss": 0.7}, ["rename 'd/loss' to 'd/adversarial'"]),
        ({"fid": 30.0, "lr": 1e-4}, ["'fid', 'lr'; rename 'fid' to 'measure/fid'"]),
        ({"cost": 0.7}, ["'cost'; its names are those of rows.jsonl, such as 'd/adversarial' (D's loss)"]),
    ],
    ids=["losses", "a path", "a measure", "unknown"],
)
def test_a_first_row_without_a_known_name_warns_once(numbers: dict[str, float], parts: list[str]) -> None:
    monitor = Monitor()
    assert monitor.hear(0, {}) == []
    with pytest.warns(UserWarning, match="no detector but not_finite reads any of the metrics") as caught:
        monitor.hear(1, numbers)
    assert [warning.filename for warning in caught] == [__file__], "it names the caller's line"
    assert all(part in str(caught[0].message) for part in parts), caught[0].message
    assert monitor.hear(2, numbers) == []  # which would raise, as warnings are errors in these tests


@pytest.mark.parametrize(
    "numbers",
    [
        {D: 0.7, "mine": 1.0},
        {"g/reconstruction": 0.1, "g/grad_norm": 1.0, "g/update": 0.1, "time/step": 0.1},
        {"g/reconstruction": 0.1, "g/kl": 3.0, "g/grad_norm": 1.0, "g/update": 0.1},
        {"d/update": 0.1, "e/adversarial": 0.3},
        {"measure/vendi": 3.0, "floor/vendi": 0.1},
    ],
    ids=["D's loss", "an autoencoder", "a VAE", "D alone", "measures before the first row"],
)
def test_a_first_row_with_a_known_name_does_not_warn(numbers: dict[str, float]) -> None:
    monitor = Monitor()
    assert monitor.hear(1, numbers) == monitor.hear(2, {"mine": 1.0}) == []


def test_steps_that_decrease_warn_once() -> None:
    """As those of a loop that counts them within each epoch."""
    monitor = Monitor(family="logistic")
    for step in range(100):
        monitor.hear(step, {"d/adversarial": 0.005})
    with pytest.warns(UserWarning, match="step 0 comes after step 99: count steps over the whole run"):
        monitor.hear(0, {"d/adversarial": 0.005})
    for step in (1, 2, 0):
        monitor.hear(step, {"d/adversarial": 0.005})  # another warning would be an error


def test_a_step_that_stays_the_same_warns_once() -> None:
    """As that of a loop that passes the epoch. Losses in several rows of a step, and measures, are no fault."""
    monitor = Monitor(family="logistic")
    for step in range(60):
        for name in ("d/adversarial", "g/adversarial", "measure/fid", *("d/grad_norm",) * 10):
            monitor.hear(step, {name: 0.5})
    for _ in range(19):
        monitor.hear(60, {"d/adversarial": 0.005})
    with pytest.warns(UserWarning, match="the step has been 60 for 20 rows: count steps over the whole run"):
        monitor.hear(60, {"d/adversarial": 0.005})
    for _ in range(40):
        monitor.hear(60, {"d/adversarial": 0.005})


def test_steps_are_whole_numbers_in_alarms() -> None:
    monitor = Monitor(family="logistic")
    alarms = [alarm for step in np.arange(400) for alarm in monitor.hear(step, {"d/adversarial": np.float32(0.005)})]
    assert [json.loads(json.dumps(alarm._asdict()))["step"] for alarm in alarms] == [300]


@pytest.mark.parametrize("module", ["poise.watch.monitor", "poise.watch.replay", "poise.watch.plot", "poise.cli.watch"])
def test_no_torch(module: str) -> None:
    script = f"import sys, {module}; print(sorted(m for m in sys.modules if m.split('.')[0] in {{'torch', 'scipy'}}))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
