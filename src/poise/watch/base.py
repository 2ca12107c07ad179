"""What a detector is: a sign of failure, as a function of the rows heard so far; and the alarm it raises."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from poise.watch.history import MetricHistory

Level = Literal["note", "warning", "failure"]
Policy = Literal["off", "note", "warn", "keep", "roll_back", "stop"]
"""What an alarm leads to: nothing at all, a line, a line in colour, the saves from before it kept, a return to the last
of them at a lower rate, the end of the run."""

LEVELS: dict[Policy, Level] = {
    "note": "note",
    "warn": "warning",
    "keep": "warning",
    "roll_back": "failure",
    "stop": "failure",
}

Family = Literal["logistic", "pairs", "squares", "hinge", "wasserstein", "energy", "divergence", "rebuilding"]
"""Games whose losses can be read alike: the cross-entropy of one sample and of a pair, least squares, hinge, a critic
without bounds, an autoencoder's energy, the bound of a divergence; and games for one, which rebuild."""

FAMILIES: dict[str, Family] = {
    "non_saturating": "logistic",
    "minimax": "logistic",
    "relativistic": "pairs",
    "relativistic_average": "pairs",
    "least_squares": "squares",
    "hinge": "hinge",
    "wasserstein": "wasserstein",
    "energy": "energy",
    "began": "energy",
    "kl_divergence": "divergence",
    "reconstruction": "rebuilding",
    "elbo": "rebuilding",
}
"""The family of each objective."""

EVEN: dict[Family, float] = {"logistic": math.log(2), "pairs": math.log(2), "squares": 0.125, "hinge": 1.0}
"""D's loss per judged picture where it can't tell real from fake."""

BOUNDED = frozenset(EVEN)
"""Families in which D's loss has a floor of 0 and an even level."""

ANY = frozenset(get_args(Family))

GAMES = ANY - {"rebuilding"}
"""The games of two."""


class Alarm(NamedTuple):
    """One line of `alarms.jsonl`.

    Attributes:
        step: when it was raised.
        detector: by which sign.
        level: how grave it is taken to be.
        message: what was seen, with its figures.
        advice: what to do, with the words for the command line where there are any.
        tip: the tip it belongs to.
    """

    step: int
    detector: str
    level: Level
    message: str
    advice: str
    tip: str


class Detection(NamedTuple):
    """What a detector saw.

    Attributes:
        message: in words, with its figures.
        advice: what to do about just that; empty: the detector's own advice fits.
    """

    message: str
    advice: str = ""


class DetectorSettings(NamedTuple):
    """What a detector is told beside the rows.

    Attributes:
        threshold: see its meaning.
        window: how many steps it looks back.
        family: of the objective; None where it is not known.
    """

    threshold: float
    window: int
    family: Family | None

    @property
    def even_loss(self) -> float:
        """D's loss at the balance; the cross-entropy's where the family is not known."""
        return EVEN.get(self.family or "logistic", math.log(2))


class Detector(NamedTuple):
    """One sign.

    Attributes:
        name: what alarms and recipes call it.
        description: a line: what is seen, what the threshold is compared with.
        threshold: the default.
        window: in steps, the default.
        policy: what an alarm leads to by default.
        detect: what is seen in the rows heard so far, in words, or with an advice of its own; None if nothing is.
        advice: what to do, where what was seen does not say more.
        tip: the tip it belongs to.
        inputs: the numbers it goes by; a log that has none of them leaves it silent. Empty: whatever comes.
        families: the games in which it means something; where a log's is not known, all do.
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
    families: frozenset[Family] = ANY
