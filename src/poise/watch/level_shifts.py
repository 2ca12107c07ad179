"""Detectors of a lasting change: D's loss or accuracy, or the size of updates, has moved to another level.

A run that fails late does not look like a failed run from its beginning: D's loss may be far from 0 and D's accuracy
far from 1. It differs from its own past.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import NamedTuple

import numpy as np

from poise.watch.advice import CLIPPING, lower_learning_rates, players
from poise.watch.base import EQUILIBRIUM_LOSS, GAN_FAMILIES, Detection, Detector, DetectorSettings
from poise.watch.history import MIN_ROWS, MetricHistory, Window

LOSS, ACCURACY = "d/adversarial", "d/accuracy"
NORMS = ("d/update", "g/update", "d/grad_norm", "g/grad_norm")

PAST = 8
"""With how many windows the newest one is compared."""

MIN_SHIFT, MIN_RELATIVE_SHIFT, MIN_ACCURACY_SHIFT = 0.1, 0.5, 0.05
"""Smaller changes are ignored: of a loss as a fraction of its value at equilibrium, of a loss without such a value as a
fraction of its own size, and of the accuracy."""

SMALL = 0.01
"""A norm below this fraction of the largest one so far has vanished, and is no measure for later ones."""


class Shift(NamedTuple):
    """The medians before and after a change of the level, and the spread before it."""

    before: float
    after: float
    spread: float


def level_shift(window: Window, past: Window, threshold: float, least: float) -> Shift | None:
    """A change of the level that has lasted for a window, or None.

    Args:
        window: the newest rows.
        past: the rows before it.
        threshold: every new row differs from the past median by more than this many times the spread of the past rows'
            means, and all in the same direction.
        least: they differ by more than this, too.
    """
    shift = Shift(past.median, window.median, past.spread_between_rows)
    changes = (window.means - shift.before) * np.sign(shift.after - shift.before)
    return shift if float(changes.min()) > max(threshold * shift.spread, least) else None


def d_shifted(history: MetricHistory, settings: DetectorSettings) -> Detection | None:
    """D's loss or accuracy at a new level for a whole window, unless D was only guessing before."""
    losses = history.past(LOSS, settings.window, PAST)
    if losses is not None and settings.is_guessing(losses):
        return None
    for name, noun in ((LOSS, "D's loss"), (ACCURACY, "D's accuracy")):
        window, past = history.last(name, settings.window), history.past(name, settings.window, PAST)
        if window is None or past is None:
            continue
        least = MIN_ACCURACY_SHIFT
        if name == LOSS:
            equilibrium = EQUILIBRIUM_LOSS.get(settings.family or "logistic")
            least = MIN_RELATIVE_SHIFT * abs(past.median) if equilibrium is None else MIN_SHIFT * equilibrium
        shift = level_shift(window, past, settings.threshold, least)
        if shift is not None:
            message = (
                f"{noun} has been {shift.after:.3g} since step {window.steps[0]:,}; before that it was "
                f"{shift.before:.3g} for a long time (std {shift.spread:.2g})"
            )
            rates = lower_learning_rates(settings.family, *players(settings.family))
            return Detection(message, f"{ADVICE}: {rates}")
    return None


def updates_grown(history: MetricHistory, settings: DetectorSettings) -> Detection | None:
    """The norm of a player's updates or gradients far above its past for a whole window.

    Of a Wasserstein critic only updates are read, as its gradients grow with its unbounded scores.
    """
    for name in NORMS:
        if settings.family == "wasserstein" and name.endswith("grad_norm"):
            continue
        window, past = history.last(name, settings.window), history.past(name, settings.window, PAST)
        if window is None or past is None:
            continue
        series = history.series[name]
        largest = series.accumulate(np.maximum, -math.inf)[bisect_right(series.steps, past.steps[-1]) - 1]
        usual = max(past.median, SMALL * largest)
        smallest = float(window.means.min())
        if smallest <= settings.threshold * usual or usual == 0:
            continue
        side, metric = name.split("/")
        player, noun = side.upper(), "updates" if metric == "update" else "gradients"
        rates = lower_learning_rates(settings.family, side)
        message = (
            f"{player}'s {noun} have had norms of at least {smallest:.3g} since step {window.steps[0]:,}, "
            f"{smallest / usual:.1f} times the usual {usual:.3g}"
        )
        return Detection(message, f"lower {player}'s learning rate, {rates}, or clip its gradients: {CLIPPING}")
    return None


ADVICE = (
    "compare the samples from before and after that step (poise web); if a schedule or the data changes there, change "
    "it more slowly or later; otherwise lower both learning rates"
)

DETECTORS = (
    Detector(
        name="d_shifted",
        description=(
            "for a whole window, D's loss or accuracy differs from its median over the eight windows before by more "
            "than this many times its spread in them (and by a tenth of the equilibrium loss, or half of the loss "
            "if there is no equilibrium value, or by 0.05 of accuracy); not if D's loss was at its equilibrium value "
            "in them"
        ),
        threshold=6.0,
        window=100,
        values=MIN_ROWS,
        policy="warn",
        detect=d_shifted,
        advice=ADVICE,
        tip="T11",
        inputs=(LOSS, ACCURACY),
        families=GAN_FAMILIES,
    ),
    Detector(
        name="updates_grown",
        description=(
            "the norm of a player's updates (the last before a row) or gradients, for a whole window, at more than "
            "this multiple of its median over the eight windows before (wasserstein: updates alone)"
        ),
        threshold=3.0,
        window=100,
        values=MIN_ROWS,
        policy="warn",
        detect=updates_grown,
        advice=f"lower that player's learning rate, or clip its gradients: {CLIPPING}",
        tip="T10",
        inputs=NORMS,
    ),
)
