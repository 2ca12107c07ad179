"""Signs in gradients and steps: too long, suddenly longer, uneven between reals and fakes."""

from __future__ import annotations

import math

from poise.watch.advice import CLIPPING, lower_rates
from poise.watch.base import GAMES, Detection, Detector, DetectorSettings
from poise.watch.formatting import HUGE, MOST, NOISE, ratio
from poise.watch.history import MetricHistory

WHO = {"d": "D", "g": "G"}

STILL = 1e-9
"""A median gradient or step below this is that of a player who did not move: what comes after it is no burst."""


def gradient_long(heard: MetricHistory, look: DetectorSettings) -> Detection | None:
    """Either player's gradient above the list's bound throughout a window."""
    for side, who in WHO.items():
        window = heard.last(f"{side}/grad_norm", look.window)
        if window is not None and window.means.min() > look.threshold:
            message = f"{who}'s gradient has been {window.median:.3g} long since step {window.steps[0]:,}"
            return Detection(
                message, f"lower {who}'s rate, {lower_rates(look.family, side)}, or bound each move: {CLIPPING}"
            )
    return None


def gradient_burst(heard: MetricHistory, look: DetectorSettings) -> Detection | None:
    """A gradient far above its own running median."""
    seen = _burst(heard, look, "grad_norm", "gradient")
    if seen is None:
        return None
    side, message = seen
    cure = (
        f"bound each move: {CLIPPING}; if bursts come back, lower {WHO[side]}'s rate: {lower_rates(look.family, side)}"
    )
    return Detection(message, cure)


def update_burst(heard: MetricHistory, look: DetectorSettings) -> Detection | None:
    """A step that moved the weights much farther than steps used to."""
    seen = _burst(heard, look, "update", "last step")
    if seen is None:
        return None
    side, message = seen
    rates = lower_rates(look.family, side)
    cure = f"lower {WHO[side]}'s rate: {rates}; with Adam a lower beta2 (optimizer.{side}.betas) too"
    return Detection(message, cure)


def _burst(heard: MetricHistory, look: DetectorSettings, quantity: str, what: str) -> tuple[str, str] | None:
    """Whose it is, and in words."""
    for side, who in WHO.items():
        name = f"{side}/{quantity}"
        now, before = heard.newest(name), heard.before(name)
        if now is None or before is None or not math.isfinite(now.max):
            continue
        usual = before.median
        if not STILL < usual < HUGE or now.max <= look.threshold * usual:
            continue
        factor = ratio(now.max, usual)
        than = f"more than {MOST:,.0f}" if factor is None else f"{factor:.0f}"
        return side, f"{who}'s {what} is {now.max:.3g}, {than} times its running median"
    return None


def slopes_uneven(heard: MetricHistory, look: DetectorSettings) -> str | None:
    """D's squared slope at fakes against that at reals, where penalties tell both."""
    fake, real = heard.last("d/r2", look.window), heard.last("d/r1", look.window)
    if fake is None or real is None or real.mean <= 0 or fake.mean <= max(NOISE, look.threshold * real.mean):
        return None
    factor = ratio(fake.mean, real.mean)
    if factor is None:
        return f"D's squared slope is {fake.mean:.3g} at fakes and next to nothing at reals ({real.mean:.3g})"
    return f"D's squared slope at fakes is {factor:.1f} times that at reals"


DETECTORS = (
    Detector(
        name="gradient_long",
        description="the length of a player's gradient above this for a whole window (the lists' 100)",
        threshold=100.0,
        window=300,
        policy="note",
        detect=gradient_long,
        advice="lower that player's rate, or bound each move: --set 'tricks+=[{kind=\"gradient_clipping\"}]'",
        tip="T11",
        inputs=("d/grad_norm", "g/grad_norm"),
        families=GAMES - {"wasserstein"},
    ),
    Detector(
        name="gradient_burst",
        description="a gradient this many times as long as its running median",
        threshold=30.0,
        window=500,
        policy="note",
        detect=gradient_burst,
        advice="bound each move: --set 'tricks+=[{kind=\"gradient_clipping\"}]'; if bursts come back, lower the rate",
        tip="T11",
        inputs=("d/grad_norm", "g/grad_norm"),
    ),
    Detector(
        name="update_burst",
        description=(
            "a step (the last before a row) that moved the weights this many times as far as the running median"
        ),
        threshold=5.0,
        window=500,
        policy="note",
        detect=update_burst,
        advice="lower that player's rate; with Adam a lower beta2 too",
        tip="T10",
        inputs=("d/update", "g/update"),
    ),
    Detector(
        name="slopes_uneven",
        description=(
            "D's squared slope at fakes in multiples of that at reals (R3GAN: it explodes where training diverges)"
        ),
        threshold=10.0,
        window=500,
        policy="warn",
        detect=slopes_uneven,
        advice="a larger gamma for both: --set tricks.r1.gamma=5.0 --set tricks.r2.gamma=5.0",
        tip="T06b",
        inputs=("d/r1", "d/r2"),
        families=GAMES,
    ),
)
