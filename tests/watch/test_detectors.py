"""Tests of each detector on a series that raises one alarm and on a similar harmless series that raises none."""

from __future__ import annotations

import functools
import math
import re
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poise.core.config import find_components
from poise.core.metrics_log import Stat
from poise.core.schedules import Schedulable, value_at
from poise.objectives.base import Objective
from poise.recipe import shipped
from poise.recipe.advice import fit_advice
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.toml import set_value
from poise.tips.catalogue import tips
from poise.watch.base import ALL_FAMILIES, FAMILIES, GAN_FAMILIES, LEVELS, Alarm
from poise.watch.formatting import format_factor
from poise.watch.monitor import DETECTORS, Monitor, MonitorConfig
from poise.watch.scores import PAIR_FAMILIES, SIGN_FAMILIES

D, G, ACCURACY = "d/adversarial", "g/adversarial", "d/accuracy"
BALANCE, GAN_TEST = "measure/class_balance", "measure/gan_test"
THRESHOLD = {name: detector.threshold for name, detector in DETECTORS.items()}
WINDOW = {name: detector.window for name, detector in DETECTORS.items()}
LOG2 = math.log(2)
BOUNDED_FAMILIES = "logistic relativistic least_squares hinge"

Curve = Callable[[int], float | Stat | None]
Rows = list[tuple[int, dict[str, float | Stat]]]


def make_rows(every: int, until: int, curves: Mapping[str, float | Curve]) -> Rows:
    """Rows of some curves; if a curve is None at a step, that row lacks the metric."""
    rows: Rows = []
    for step in range(every, until + 1, every):
        values = {name: curve(step) if callable(curve) else curve for name, curve in curves.items()}
        rows.append((step, {name: value for name, value in values.items() if value is not None}))
    return rows


def run_monitor(
    rows: Rows, family: str | None, config: MonitorConfig | None = None, length: int | None = None
) -> list[Alarm]:
    monitor = Monitor(config, family, length)
    alarms = [alarm for step, numbers in rows for alarm in monitor.hear(step, numbers)]
    return alarms + monitor.flush()


def step_change(first: float, later: float, after: int) -> Curve:
    return lambda t: first if t <= after else later


def swing(first: float, later: float, after: int, middle: float = 0.7, every: int = 20) -> Curve:
    """Below, at, and above the middle by turns, with another amplitude after a step."""
    return lambda t: middle + (t // every % 3 - 1) * (first if t <= after else later)


def spread(first: float, later: float, after: int) -> Curve:
    """Statistics of values around 0.7 whose standard deviation changes after a step."""
    return lambda t: Stat(0.7, first if t <= after else later, -1.0, 2.0)


def single_value(usual: float, other: float | Stat, at: int) -> Curve:
    return lambda t: other if t == at else usual


def alternating(one: float, other: float) -> Curve:
    """Alternates between two values every 100 steps."""
    return lambda t: one if t % 200 >= 100 else other


def every_100_steps(*values: float) -> Curve:
    """A value every 100 steps."""
    return lambda t: values[t // 100 - 1]


def measured(*values: float, every: int = 100) -> Curve:
    """Cycles through the values, with no value in the rows between measurements."""
    return lambda t: None if t % every else values[t // every % len(values)]


class DetectorCase(NamedTuple):
    """A failing and a harmless series for one detector.

    Attributes:
        rows: a series that raises one alarm.
        step: the step of the alarm.
        since: since when, as it says.
        message: its message.
        harmless: a similar series that raises none.
        families: the families in which the detector is active.
        other_threshold: a threshold at which `rows` raises no alarm.
        other_window: another window, and the step of the alarm with it.
    """

    rows: Rows
    step: int
    since: int
    message: str
    harmless: Rows
    families: str
    other_threshold: float | None = None
    other_window: tuple[int, int] | None = None


WIDE_STAT = Stat(10.0, 20.0, -40.0, 60.0)
"""A large spread around 10: detectors read the mean of a row."""

BAD_FID = 10 * THRESHOLD["past_its_best"]
"""The largest FID after a best of 10 that raises no alarm."""

CASES: dict[str, DetectorCase] = {
    "not_finite": DetectorCase(
        make_rows(50, 600, {"g/update": single_value(1.0, math.nan, 400)}),
        400,
        350,
        "g/update is not finite",
        make_rows(50, 600, {"g/shades": single_value(1.0, 1e300, 400)}),
        " ".join(ALL_FAMILIES),
    ),
    "d_at_zero": DetectorCase(
        make_rows(25, 450, {D: 0.0207}),
        300,
        0,
        "D's loss has been 0.0207 on average since step 25 (equilibrium: 0.693)",
        make_rows(25, 450, {D: 0.0209}),
        "logistic relativistic hinge",
        0.0298,
        (200, 200),
    ),
    "d_spikes": DetectorCase(
        make_rows(50, 1600, {D: spread(0.1, 0.41, 1000)}),
        1300,
        800,
        "D's loss varies 4.1 times as much as early in the run (std 0.41)",
        make_rows(50, 1600, {D: spread(0.1, 0.39, 1000)}),
        " ".join(GAN_FAMILIES),
        4.2,
        (250, 1150),
    ),
    "g_falling": DetectorCase(
        make_rows(
            50,
            1200,
            {G: lambda t: 2 - t / 1000, "g/diversity": step_change(0.9, 0.9 * THRESHOLD["g_falling"] - 0.01, 500)},
        ),
        1000,
        0,
        "G's loss falls steadily (1.95 to 1) while the diversity of its samples falls (0.90 to 0.80)",
        make_rows(
            50,
            1200,
            {G: lambda t: 2 - t / 1000, "g/diversity": step_change(0.9, 0.9 * THRESHOLD["g_falling"] + 0.01, 500)},
        ),
        " ".join(GAN_FAMILIES),
        THRESHOLD["g_falling"] - 0.02,
        (600, 700),
    ),
    "g_at_zero": DetectorCase(
        make_rows(25, 600, {D: 0.8, G: 0.08}),
        500,
        0,
        "G's loss has been 0.08 and D's 0.8 (equilibrium: 0.693) since step 25: G fools D completely",
        make_rows(25, 600, {D: 0.8, G: 0.085}),
        "logistic relativistic least_squares",
        0.09,
        (250, 250),
    ),
    "losses_apart": DetectorCase(
        make_rows(50, 1200, {D: 0.5, G: lambda t: 6.1 + (t - 550) / 10_000}),
        1000,
        0,
        "G's loss (6.1) and D's loss (0.5) keep drifting apart",
        make_rows(50, 1200, {D: 0.5, G: lambda t: 5.9 + (t - 550) / 10_000}),
        "logistic relativistic",
        8.2,
        (600, 600),
    ),
    "losses_constant": DetectorCase(
        make_rows(10, 600, {D: step_change(0.5, LOG2, 100), G: lambda t: 1.0 if t <= 100 else 0.75 + (t % 20) * 2e-8}),
        400,
        100,
        "D's loss (0.693147) and G's (0.75) have been the same in every digit since step 110",
        make_rows(10, 600, {D: LOG2, G: lambda t: 0.75 + (t % 20) * 1e-7}),
        " ".join(GAN_FAMILIES),
        1e-7,
        (200, 350),
    ),
    "wasserstein_stuck": DetectorCase(
        make_rows(
            50, 1800, {"d/wasserstein": lambda t: WIDE_STAT if t <= 500 else 10 * THRESHOLD["wasserstein_stuck"] + 0.1}
        ),
        3 * WINDOW["wasserstein_stuck"],
        0,
        "the Wasserstein estimate does not fall: "
        f"it is {10 * THRESHOLD['wasserstein_stuck'] + 0.1:.3g}, and its maximum was 10",
        make_rows(50, 3000, {"d/wasserstein": step_change(10, 10 * THRESHOLD["wasserstein_stuck"] - 0.1, 500)}),
        "wasserstein",
        THRESHOLD["wasserstein_stuck"] + 0.02,
        (250, 850),
    ),
    "codes_ignored": DetectorCase(
        make_rows(25, 900, {"g/kl": step_change(30.0, 0.49, 300)}),
        800,
        300,
        "the KL of the latent codes has been 0.49 nats since step 325: G ignores them",
        make_rows(25, 900, {"g/kl": step_change(30.0, 0.51, 300)}),
        " ".join(ALL_FAMILIES),
        0.48,
        (200, 500),
    ),
    "d_never_wrong": DetectorCase(
        make_rows(25, 450, {ACCURACY: 0.996}),
        300,
        0,
        "D's accuracy has been 99.6% since step 25",
        make_rows(25, 450, {ACCURACY: 0.994}),
        " ".join(SIGN_FAMILIES),
        0.997,
        (200, 200),
    ),
    "d_fooled": DetectorCase(
        make_rows(25, WINDOW["d_fooled"] + 150, {ACCURACY: step_change(0.9, THRESHOLD["d_fooled"], 50)}),
        WINDOW["d_fooled"] + 50,
        50,
        f"D's accuracy has been {THRESHOLD['d_fooled']:.1%} since step 75: worse than chance",
        make_rows(
            50, 1500, {ACCURACY: lambda t: 0.9 if t <= 50 else alternating(THRESHOLD["d_fooled"] + 0.005, 0.2)(t)}
        ),
        " ".join(PAIR_FAMILIES),
        THRESHOLD["d_fooled"] - 0.005,
        (250, 300),
    ),
    "d_never_right": DetectorCase(
        make_rows(25, 2 * WINDOW["d_never_right"] + 100, {ACCURACY: alternating(THRESHOLD["d_never_right"], 0.45)}),
        2 * WINDOW["d_never_right"],
        0,
        f"D's accuracy has never been above {THRESHOLD['d_never_right']:.1%}: it is too weak to train G",
        make_rows(25, 1500, {ACCURACY: step_change(THRESHOLD["d_never_right"] + 0.005, 0.45, 50)}),
        " ".join(PAIR_FAMILIES),
        THRESHOLD["d_never_right"] - 0.005,
        (200, 400),
    ),
    "d_knows_by_heart": DetectorCase(
        make_rows(25, 600, {"d/real_accuracy": 0.9775}),
        500,
        0,
        "r_t is 0.95: D classifies nearly every training image as real and probably overfits",
        make_rows(25, 600, {"d/real_accuracy": 0.9725}),
        "logistic least_squares hinge",
        0.96,
        (250, 250),
    ),
    "scores_apart": DetectorCase(
        make_rows(25, 1600, {"d/real_score": step_change(3, 7.2, 1000), "d/fake_score": step_change(1, -3, 1000)}),
        1275,
        775,
        "D's mean scores of real and fake samples differ by 10.2, 5.1 times as much as early in the run",
        make_rows(25, 1600, {"d/real_score": step_change(3, 6.8, 1000), "d/fake_score": step_change(1, -3, 1000)}),
        BOUNDED_FAMILIES,
        5.2,
        (250, 1150),
    ),
    "d_shifted": DetectorCase(
        make_rows(25, 2400, {ACCURACY: lambda t: alternating(0.69, 0.71)(t) if t <= 2000 else 0.8}),
        2100,
        2000,
        "D's accuracy has been 0.8 since step 2,025; before that it was 0.7 for a long time (std 0.015)",
        make_rows(25, 2400, {ACCURACY: lambda t: alternating(0.69, 0.71)(t) if t <= 2000 else 0.78}),
        " ".join(GAN_FAMILIES),
        7,
        (200, 2200),
    ),
    "updates_grown": DetectorCase(
        make_rows(25, 2400, {"g/update": step_change(1.0, 3.1, 2000)}),
        2100,
        2000,
        "G's updates have had norms of at least 3.1 since step 2,025, 3.1 times the usual 1",
        make_rows(25, 2400, {"g/update": step_change(1.0, 2.95, 2000)}),
        " ".join(ALL_FAMILIES),
        3.2,
        (200, 2200),
    ),
    "gradient_long": DetectorCase(
        make_rows(25, 450, {"g/grad_norm": 101}),
        300,
        0,
        "G's gradient norm has been 101 since step 25",
        make_rows(25, 450, {"g/grad_norm": alternating(150, 99)}),
        "logistic relativistic least_squares hinge energy divergence",
        102,
        (200, 200),
    ),
    "gradient_burst": DetectorCase(
        make_rows(50, 800, {"g/grad_norm": single_value(2.0, Stat(3.0, 1.0, 1.0, 62.0), 600)}),
        600,
        550,
        "G's gradient norm is 62, 31 times its running median",
        make_rows(50, 800, {"g/grad_norm": single_value(2.0, Stat(3.0, 1.0, 1.0, 58.0), 600)}),
        " ".join(ALL_FAMILIES),
        32,
    ),
    "update_burst": DetectorCase(
        make_rows(50, 800, {"d/update": single_value(0.01, 0.052, 600)}),
        600,
        550,
        "D's update norm is 0.052, 5.2 times its running median",
        make_rows(50, 800, {"d/update": single_value(0.01, 0.049, 600)}),
        " ".join(ALL_FAMILIES),
        6,
    ),
    "slopes_uneven": DetectorCase(
        make_rows(25, 600, {"d/r2": 21.0, "d/r1": 2.0}),
        500,
        0,
        "D's squared gradient norm at fake samples is 10.5 times that at real samples",
        make_rows(25, 600, {"d/r2": 19.8, "d/r1": 2.0}),
        " ".join(GAN_FAMILIES),
        11,
        (250, 250),
    ),
    "collapse": DetectorCase(
        make_rows(50, 550, {"g/diversity": step_change(0.9, 0.49, 100)}),
        400,
        100,
        "samples are 49% as diverse as real samples",
        make_rows(50, 900, {"g/diversity": alternating(0.3, 0.51)}),
        " ".join(GAN_FAMILIES),
        0.48,
        (200, 300),
    ),
    "saturated": DetectorCase(
        make_rows(50, 450, {"g/shades": 0.19}),
        300,
        0,
        "the share of pixels that are neither black nor white is 19.0% of that in real images",
        make_rows(50, 450, {"g/shades": alternating(0.1, 0.21)}),
        " ".join(ALL_FAMILIES),
        0.18,
        (200, 200),
    ),
    "labels_ignored": DetectorCase(
        make_rows(100, 1200, {"g/label_effect": 0.09}),
        1000,
        0,
        "another label changes a sample 9% as much as another z does",
        make_rows(100, 1200, {"g/label_effect": alternating(0.05, 0.11)}),
        " ".join(GAN_FAMILIES),
        0.08,
        (500, 500),
    ),
    "labels_wrong": DetectorCase(
        make_rows(50, 1200, {D: LOG2, GAN_TEST: measured(THRESHOLD["labels_wrong"] - 0.01)}),
        WINDOW["labels_wrong"],
        0,
        f"{THRESHOLD['labels_wrong'] - 0.01:.0%} of the samples have been of the requested class since step 100",
        make_rows(50, 2500, {D: LOG2, GAN_TEST: measured(THRESHOLD["labels_wrong"], 0.1, 0.1, 0.1)}),
        " ".join(GAN_FAMILIES),
        THRESHOLD["labels_wrong"] - 0.02,
        (500, 500),
    ),
    "classes_missing": DetectorCase(
        make_rows(50, 1200, {D: LOG2, BALANCE: measured(THRESHOLD["classes_missing"] - 0.01)}),
        WINDOW["classes_missing"],
        0,
        f"class balance has been {THRESHOLD['classes_missing'] - 0.01:.2f} since step 100: "
        "some classes are rare or missing",
        make_rows(50, 2500, {D: LOG2, BALANCE: measured(THRESHOLD["classes_missing"], 0.1, 0.1, 0.1)}),
        " ".join(GAN_FAMILIES),
        THRESHOLD["classes_missing"] - 0.02,
        (500, 500),
    ),
    "past_its_best": DetectorCase(
        make_rows(100, 500, {"measure/fid": every_100_steps(20, 10, BAD_FID + 0.1, BAD_FID + 0.2, BAD_FID + 0.3)}),
        400,
        200,
        f"fid is {BAD_FID + 0.2:.4g}; its best was 10 at step 200",
        make_rows(100, 500, {"measure/fid": every_100_steps(20, 10, BAD_FID + 0.1, BAD_FID - 0.1, BAD_FID + 0.3)}),
        " ".join(GAN_FAMILIES),
        THRESHOLD["past_its_best"] + 0.1,
    ),
    "memorising": DetectorCase(
        make_rows(
            50, 600, {"g/nearest_ratio": single_value(THRESHOLD["memorising"] - 0.01, 1.5, 200), "g/newness": 0.6}
        ),
        WINDOW["memorising"],
        0,
        "a quarter of the samples are copies: their distance to the nearest training image over that to the second "
        f"nearest is {THRESHOLD['memorising'] - 0.01:.0%} of that of held-out images (lower quartiles)",
        make_rows(
            50, 600, {"g/nearest_ratio": single_value(THRESHOLD["memorising"] + 0.01, 0.1, 400), "g/newness": 0.6}
        ),
        " ".join(GAN_FAMILIES),
        THRESHOLD["memorising"] - 0.02,
        (250, 250),
    ),
}
EACH_DETECTOR = pytest.mark.parametrize("name", CASES)


def first_family(name: str) -> str:
    return sorted(CASES[name].families.split(), key=lambda family: family != "logistic")[0]


def test_every_detector_has_a_case() -> None:
    assert list(CASES) == list(DETECTORS)
    assert {name: detector.name for name, detector in DETECTORS.items()} == {name: name for name in DETECTORS}


@EACH_DETECTOR
def test_detector_raises_one_alarm_and_none_on_harmless_rows(name: str) -> None:
    case, detector = CASES[name], DETECTORS[name]
    [alarm] = run_monitor(case.rows, first_family(name))
    assert alarm[:4] == (case.step, name, LEVELS[detector.policy], case.message)
    assert alarm.since == case.since
    assert alarm.advice
    assert alarm.tip == detector.tip
    assert run_monitor(case.harmless, first_family(name)) == []


@EACH_DETECTOR
def test_every_detector_is_active_without_a_family(name: str) -> None:
    assert name in [alarm.detector for alarm in run_monitor(CASES[name].rows, None)]


@pytest.mark.parametrize("family", sorted(ALL_FAMILIES))
@EACH_DETECTOR
def test_detector_is_active_in_its_families_only(name: str, family: str) -> None:
    case = CASES[name]
    found = [alarm.step for alarm in run_monitor(case.rows, family) if alarm.detector == name]
    assert found == ([case.step] if family in case.families.split() else [])


@EACH_DETECTOR
def test_policy_off_disables_a_detector(name: str) -> None:
    assert run_monitor(CASES[name].rows, first_family(name), MonitorConfig(policy={name: "off"})) == []


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.other_threshold is not None])
def test_threshold_can_be_set(name: str) -> None:
    case, usual = CASES[name], DETECTORS[name].threshold
    assert case.other_threshold is not None
    further = MonitorConfig(threshold={name: case.other_threshold})
    assert run_monitor(case.rows, first_family(name), further) == []
    nearer = MonitorConfig(threshold={name: usual - 1.2 * (case.other_threshold - usual)})
    assert [alarm.detector for alarm in run_monitor(case.harmless, first_family(name), nearer)][:1] == [name]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.other_window is not None])
def test_window_can_be_set(name: str) -> None:
    case = CASES[name]
    assert case.other_window is not None
    window, step = case.other_window
    found = run_monitor(case.rows, first_family(name), MonitorConfig(window={name: window}))
    assert [(alarm.step, alarm.detector) for alarm in found] == [(step, name)]
    longer = MonitorConfig(window={name: case.rows[-1][0] + 50})
    assert run_monitor(case.rows, first_family(name), longer) == []


def test_settings_of_other_detectors_have_no_effect() -> None:
    config = MonitorConfig(threshold={"d_never_wrong": 0.5}, window={"d_never_wrong": 50})
    assert run_monitor(CASES["d_at_zero"].rows, "logistic", config) == run_monitor(CASES["d_at_zero"].rows, "logistic")


# ---- other harmless and harmful series -------------------------------------------------------------------

EQUILIBRIUM_LOSS = {"logistic": LOG2, "relativistic": LOG2, "least_squares": 0.125, "hinge": 1.0}


@pytest.mark.parametrize("family", EQUILIBRIUM_LOSS)
def test_equilibrium_loss_of_each_family(family: str) -> None:
    [alarm] = run_monitor(make_rows(25, 450, {D: 0.029 * EQUILIBRIUM_LOSS[family]}), family)
    assert (alarm.detector, alarm.step) == ("d_at_zero", 300)
    assert f"(equilibrium: {EQUILIBRIUM_LOSS[family]:.3g})" in alarm.message
    assert run_monitor(make_rows(25, 450, {D: 0.031 * EQUILIBRIUM_LOSS[family]}), family) == []


HARMLESS: dict[str, tuple[str | None, Rows]] = {
    "a critic's loss below 0, family not known": (None, make_rows(50, 600, {D: alternating(-0.01, 0.02)})),
    "one spike in 20 rows": ("logistic", make_rows(50, 2000, {D: single_value(0.7, 0.9, 1500)})),
    "D guesses for a while, and then learns: loss": (
        "logistic",
        make_rows(25, 2400, {D: lambda t: LOG2 if t <= 1200 else alternating(0.2, 0.6)(t)}),
    ),
    "D guesses for a while, and then learns: accuracy": (
        "hinge",
        make_rows(25, 2400, {D: step_change(1.0, 0.8, 1200), ACCURACY: step_change(0.55, 0.75, 1200)}),
    ),
    "a loss without early spread that stays calm": ("logistic", make_rows(50, 2000, {D: step_change(0.7, 0.76, 1200)})),
    "a critic's loss without early spread that stays calm": (
        "wasserstein",
        make_rows(50, 2000, {D: step_change(7.0, 7.1, 1200)}),
    ),
    "rounding noise grows": ("wasserstein", make_rows(50, 2000, {D: swing(1e-9, 1e-7, 1000, 1.0, 50)})),
    "G's loss falls by rounding noise": (
        "logistic",
        make_rows(100, 1200, {G: lambda t: 0.7 - 1e-9 * t, "g/diversity": step_change(1.0, 0.7, 500)}),
    ),
    "diversity close to 0 throughout": (
        "logistic",
        make_rows(
            50,
            3000,
            {G: lambda t: 2 - t / 10_000, "g/feature_diversity": 0.9, "g/diversity": step_change(1e-4, 1e-9, 500)},
        )[:8],
    ),
    "near to training images only": ("logistic", make_rows(50, 900, {D: LOG2, "g/newness": 0.4})),
    "near to training and held-out images": (
        "logistic",
        make_rows(50, 900, {"g/newness": 0.4, "g/nearest_ratio": 1.05, "g/train_ratio": 0.97, "g/diversity": 0.9}),
    ),
    "nearer to training images with little diversity": (
        "logistic",
        make_rows(50, 900, {"g/newness": 0.4, "g/nearest_ratio": 1.05, "g/train_ratio": 0.8, "g/diversity": 0.6}),
    ),
    "far from training images and farther from held-out ones": (
        "logistic",
        make_rows(50, 900, {"g/newness": 1.4, "g/nearest_ratio": 1.05, "g/train_ratio": 0.8, "g/diversity": 0.9}),
    ),
    "accuracy in per cent": ("logistic", make_rows(50, 900, {ACCURACY: 51.56, "d/real_accuracy": 99.0})),
    "a player that did not move": ("logistic", make_rows(50, 900, {"g/update": step_change(0.0, 0.1, 600)})),
    "a distance close to 0, doubled": (
        "logistic",
        make_rows(100, 500, {"measure/kid": every_100_steps(0.3, 1e-9, 2e-9, 4e-9, 4e-9)}),
    ),
    "spikes at the beginning": ("logistic", make_rows(50, 2000, {D: swing(0.41, 0.1, 1000, every=50)})),
    "G's loss rises while diversity falls": (
        "logistic",
        make_rows(100, 1200, {G: lambda t: t / 1000, "g/diversity": step_change(1.0, 0.7, 500)}),
    ),
    "G's loss fluctuates while diversity falls": (
        "logistic",
        make_rows(
            100, 1000, {G: every_100_steps(7, 10, 9, 8, 2, 6, 5, 3, 4, 1.5), "g/diversity": step_change(1.0, 0.7, 500)}
        ),
    ),
    "diversity rises while G's loss falls": (
        "logistic",
        make_rows(100, 1200, {G: lambda t: 2 - t / 1000, "g/diversity": step_change(0.7, 1.0, 500)}),
    ),
    "a gap that settles": ("logistic", make_rows(100, 1200, {D: 0.5, G: lambda t: 7.1 - t / 10_000})),
    "a constant gap": ("logistic", make_rows(100, 1200, {D: 0.5, G: 6.5})),
    "D's loss above G's": ("logistic", make_rows(100, 1200, {G: 0.7, D: lambda t: 6.5 + t / 10_000})),
    "G logged in every other row": (
        "logistic",
        make_rows(100, 1200, {D: 0.5, G: lambda t: 6 + t / 1000 if t % 200 == 0 else None}),
    ),
    "an estimate around 0": ("wasserstein", make_rows(50, 2000, {"d/wasserstein": -0.1})),
    "an estimate of 0": ("wasserstein", make_rows(50, 2000, {"d/wasserstein": 0.0})),
    "an estimate over less than three windows": ("wasserstein", make_rows(50, 1450, {"d/wasserstein": 5.0})),
    "an estimate that falls slowly": (
        "wasserstein",
        make_rows(50, 3000, {"d/wasserstein": lambda t: 10 * 0.885 ** (t / 500)}),
    ),
    "accuracy at chance level late in the run": (
        "logistic",
        make_rows(50, 3000, {ACCURACY: step_change(0.8, 0.5, 300)}),
    ),
    "fooled for less than a window": (
        "logistic",
        make_rows(50, 3000, {ACCURACY: lambda t: 0.9 if t % 500 == 0 else 0.1}),
    ),
    "a level that is not kept": (
        "logistic",
        make_rows(25, 2400, {D: lambda t: 0.7 if t <= 2000 or t % 100 == 0 else 0.9}),
    ),
    "a slow drift": ("logistic", make_rows(25, 4000, {D: lambda t: 0.7 - t / 10_000})),
    "a critic's estimate a third smaller": ("wasserstein", make_rows(25, 2400, {D: step_change(-0.3, -0.2, 2000)})),
    "G's loss at 0 against D's at equilibrium": ("logistic", make_rows(25, 600, {D: 0.69, G: 0.01})),
    "a minimax loss of G below 0": ("logistic", make_rows(25, 600, {D: 0.8, G: -2.0})),
    "a constant loss of D alone": ("logistic", make_rows(10, 900, {D: 0.6, G: swing(0.1, 0.1, 0)})),
    "constant means of values that vary": ("hinge", make_rows(10, 900, {D: 1.0, G: Stat(0.5, 0.1, 0.3, 0.7)})),
    "losses of 0": ("wasserstein", make_rows(10, 900, {D: 0.0, G: 0.0})),
    "a loss of G at 0": ("divergence", make_rows(10, 900, {D: -0.5, G: 0.0})),
    "real scores above generated ones now and then": (
        "wasserstein",
        make_rows(25, 900, {"d/real_score": alternating(-2.0, 0.5), "d/fake_score": 0.0}),
    ),
    "a burst of updates": ("logistic", make_rows(25, 2400, {"g/update": lambda t: 4.0 if 2000 < t < 2100 else 1.0})),
    "updates that had vanished": (
        "logistic",
        make_rows(25, 2400, {"g/update": lambda t: 1.0 if t <= 500 else 1e-6 if t <= 2000 else 4e-6}),
    ),
    "updates that shrink": ("logistic", make_rows(25, 2400, {"g/update": step_change(1.0, 0.1, 2000)})),
    "three measurements": ("logistic", make_rows(50, 1950, {D: LOG2, BALANCE: measured(0.1, every=500)})),
    "three measurements of labels": ("logistic", make_rows(50, 1950, {D: LOG2, GAN_TEST: measured(0.1, every=500)})),
    "classes that were missing": ("logistic", make_rows(100, 3000, {BALANCE: step_change(0.1, 0.9, 900)})),
    "labels that were wrong": ("logistic", make_rows(100, 3000, {GAN_TEST: step_change(0.1, 0.9, 900)})),
    "real scores below fake scores early": (
        "logistic",
        make_rows(
            50, 1600, {"d/real_score": lambda t: -1 if t <= 400 else 0.5 if t <= 1000 else 9, "d/fake_score": 0.0}
        ),
    ),
    "equal scores early": (
        "logistic",
        make_rows(50, 1600, {"d/real_score": step_change(0, 4.9, 1000), "d/fake_score": 0.0}),
    ),
    "both scores large": (
        "logistic",
        make_rows(50, 1600, {"d/real_score": step_change(2, 101, 1000), "d/fake_score": step_change(1, 100, 1000)}),
    ),
    "real scores only": ("logistic", make_rows(50, 1600, {"d/real_score": step_change(2, 101, 1000)})),
    "burst in the eighth row": ("logistic", make_rows(50, 400, {"g/grad_norm": single_value(2.0, 90.0, 400)})),
    "gradients from 0": ("logistic", make_rows(50, 800, {"g/grad_norm": single_value(0.0, 90.0, 600)})),
    "larger gradient at real samples": ("logistic", make_rows(50, 600, {"d/r2": 2.0, "d/r1": 21.0})),
    "zero gradient at real samples": ("logistic", make_rows(50, 600, {"d/r2": 2.0, "d/r1": 0.0})),
    "KL above the threshold now and then": (
        "reconstruction",
        make_rows(50, 3000, {"g/kl": lambda t: 0.6 if t % 400 == 0 else 0.1}),
    ),
    "KL under other names": ("reconstruction", make_rows(50, 3000, {G: 1.0, "d/kl": 0.1, "kl": 0.1})),
    "low diversity from the start for less than two windows": (
        "logistic",
        make_rows(50, 900, {"g/diversity": step_change(0.3, 0.9, 550)}),
    ),
    "low diversity in pixels and features by turns": (
        "logistic",
        make_rows(50, 900, {"g/diversity": alternating(0.3, 0.51), "g/feature_diversity": alternating(0.51, 0.3)}),
    ),
    "worse once": ("logistic", make_rows(100, 500, {"measure/fid": every_100_steps(20, 10, 12, 14, 99)})),
    "worse twice, within the floor": (
        "logistic",
        make_rows(100, 500, {"measure/fid": every_100_steps(20, 10, 15.1, 15.9, 15.9), "floor/fid": 1.0}),
    ),
    "coverage slightly lower": (
        "logistic",
        make_rows(100, 500, {"measure/coverage": every_100_steps(0.5, 0.9, 0.61, 0.61, 0.61)}),
    ),
    "coverage grows": ("logistic", make_rows(100, 500, {"measure/coverage": every_100_steps(0.1, 0.2, 0.4, 0.6, 0.9)})),
    "a measure that is not read": (
        "logistic",
        make_rows(100, 500, {"measure/vendi": every_100_steps(10, 1, 5, 9, 20)}),
    ),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_harmless(what: str) -> None:
    family, rows = HARMLESS[what]
    assert run_monitor(rows, family) == []


HARMFUL: dict[str, tuple[str, Rows, int, str, str]] = {
    "a loss without early spread": (
        "logistic",
        make_rows(20, 1600, {D: swing(0.0, 0.5, 1000, 0.5)}),
        1380,
        "d_spikes",
        "D's loss was nearly constant early in the run (std 0) and varies now (std 0.741)",
    ),
    "a loss with early rounding noise": (
        "logistic",
        make_rows(20, 1400, {D: swing(1e-15, 0.5, 1000, 0.5)}),
        1380,
        "d_spikes",
        "D's loss was nearly constant early in the run (std 1.48e-15) and varies now (std 0.741)",
    ),
    "a gradient a million times as large": (
        "logistic",
        make_rows(50, 450, {"d/grad_norm": single_value(1e-5, 80.0, 450)}),
        450,
        "gradient_burst",
        "D's gradient norm is 80, more than 1,000 times its running median",
    ),
    "gradient close to 0 at real samples": (
        "relativistic",
        make_rows(50, 600, {"d/r2": 3.0, "d/r1": 1e-9}),
        500,
        "slopes_uneven",
        "D's squared gradient norm is 3 at fake samples and close to 0 at real (1e-09)",
    ),
    "nearly equal scores early": (
        "logistic",
        make_rows(50, 1600, {"d/real_score": step_change(1e-9, 9, 1000), "d/fake_score": 0.0}),
        1300,
        "scores_apart",
        "differ by 9, and hardly differed early in the run (by 1e-09)",
    ),
    "nearer to training images than to held-out ones": (
        "logistic",
        make_rows(50, 550, {"g/newness": 0.85, "g/nearest_ratio": 1.05, "g/train_ratio": 0.86, "g/diversity": 0.9}),
        500,
        "memorising",
        "the distance of samples to training images is 86% of that to an equal number of held-out images: ",
    ),
    "infinite": (
        "logistic",
        make_rows(50, 300, {G: single_value(1.0, -math.inf, 200)}),
        200,
        "not_finite",
        "g/adversarial",
    ),
    "infinite at its highest": (
        "logistic",
        make_rows(50, 300, {D: single_value(0.7, Stat(0.7, 0.1, 0.1, math.inf), 200)}),
        200,
        "not_finite",
        "d/adversarial",
    ),
    "infinite at its lowest": (
        "logistic",
        make_rows(50, 300, {D: single_value(0.7, Stat(0.7, 0.1, -math.inf, 1.0), 200)}),
        200,
        "not_finite",
        "d/adversarial",
    ),
    "the first in the alphabet is named": (
        "logistic",
        make_rows(50, 300, {G: single_value(1.0, math.nan, 200), D: single_value(1.0, math.nan, 200)}),
        200,
        "not_finite",
        "d/adversarial is",
    ),
    "low diversity in D's features": (
        "logistic",
        make_rows(50, 450, {"g/diversity": 0.9, "g/feature_diversity": step_change(0.5, 0.4, 100)}),
        400,
        "collapse",
        "samples are 40% as diverse as real samples, measured in D's features",
    ),
    "low diversity in D's features from the start": (
        "logistic",
        make_rows(50, 750, {"g/diversity": 0.9, "g/feature_diversity": 0.4}),
        600,
        "collapse",
        "samples are 40% as diverse as real samples, measured in D's features",
    ),
    "low diversity in pixels from the start": (
        "logistic",
        make_rows(50, 750, {"g/diversity": 0.4, "g/feature_diversity": 0.9}),
        600,
        "collapse",
        "samples are 40% as diverse as real samples",
    ),
    "D's gradient large": (
        "logistic",
        make_rows(25, 450, {"d/grad_norm": 120, "g/grad_norm": 1.0}),
        300,
        "gradient_long",
        "D's gradient norm has been 120 since",
    ),
    "D's gradient bursts": (
        "wasserstein",
        make_rows(50, 450, {"d/grad_norm": single_value(2.0, 80.0, 450), "g/grad_norm": 1.0}),
        450,
        "gradient_burst",
        "D's gradient norm is 80, 40 times",
    ),
    "G's update bursts": (
        "logistic",
        make_rows(50, 450, {"d/update": 0.01, "g/update": single_value(0.01, 0.08, 450)}),
        450,
        "update_burst",
        "G's update norm is 0.08, 8.0 times",
    ),
    "coverage down": (
        "logistic",
        make_rows(100, 500, {"measure/coverage": every_100_steps(0.5, 0.9, 0.49, 0.48, 0.47)}),
        400,
        "past_its_best",
        "coverage is 0.48; its best was 0.9 at step 200",
    ),
    "coverage gone": (
        "logistic",
        make_rows(100, 500, {"measure/coverage": every_100_steps(0.5, 0.9, 0.8, 0.0, 0.0)}),
        500,
        "past_its_best",
        "coverage is 0; its best was 0.9 at step 200",
    ),
    "no slack for a measure that should be high": (
        "logistic",
        make_rows(100, 500, {"measure/coverage": every_100_steps(0.8, 0.8, 0.8, 0.4, 0.4), "floor/coverage": 0.8}),
        500,
        "past_its_best",
        "coverage is 0.4; its best was 0.8 at step 100",
    ),
    "worse by more than the floor": (
        "logistic",
        make_rows(
            100,
            500,
            {"measure/kid": every_100_steps(20, 10, BAD_FID + 0.1, BAD_FID + 1.1, BAD_FID + 1.1), "floor/kid": 1.0},
        ),
        500,
        "past_its_best",
        f"kid is {BAD_FID + 1.1:.4g}; its best was 10 at step 200",
    ),
    "no floor": (
        "logistic",
        make_rows(100, 500, {"measure/kid": every_100_steps(0.2, 0.1, 0.2, 0.2, 0.2), "floor/kid": lambda t: None}),
        400,
        "past_its_best",
        "kid is 0.2; its best was 0.1 at step 200",
    ),
    "an estimate that grows": (
        "wasserstein",
        make_rows(50, 1800, {"d/wasserstein": lambda t: 20 + t / 100}),
        1500,
        "wasserstein_stuck",
        "it is 32.8, and its maximum was 35",
    ),
    "accurate at first, below chance later": (
        "logistic",
        make_rows(50, 900, {ACCURACY: step_change(0.9, 0.3, 200)}),
        200 + WINDOW["d_fooled"],
        "d_fooled",
        "D's accuracy has been 30.0% since step 250",
    ),
    "D's loss leaves a level near that of guessing": (
        "logistic",
        make_rows(25, 2400, {D: step_change(0.68, 0.5, 2000)}),
        2100,
        "d_shifted",
        "D's loss has been 0.5 since step 2,025; before that it was 0.68 for a long time (std 0)",
    ),
    "D's loss up to another level": (
        "logistic",
        make_rows(25, 2400, {D: step_change(0.5, 0.6, 2000)}),
        2100,
        "d_shifted",
        "D's loss has been 0.6 since step 2,025; before that it was 0.5 for a long time (std 0)",
    ),
    "a critic's estimate twice as large": (
        "wasserstein",
        make_rows(25, 2400, {D: step_change(-0.2, -0.4, 2000)}),
        2100,
        "d_shifted",
        "D's loss has been -0.4 since step 2,025",
    ),
    "real scores below generated ones": (
        "wasserstein",
        make_rows(25, 600, {"d/real_score": -1.0, "d/fake_score": 0.5}),
        500,
        "d_fooled",
        "D has scored real samples lower than generated ones since step 25 (real samples -1, generated ones 0.5)",
    ),
    "always wrong": ("hinge", make_rows(50, 550, {ACCURACY: 0.0}), 500, "d_fooled", "D's accuracy has been 0.0% since"),
    "classes missing in rare measurements": (
        "logistic",
        make_rows(50, 2400, {D: LOG2, BALANCE: measured(0.1, every=500)}),
        2000,
        "classes_missing",
        "class balance has been 0.10 since step 500",
    ),
    "classes missing later on": (
        "logistic",
        make_rows(50, 2400, {D: LOG2, BALANCE: lambda t: None if t % 100 else 0.9 if t <= 1000 else 0.1}),
        2000,
        "classes_missing",
        "since step 1,100",
    ),
    "labels wrong in rare measurements": (
        "logistic",
        make_rows(50, 2400, {D: LOG2, GAN_TEST: measured(0.1, every=500)}),
        2000,
        "labels_wrong",
        "10% of the samples have been of the requested class since step 500",
    ),
    "KL of a hybrid": (
        "logistic",
        make_rows(50, 900, {"g/posterior_kl": step_change(30.0, 0.4, 200)}),
        700,
        "codes_ignored",
        "the KL of the latent codes has been 0.4 nats since step 250: G ignores them",
    ),
    "KL close to 0 from the start": (
        "reconstruction",
        make_rows(50, 550, {"g/kl": 0.02}),
        500,
        "codes_ignored",
        "0.02 nats since step 50",
    ),
    "large gradient at fake samples early": (
        "relativistic",
        make_rows(50, 600, {"d/r2": 30.0, "d/r1": 1.0}),
        500,
        "slopes_uneven",
        "30.0 times",
    ),
    "D's loss at exactly 0": ("hinge", make_rows(25, 450, {D: 0.0}), 300, "d_at_zero", "has been 0 on average"),
    "a loss that fluctuates as it falls": (
        "logistic",
        make_rows(
            100, 1000, {G: every_100_steps(9, 10, 7, 8, 2, 6, 5, 3, 4, 1), "g/diversity": step_change(1.0, 0.7, 500)}
        ),
        1000,
        "g_falling",
        "(9 to 1)",
    ),
}


@pytest.mark.parametrize("what", HARMFUL)
def test_harmful(what: str) -> None:
    family, rows, step, name, part = HARMFUL[what]
    [alarm] = run_monitor(rows, family)
    assert (alarm.step, alarm.detector) == (step, name)
    assert part in alarm.message


BEST_MEASURES = {
    "fid": (every_100_steps(20, 10, 20, 20), every_100_steps(20, 10, 9, 8)),
    "kid": (every_100_steps(0.2, 0.1, 0.2, 0.2), every_100_steps(0.2, 0.1, 0.09, 0.08)),
    "coverage": (every_100_steps(0.5, 0.9, 0.3, 0.3), every_100_steps(0.1, 0.2, 0.4, 0.6)),
    "high_quality": (every_100_steps(0.4, 0.8, 0.2, 0.2), every_100_steps(0.1, 0.2, 0.4, 0.6)),
}
"""The measures that `past_its_best` reads, in order: a series that got worse, and one that did not."""


@pytest.mark.parametrize(("index", "name"), list(enumerate(BEST_MEASURES)), ids=str)
def test_past_its_best_reads_the_first_available_measure(index: int, name: str) -> None:
    later = list(BEST_MEASURES)[index + 1 :]
    past, holds = BEST_MEASURES[name]
    others = {f"measure/{other}": BEST_MEASURES[other][1] for other in later}
    [alarm] = run_monitor(make_rows(100, 400, {**others, f"measure/{name}": past}), None)
    assert (alarm.step, alarm.detector) == (400, "past_its_best")
    assert alarm.message.startswith(f"{name} is ")
    others = {f"measure/{other}": BEST_MEASURES[other][0] for other in later}
    assert run_monitor(make_rows(100, 400, {**others, f"measure/{name}": holds}), None) == []


@pytest.mark.parametrize(
    "name", ["precision", "recall", "density", "ndb", "vendi", "modes", "reverse_kl", "inception_score"]
)
def test_past_its_best_reads_no_other_measure(name: str) -> None:
    for values in ((20, 10, 40, 40), (10, 20, 5, 5)):
        assert run_monitor(make_rows(100, 400, {f"measure/{name}": every_100_steps(*values)}), None) == []


@pytest.mark.parametrize("name", ["gradient_burst", "update_burst"])
def test_bursts_are_reported_again_after_a_window(name: str) -> None:
    """And when the run is twice as long as at the last."""
    quantity = {"gradient_burst": "d/grad_norm", "update_burst": "g/update"}[name]
    window, high = WINDOW[name], 2 * THRESHOLD[name]
    for first, again, found in ((500, window + 550, 2), (500, window + 500, 1), (900, window + 950, 1)):
        rows = make_rows(50, again + 50, {quantity: lambda t, at=(first, again): high if t in at else 1.0})
        alarms = [(alarm.step, alarm.detector) for alarm in run_monitor(rows, "logistic")]
        assert alarms == [(first, name), (again, name)][:found]


def test_a_constant_kid_below_0_is_not_past_its_best() -> None:
    """The unbiased KID can be negative for good samples."""
    assert (
        run_monitor(
            make_rows(100, 500, {"measure/kid": every_100_steps(0.02, -0.001, -0.001, -0.001, -0.001)}), "logistic"
        )
        == []
    )


def test_a_wasserstein_estimate_that_fell_early() -> None:
    assert run_monitor(make_rows(50, 2000, {"d/wasserstein": step_change(10, 7, 400)}), "wasserstein") == []


def test_a_wasserstein_estimate_with_missing_rows() -> None:
    rows = [row for row in make_rows(50, 3000, {"d/wasserstein": 5.0}) if not 800 < row[0] < 2200]
    assert [alarm.step for alarm in run_monitor(rows, "wasserstein")] == [2550]


def test_points_that_are_drawn_anew_are_not_known_by_heart() -> None:
    """A run on points logs the diversity of its samples, one on images their shades too."""
    right = {"d/real_accuracy": 1.0, "g/diversity": 0.9}
    assert [alarm.detector for alarm in run_monitor(make_rows(25, 600, right), "logistic")] == []
    on_images = make_rows(25, 600, right | {"g/shades": 0.5})
    assert "d_knows_by_heart" in [alarm.detector for alarm in run_monitor(on_images, "logistic")]


def test_an_infinite_floor_gives_no_slack() -> None:
    """The floor is reported as not finite, and the measure is compared without it."""
    rows = make_rows(
        100, 400, {"measure/fid": every_100_steps(20, 10, BAD_FID + 1, BAD_FID + 1), "floor/fid": math.inf}
    )
    assert [(a.step, a.detector) for a in run_monitor(rows, None)] == [(100, "not_finite"), (400, "past_its_best")]


def only(name: str) -> MonitorConfig:
    """The detector of that name alone."""
    return MonitorConfig(policy={other: "off" for other in DETECTORS if other != name})


@pytest.mark.parametrize("every", [20, 100], ids=["50 rows in a window", "10 rows in a window"])
@pytest.mark.parametrize("seed", range(3))
def test_a_gap_between_the_losses_drifts_apart_only_beyond_its_noise(seed: int, every: int) -> None:
    """G's loss is 6.5 with a standard deviation of 0.4; later it rises by three of these within a window."""
    random = np.random.default_rng(seed)
    noise = {t: 0.4 * float(random.standard_normal()) for t in range(every, 301 * every, every)}
    calm = make_rows(every, 200 * every, {D: 0.12, G: lambda t: 6.5 + noise[t]})
    assert run_monitor(calm, "logistic", only("losses_apart")) == []
    rising = make_rows(
        every, 300 * every, {D: 0.12, G: lambda t: 6.5 + noise[t] + max(0, t - 200 * every) * 1.2 / 1000}
    )
    assert run_monitor(rising, "logistic", only("losses_apart")) != []


@pytest.mark.parametrize(("length", "step"), [(None, 1500), (6000, 1500), (40_000, 5000)])
def test_the_wasserstein_estimate_is_judged_after_an_eighth_of_the_run(length: int | None, step: int) -> None:
    rows = make_rows(50, 5500, {"d/wasserstein": 5.0})
    assert [alarm.step for alarm in run_monitor(rows, "wasserstein", length=length)] == [step]


@pytest.mark.parametrize("length", [None, 100_000])
@pytest.mark.parametrize("time_constant", [5000, 20_000, 40_000])
def test_a_wasserstein_estimate_that_falls_slowly_is_not_stuck(time_constant: int, length: int | None) -> None:
    """It has risen within 150 steps; single rows are above all later ones."""
    random = np.random.default_rng(0)

    def estimate(t: int) -> float:
        return 9 * (1 - math.exp(-t / 50)) * math.exp(-t / time_constant) + 0.1 * float(random.standard_normal())

    rows = make_rows(20, 5000, {"d/wasserstein": estimate})
    assert run_monitor(rows, "wasserstein", only("wasserstein_stuck"), length) == []


@pytest.mark.parametrize("every", [1, 20])
@pytest.mark.parametrize("values", [(LOG2, LOG2), (1.0, -0.3)])
def test_losses_that_froze_late_are_constant(values: tuple[float, float], every: int) -> None:
    """Also as statistics, and with rounding errors of float32."""
    random = np.random.default_rng(0)

    def frozen(value: float) -> Curve:
        return lambda t: Stat.of(value * (1 + (1e-7 if t > 1000 else 0.1) * float(random.uniform(-1, 1))))

    rows = make_rows(every, 2000, {D: frozen(values[0]), G: frozen(values[1])})
    alarms = run_monitor(rows, None, only("losses_constant"))
    assert [alarm.detector for alarm in alarms] == ["losses_constant"]
    assert 1000 <= alarms[0].since <= 1000 + every * 10


def test_low_diversity_from_the_start_of_a_short_run() -> None:
    rows = make_rows(50, 550, {"g/diversity": 0.4})
    assert [(a.step, a.detector) for a in run_monitor(rows, "logistic", length=1600)] == [(400, "collapse")]


def test_no_window_is_longer_than_an_eighth_of_the_run() -> None:
    [alarm] = run_monitor(CASES["d_at_zero"].rows, "logistic", length=1600)
    assert (alarm.step, alarm.detector) == (200, "d_at_zero")
    [alarm] = run_monitor(make_rows(25, 1000, {"d/wasserstein": 5.0}), "wasserstein", length=2400)
    assert (alarm.step, alarm.detector) == (900, "wasserstein_stuck")
    for name, length, step in (
        ("labels_wrong", 4800, 600),
        ("classes_missing", 4800, 600),
        ("classes_missing", 800, 400),
    ):
        [alarm] = run_monitor(CASES[name].rows, "logistic", length=length)
        assert (alarm.step, alarm.detector) == (step, name)


# ---- descriptions and advice -----------------------------------------------------------------------------

SET_OPTION = re.compile(r"--set (?:'([^']*)'|(\S+?))(?=[,;.)]*(?:\s|$))")
TABLES = {name: shipped.load_table(name) for name in shipped.recipe_names()}


def set_options(advice: str) -> list[str]:
    """The argument of each `--set`, as a shell would pass it."""
    return [quoted or plain for quoted, plain in SET_OPTION.findall(advice)]


def logged_facts(table: dict[str, Any]) -> dict[str, float]:
    """The metrics by which advice recognises the components of a recipe."""
    found = {"g/update": 1e-12}
    found |= {f"d/{trick['kind']}": 1e-12 for trick in table.get("tricks", []) if trick["kind"] in ("r1", "r2")}
    return found | ({"g/label_effect": 1.0} if "conditioning" in table else {})


def alarms_for(name: str, recipe: str) -> list[Alarm]:
    """The alarms of the detector on a run of the recipe, if such a run logs the metrics that it reads."""
    table, has = TABLES[recipe], logged_facts(TABLES[recipe])
    family, tricks = FAMILIES[table["objective"]["kind"]], {trick["kind"] for trick in table.get("tricks", [])}
    rows = CASES[name].rows
    if name == "codes_ignored" and family != "reconstruction":
        rows = make_rows(50, 900, {"g/posterior_kl": 0.1}) if "posterior_kl" in tricks else []
    elif name == "codes_ignored" and table["objective"]["kind"] != "elbo":
        rows = []
    if name == "slopes_uneven" and not {"r1", "r2"} <= tricks:
        rows = []
    if name.startswith("labels_") and "conditioning" not in table:
        rows = []
    other_side = {"g/": "d/", "d/": "g/"}
    swapped = [(t, {other_side.get(n[:2], n[:2]) + n[2:]: v for n, v in numbers.items()}) for t, numbers in rows]
    if family == "reconstruction" and any(n.startswith("d/") for _, numbers in rows for n in numbers):
        rows = swapped
    both = (
        [rows, swapped]
        if family != "reconstruction" and name in ("gradient_long", "gradient_burst", "update_burst")
        else [rows]
    )
    runs = [[(t, {**has, **numbers}) for t, numbers in one] for one in both]
    return [alarm for run in runs for alarm in run_monitor(run, family) if alarm.detector == name]


@functools.cache
def refusals(recipe: str, options: tuple[str, ...]) -> list[Any]:
    table = deepcopy(TABLES[recipe])
    for option in options:
        set_value(table, option)
    # the rows do not show these two, and the advice says so
    known = ('conditioning.d={kind="projection"}', 'tempo={kind="ratio", d=2, g=1}')
    assert table != TABLES[recipe] or set(options) <= set(known)
    return check_compatibility(decode(table, recipe)).refusals


def game_schedules(recipe: Recipe) -> dict[str, Schedulable]:
    """The learning rates and the weights `gamma` of a recipe."""
    optimizers = {"g": recipe.optimizer.g, "d": recipe.optimizer.d}
    rates = {f"{side}.lr": optimizer.lr for side, optimizer in optimizers.items() if optimizer is not None}
    return rates | {f"{trick.tag()}.gamma": trick.gamma for trick in recipe.tricks if hasattr(trick, "gamma")}


@pytest.mark.parametrize("recipe", TABLES)
def test_advice_is_valid_for_every_recipe(recipe: str) -> None:
    """Each `--set` alone and all together. In the text that a run prints, rates fall and weights rise."""
    table = decode(TABLES[recipe]).canonical()
    alarms = [alarm for name in CASES for alarm in alarms_for(name, recipe)]
    assert alarms
    for alarm in alarms:
        options = set_options(alarm.advice)
        assert len(options) == alarm.advice.count("--set")
        for subset in {*((option,) for option in options), tuple(options)} - {()}:
            assert refusals(recipe, subset) == [], alarm
        for option in set_options(fit_advice(alarm.advice, table)):
            changed = deepcopy(table)
            set_value(changed, option)
            old, new = (game_schedules(decode(one)) for one in (table, changed))
            for path in old.keys() & new.keys():
                sign = -1 if path.endswith("lr") else 1
                for step in range(0, table["steps"] + 1, max(1, table["steps"] // 10)):
                    before, after = (value_at(one[path], step, step / table["steps"]) for one in (old, new))
                    assert sign * after >= sign * before, (alarm, option)


@pytest.mark.parametrize(
    ("factor", "shown"), [(1.24, "1.2"), (9.94, "9.9"), (9.96, "10"), (10.0, "10"), (57.4, "57"), (999.0, "999")]
)
def test_factors_below_ten_have_a_decimal(factor: float, shown: str) -> None:
    assert format_factor(factor) == shown
    rows = make_rows(50, 600, {"g/update": single_value(1.0, factor, 600)})
    [alarm] = run_monitor(rows, "logistic", MonitorConfig(threshold={"update_burst": 1.1}))
    assert f", {shown} times its running median" in alarm.message


@pytest.mark.parametrize(("side", "who"), [("d", "D"), ("g", "G")])
@pytest.mark.parametrize("name", ["gradient_long", "gradient_burst", "update_burst"])
def test_advice_names_the_player_concerned(name: str, side: str, who: str) -> None:
    quantity = "update" if name == "update_burst" else "grad_norm"
    usual, high = (120.0, 120.0) if name == "gradient_long" else (1.0, 100.0)
    other = {"d": "g", "g": "d"}[side]
    rows = make_rows(50, 600, {f"{side}/{quantity}": single_value(usual, high, 600), f"{other}/{quantity}": 1.0})
    [alarm] = run_monitor(rows, "logistic")
    assert alarm.detector == name
    assert alarm.message.startswith(f"{who}'s ")
    assert f"{who}'s learning rate" in alarm.advice
    assert f"optimizer.{side}.lr" in alarm.advice
    assert f"optimizer.{other}" not in alarm.advice


@EACH_DETECTOR
def test_description_and_defaults(name: str) -> None:
    detector = DETECTORS[name]
    assert detector.description
    assert detector.advice
    assert "\n" not in detector.description + detector.advice
    assert detector.tip in {tip.id for tip in tips()}
    assert math.isfinite(detector.threshold)
    assert detector.window >= 1
    assert detector.families <= ALL_FAMILIES
    assert detector.policy in LEVELS


@EACH_DETECTOR
def test_inputs(name: str) -> None:
    """A detector is active once one of its inputs is logged."""
    case, detector = CASES[name], DETECTORS[name]
    logged = {quantity for _, numbers in case.rows for quantity in numbers}
    assert set(detector.inputs) & logged or not detector.inputs
    monitor = Monitor()
    assert (name in monitor.inactive_detectors()) == bool(detector.inputs)
    for step, numbers in case.rows:
        monitor.hear(step, numbers)
    assert name not in monitor.inactive_detectors()


def test_every_objective_has_a_family() -> None:
    missing = set(find_components(Objective, "poise.objectives")) - set(FAMILIES)
    assert not missing, "add it to FAMILIES in src/poise/watch/base.py"
    assert set(FAMILIES.values()) == ALL_FAMILIES
    for kind, part in find_components(Objective, "poise.objectives").items():
        assert (FAMILIES[kind] in GAN_FAMILIES) == bool(part.output_kinds)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("family", "level", "detectors"),
    [
        ("logistic", 0.2, []),
        (None, 0.2, []),
        ("wasserstein", 0.27, []),
        ("wasserstein", 0.25, ["d_spikes"]),
        ("energy", -0.25, ["d_spikes"]),
    ],
    ids=str,
)
def test_a_small_spread_is_stable(family: str | None, level: float, detectors: list[str]) -> None:
    """0.13 is thirteen times the spread early in the run, but less than a fifth of log 2, and than half of 0.27."""
    rows = make_rows(50, 1600, {D: lambda t: Stat(level, 0.01 if t <= 1000 else 0.13, -1.0, 2.0)})
    assert [alarm.detector for alarm in run_monitor(rows, family)] == detectors


# ---- robustness to arbitrary values ----------------------------------------------------------------------

VALUES = [0.0, 1.0, 0.5, 5e-324, 1e-310, 1e-30, 1e-12, 1e-7, 0.03, 0.97, 3.0, -2.0, 700.0, 1e30, 1e99, 1e160, 1.7e308]
BROKEN = [math.inf, -math.inf, math.nan]
SPREADS = [0.0, 0.0, 0.0, 1e-16, 1e-9, 0.3, 1e200, math.inf, math.nan]
INPUTS = sorted({name for detector in DETECTORS.values() for name in detector.inputs} | {"d/r1", "d/r2"})
NUMBER = re.compile(r"(?<![\w.])[-+]?[0-9][0-9,]*\.?[0-9]*(?:e[-+]?[0-9]+)?")


def broken_rows(seed: int) -> Rows:
    """Rows in which each metric changes from one extreme value to another, with or without noise."""
    rng = np.random.default_rng(seed)
    values = VALUES + BROKEN * int(rng.integers(0, 2))
    rows: Rows = [(50 * (i + 1), {}) for i in range(24)]
    for name in INPUTS:
        first, later, spread = (float(rng.choice(choices)) for choices in (values, values, SPREADS))
        noise, cut = float(rng.choice([0.0, 1e-16, 1e-7, 0.1])), int(rng.integers(0, 25))
        for i, (_, numbers) in enumerate(rows):
            value = (first if i < cut else later) * (1 + noise * float(rng.standard_normal()))
            numbers[name] = Stat(value, spread, value, value)
    return rows


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, *sorted(ALL_FAMILIES)]), st.booleans())
def test_arbitrary_values_give_sensible_messages(seed: int, family: str | None, one_by_one: bool) -> None:
    rows = broken_rows(seed)
    if one_by_one:  # as in another trainer's log
        rows = [(t, {n: v.mean for n, v in numbers.items() if isinstance(v, Stat)}) for t, numbers in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alarms = run_monitor(rows, family)
    for alarm in alarms:
        assert not re.search(r"(?<!not )\b(nan|inf|-inf)\b", alarm.message), alarm.message
        for factor in re.findall(r"([-0-9,.e+]+) times", alarm.message):
            assert 0 < float(factor.replace(",", "")) <= 1000, alarm.message
        for share in re.findall(r"([-0-9,.e+]+)%", alarm.message):
            assert 0 <= float(share) <= 100, alarm.message
        assert all(len(figure) <= 12 for figure in NUMBER.findall(alarm.message)), alarm.message
        assert alarm.advice


def test_a_batch_of_huge_numbers_does_not_overflow() -> None:
    monitor = Monitor(family="hinge")
    alarms = [alarm for t in range(1, 700) for alarm in monitor.hear(t, {G: 0.7, "g/anything": 1.7e308})]
    assert alarms == []
