"""Detectors that read D's output: its accuracy and its scores."""

from __future__ import annotations

import math

import numpy as np

from poise.watch.base import BOUNDED_FAMILIES, GAN_FAMILIES, Detection, Detector, DetectorSettings, Family
from poise.watch.formatting import RELATIVE_NOISE, all_between, ratio
from poise.watch.history import MetricHistory, Window, WindowLength

SIGN_FAMILIES = GAN_FAMILIES - {"energy", "wasserstein"}
PAIR_FAMILIES = GAN_FAMILIES - {"energy"}
"""Where D's accuracy close to 1, and where it is at chance, is a sign of failure.

A Wasserstein critic should be ahead of G, as far as its Lipschitz constraint lets it. The energies of EBGAN and BEGAN
have no such meaning: while FID fell, D's accuracy was 0.97 with EBGAN, where D keeps a margin between real and
generated samples, and 0.09 with BEGAN, where generated samples have the lower energy.
"""

CHANCE = 0.5
"""The accuracy of a D that guesses."""

ACCURACY, REAL, FAKE = "d/accuracy", "d/real_score", "d/fake_score"

CERTAIN_GAP: dict[Family, float] = {"logistic": 5.0, "relativistic": 5.0, "least_squares": 0.5, "hinge": 2.0}
"""The gap between the scores of real and fake samples below which D is not certain, whatever the gap was before.

As log-odds, 5 is 150 to 1; of least squares, 1 separates the targets; a hinge loss of 0 begins at a gap of 2.
"""


def d_never_wrong(history: MetricHistory, settings: DetectorSettings) -> str | None:
    """D's mean accuracy over a window close to 1."""
    window = _fraction_window(history, ACCURACY, settings.window)
    if window is None or window.mean <= settings.threshold:
        return None
    return f"D's accuracy has been {window.mean:.1%} since step {window.steps[0]:,}"


def d_fooled(history: MetricHistory, settings: DetectorSettings) -> str | None:
    """D's accuracy below chance for a whole window; without accuracy, real samples scored lower than generated ones."""
    window = _fraction_window(history, ACCURACY, settings.window)
    if window is not None and window.means.max() <= settings.threshold:
        worse = ": worse than chance" if window.mean < CHANCE else ""
        return f"D's accuracy has been {window.mean:.1%} since step {window.steps[0]:,}{worse}"
    real, fake = history.last(REAL, settings.window), history.last(FAKE, settings.window)
    if ACCURACY in history.series or real is None or fake is None or len(real) != len(fake):
        return None
    if (real.means >= fake.means).any():
        return None
    scores = f"real samples {real.median:.3g}, generated ones {fake.median:.3g}"
    return f"D has scored real samples lower than generated ones since step {real.steps[0]:,} ({scores})"


def d_never_right(history: MetricHistory, settings: DetectorSettings) -> Detection | None:
    """D's accuracy has not been above chance in any row."""
    series = history.series.get(ACCURACY)
    window = _fraction_window(history, ACCURACY, settings.window)
    if window is None or series is None or series.age < 2 * history.window_steps(ACCURACY, settings.window):
        return None
    highest = series.accumulate(np.fmax, -math.inf)[-1]
    if highest > settings.threshold:
        return None
    return Detection(f"D's accuracy has never been above {highest:.1%}: it is too weak to train G", since=0)


def d_knows_by_heart(history: MetricHistory, settings: DetectorSettings) -> str | None:
    """ADA's r_t, the mean sign of D's scores on training images, close to 1: D overfits.

    Not on points in the plane, which are drawn anew in each step, so that there is nothing to overfit to.
    """
    if "g/diversity" in history.series and "g/shades" not in history.series:  # which only images have
        return None
    window = _fraction_window(history, "d/real_accuracy", settings.window)
    if window is None or 2 * window.mean - 1 <= settings.threshold:
        return None
    return f"r_t is {2 * window.mean - 1:.2f}: D classifies nearly every training image as real and probably overfits"


def scores_apart(history: MetricHistory, settings: DetectorSettings) -> str | None:
    """The gap between D's scores of real and fake samples far above the gap early in the run."""
    names = (REAL, FAKE)
    windows = [history.last(name, settings.window) for name in names]
    early = [history.early(name, settings.window) for name in names]
    if any(window is None for window in (*windows, *early)):
        return None
    now, before = (w[0].median - w[1].median for w in (windows, early) if w[0] is not None and w[1] is not None)
    scale = max(abs(window.median) for window in (*windows, *early) if window is not None)
    certain = CERTAIN_GAP.get(settings.family or "logistic", CERTAIN_GAP["logistic"])
    if before < 0 or now <= max(settings.threshold * before, certain, RELATIVE_NOISE * scale):
        return None
    gap = f"D's mean scores of real and fake samples differ by {now:.3g}"
    factor = ratio(now, before, scale)
    if factor is not None:
        return f"{gap}, {factor:.1f} times as much as early in the run"
    return f"{gap}, and hardly differed early in the run (by {before:.3g})"


def _fraction_window(history: MetricHistory, name: str, length: WindowLength) -> Window | None:
    """A window of a metric that is a fraction; None if a value is not in [0, 1], as percentages are not."""
    found = history.last(name, length)
    return found if found is not None and all_between(tuple(found.means), 0.0, 1.0) else None


DETECTORS = (
    Detector(
        name="d_never_wrong",
        description="D's mean accuracy over a window above this: D is too strong",
        threshold=0.995,
        window=300,
        policy="warn",
        detect=d_never_wrong,
        advice="weaken D: --set 'tricks+=[{kind=\"instance_noise\", sigma=0.5}]', or make it narrower",
        tip="T14a",
        inputs=(ACCURACY,),
        families=SIGN_FAMILIES,
    ),
    Detector(
        name="d_fooled",
        description=(
            "D's accuracy at or below this for a whole window (without accuracy: real samples scored lower than "
            "generated ones): G is ahead of D"
        ),
        threshold=0.4,
        window=500,
        policy="note",
        detect=d_fooled,
        advice="let D move more often than G, --set 'tempo={kind=\"ratio\", d=2, g=1}', or raise its learning rate",
        tip="T24",
        inputs=(ACCURACY, REAL, FAKE),
        families=PAIR_FAMILIES,
    ),
    Detector(
        name="d_never_right",
        description="D's accuracy never above this since the start, after two windows: D is too weak or does not learn",
        threshold=0.53,
        window=300,
        policy="note",
        detect=d_never_right,
        advice="make D wider (network.d.width) or raise its learning rate (optimizer.d.lr); poise check --warm-up "
        "shows whether it can learn at all",
        tip="T24",
        inputs=(ACCURACY,),
        families=PAIR_FAMILIES,
    ),
    Detector(
        name="d_knows_by_heart",
        description="r_t, the mean sign of D's scores on training images, above this (ADA's target is 0.6): D overfits",
        threshold=0.95,
        window=500,
        policy="note",
        detect=d_knows_by_heart,
        advice="augment D's input: --set 'tricks+=[{kind=\"diff_augment\"}]', or train on more images",
        tip="M02",
        inputs=("d/real_accuracy",),
        families=BOUNDED_FAMILIES - {"relativistic"},
    ),
    Detector(
        name="scores_apart",
        description="the gap between D's mean scores of real and fake samples, above this multiple of the early gap",
        threshold=5.0,
        window=500,
        policy="note",
        detect=scores_apart,
        advice="regularise D's scores: --set 'tricks+=[{kind=\"lecam\"}]', or lower D's learning rate",
        tip="M03",
        inputs=(REAL, FAKE),
        families=BOUNDED_FAMILIES,
    ),
)
