"""Detectors that read the losses."""

from __future__ import annotations

import math

import numpy as np

from poise.core.metrics_log import Stat
from poise.watch.advice import increase_diversity, lower_learning_rates, players, recover_from_non_finite, weaken_kl
from poise.watch.base import ALL_FAMILIES, BOUNDED_FAMILIES, GAN_FAMILIES, Detection, Detector, DetectorSettings
from poise.watch.formatting import MAX_MAGNITUDE, format_number, ratio
from poise.watch.history import MetricHistory, Window

D, G = "d/adversarial", "g/adversarial"
UNBOUNDED_FAMILIES = ALL_FAMILIES - BOUNDED_FAMILIES

CALM = 0.2
"""D's loss is stable while its standard deviation is below this fraction of its value at equilibrium."""

SWING = 0.5
"""A loss without a known value at equilibrium is stable while its spread is below this fraction of its size."""

STEADY = 0.01
"""A loss that changes by less than this fraction of its size does not fall."""

STEEP = 0.8
"""A trend that nearly every row follows."""

CLEAR = 2.4
"""A trend of so many standard deviations is hardly one of noise, see `_significance`: 0.8 in a window of ten rows."""

MIN_DIVERSITY, MIN_ESTIMATE = 0.01, 1e-9
"""A diversity below the first can hardly fall further; a Wasserstein estimate below the second is taken to be 0."""


def not_finite(history: MetricHistory, settings: DetectorSettings) -> Detection | None:
    """A value in the newest row that is not finite."""
    for name in sorted(history.series):
        stat = history.newest(name)
        if stat is not None and not all(map(math.isfinite, (stat.mean, stat.min, stat.max))):
            advice = recover_from_non_finite(history, settings.family)
            return Detection(f"{name} is not finite", advice, history.previous_step(name))
    return None


def d_at_zero(history: MetricHistory, settings: DetectorSettings) -> str | None:
    """D's mean loss over a window below a fraction of its value at equilibrium."""
    window = history.last(D, settings.window)
    if window is None or window.means.min() < 0 or window.mean > settings.threshold * settings.equilibrium_loss:
        return None
    equilibrium = f"equilibrium: {settings.equilibrium_loss:.3g}"
    return f"D's loss has been {window.mean:.3g} on average since step {window.steps[0]:,} ({equilibrium})"


def d_spikes(history: MetricHistory, settings: DetectorSettings) -> Detection | None:
    """The spread of D's loss far above that early in the run, unless D was only guessing then."""
    window, early = history.last(D, settings.window), history.early(D, settings.window)
    if window is None or early is None or settings.is_guessing(early):
        return None
    now, before = window.spread, early.spread
    level = max(abs(window.median), abs(early.median))
    calm = SWING * level if settings.family in UNBOUNDED_FAMILIES else CALM * settings.equilibrium_loss
    if now <= max(settings.threshold * before, calm):
        return None
    factor = ratio(now, before, level)
    message = f"D's loss was nearly constant early in the run (std {before:.3g}) and varies now (std {now:.3g})"
    if factor is not None:
        message = f"D's loss varies {factor:.1f} times as much as early in the run (std {now:.3g})"
    rates = lower_learning_rates(settings.family, *players(settings.family))
    return Detection(message, f"lower both learning rates: {rates}")


def g_falling(history: MetricHistory, settings: DetectorSettings) -> Detection | None:
    """G's loss falls steadily while the diversity of its samples falls."""
    losses, diversity = history.last(G, settings.window), history.last("g/diversity", settings.window)
    if losses is None or diversity is None or losses.trend > -STEEP:
        return None
    if float(np.ptp(losses.means)) <= STEADY * float(np.abs(losses.means).max()):
        return None
    before, after = diversity.halves()
    if len(before) == 0 or before.median < MIN_DIVERSITY:
        return None
    if not 0 <= after.median <= settings.threshold * before.median:
        return None
    loss = f"G's loss falls steadily ({losses.means[0]:.3g} to {losses.means[-1]:.3g})"
    change = f"{format_number(before.median)} to {format_number(after.median)}"
    message = f"{loss} while the diversity of its samples falls ({change})"
    return Detection(message, f"{increase_diversity(history)}; and let G make fewer or smaller moves")


def g_at_zero(history: MetricHistory, settings: DetectorSettings) -> str | None:
    """G's median loss over a window a small fraction of D's, while D's is above its value at equilibrium."""
    d, g = history.last(D, settings.window), history.last(G, settings.window)
    if d is None or g is None or g.means.min() < 0 or d.median <= settings.equilibrium_loss:
        return None
    if g.median > settings.threshold * d.median:
        return None
    equilibrium = f"equilibrium: {settings.equilibrium_loss:.3g}"
    since = f"since step {g.steps[0]:,}"
    return f"G's loss has been {g.median:.2g} and D's {d.median:.3g} ({equilibrium}) {since}: G fools D completely"


def losses_apart(history: MetricHistory, settings: DetectorSettings) -> str | None:
    """The gap between G's loss and D's above a multiple of the equilibrium loss, and still growing.

    It grows if it rises beyond its noise, and is larger than in all rows of the window before. If there is no such
    window yet, it must rise in nearly every row.
    """
    d, g = history.last(D, settings.window), history.last(G, settings.window)
    gap = _gap(d, g)
    if d is None or g is None or gap is None or gap.mean <= settings.threshold * settings.equilibrium_loss:
        return None
    before = _gap(history.past(D, settings.window, 1), history.past(G, settings.window, 1))
    if gap.trend <= STEEP if before is None else gap.median <= before.means.max() or _significance(gap) < CLEAR:
        return None
    return f"G's loss ({g.mean:.3g}) and D's loss ({d.mean:.3g}) keep drifting apart"


def _gap(d: Window | None, g: Window | None) -> Window | None:
    """G's loss minus D's in each row; None if the windows do not correspond."""
    if d is None or g is None or len(d) != len(g):
        return None
    return Window(d.steps, [Stat.of(gap) for gap in (g.means - d.means).tolist()])


def _significance(window: Window) -> float:
    """The trend of a window in standard deviations of that of as many values in random order: 1 / sqrt(n - 1)."""
    return window.trend * math.sqrt(len(window) - 1)


def losses_constant(history: MetricHistory, settings: DetectorSettings) -> str | None:
    """The losses of both players the same number for a whole window, unless one of them is 0."""
    d, g = history.last(D, settings.window), history.last(G, settings.window)
    if d is None or g is None or not all(_is_constant(window, settings.threshold) for window in (d, g)):
        return None
    since = f"since step {max(d.steps[0], g.steps[0]):,}"
    return f"D's loss ({d.median:.6g}) and G's ({g.median:.6g}) have been the same in every digit {since}"


def _is_constant(window: Window, most: float) -> bool:
    """Whether all values are the same, apart from this fraction of their size; a loss of 0 has other reasons."""
    size = abs(window.median)
    return size > 0 and max(float(np.ptp(window.means)), window.spread) <= most * size


def wasserstein_stuck(history: MetricHistory, settings: DetectorSettings) -> Detection | None:
    """The Wasserstein estimate stays near its maximum; it should fall as the samples get better.

    After three windows, and an eighth of the run if its length is known; the newest two must have no falling trend.
    """
    name = "d/wasserstein"
    window = history.last(name, settings.window)
    if window is None:
        return None
    series = history.series[name]
    if series.age < max(3 * history.window_steps(name, settings.window), (history.length or 0) / 8):
        return None
    peak = series.accumulate(_peak, 0.0)[-1]
    if peak <= MIN_ESTIMATE or window.median < settings.threshold * peak:
        return None
    has_past = history.past(name, settings.window, 1) is not None
    if has_past and _significance(series.rows(len(series.steps) - 2 * len(window), len(series.steps))) < -CLEAR:
        return None
    message = f"the Wasserstein estimate does not fall: it is {window.median:.3g}, and its maximum was {peak:.3g}"
    was_lower = series.accumulate(np.fmin, math.inf)[-1] < settings.threshold * peak
    return Detection(message, since=None if was_lower else 0)


def _peak(before: float, mean: float) -> float:
    """The larger number, unless the new one is too large for computations."""
    return max(before, mean) if abs(mean) < MAX_MAGNITUDE else before


def codes_ignored(history: MetricHistory, settings: DetectorSettings) -> Detection | None:
    """The KL divergence of the latent codes from the prior close to 0: every image has nearly the same code."""
    for name in ("g/kl", "g/posterior_kl"):
        window = history.last(name, settings.window)
        if window is None or not -settings.threshold < window.means.min():
            continue
        if window.means.max() < settings.threshold:
            since = f"since step {window.steps[0]:,}"
            message = f"the KL of the latent codes has been {window.median:.2g} nats {since}: G ignores them"
            return Detection(message, weaken_kl(name))
    return None


DETECTORS = (
    Detector(
        name="not_finite",
        description="a loss, a gradient or a weight is not finite",
        threshold=0.0,
        window=1,
        values=1,
        policy="roll_back",
        detect=not_finite,
        advice="lower the learning rates, or penalise D's input gradient",
        tip="T11",
        inputs=(),
    ),
    Detector(
        name="d_at_zero",
        description=(
            "D's mean loss over a window, at most this fraction of its equilibrium value: D separates real and fake "
            "samples perfectly, and G gets almost no gradient"
        ),
        threshold=0.03,
        window=300,
        policy="warn",
        detect=d_at_zero,
        advice="weaken D with a lower learning rate and instance noise, --set optimizer.d.lr=5e-5 "
        "--set 'tricks+=[{kind=\"instance_noise\", sigma=0.5}]'; if G's gradient has vanished too, restart the run",
        tip="T11",
        inputs=(D,),
        families=BOUNDED_FAMILIES,
    ),
    Detector(
        name="d_spikes",
        description=(
            "D's loss varies more than this many times as much as early in the run, and by more than a fifth of its "
            "equilibrium value (half of its size if it has none); not if D only guessed then"
        ),
        threshold=4.0,
        window=500,
        values=25,
        policy="warn",
        detect=d_spikes,
        advice="lower both learning rates",
        tip="T11",
        inputs=(D,),
        families=GAN_FAMILIES,
    ),
    Detector(
        name="g_falling",
        description=(
            "G's loss falls steadily while its samples' diversity falls to this fraction: G fools D with bad samples"
        ),
        threshold=0.9,
        window=1000,
        values=10,
        policy="note",
        detect=g_falling,
        advice="let D see several samples at once; and let G make fewer or smaller moves",
        tip="T11",
        inputs=(G, "g/diversity"),
        families=GAN_FAMILIES,
    ),
    Detector(
        name="g_at_zero",
        description=(
            "G's median loss over a window, at most this fraction of D's, while D's is above its value at equilibrium: "
            "D is fooled"
        ),
        threshold=0.1,
        window=500,
        policy="warn",
        detect=g_at_zero,
        advice="let D move more often than G, --set 'tempo={kind=\"ratio\", d=2, g=1}', or raise its learning rate; "
        "check that D's loss is not computed with exchanged labels",
        tip="T24",
        inputs=(D, G),
        families=frozenset({"logistic", "relativistic", "least_squares"}),
    ),
    Detector(
        name="losses_apart",
        description=(
            "G's loss exceeds D's by this multiple of the equilibrium loss, and the gap is still growing, by more "
            "than its noise"
        ),
        threshold=8.0,
        window=1000,
        values=10,
        policy="note",
        detect=losses_apart,
        advice="weaken D: --set 'tricks+=[{kind=\"instance_noise\", sigma=0.5}]', or lower its learning rate",
        tip="T11",
        inputs=(D, G),
        families=BOUNDED_FAMILIES - {"hinge", "least_squares"},
    ),
    Detector(
        name="losses_constant",
        description=(
            "the losses of D and G vary by no more than this fraction of their size for a whole window, and neither is "
            "0: nothing is learned"
        ),
        threshold=1e-6,
        window=300,
        values=25,
        policy="note",
        detect=losses_constant,
        advice="check that each optimiser has the weights of its player, and that no loss is computed from detached "
        "tensors (detach, no_grad, item); poise check --warm-up shows whether D can learn at all",
        tip="T24",
        inputs=(D, G),
        families=GAN_FAMILIES,
    ),
    Detector(
        name="wasserstein_stuck",
        description=(
            "the Wasserstein estimate at or above this fraction of its maximum, without a falling trend, after three "
            "windows and an eighth of the run"
        ),
        threshold=0.9,
        window=500,
        policy="warn",
        detect=wasserstein_stuck,
        advice="let the critic make more moves, --set tempo.d=10, use an optimiser without momentum, and penalise the "
        "critic's gradient norm, --set 'tricks+=[{kind=\"wgan_gp\"}]'",
        tip="T15",
        inputs=("d/wasserstein",),
        families=frozenset({"wasserstein"}),
    ),
    Detector(
        name="codes_ignored",
        description=(
            "the KL divergence of the latent codes from the prior, in nats, below this for a whole window (posterior "
            "collapse)"
        ),
        threshold=0.5,
        window=500,
        policy="warn",
        detect=codes_ignored,
        advice="raise the weight of the KL term from 0, or weight the reconstruction more",
        tip="T25",
        inputs=("g/kl", "g/posterior_kl"),
    ),
)
