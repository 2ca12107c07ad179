"""The monitor: it is told numbers, and speaks up when one of its detectors sees something. It decides nothing.

    monitor = Monitor(family="logistic")
    for step, d_loss, g_loss in my_own_loop():
        for alarm in monitor.hear(step, {"d/adversarial": d_loss, "g/adversarial": g_loss}):
            print(alarm.message, alarm.advice)

The same monitor hears a run as it goes, an old run's rows, and another trainer's log.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, field_validator

from poise.core.config import Config, did_you_mean, reject_value
from poise.core.metrics_log import Stat
from poise.errors import RecipeError
from poise.watch import gradients, losses, samples, scores
from poise.watch.base import ANY, FAMILIES, LEVELS, Alarm, Detection, Detector, DetectorSettings, Family, Policy
from poise.watch.history import MetricHistory

DETECTORS: dict[str, Detector] = {
    detector.name: detector
    for detector in (*losses.DETECTORS, *scores.DETECTORS, *gradients.DETECTORS, *samples.DETECTORS)
}
"""All signs by name, in the order in which they are looked for."""

ONE_BY_ONE, TOGETHER = 500, 10
"""Numbers that come one by one are looked at each time for so many rows, and from then on so many at a time."""


class MonitorConfig(Config):
    """`[monitor]` in a recipe: what is done otherwise than by default.

    `policy`, `threshold` and `window` (in steps) are by detector's name; `roll_backs` is how often a run may go back to
    its last save before it ends, and `back_off` what both rates are multiplied with each time.
    """

    policy: dict[str, Policy] = Field(default_factory=dict)
    threshold: dict[str, float] = Field(default_factory=dict)
    window: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    roll_backs: int = Field(default=3, ge=0, le=100)
    back_off: float = Field(default=0.5, gt=0, le=1)

    @field_validator("policy", "threshold", "window")
    @classmethod
    def _known(cls, told: dict[str, object]) -> dict[str, object]:
        for name in told:
            if name not in DETECTORS:
                reject_value(f"no such detector '{name}'", key=name, cure=did_you_mean(name, list(DETECTORS)))
        return told

    def policy_of(self, name: str) -> Policy:
        """What an alarm of this detector leads to."""
        return self.policy.get(name, DETECTORS[name].policy)


def family_of(word: str | None) -> Family | None:
    """The family of that name, or of the objective of that kind.

    Raises:
        RecipeError: there is none; names the nearest.
    """
    if word is None or word in ANY:
        return word  # type: ignore[return-value]
    if word not in FAMILIES:
        raise RecipeError(
            "no such family of losses",
            where="family",
            found=f"'{word}'",
            cure=did_you_mean(word, sorted({*ANY, *FAMILIES})),
        )
    return FAMILIES[word]


class Monitor:
    """See the module.

    Args:
        config: policies, thresholds and windows other than the defaults.
        family: of the objective, or the objective's kind; None where it is not known, and every detector looks.
        length: steps of the whole run, where that is known: no window is longer than an eighth of it.
    """

    def __init__(
        self, config: MonitorConfig | None = None, family: Family | str | None = None, length: int | None = None
    ) -> None:
        self.config = config or MonitorConfig()
        self.family = family_of(family)
        self.history = MetricHistory(length)
        self._waiting: list[tuple[int, dict[str, Stat]]] = []
        self._rows = 0
        self._active: dict[str, int] = {}
        self._watching = [
            detector
            for name, detector in DETECTORS.items()
            if self.config.policy_of(name) != "off" and (self.family is None or self.family in detector.families)
        ]

    def hear(self, step: int, numbers: Mapping[str, float | Stat]) -> list[Alarm]:
        """Hear one row; what is alarming in it, and was not before.

        Args:
            step: how many steps are done; never less than before.
            numbers: by the names of `rows.jsonl`, each a number or what it came to over an interval.
        """
        stats = {name: told if isinstance(told, Stat) else Stat.of(float(told)) for name, told in numbers.items()}
        self._waiting.append((step, stats))
        self._rows += 1
        urgent = any(
            name.startswith("measure/") or stat.min != stat.max or not math.isfinite(stat.mean)
            for name, stat in stats.items()
        )
        if self._rows > ONE_BY_ONE and len(self._waiting) < TOGETHER and not urgent:
            return []
        return self.flush()

    def flush(self) -> list[Alarm]:
        """Look at what has come since the last look. `hear` does so by itself; at a log's end it is done by hand."""
        if not self._waiting:
            return []
        rows, self._waiting = self._waiting, []
        self.history.add(rows[-1][0], _together([stats for _, stats in rows]))
        return [alarm for detector in self._watching if (alarm := self._look(detector)) is not None]

    def inactive_detectors(self) -> list[str]:
        """The detectors that have heard none of the numbers they go by."""
        return [one.name for one in self._watching if one.inputs and not self.history.series.keys() & set(one.inputs)]

    def roll_back(self, step: int) -> None:
        """Forget what came after `step`: the run was taken back to it."""
        self._waiting.clear()
        self.history.drop_after(step)
        self._active = {name: when for name, when in self._active.items() if when <= step}

    def _look(self, detector: Detector) -> Alarm | None:
        name, step = detector.name, self.history.step
        window = self.config.window.get(name, detector.window)
        look = DetectorSettings(self.config.threshold.get(name, detector.threshold), window, self.family)
        seen = detector.detect(self.history, look)
        if seen is None:
            if name in self._active and step - self._active[name] >= window:
                del self._active[name]
            return None
        new = name not in self._active
        self._active[name] = step
        level = LEVELS[self.config.policy_of(name)]
        told = seen if isinstance(seen, Detection) else Detection(seen)
        return Alarm(step, name, level, told.message, told.advice or detector.advice, detector.tip) if new else None


def _together(rows: list[dict[str, Stat]]) -> dict[str, Stat]:
    """Rows of single numbers as one."""
    if len(rows) == 1:
        return rows[0]
    found: dict[str, list[Stat]] = {}
    for row in rows:
        for name, stat in row.items():
            found.setdefault(name, []).append(stat)
    return {name: _merged(stats) for name, stats in found.items()}


def _merged(stats: list[Stat]) -> Stat:
    mean = sum(stat.mean / len(stats) for stat in stats)
    apart = ((stat.std, stat.mean - mean) for stat in stats)
    square = sum(std * std + gap * gap for std, gap in apart) / len(stats)  # inf where ** would raise
    return Stat(mean, math.sqrt(square), min(stat.min for stat in stats), max(stat.max for stat in stats))
