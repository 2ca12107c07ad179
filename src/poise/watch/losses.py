"""Signs in the losses: what the lists say to look at first."""

from __future__ import annotations

import math

import numpy as np

from poise.watch.advice import after_not_finite, increase_variety, lower_rates, players, weaken_kl
from poise.watch.base import ANY, BOUNDED, GAMES, Detection, Detector, DetectorSettings
from poise.watch.formatting import HUGE, format_number, ratio
from poise.watch.history import MetricHistory

D, G = "d/adversarial", "g/adversarial"
UNBOUNDED = ANY - BOUNDED

CALM = 0.2
"""Where D's loss has an even level, it is calm while it varies by less than this share of it."""

STEADY = 0.01
"""Where a loss has no even level, it is calm while it varies by less than this share of its size."""

ALIKE, NOTHING = 0.01, 1e-9
"""A diversity below the one can't fall any more; an estimate below the other was none."""


def not_finite(heard: MetricHistory, look: DetectorSettings) -> Detection | None:
    """A number of the newest row that is not finite."""
    for name in sorted(heard.series):
        stat = heard.newest(name)
        if stat is not None and not all(map(math.isfinite, (stat.mean, stat.min, stat.max))):
            return Detection(f"{name} is not finite any more", after_not_finite(heard, look.family))
    return None


def d_at_zero(heard: MetricHistory, look: DetectorSettings) -> str | None:
    """D's loss below a share of its even level, for a whole window."""
    window = heard.last(D, look.window)
    if window is None or window.means.min() < 0 or window.mean > look.threshold * look.even_loss:
        return None
    return f"D's loss has been {window.mean:.3g} on average since step {window.steps[0]:,} (even: {look.even_loss:.3g})"


def d_spikes(heard: MetricHistory, look: DetectorSettings) -> Detection | None:
    """D's loss jumping about, against how it was early on."""
    window, early = heard.last(D, look.window), heard.early(D, look.window)
    if window is None or early is None or window.std <= look.threshold * early.std:
        return None
    scale = max(float(np.abs(part.means).max()) for part in (window, early))
    if window.std <= (CALM * look.even_loss if look.family not in UNBOUNDED else STEADY * scale):
        return None
    factor = ratio(window.std, early.std, scale)
    message = f"D's loss was nearly constant early on (std {early.std:.3g}), and varies now (std {window.std:.3g})"
    if factor is not None:
        message = f"D's loss varies {factor:.1f} times as much as early on (std {window.std:.3g})"
    return Detection(message, f"lower both rates: {lower_rates(look.family, *players(look.family))}")


def g_falling(heard: MetricHistory, look: DetectorSettings) -> Detection | None:
    """G's loss falling row by row while its samples grow more alike."""
    losses, variety = heard.last(G, look.window), heard.last("g/diversity", look.window)
    if losses is None or variety is None or losses.trend > -0.8:
        return None
    if float(np.ptp(losses.means)) <= STEADY * float(np.abs(losses.means).max()):
        return None
    before, after = variety.halves()
    if len(before) == 0 or before.median < ALIKE or not 0 <= after.median <= look.threshold * before.median:
        return None
    fell = f"G's loss falls steadily ({losses.means[0]:.3g} to {losses.means[-1]:.3g})"
    message = (
        f"{fell} and its samples grow alike (diversity {format_number(before.median)} to {format_number(after.median)})"
    )
    return Detection(message, f"{increase_variety(heard)}; and let G move less often or more slowly")


def losses_apart(heard: MetricHistory, look: DetectorSettings) -> str | None:
    """G's loss above D's, in even levels, and drifting away still."""
    d, g = heard.last(D, look.window), heard.last(G, look.window)
    if d is None or g is None or len(d) != len(g):
        return None
    gap = (g.means - d.means) / look.even_loss
    settled = float(gap[len(gap) // 2 :].mean()) <= float(gap[: len(gap) // 2].mean())
    if settled or float(gap.mean()) <= look.threshold:
        return None
    return f"G's loss {g.mean:.3g} and D's {d.mean:.3g} drift apart instead of settling"


def wasserstein_stuck(heard: MetricHistory, look: DetectorSettings) -> str | None:
    """The Wasserstein estimate, which should fall as the samples get better, near its highest."""
    name = "d/wasserstein"
    window = heard.last(name, look.window)
    if window is None:
        return None
    series = heard.series[name]
    if series.age < 3 * heard.window_length(look.window, series):
        return None
    means = series.between(-1, heard.step).means
    peak = float(means[np.abs(means) < HUGE].max(initial=0.0))
    if peak <= NOTHING or window.median < look.threshold * peak:
        return None
    return f"the Wasserstein estimate is {window.median:.3g}, and was never above {peak:.3g}: it does not fall"


def codes_ignored(heard: MetricHistory, look: DetectorSettings) -> Detection | None:
    """The KL of the codes' regions next to nothing: every picture has the same code, the prior."""
    for name in ("g/kl", "g/posterior_kl"):
        window = heard.last(name, look.window)
        if window is not None and -look.threshold < window.means.min() and window.means.max() < look.threshold:
            message = f"codes tell {window.median:.2g} nats of a picture since step {window.steps[0]:,}: G ignores them"
            return Detection(message, weaken_kl(name))
    return None


DETECTORS = (
    Detector(
        name="not_finite",
        description="a loss, a gradient or a weight is not a finite number",
        threshold=0.0,
        window=1,
        policy="roll_back",
        detect=not_finite,
        advice="lower the rates, or penalise D's slope",
        tip="T11",
        inputs=(),
    ),
    Detector(
        name="d_at_zero",
        description=(
            "D's loss for a whole window below this share of its level at balance: D has won, and G learns nothing"
        ),
        threshold=0.03,
        window=300,
        policy="warn",
        detect=d_at_zero,
        advice="hold D: a lower rate and a blurred view, --set optimizer.d.lr=5e-5 "
        "--set 'tricks+=[{kind=\"instance_noise\", sigma=0.5}]'; if G's gradient is gone as well, start again",
        tip="T11",
        inputs=(D,),
        families=BOUNDED,
    ),
    Detector(
        name="d_spikes",
        description=(
            "D's loss varies this many times as much as early in the run, and by a fifth of its even level or more"
        ),
        threshold=4.0,
        window=500,
        policy="warn",
        detect=d_spikes,
        advice="lower both rates",
        tip="T11",
        inputs=(D,),
        families=GAMES,
    ),
    Detector(
        name="g_falling",
        description=(
            "G's loss falls steadily while its samples' diversity falls to this share: D is fooled with garbage"
        ),
        threshold=0.9,
        window=1000,
        policy="warn",
        detect=g_falling,
        advice="let D see several samples at once; and let G move less often or more slowly",
        tip="T11",
        inputs=(G, "g/diversity"),
        families=GAMES,
    ),
    Detector(
        name="losses_apart",
        description="G's loss above D's by this many times the level at balance, and rising still",
        threshold=8.0,
        window=1000,
        policy="note",
        detect=losses_apart,
        advice="hold D: --set 'tricks+=[{kind=\"instance_noise\", sigma=0.5}]'",
        tip="T11",
        inputs=(D, G),
        families=BOUNDED - {"hinge", "squares"},
    ),
    Detector(
        name="wasserstein_stuck",
        description="the Wasserstein estimate at this share of its highest or above, after three windows",
        threshold=0.9,
        window=500,
        policy="warn",
        detect=wasserstein_stuck,
        advice="give the critic more moves, --set tempo.d=10, an optimiser without momentum, and a bound on its slope, "
        "--set 'tricks+=[{kind=\"wgan_gp\"}]'",
        tip="T15",
        inputs=("d/wasserstein",),
        families=frozenset({"wasserstein"}),
    ),
    Detector(
        name="codes_ignored",
        description=(
            "nats of KL from the prior to the codes' regions, below this for a whole window (posterior collapse)"
        ),
        threshold=0.5,
        window=500,
        policy="warn",
        detect=codes_ignored,
        advice="let the KL of the codes cost less at first, or a missed pixel more",
        tip="T25",
        inputs=("g/kl", "g/posterior_kl"),
    ),
)
