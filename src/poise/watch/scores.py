"""Signs in what D says: how often it is right, how sure it is of what it was trained on."""

from __future__ import annotations

import numpy as np

from poise.watch.base import BOUNDED, Detector, DetectorSettings
from poise.watch.formatting import NOISE, all_between, ratio
from poise.watch.history import MetricHistory, Window

ACCURACY, REAL, FAKE = "d/accuracy", "d/real_score", "d/fake_score"

FAR = 5.0
"""Scores that lay together early on are far apart from here on: as log-odds, 150 to 1."""


def d_never_wrong(heard: MetricHistory, look: DetectorSettings) -> str | None:
    """D right on all but a few, for a whole window."""
    window = _shares(heard, ACCURACY, look.window)
    if window is None or window.mean <= look.threshold:
        return None
    return f"D has been right on {window.mean:.1%} since step {window.steps[0]:,}"


def d_fooled(heard: MetricHistory, look: DetectorSettings) -> str | None:
    """D wrong more often than right, for a whole window."""
    window = _shares(heard, ACCURACY, look.window)
    if window is None or window.means.max() > look.threshold:
        return None
    return f"D has been right on {window.mean:.1%} since step {window.steps[0]:,}: worse than a coin"


def d_never_right(heard: MetricHistory, look: DetectorSettings) -> str | None:
    """D no better than a coin in any row since the first."""
    series = heard.series.get(ACCURACY)
    window = _shares(heard, ACCURACY, look.window)
    if window is None or series is None or series.age < 2 * heard.window_length(look.window, series):
        return None
    highest = float(np.nanmax(series.between(-1, heard.step).means))
    if highest > look.threshold:
        return None
    return f"D was never right on more than {highest:.1%}: G can't get better than its teacher"


def d_knows_by_heart(heard: MetricHistory, look: DetectorSettings) -> str | None:
    """ADA's r_t, the mean sign of D's score of the pictures it is trained on, above a bound."""
    window = _shares(heard, "d/real_accuracy", look.window)
    if window is None or 2 * window.mean - 1 <= look.threshold:
        return None
    return f"r_t is {2 * window.mean - 1:.2f}: D takes nearly every training picture for real"


def scores_apart(heard: MetricHistory, look: DetectorSettings) -> str | None:
    """The gap between D's scores of reals and fakes, against how wide it was early on."""
    names = (REAL, FAKE)
    windows, early = [heard.last(n, look.window) for n in names], [heard.early(n, look.window) for n in names]
    if any(w is None for w in (*windows, *early)):
        return None
    now, then = (w[0].mean - w[1].mean for w in (windows, early) if w[0] is not None and w[1] is not None)
    scale = max(abs(w.mean) for w in (*windows, *early) if w is not None)
    if then < 0 or now <= max(look.threshold * then, NOISE * scale):
        return None
    factor = ratio(now, then, scale)
    if factor is not None:
        return f"D's scores of reals and fakes lie {now:.3g} apart, {factor:.1f} times as far as early on"
    if now <= FAR:
        return None
    return f"D's scores of reals and fakes lie {now:.3g} apart, and lay next to nothing apart early on ({then:.3g})"


def _shares(heard: MetricHistory, name: str, window: int) -> Window | None:
    """A window of a quantity that is a share; none if it is not between 0 and 1, as figures in per cent are not."""
    found = heard.last(name, window)
    return found if found is not None and all_between(tuple(found.means), 0.0, 1.0) else None


DETECTORS = (
    Detector(
        name="d_never_wrong",
        description="D's accuracy above this for a whole window: it is too strong",
        threshold=0.995,
        window=300,
        policy="warn",
        detect=d_never_wrong,
        advice="hold D: --set 'tricks+=[{kind=\"instance_noise\", sigma=0.5}]', or a narrower D",
        tip="T14a",
        inputs=(ACCURACY,),
        families=BOUNDED,
    ),
    Detector(
        name="d_fooled",
        description="D's accuracy at or below this for a whole window: G runs ahead of it",
        threshold=0.4,
        window=500,
        policy="note",
        detect=d_fooled,
        advice="let D move more often than G, --set 'tempo={kind=\"ratio\", d=2}', or give it a higher rate",
        tip="T24",
        inputs=(ACCURACY,),
        families=BOUNDED,
    ),
    Detector(
        name="d_never_right",
        description="D's accuracy never above this since the start, after two windows: it is too weak, or dead",
        threshold=0.53,
        window=300,
        policy="note",
        detect=d_never_right,
        advice="a wider D (network.d.width), or a higher rate for it (optimizer.d.lr); poise check --warm-up tells "
        "whether it can learn at all",
        tip="T24",
        inputs=(ACCURACY,),
        families=BOUNDED,
    ),
    Detector(
        name="d_knows_by_heart",
        description="r_t, the mean sign of D's score at training pictures, above this (ADA holds it at 0.6)",
        threshold=0.95,
        window=500,
        policy="note",
        detect=d_knows_by_heart,
        advice="move the pictures that D sees: --set 'tricks+=[{kind=\"diff_augment\"}]'",
        tip="M02",
        inputs=("d/real_accuracy",),
        families=BOUNDED - {"pairs"},
    ),
    Detector(
        name="scores_apart",
        description="the gap between D's mean scores of reals and fakes, in multiples of the early gap",
        threshold=5.0,
        window=500,
        policy="note",
        detect=scores_apart,
        advice="hold D's scores: --set 'tricks+=[{kind=\"lecam\"}]'",
        tip="M03",
        inputs=(REAL, FAKE),
        families=BOUNDED,
    ),
)
