"""The types of the monitor: a detector looks for one sign of failure in the logged metrics and raises alarms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

from poise.watch.history import MetricHistory, Window, WindowLength

Level = Literal["note", "warning", "failure"]
Policy = Literal["off", "note", "warn", "keep", "roll_back", "advise", "stop"]
"""What an alarm leads to: `off` disables the detector, `note` and `warn` log the alarm, `keep` also keeps the weights
from before it, `roll_back` returns to a checkpoint from before the sign with lower learning rates, `advise` with a
change that the advice names, `stop` ends the run."""

LEVELS: dict[Policy, Level] = {
    "note": "note",
    "warn": "warning",
    "keep": "warning",
    "roll_back": "failure",
    "advise": "failure",
    "stop": "failure",
}
"""The level of the alarms of each policy."""

Family = Literal[
    "logistic", "relativistic", "least_squares", "hinge", "wasserstein", "energy", "divergence", "reconstruction"
]
"""Objectives whose losses can be interpreted alike.

These are: cross-entropy per sample (`logistic`) and per pair (`relativistic`), least squares, hinge, a critic
(`wasserstein`), the energy of an autoencoder, a bound of a divergence, and `reconstruction`: training without a
discriminator.
"""

FAMILIES: dict[str, Family] = {
    "non_saturating": "logistic",
    "minimax": "logistic",
    "relativistic": "relativistic",
    "relativistic_average": "relativistic",
    "least_squares": "least_squares",
    "hinge": "hinge",
    "wasserstein": "wasserstein",
    "energy": "energy",
    "began": "energy",
    "kl_divergence": "divergence",
    "reconstruction": "reconstruction",
    "elbo": "reconstruction",
}
"""The family of each objective."""

EQUILIBRIUM_LOSS: dict[Family, float] = {
    "logistic": math.log(2),
    "relativistic": math.log(2),
    "least_squares": 0.125,
    "hinge": 1.0,
}
"""D's loss per sample at equilibrium, where it cannot distinguish real from fake samples."""

GUESSING = 0.01
"""While D's loss and its spread are within this fraction of the value at equilibrium, D has learned nothing yet."""

BOUNDED_FAMILIES = frozenset(EQUILIBRIUM_LOSS)
"""Families in which D's loss is at least 0 and has a known value at equilibrium."""

ALL_FAMILIES = frozenset(get_args(Family))

GAN_FAMILIES = ALL_FAMILIES - {"reconstruction"}
"""Families with a discriminator."""


class Alarm(NamedTuple):
    """One line of `alarms.jsonl`.

    Attributes:
        step: the step at which it was raised.
        detector: the name of the detector.
        level: the severity, which follows from the detector's policy.
        message: what was detected, with the relevant values.
        advice: what to do about it, with command-line options where there are any.
        tip: the id of the related tip.
        since: the last step at which the run is taken to be healthy: before the window in which the sign was seen.
    """

    step: int
    detector: str
    level: Level
    message: str
    advice: str
    tip: str
    since: int = 0


class Detection(NamedTuple):
    """What a detector found.

    Attributes:
        message: see `Alarm`.
        advice: advice specific to this finding; empty to use the detector's default advice.
        since: the last step at which the run is taken to be healthy; None for the beginning of the window.
    """

    message: str
    advice: str = ""
    since: int | None = None


class DetectorSettings(NamedTuple):
    """The settings with which a detector examines the metrics.

    Attributes:
        threshold: its meaning is in the detector's description.
        window: the length of the window.
        family: the family of the objective, or None if it is not known.
    """

    threshold: float
    window: WindowLength
    family: Family | None

    @property
    def equilibrium_loss(self) -> float:
        """D's loss at equilibrium; that of the cross-entropy if the family has none or is not known."""
        return EQUILIBRIUM_LOSS.get(self.family or "logistic", math.log(2))

    def is_guessing(self, loss: Window) -> bool:
        """Whether D's loss was flat at equilibrium: that D moves away from there is a beginning, and no failure."""
        most = GUESSING * self.equilibrium_loss
        has_equilibrium = self.family is None or self.family in BOUNDED_FAMILIES
        return has_equilibrium and abs(loss.median - self.equilibrium_loss) <= most and loss.spread <= most


class Detector(NamedTuple):
    """A sign of failure and how to look for it.

    Attributes:
        name: its name in alarms and recipes.
        description: one line: the sign, and what the threshold is compared with.
        threshold: the default threshold.
        window: the default length of the window in steps.
        policy: the default policy of its alarms.
        detect: a function of the history and the settings that returns a message, a `Detection` with its own advice, or
            None if there is no sign of failure.
        advice: the default advice.
        tip: the id of the related tip.
        inputs: the metrics that it reads; it is inactive on a log that has none of them. Empty: all metrics.
        families: the families to which it applies. If a log's family is not known, every detector applies.
        values: the least number of values in a window, see `WindowLength`.
    """

    name: str
    description: str
    threshold: float
    window: int
    policy: Policy
    detect: Callable[[MetricHistory, DetectorSettings], str | Detection | None]
    advice: str
    tip: str
    inputs: tuple[str, ...]
    families: frozenset[Family] = ALL_FAMILIES
    values: int = 8
