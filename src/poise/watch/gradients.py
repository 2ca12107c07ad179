"""Detectors of gradients and updates that are too large, suddenly larger, or uneven between real and fake samples."""

from __future__ import annotations

import math

from poise.watch.advice import CLIPPING, lower_learning_rates
from poise.watch.base import GAN_FAMILIES, Detection, Detector, DetectorSettings
from poise.watch.formatting import MAX_MAGNITUDE, MAX_RATIO, RELATIVE_NOISE, format_factor, ratio
from poise.watch.history import MetricHistory

PLAYER_NAMES = {"d": "D", "g": "G"}

MIN_NORM = 1e-9
"""If the median norm is below this, the player did not move, and a larger norm after it is no burst."""


def gradient_long(history: MetricHistory, settings: DetectorSettings) -> Detection | None:
    """A player's gradient norm above the threshold for a whole window."""
    for side, player in PLAYER_NAMES.items():
        window = history.last(f"{side}/grad_norm", settings.window)
        if window is not None and window.means.min() > settings.threshold:
            message = f"{player}'s gradient norm has been {window.median:.3g} since step {window.steps[0]:,}"
            rates = lower_learning_rates(settings.family, side)
            return Detection(message, f"lower {player}'s learning rate, {rates}, or clip its gradients: {CLIPPING}")
    return None


def gradient_burst(history: MetricHistory, settings: DetectorSettings) -> Detection | None:
    """A gradient norm far above its running median."""
    burst = _burst(history, settings, "grad_norm", "gradient")
    if burst is None:
        return None
    side, message = burst
    rates = lower_learning_rates(settings.family, side)
    advice = f"clip gradients: {CLIPPING}; if bursts recur, lower {PLAYER_NAMES[side]}'s learning rate: {rates}"
    return Detection(message, advice, history.previous_step(f"{side}/grad_norm"))


def update_burst(history: MetricHistory, settings: DetectorSettings) -> Detection | None:
    """An update of the weights far larger than its running median."""
    burst = _burst(history, settings, "update", "update")
    if burst is None:
        return None
    side, message = burst
    rates = lower_learning_rates(settings.family, side)
    advice = (
        f"lower {PLAYER_NAMES[side]}'s learning rate: {rates}; with Adam, also lower beta2 (optimizer.{side}.betas)"
    )
    return Detection(message, advice, history.previous_step(f"{side}/update"))


def _burst(history: MetricHistory, settings: DetectorSettings, metric: str, noun: str) -> tuple[str, str] | None:
    """The player whose metric is far above its running median, and the message."""
    for side, player in PLAYER_NAMES.items():
        name = f"{side}/{metric}"
        now, usual = history.newest(name), history.running_median(name)
        if now is None or usual is None or not math.isfinite(now.max):
            continue
        if not MIN_NORM < usual < MAX_MAGNITUDE or now.max <= settings.threshold * usual:
            continue
        factor = ratio(now.max, usual)
        times = f"more than {MAX_RATIO:,.0f}" if factor is None else format_factor(factor)
        return side, f"{player}'s {noun} norm is {now.max:.3g}, {times} times its running median"
    return None


def slopes_uneven(history: MetricHistory, settings: DetectorSettings) -> str | None:
    """D's squared gradient norm at fake samples far above that at real samples, if both are penalised."""
    fake, real = history.last("d/r2", settings.window), history.last("d/r1", settings.window)
    if fake is None or real is None or real.mean <= 0:
        return None
    if fake.mean <= max(RELATIVE_NOISE, settings.threshold * real.mean):
        return None
    factor = ratio(fake.mean, real.mean)
    if factor is None:
        return f"D's squared gradient norm is {fake.mean:.3g} at fake samples and close to 0 at real ({real.mean:.3g})"
    return f"D's squared gradient norm at fake samples is {factor:.1f} times that at real samples"


DETECTORS = (
    Detector(
        name="gradient_long",
        description="a player's gradient norm above this for a whole window (the tip lists' bound is 100)",
        threshold=100.0,
        window=300,
        policy="note",
        detect=gradient_long,
        advice=f"lower that player's learning rate, or clip its gradients: {CLIPPING}",
        tip="T11",
        inputs=("d/grad_norm", "g/grad_norm"),
        families=GAN_FAMILIES - {"wasserstein"},
    ),
    Detector(
        name="gradient_burst",
        description="a player's gradient norm at more than this multiple of its running median",
        threshold=30.0,
        window=500,
        policy="note",
        detect=gradient_burst,
        advice=f"clip gradients: {CLIPPING}; if bursts recur, lower the learning rate",
        tip="T11",
        inputs=("d/grad_norm", "g/grad_norm"),
    ),
    Detector(
        name="update_burst",
        description="the norm of a player's update (the last before a row) at more than this multiple of its median",
        threshold=5.0,
        window=500,
        policy="note",
        detect=update_burst,
        advice="lower that player's learning rate; with Adam, also lower beta2",
        tip="T10",
        inputs=("d/update", "g/update"),
    ),
    Detector(
        name="slopes_uneven",
        description=(
            "D's squared gradient norm at fake samples at more than this multiple of that at real samples (R3GAN: it "
            "explodes where training diverges)"
        ),
        threshold=10.0,
        window=500,
        policy="warn",
        detect=slopes_uneven,
        advice="raise the weights of both penalties: --set tricks.r1.gamma=5.0 --set tricks.r2.gamma=5.0",
        tip="T06b",
        inputs=("d/r1", "d/r2"),
        families=GAN_FAMILIES,
    ),
)
