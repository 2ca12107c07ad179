"""Every detector: a planted series that it sees, once, and the nearest harmless one that it does not."""

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
from poise.objectives.base import Objective
from poise.recipe import shipped
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.decode import decode
from poise.recipe.toml import set_value
from poise.tips.catalogue import tips
from poise.watch.base import ALL_FAMILIES, FAMILIES, GAN_FAMILIES, LEVELS, Alarm
from poise.watch.monitor import DETECTORS, Monitor, MonitorConfig

D, G, ACCURACY = "d/adversarial", "g/adversarial", "d/accuracy"
BALANCE, GAN_TEST = "measure/class_balance", "measure/gan_test"
BOUND = {name: detector.threshold for name, detector in DETECTORS.items()}
WINDOW = {name: detector.window for name, detector in DETECTORS.items()}
LOG2 = math.log(2)
JUDGES = "logistic pairs squares hinge"

Curve = Callable[[int], float | Stat | None]
Rows = list[tuple[int, dict[str, float | Stat]]]


def told(every: int, until: int, curves: Mapping[str, float | Curve]) -> Rows:
    """Rows of some curves; where one is None, the row has no such number."""
    rows: Rows = []
    for step in range(every, until + 1, every):
        values = {name: curve(step) if callable(curve) else curve for name, curve in curves.items()}
        rows.append((step, {name: value for name, value in values.items() if value is not None}))
    return rows


def hear(rows: Rows, family: str | None, how: MonitorConfig | None = None, length: int | None = None) -> list[Alarm]:
    monitor = Monitor(how, family, length)
    alarms = [alarm for step, numbers in rows for alarm in monitor.hear(step, numbers)]
    return alarms + monitor.flush()


def then(first: float, later: float, after: int) -> Curve:
    return lambda t: first if t <= after else later


def swing(first: float, later: float, after: int, middle: float = 0.7) -> Curve:
    """Above and below the middle by turns, 50 steps each."""
    return lambda t: middle + (1 if t % 100 else -1) * (first if t <= after else later)


def once(usual: float, other: float | Stat, at: int) -> Curve:
    return lambda t: other if t == at else usual


def turns(one: float, other: float) -> Curve:
    """Two values by turns, 100 steps each."""
    return lambda t: one if t % 200 >= 100 else other


def listed(*values: float) -> Curve:
    """A value every 100 steps."""
    return lambda t: values[t // 100 - 1]


def measured(*values: float, every: int = 100) -> Curve:
    """These values by turns, and none in the rows between."""
    return lambda t: None if t % every else values[t // every % len(values)]


class Planted(NamedTuple):
    """A detector's pair. `moved`: a threshold at which it is silent; `shorter`: a window and the alarm's step then."""

    rows: Rows
    step: int
    message: str
    sound: Rows
    families: str
    moved: float | None = None
    shorter: tuple[int, int] | None = None


WIDE = Stat(10.0, 20.0, -40.0, 60.0)
"""Steps far apart around 10: what stands for a row is its mean."""

BAD = 10 * BOUND["past_its_best"]
"""As bad as it may get after a best of 10."""

PLANTED: dict[str, Planted] = {
    "not_finite": Planted(
        told(50, 600, {"g/update": once(1.0, math.nan, 400)}),
        400,
        "g/update is not finite",
        told(50, 600, {"g/shades": once(1.0, 1e300, 400)}),
        " ".join(ALL_FAMILIES),
    ),
    "d_at_zero": Planted(
        told(50, 450, {D: 0.0207}),
        300,
        "D's loss has been 0.0207 on average since step 50 (equilibrium: 0.693)",
        told(50, 450, {D: 0.0209}),
        "logistic pairs hinge",
        0.0298,
        (200, 200),
    ),
    "d_spikes": Planted(
        told(50, 1600, {D: swing(0.1, 0.41, 1000)}),
        1500,
        "D's loss varies 4.1 times as much as early in the run (std 0.41)",
        told(50, 1600, {D: swing(0.1, 0.39, 1000)}),
        " ".join(GAN_FAMILIES),
        4.2,
        (250, 1250),
    ),
    "g_falling": Planted(
        told(100, 1200, {G: lambda t: 2 - t / 1000, "g/diversity": then(0.9, 0.9 * BOUND["g_falling"] - 0.01, 500)}),
        1000,
        "G's loss falls steadily (1.9 to 1) while the diversity of its samples falls (0.90 to 0.80)",
        told(100, 1200, {G: lambda t: 2 - t / 1000, "g/diversity": then(0.9, 0.9 * BOUND["g_falling"] + 0.01, 500)}),
        " ".join(GAN_FAMILIES),
        BOUND["g_falling"] - 0.02,
        (600, 700),
    ),
    "losses_apart": Planted(
        told(100, 1200, {D: 0.5, G: lambda t: 6.1 + (t - 550) / 10_000}),
        1000,
        "G's loss (6.1) and D's loss (0.5) keep drifting apart",
        told(100, 1200, {D: 0.5, G: lambda t: 5.9 + (t - 550) / 10_000}),
        "logistic pairs",
        8.2,
        (600, 600),
    ),
    "wasserstein_stuck": Planted(
        told(50, 1800, {"d/wasserstein": lambda t: WIDE if t <= 500 else 10 * BOUND["wasserstein_stuck"] + 0.1}),
        3 * WINDOW["wasserstein_stuck"],
        "the Wasserstein estimate does not fall: "
        f"it is {10 * BOUND['wasserstein_stuck'] + 0.1:.3g}, and its maximum was 10",
        told(50, 3000, {"d/wasserstein": then(10, 10 * BOUND["wasserstein_stuck"] - 0.1, 500)}),
        "wasserstein",
        BOUND["wasserstein_stuck"] + 0.02,
        (250, 750),
    ),
    "codes_ignored": Planted(
        told(50, 900, {"g/kl": then(30.0, 0.49, 300)}),
        800,
        "the KL of the latent codes has been 0.49 nats since step 350: G ignores them",
        told(50, 900, {"g/kl": then(30.0, 0.51, 300)}),
        " ".join(ALL_FAMILIES),
        0.48,
        (200, 500),
    ),
    "d_never_wrong": Planted(
        told(50, 450, {ACCURACY: 0.996}),
        300,
        "D's accuracy has been 99.6% since step 50",
        told(50, 450, {ACCURACY: 0.994}),
        JUDGES,
        0.997,
        (200, 200),
    ),
    "d_fooled": Planted(
        told(50, WINDOW["d_fooled"] + 150, {ACCURACY: then(0.9, BOUND["d_fooled"], 50)}),
        WINDOW["d_fooled"] + 50,
        f"D's accuracy has been {BOUND['d_fooled']:.1%} since step 100: worse than chance",
        told(50, 1500, {ACCURACY: lambda t: 0.9 if t <= 50 else turns(BOUND["d_fooled"] + 0.005, 0.2)(t)}),
        JUDGES,
        BOUND["d_fooled"] - 0.005,
        (250, 300),
    ),
    "d_never_right": Planted(
        told(50, 2 * WINDOW["d_never_right"] + 100, {ACCURACY: turns(BOUND["d_never_right"], 0.45)}),
        2 * WINDOW["d_never_right"],
        f"D's accuracy has never been above {BOUND['d_never_right']:.1%}: it is too weak to train G",
        told(50, 1500, {ACCURACY: then(BOUND["d_never_right"] + 0.005, 0.45, 50)}),
        JUDGES,
        BOUND["d_never_right"] - 0.005,
        (200, 400),
    ),
    "d_knows_by_heart": Planted(
        told(50, 600, {"d/real_accuracy": 0.9775}),
        500,
        "r_t is 0.95: D classifies nearly every training image as real and probably overfits",
        told(50, 600, {"d/real_accuracy": 0.9725}),
        "logistic squares hinge",
        0.96,
        (250, 250),
    ),
    "scores_apart": Planted(
        told(50, 1600, {"d/real_score": then(3, 7.2, 1000), "d/fake_score": then(1, -3, 1000)}),
        1500,
        "D's mean scores of real and fake samples differ by 10.2, 5.1 times as much as early in the run",
        told(50, 1600, {"d/real_score": then(3, 6.8, 1000), "d/fake_score": then(1, -3, 1000)}),
        JUDGES,
        5.2,
        (250, 1250),
    ),
    "gradient_long": Planted(
        told(50, 450, {"g/grad_norm": 101}),
        300,
        "G's gradient norm has been 101 since step 50",
        told(50, 450, {"g/grad_norm": turns(150, 99)}),
        "logistic pairs squares hinge energy divergence",
        102,
        (200, 200),
    ),
    "gradient_burst": Planted(
        told(50, 800, {"g/grad_norm": once(2.0, Stat(3.0, 1.0, 1.0, 62.0), 600)}),
        600,
        "G's gradient norm is 62, 31 times its running median",
        told(50, 800, {"g/grad_norm": once(2.0, Stat(3.0, 1.0, 1.0, 58.0), 600)}),
        " ".join(ALL_FAMILIES),
        32,
    ),
    "update_burst": Planted(
        told(50, 800, {"d/update": once(0.01, 0.052, 600)}),
        600,
        "D's update norm is 0.052, 5 times its running median",
        told(50, 800, {"d/update": once(0.01, 0.049, 600)}),
        " ".join(ALL_FAMILIES),
        6,
    ),
    "slopes_uneven": Planted(
        told(50, 600, {"d/r2": 21.0, "d/r1": 2.0}),
        500,
        "D's squared gradient norm at fake samples is 10.5 times that at real samples",
        told(50, 600, {"d/r2": 19.8, "d/r1": 2.0}),
        " ".join(GAN_FAMILIES),
        11,
        (250, 250),
    ),
    "collapse": Planted(
        told(50, 550, {"g/diversity": then(0.9, 0.49, 100)}),
        400,
        "samples are 49% as diverse as real samples, measured in pixels",
        told(50, 900, {"g/diversity": turns(0.3, 0.51)}),
        " ".join(GAN_FAMILIES),
        0.48,
        (200, 300),
    ),
    "saturated": Planted(
        told(50, 450, {"g/shades": 0.19}),
        300,
        "the share of pixels that are neither black nor white is 19.0% of that in real images",
        told(50, 450, {"g/shades": turns(0.1, 0.21)}),
        " ".join(ALL_FAMILIES),
        0.18,
        (200, 200),
    ),
    "labels_ignored": Planted(
        told(100, 1200, {"g/label_effect": 0.09}),
        1000,
        "another label changes a sample 9% as much as another z does",
        told(100, 1200, {"g/label_effect": turns(0.05, 0.11)}),
        " ".join(GAN_FAMILIES),
        0.08,
        (500, 500),
    ),
    "labels_wrong": Planted(
        told(50, 1200, {D: LOG2, GAN_TEST: measured(BOUND["labels_wrong"] - 0.01)}),
        WINDOW["labels_wrong"],
        f"{BOUND['labels_wrong'] - 0.01:.0%} of the samples have been of the requested class since step 100",
        told(50, 2500, {D: LOG2, GAN_TEST: measured(BOUND["labels_wrong"], 0.1, 0.1, 0.1)}),
        " ".join(GAN_FAMILIES),
        BOUND["labels_wrong"] - 0.02,
        (500, 500),
    ),
    "classes_missing": Planted(
        told(50, 1200, {D: LOG2, BALANCE: measured(BOUND["classes_missing"] - 0.01)}),
        WINDOW["classes_missing"],
        f"class balance has been {BOUND['classes_missing'] - 0.01:.2f} since step 100: "
        "some classes are rare or missing",
        told(50, 2500, {D: LOG2, BALANCE: measured(BOUND["classes_missing"], 0.1, 0.1, 0.1)}),
        " ".join(GAN_FAMILIES),
        BOUND["classes_missing"] - 0.02,
        (500, 500),
    ),
    "past_its_best": Planted(
        told(100, 500, {"measure/fid": listed(20, 10, BAD + 0.1, BAD + 0.2, BAD + 0.3)}),
        400,
        f"fid is {BAD + 0.2:.4g}; its best was 10 at step 200",
        told(100, 500, {"measure/fid": listed(20, 10, BAD + 0.1, BAD - 0.1, BAD + 0.3)}),
        " ".join(GAN_FAMILIES),
        BOUND["past_its_best"] + 0.1,
    ),
    "memorising": Planted(
        told(50, 600, {"g/nearest_ratio": once(BOUND["memorising"] - 0.01, 1.5, 200), "g/newness": 0.6}),
        WINDOW["memorising"],
        "a quarter of the samples are copies: their distance to the nearest training image over that to the second "
        f"nearest is {BOUND['memorising'] - 0.01:.0%} of that of held-out images (lower quartiles)",
        told(50, 600, {"g/nearest_ratio": once(BOUND["memorising"] + 0.01, 0.1, 400), "g/newness": 0.6}),
        " ".join(GAN_FAMILIES),
        BOUND["memorising"] - 0.02,
        (250, 250),
    ),
}
PAIRS = pytest.mark.parametrize("name", PLANTED)


def first_family(name: str) -> str:
    return sorted(PLANTED[name].families.split(), key=lambda family: family != "logistic")[0]


def test_every_detector_has_its_pair() -> None:
    assert list(PLANTED) == list(DETECTORS)
    assert {name: detector.name for name, detector in DETECTORS.items()} == {name: name for name in DETECTORS}


@PAIRS
def test_planted_and_sound(name: str) -> None:
    planted, detector = PLANTED[name], DETECTORS[name]
    [alarm] = hear(planted.rows, first_family(name))
    assert alarm[:4] == (planted.step, name, LEVELS[detector.policy], planted.message)
    assert alarm.advice
    assert alarm.tip == detector.tip
    assert hear(planted.sound, first_family(name)) == []


@PAIRS
def test_where_the_family_is_not_known_all_look(name: str) -> None:
    assert name in [alarm.detector for alarm in hear(PLANTED[name].rows, None)]


@pytest.mark.parametrize("family", sorted(ALL_FAMILIES))
@PAIRS
def test_each_looks_in_its_families_alone(name: str, family: str) -> None:
    planted = PLANTED[name]
    found = [alarm.step for alarm in hear(planted.rows, family) if alarm.detector == name]
    assert found == ([planted.step] if family in planted.families.split() else [])


@PAIRS
def test_off_by_policy(name: str) -> None:
    assert hear(PLANTED[name].rows, first_family(name), MonitorConfig(policy={name: "off"})) == []


@pytest.mark.parametrize("name", [name for name, planted in PLANTED.items() if planted.moved is not None])
def test_the_threshold_is_moved(name: str) -> None:
    planted, usual = PLANTED[name], DETECTORS[name].threshold
    assert planted.moved is not None
    further = MonitorConfig(threshold={name: planted.moved})
    assert hear(planted.rows, first_family(name), further) == []
    nearer = MonitorConfig(threshold={name: usual - 1.2 * (planted.moved - usual)})
    assert [alarm.detector for alarm in hear(planted.sound, first_family(name), nearer)][:1] == [name]


@pytest.mark.parametrize("name", [name for name, planted in PLANTED.items() if planted.shorter is not None])
def test_the_window_is_changed(name: str) -> None:
    planted = PLANTED[name]
    assert planted.shorter is not None
    window, step = planted.shorter
    found = hear(planted.rows, first_family(name), MonitorConfig(window={name: window}))
    assert [(alarm.step, alarm.detector) for alarm in found] == [(step, name)]
    longer = MonitorConfig(window={name: planted.rows[-1][0] + 50})
    assert hear(planted.rows, first_family(name), longer) == []


def test_thresholds_and_windows_of_others_change_nothing() -> None:
    how = MonitorConfig(threshold={"d_never_wrong": 0.5}, window={"d_never_wrong": 50})
    assert hear(PLANTED["d_at_zero"].rows, "logistic", how) == hear(PLANTED["d_at_zero"].rows, "logistic")


# ---- other harmless and harmful series -------------------------------------------------------------------

EQUILIBRIUM_LOSS = {"logistic": LOG2, "pairs": LOG2, "squares": 0.125, "hinge": 1.0}


@pytest.mark.parametrize("family", EQUILIBRIUM_LOSS)
def test_each_family_has_its_even_level(family: str) -> None:
    [alarm] = hear(told(50, 450, {D: 0.029 * EQUILIBRIUM_LOSS[family]}), family)
    assert (alarm.detector, alarm.step) == ("d_at_zero", 300)
    assert f"(equilibrium: {EQUILIBRIUM_LOSS[family]:.3g})" in alarm.message
    assert hear(told(50, 450, {D: 0.031 * EQUILIBRIUM_LOSS[family]}), family) == []


SOUND: dict[str, tuple[str | None, Rows]] = {
    "a critic's loss below 0, family not known": (None, told(50, 600, {D: turns(-0.01, 0.02)})),
    "one spike in 20 rows": ("logistic", told(50, 2000, {D: once(0.7, 0.9, 1500)})),
    "a loss without early spread that stays calm": ("logistic", told(50, 2000, {D: then(0.7, 0.8, 1200)})),
    "a critic's loss without early spread that stays calm": ("wasserstein", told(50, 2000, {D: then(7.0, 7.1, 1200)})),
    "rounding noise becomes more rounding noise": ("wasserstein", told(50, 2000, {D: swing(1e-9, 1e-7, 1000, 1.0)})),
    "G's loss falls by rounding noise": (
        "logistic",
        told(100, 1200, {G: lambda t: 0.7 - 1e-9 * t, "g/diversity": then(1.0, 0.7, 500)}),
    ),
    "variety was nothing and is nothing": (
        "logistic",
        told(50, 3000, {G: lambda t: 2 - t / 10_000, "g/feature_diversity": 0.9, "g/diversity": then(1e-4, 1e-9, 500)})[
            :8
        ],
    ),
    "near to training pictures, as blobs are": ("logistic", told(50, 900, {"g/newness": 0.4})),
    "near to training pictures and to held-out ones": (
        "logistic",
        told(50, 900, {"g/newness": 0.4, "g/nearest_ratio": 1.05, "g/train_ratio": 0.97, "g/diversity": 0.9}),
    ),
    "nearer to training pictures by chance: samples all alike": (
        "logistic",
        told(50, 900, {"g/newness": 0.4, "g/nearest_ratio": 1.05, "g/train_ratio": 0.8, "g/diversity": 0.6}),
    ),
    "far from training pictures, and from held-out ones farther": (
        "logistic",
        told(50, 900, {"g/newness": 1.4, "g/nearest_ratio": 1.05, "g/train_ratio": 0.8, "g/diversity": 0.9}),
    ),
    "accuracy in per cent": ("logistic", told(50, 900, {ACCURACY: 51.56, "d/real_accuracy": 99.0})),
    "a player who stood still": ("logistic", told(50, 900, {"g/update": then(0.0, 0.1, 600)})),
    "a distance of next to nothing, doubled": (
        "logistic",
        told(100, 500, {"measure/kid": listed(0.3, 1e-9, 2e-9, 4e-9, 4e-9)}),
    ),
    "spikes at the beginning": ("logistic", told(50, 2000, {D: swing(0.41, 0.1, 500)})),
    "G's loss rises as variety falls": (
        "logistic",
        told(100, 1200, {G: lambda t: t / 1000, "g/diversity": then(1.0, 0.7, 500)}),
    ),
    "G's loss wavers as variety falls": (
        "logistic",
        told(100, 1000, {G: listed(7, 10, 9, 8, 2, 6, 5, 3, 4, 1.5), "g/diversity": then(1.0, 0.7, 500)}),
    ),
    "variety grows as G's loss falls": (
        "logistic",
        told(100, 1200, {G: lambda t: 2 - t / 1000, "g/diversity": then(0.7, 1.0, 500)}),
    ),
    "a gap that settles": ("logistic", told(100, 1200, {D: 0.5, G: lambda t: 7.1 - t / 10_000})),
    "a gap that stays": ("logistic", told(100, 1200, {D: 0.5, G: 6.5})),
    "D's loss above G's": ("logistic", told(100, 1200, {G: 0.5, D: lambda t: 6.5 + t / 10_000})),
    "G heard every other row": (
        "logistic",
        told(100, 1200, {D: 0.5, G: lambda t: 6 + t / 1000 if t % 200 == 0 else None}),
    ),
    "an estimate around 0": ("wasserstein", told(50, 2000, {"d/wasserstein": -0.1})),
    "an estimate of 0": ("wasserstein", told(50, 2000, {"d/wasserstein": 0.0})),
    "an estimate, not yet three windows old": ("wasserstein", told(50, 1450, {"d/wasserstein": 5.0})),
    "an estimate that falls slowly": (
        "wasserstein",
        told(50, 3000, {"d/wasserstein": lambda t: 10 * 0.885 ** (t / 500)}),
    ),
    "right as often as a coin, in the end": ("logistic", told(50, 3000, {ACCURACY: then(0.8, 0.5, 300)})),
    "fooled for less than a window": ("logistic", told(50, 3000, {ACCURACY: lambda t: 0.9 if t % 500 == 0 else 0.1})),
    "three measurings": ("logistic", told(50, 1950, {D: LOG2, BALANCE: measured(0.1, every=500)})),
    "three measurings of labels": ("logistic", told(50, 1950, {D: LOG2, GAN_TEST: measured(0.1, every=500)})),
    "classes that were missing": ("logistic", told(100, 3000, {BALANCE: then(0.1, 0.9, 900)})),
    "labels that were wrong": ("logistic", told(100, 3000, {GAN_TEST: then(0.1, 0.9, 900)})),
    "scores the wrong way round early": (
        "logistic",
        told(50, 1600, {"d/real_score": then(-1, 9, 1000), "d/fake_score": 0.0}),
    ),
    "scores alike early": ("logistic", told(50, 1600, {"d/real_score": then(0, 4.9, 1000), "d/fake_score": 0.0})),
    "both scores far up": (
        "logistic",
        told(50, 1600, {"d/real_score": then(2, 101, 1000), "d/fake_score": then(1, 100, 1000)}),
    ),
    "reals' scores alone": ("logistic", told(50, 1600, {"d/real_score": then(2, 101, 1000)})),
    "the eighth gradient bursts": ("logistic", told(50, 400, {"g/grad_norm": once(2.0, 90.0, 400)})),
    "gradients from 0": ("logistic", told(50, 800, {"g/grad_norm": once(0.0, 90.0, 600)})),
    "steeper at reals": ("logistic", told(50, 600, {"d/r2": 2.0, "d/r1": 21.0})),
    "flat at reals": ("logistic", told(50, 600, {"d/r2": 2.0, "d/r1": 0.0})),
    "codes that say something now and then": (
        "reconstruction",
        told(50, 3000, {"g/kl": lambda t: 0.6 if t % 400 == 0 else 0.1}),
    ),
    "the KL of nobody's codes": ("reconstruction", told(50, 3000, {"d/kl": 0.1, "kl": 0.1})),
    "alike from the beginning, for less than two windows": (
        "logistic",
        told(50, 900, {"g/diversity": then(0.3, 0.9, 550)}),
    ),
    "pixels alike once, features once": (
        "logistic",
        told(50, 900, {"g/diversity": turns(0.3, 0.51), "g/feature_diversity": turns(0.51, 0.3)}),
    ),
    "worse once": ("logistic", told(100, 500, {"measure/fid": listed(20, 10, 12, 14, 99)})),
    "worse twice, within the floor": (
        "logistic",
        told(100, 500, {"measure/fid": listed(20, 10, 15.1, 15.9, 15.9), "floor/fid": 1.0}),
    ),
    "coverage a little down": ("logistic", told(100, 500, {"measure/coverage": listed(0.5, 0.9, 0.61, 0.61, 0.61)})),
    "coverage grows": ("logistic", told(100, 500, {"measure/coverage": listed(0.1, 0.2, 0.4, 0.6, 0.9)})),
    "a measure of no choice": ("logistic", told(100, 500, {"measure/vendi": listed(10, 1, 5, 9, 20)})),
}


@pytest.mark.parametrize("what", SOUND)
def test_harmless(what: str) -> None:
    family, rows = SOUND[what]
    assert hear(rows, family) == []


HARMFUL: dict[str, tuple[str, Rows, int, str, str]] = {
    "a loss without early spread": (
        "logistic",
        told(50, 1600, {D: then(0.7, 5.0, 1200)}),
        1250,
        "d_spikes",
        "D's loss was nearly constant early in the run (std 0) and varies now (std 1.29)",
    ),
    "a loss with early rounding noise": (
        "logistic",
        told(50, 1400, {D: swing(1e-15, 0.5, 1000)}),
        1050,
        "d_spikes",
        "D's loss was nearly constant early in the run (std 9.99e-16) and varies now (std 0.",
    ),
    "a gradient a million times as long": (
        "logistic",
        told(50, 450, {"d/grad_norm": once(1e-5, 80.0, 450)}),
        450,
        "gradient_burst",
        "D's gradient norm is 80, more than 1,000 times its running median",
    ),
    "next to flat at reals": (
        "pairs",
        told(50, 600, {"d/r2": 3.0, "d/r1": 1e-9}),
        500,
        "slopes_uneven",
        "D's squared gradient norm is 3 at fake samples and close to 0 at real (1e-09)",
    ),
    "scores next to alike early": (
        "logistic",
        told(50, 1600, {"d/real_score": then(1e-9, 9, 1000), "d/fake_score": 0.0}),
        1300,
        "scores_apart",
        "differ by 5.4, and hardly differed early in the run (by 1e-09)",
    ),
    "nearer to training pictures than to held-out ones": (
        "logistic",
        told(50, 550, {"g/newness": 0.85, "g/nearest_ratio": 1.05, "g/train_ratio": 0.86, "g/diversity": 0.9}),
        500,
        "memorising",
        "the distance of samples to training images is 86% of that to an equal number of held-out images: ",
    ),
    "infinite": ("logistic", told(50, 300, {G: once(1.0, -math.inf, 200)}), 200, "not_finite", "g/adversarial"),
    "infinite at its highest": (
        "logistic",
        told(50, 300, {D: once(0.7, Stat(0.7, 0.1, 0.1, math.inf), 200)}),
        200,
        "not_finite",
        "d/adversarial",
    ),
    "infinite at its lowest": (
        "logistic",
        told(50, 300, {D: once(0.7, Stat(0.7, 0.1, -math.inf, 1.0), 200)}),
        200,
        "not_finite",
        "d/adversarial",
    ),
    "the first in the alphabet is named": (
        "logistic",
        told(50, 300, {G: once(1.0, math.nan, 200), D: once(1.0, math.nan, 200)}),
        200,
        "not_finite",
        "d/adversarial is",
    ),
    "by D's features": (
        "logistic",
        told(50, 450, {"g/diversity": 0.9, "g/feature_diversity": then(0.5, 0.4, 100)}),
        400,
        "collapse",
        "samples are 40% as diverse as real samples, measured in D's features",
    ),
    "by D's features from the beginning": (
        "logistic",
        told(50, 750, {"g/diversity": 0.9, "g/feature_diversity": 0.4}),
        600,
        "collapse",
        "samples are 40% as diverse as real samples, measured in D's features",
    ),
    "by pixels from the beginning": (
        "logistic",
        told(50, 750, {"g/diversity": 0.4, "g/feature_diversity": 0.9}),
        600,
        "collapse",
        "samples are 40% as diverse as real samples, measured in pixels",
    ),
    "D's gradient long": (
        "logistic",
        told(50, 450, {"d/grad_norm": 120, "g/grad_norm": 1.0}),
        300,
        "gradient_long",
        "D's gradient norm has been 120 since",
    ),
    "D's gradient bursts": (
        "wasserstein",
        told(50, 450, {"d/grad_norm": once(2.0, 80.0, 450), "g/grad_norm": 1.0}),
        450,
        "gradient_burst",
        "D's gradient norm is 80, 40 times",
    ),
    "G's step bursts": (
        "logistic",
        told(50, 450, {"d/update": 0.01, "g/update": once(0.01, 0.08, 450)}),
        450,
        "update_burst",
        "G's update norm is 0.08, 8 times",
    ),
    "coverage down": (
        "logistic",
        told(100, 500, {"measure/coverage": listed(0.5, 0.9, 0.49, 0.48, 0.47)}),
        400,
        "past_its_best",
        "coverage is 0.48; its best was 0.9 at step 200",
    ),
    "coverage gone": (
        "logistic",
        told(100, 500, {"measure/coverage": listed(0.5, 0.9, 0.8, 0.0, 0.0)}),
        500,
        "past_its_best",
        "coverage is 0; its best was 0.9 at step 200",
    ),
    "a floor of more-is-better is no slack": (
        "logistic",
        told(100, 500, {"measure/coverage": listed(0.8, 0.8, 0.8, 0.4, 0.4), "floor/coverage": 0.8}),
        500,
        "past_its_best",
        "coverage is 0.4; its best was 0.8 at step 100",
    ),
    "worse by more than the floor": (
        "logistic",
        told(100, 500, {"measure/kid": listed(20, 10, BAD + 0.1, BAD + 1.1, BAD + 1.1), "floor/kid": 1.0}),
        500,
        "past_its_best",
        f"kid is {BAD + 1.1:.4g}; its best was 10 at step 200",
    ),
    "a floor that is no number": (
        "logistic",
        told(100, 500, {"measure/kid": listed(0.2, 0.1, 0.2, 0.2, 0.2), "floor/kid": lambda t: None}),
        400,
        "past_its_best",
        "kid is 0.2; its best was 0.1 at step 200",
    ),
    "an estimate that grows": (
        "wasserstein",
        told(50, 1800, {"d/wasserstein": lambda t: 20 + t / 100}),
        1500,
        "wasserstein_stuck",
        "it is 32.8, and its maximum was 35",
    ),
    "right at first, fooled later": (
        "logistic",
        told(50, 900, {ACCURACY: then(0.9, 0.3, 200)}),
        200 + WINDOW["d_fooled"],
        "d_fooled",
        "D's accuracy has been 30.0% since step 250",
    ),
    "always wrong": ("hinge", told(50, 550, {ACCURACY: 0.0}), 500, "d_fooled", "D's accuracy has been 0.0% since"),
    "classes missing by measurings far apart": (
        "logistic",
        told(50, 2400, {D: LOG2, BALANCE: measured(0.1, every=500)}),
        2000,
        "classes_missing",
        "class balance has been 0.10 since step 500",
    ),
    "classes missing later on": (
        "logistic",
        told(50, 2400, {D: LOG2, BALANCE: lambda t: None if t % 100 else 0.9 if t <= 1000 else 0.1}),
        2000,
        "classes_missing",
        "since step 1,100",
    ),
    "labels wrong by measurings far apart": (
        "logistic",
        told(50, 2400, {D: LOG2, GAN_TEST: measured(0.1, every=500)}),
        2000,
        "labels_wrong",
        "10% of the samples have been of the requested class since step 500",
    ),
    "the codes of a hybrid": (
        "logistic",
        told(50, 900, {"g/posterior_kl": then(30.0, 0.4, 200)}),
        700,
        "codes_ignored",
        "the KL of the latent codes has been 0.4 nats since step 250: G ignores them",
    ),
    "codes that tell nothing from the beginning": (
        "reconstruction",
        told(50, 550, {"g/kl": 0.02}),
        500,
        "codes_ignored",
        "0.02 nats since step 50",
    ),
    "steep at fakes early": ("pairs", told(50, 600, {"d/r2": 30.0, "d/r1": 1.0}), 500, "slopes_uneven", "30.0 times"),
    "D's loss at nothing": ("hinge", told(50, 450, {D: 0.0}), 300, "d_at_zero", "has been 0 on average"),
    "a loss that wavers as it falls": (
        "logistic",
        told(100, 1000, {G: listed(9, 10, 7, 8, 2, 6, 5, 3, 4, 1), "g/diversity": then(1.0, 0.7, 500)}),
        1000,
        "g_falling",
        "(9 to 1)",
    ),
}


@pytest.mark.parametrize("what", HARMFUL)
def test_harmful(what: str) -> None:
    family, rows, step, name, part = HARMFUL[what]
    [alarm] = hear(rows, family)
    assert (alarm.step, alarm.detector) == (step, name)
    assert part in alarm.message


LESS_AND_MORE = {
    "fid": (listed(20, 10, 20, 20), listed(20, 10, 9, 8)),
    "kid": (listed(0.2, 0.1, 0.2, 0.2), listed(0.2, 0.1, 0.09, 0.08)),
    "coverage": (listed(0.5, 0.9, 0.3, 0.3), listed(0.1, 0.2, 0.4, 0.6)),
    "high_quality": (listed(0.4, 0.8, 0.2, 0.2), listed(0.1, 0.2, 0.4, 0.6)),
}
"""Measures by which a best is told, in order: a best that is past, and one that is not."""


@pytest.mark.parametrize(("place", "name"), list(enumerate(LESS_AND_MORE)), ids=str)
def test_the_first_of_the_measures_tells_the_best_alone(place: int, name: str) -> None:
    later = list(LESS_AND_MORE)[place + 1 :]
    past, holds = LESS_AND_MORE[name]
    others = {f"measure/{other}": LESS_AND_MORE[other][1] for other in later}
    [alarm] = hear(told(100, 400, {**others, f"measure/{name}": past}), None)
    assert (alarm.step, alarm.detector) == (400, "past_its_best")
    assert alarm.message.startswith(f"{name} is ")
    others = {f"measure/{other}": LESS_AND_MORE[other][0] for other in later}
    assert hear(told(100, 400, {**others, f"measure/{name}": holds}), None) == []


@pytest.mark.parametrize(
    "name", ["precision", "recall", "density", "ndb", "vendi", "modes", "reverse_kl", "inception_score"]
)
def test_no_other_measure_tells_a_best(name: str) -> None:
    for values in ((20, 10, 40, 40), (10, 20, 5, 5)):
        assert hear(told(100, 400, {f"measure/{name}": listed(*values)}), None) == []


@pytest.mark.parametrize("name", ["gradient_burst", "update_burst"])
def test_bursts_are_told_again_after_a_window(name: str) -> None:
    quantity = {"gradient_burst": "d/grad_norm", "update_burst": "g/update"}[name]
    window, high = WINDOW[name], 2 * BOUND[name]
    for apart, found in ((window + 50, [600, 650 + window]), (window, [600])):
        at = {600, 600 + apart}
        rows = told(50, 700 + window, {quantity: lambda t, at=at: high if t in at else 1.0})
        assert [(a.step, a.detector) for a in hear(rows, "logistic")] == [(step, name) for step in found]


def test_a_best_below_0_is_not_past_while_it_stays() -> None:
    """The unbiased kernel distance falls below 0 for good samples."""
    assert hear(told(100, 500, {"measure/kid": listed(0.02, -0.001, -0.001, -0.001, -0.001)}), "logistic") == []


def test_an_estimate_that_fell_early_and_stays() -> None:
    assert hear(told(50, 2000, {"d/wasserstein": then(10, 7, 400)}), "wasserstein") == []


def test_an_estimate_that_paused() -> None:
    rows = [row for row in told(50, 3000, {"d/wasserstein": 5.0}) if not 800 < row[0] < 2200]
    assert [alarm.step for alarm in hear(rows, "wasserstein")] == [2350]


def test_infinite_floors_leave_no_slack() -> None:
    """The floor alone is not finite: that is told, and the measure is judged without it."""
    rows = told(100, 400, {"measure/fid": listed(20, 10, BAD + 1, BAD + 1), "floor/fid": math.inf})
    assert [(a.step, a.detector) for a in hear(rows, None)] == [(100, "not_finite"), (400, "past_its_best")]


def test_samples_alike_from_the_beginning_of_a_short_run() -> None:
    rows = told(50, 550, {"g/diversity": 0.4})
    assert [(a.step, a.detector) for a in hear(rows, "logistic", length=1600)] == [(400, "collapse")]


def test_no_window_is_longer_than_an_eighth_of_the_run() -> None:
    [alarm] = hear(PLANTED["d_at_zero"].rows, "logistic", length=1600)
    assert (alarm.step, alarm.detector) == (200, "d_at_zero")
    [alarm] = hear(told(50, 1000, {"d/wasserstein": 5.0}), "wasserstein", length=2400)
    assert (alarm.step, alarm.detector) == (900, "wasserstein_stuck")
    for name, length, step in (
        ("labels_wrong", 4800, 600),
        ("classes_missing", 4800, 600),
        ("classes_missing", 800, 400),
    ):
        [alarm] = hear(PLANTED[name].rows, "logistic", length=length)
        assert (alarm.step, alarm.detector) == (step, name)


# ---- what a detector says of itself ------------------------------------------------------------------------

SET = re.compile(r"--set (?:'([^']*)'|(\S+?))(?=[,;.)]*(?:\s|$))")
TABLES = {name: shipped.load_table(name) for name in shipped.recipe_names()}


def words_of(advice: str) -> list[str]:
    """What stands behind each `--set`, as a shell would hand it over."""
    return [quoted or plain for quoted, plain in SET.findall(advice)]


def facts(table: dict[str, Any]) -> dict[str, float]:
    """Numbers that say what a recipe has, as the rows of its runs do."""
    found = {f"d/{trick['kind']}": 1e-12 for trick in table.get("tricks", []) if trick["kind"] in ("r1", "r2")}
    return found | ({"g/label_effect": 1.0} if "conditioning" in table else {})


def alarms_for(name: str, recipe: str) -> list[Alarm]:
    """What the detector says of a run of the recipe, if such a run has the numbers that it goes by."""
    table, has = TABLES[recipe], facts(TABLES[recipe])
    family, kinds_there = FAMILIES[table["objective"]["kind"]], {trick["kind"] for trick in table.get("tricks", [])}
    rows = PLANTED[name].rows
    if name == "codes_ignored" and family != "reconstruction":
        rows = told(50, 900, {"g/posterior_kl": 0.1}) if "posterior_kl" in kinds_there else []
    elif name == "codes_ignored" and table["objective"]["kind"] != "elbo":
        rows = []
    if name == "slopes_uneven" and not {"r1", "r2"} <= kinds_there:
        rows = []
    if name.startswith("labels_") and "conditioning" not in table:
        rows = []
    told_by_player = {"g/": "d/", "d/": "g/"}
    swapped = [(t, {told_by_player.get(n[:2], n[:2]) + n[2:]: v for n, v in numbers.items()}) for t, numbers in rows]
    if family == "reconstruction" and any(n.startswith("d/") for _, numbers in rows for n in numbers):
        rows = swapped
    both = (
        [rows, swapped]
        if family != "reconstruction" and name in ("gradient_long", "gradient_burst", "update_burst")
        else [rows]
    )
    heard = [[(t, {**has, **numbers}) for t, numbers in one] for one in both]
    return [alarm for one in heard for alarm in hear(one, family) if alarm.detector == name]


@functools.cache
def refused(recipe: str, words: tuple[str, ...]) -> list[Any]:
    table = deepcopy(TABLES[recipe])
    for word in words:
        set_value(table, word)
    assert table != TABLES[recipe] or words == ('conditioning.d={kind="projection"}',)
    return check_compatibility(decode(table, recipe)).refusals


@pytest.mark.parametrize("recipe", TABLES)
def test_the_advice_can_be_typed_for_every_recipe(recipe: str) -> None:
    """Each `--set` by itself and all together; a rate to be lowered is lowered, a weight to be raised is raised."""
    said = [alarm for name in PLANTED for alarm in alarms_for(name, recipe)]
    assert said
    for alarm in said:
        words = words_of(alarm.advice)
        assert len(words) == alarm.advice.count("--set")
        for some in {*((word,) for word in words), tuple(words)} - {()}:
            assert refused(recipe, some) == [], alarm
        for word in words:
            if found := re.fullmatch(r"optimizer\.([gd])\.lr=(\S+)", word):
                before = TABLES[recipe]["optimizer"][found[1]]["lr"]
                assert float(found[2]) < (before if isinstance(before, float) else before["start"]), alarm
            if found := re.fullmatch(r"tricks\.(r1|r2)\.gamma=(\S+)", word):
                [trick] = [trick for trick in TABLES[recipe]["tricks"] if trick["kind"] == found[1]]
                gamma = trick["gamma"]
                assert float(found[2]) > (gamma if isinstance(gamma, float) else gamma["start"]), alarm


@pytest.mark.parametrize(("side", "who"), [("d", "D"), ("g", "G")])
@pytest.mark.parametrize("name", ["gradient_long", "gradient_burst", "update_burst"])
def test_the_advice_names_the_player_that_was_seen(name: str, side: str, who: str) -> None:
    quantity = "update" if name == "update_burst" else "grad_norm"
    usual, high = (120.0, 120.0) if name == "gradient_long" else (1.0, 100.0)
    other = {"d": "g", "g": "d"}[side]
    rows = told(50, 600, {f"{side}/{quantity}": once(usual, high, 600), f"{other}/{quantity}": 1.0})
    [alarm] = hear(rows, "logistic")
    assert alarm.detector == name
    assert alarm.message.startswith(f"{who}'s ")
    assert f"{who}'s learning rate" in alarm.advice
    assert f"optimizer.{side}.lr" in alarm.advice
    assert f"optimizer.{other}" not in alarm.advice


@PAIRS
def test_what_a_detector_says_of_itself(name: str) -> None:
    detector = DETECTORS[name]
    assert detector.description
    assert detector.advice
    assert "\n" not in detector.description + detector.advice
    assert detector.tip in {tip.id for tip in tips()}
    assert math.isfinite(detector.threshold)
    assert detector.window >= 1
    assert detector.families <= ALL_FAMILIES
    assert detector.policy in LEVELS


@PAIRS
def test_the_numbers_a_detector_goes_by(name: str) -> None:
    """What is planted is among what it reads, and hearing it is enough not to be deaf."""
    planted, detector = PLANTED[name], DETECTORS[name]
    heard = {quantity for _, numbers in planted.rows for quantity in numbers}
    assert set(detector.inputs) & heard or not detector.inputs
    monitor = Monitor()
    assert (name in monitor.inactive_detectors()) == bool(detector.inputs)
    for step, numbers in planted.rows:
        monitor.hear(step, numbers)
    assert name not in monitor.inactive_detectors()


def test_every_objective_has_a_family() -> None:
    assert set(find_components(Objective, "poise.objectives")) <= set(FAMILIES)
    assert set(FAMILIES.values()) == ALL_FAMILIES
    for kind, family in FAMILIES.items():
        word = {"non_saturating": "logistic", "minimax": "logistic", "least_squares": "squares", "began": "energy"}
        word |= {"kl_divergence": "divergence", "reconstruction": "reconstruction", "elbo": "reconstruction"}
        assert family == ("pairs" if kind.startswith("relativistic") else word.get(kind, kind))
    for kind, part in find_components(Objective, "poise.objectives").items():
        assert (FAMILIES[kind] in GAN_FAMILIES) == bool(part.output_kinds), "who asks nobody plays alone"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("family", "detectors"),
    [("logistic", []), (None, []), ("wasserstein", ["d_spikes"]), ("energy", ["d_spikes"])],
    ids=str,
)
def test_a_loss_that_varies_little_is_calm_where_it_has_an_even_level(family: str | None, detectors: list[str]) -> None:
    """0.13 is less than a fifth of log 2, and thirteen times as much as early on."""
    alarms = hear(told(50, 1600, {D: swing(0.01, 0.13, 1000)}), family)
    assert [alarm.detector for alarm in alarms] == detectors


# ---- whatever comes ----------------------------------------------------------------------------------------

VALUES = [0.0, 1.0, 0.5, 5e-324, 1e-310, 1e-30, 1e-12, 1e-7, 0.03, 0.97, 3.0, -2.0, 700.0, 1e30, 1e99, 1e160, 1.7e308]
BROKEN = [math.inf, -math.inf, math.nan]
SPREADS = [0.0, 0.0, 0.0, 1e-16, 1e-9, 0.3, 1e200, math.inf, math.nan]
READ = sorted({name for detector in DETECTORS.values() for name in detector.inputs} | {"d/r1", "d/r2"})
FIGURE = re.compile(r"(?<![\w.])[-+]?[0-9][0-9,]*\.?[0-9]*(?:e[-+]?[0-9]+)?")


def broken_rows(seed: int) -> Rows:
    """Each quantity holds a value for a stretch, perhaps with noise on it, then another."""
    rng = np.random.default_rng(seed)
    values = VALUES + BROKEN * int(rng.integers(0, 2))
    rows: Rows = [(50 * (i + 1), {}) for i in range(24)]
    for name in READ:
        first, later, spread = (float(rng.choice(some)) for some in (values, values, SPREADS))
        noise, cut = float(rng.choice([0.0, 1e-16, 1e-7, 0.1])), int(rng.integers(0, 25))
        for i, (_, numbers) in enumerate(rows):
            value = (first if i < cut else later) * (1 + noise * float(rng.standard_normal()))
            numbers[name] = Stat(value, spread, value, value)
    return rows


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, *sorted(ALL_FAMILIES)]), st.booleans())
def test_no_series_brings_down_a_detector_or_makes_it_talk_nonsense(
    seed: int, family: str | None, one_by_one: bool
) -> None:
    rows = broken_rows(seed)
    if one_by_one:  # as another trainer's log comes
        rows = [(t, {n: v.mean for n, v in numbers.items() if isinstance(v, Stat)}) for t, numbers in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alarms = hear(rows, family)
    for alarm in alarms:
        assert not re.search(r"(?<!not )\b(nan|inf|-inf)\b", alarm.message), alarm.message
        for factor in re.findall(r"([-0-9,.e+]+) times", alarm.message):
            assert 0 < float(factor.replace(",", "")) <= 1000, alarm.message
        for share in re.findall(r"([-0-9,.e+]+)%", alarm.message):
            assert 0 <= float(share) <= 100, alarm.message
        assert all(len(figure) <= 12 for figure in FIGURE.findall(alarm.message)), alarm.message
        assert alarm.advice


def test_ten_huge_numbers_together_are_not_infinite() -> None:
    monitor = Monitor(family="hinge")
    alarms = [alarm for t in range(1, 700) for alarm in monitor.hear(t, {"g/anything": 1.7e308})]
    assert alarms == []
