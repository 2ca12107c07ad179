"""The monitor: it receives logged metrics step by step and returns alarms. It does not act on them.

    monitor = Monitor(family="logistic")
    for step, d_loss, g_loss in training_loop():
        for alarm in monitor.hear(step, {"d/adversarial": d_loss, "g/adversarial": g_loss}):
            print(alarm.message, alarm.advice)

The same monitor serves a run in training, the rows of a finished run, and the logs of other trainers.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral
from typing import Annotated, Any

from pydantic import Field, field_validator

from poise.core.config import SYNONYMS, Config, did_you_mean, reject_value
from poise.core.metrics_log import Stat
from poise.core.validation import validate
from poise.errors import RecipeError
from poise.watch import gradients, level_shifts, losses, samples, scores
from poise.watch.base import (
    ALL_FAMILIES,
    FAMILIES,
    LEVELS,
    Alarm,
    Detection,
    Detector,
    DetectorSettings,
    Family,
    Policy,
)
from poise.watch.column_names import SHORT_NAMES, quantity_of
from poise.watch.history import MetricHistory, WindowLength

DETECTORS: dict[str, Detector] = {
    detector.name: detector
    for module in (losses, scores, level_shifts, gradients, samples)
    for detector in module.DETECTORS
}
"""All detectors by name, in the order in which they run."""

INPUTS = frozenset(name for detector in DETECTORS.values() for name in detector.inputs)
"""The metrics that the detectors read."""

MEASURES = ("measure/", "floor/")
"""The first parts of the names of measures, of which not all are read."""

MAX_UNBATCHED_ROWS, BATCH_ROWS = 500, 10
"""The first 500 rows of single values are examined one by one, later ones in batches of 10, to save time."""

MAX_REPEATS = 20
"""The number of successive rows with a metric at the same step from which on the step is taken not to be counted."""

RETIRED_FAMILIES: dict[str, Family] = {
    "pairs": "relativistic",
    "rebuilding": "reconstruction",
    "squares": "least_squares",
}
"""Names of families in earlier versions, which `family_of` still knows."""


class MonitorConfig(Config):
    """The table `[monitor]` of a recipe: deviations from the defaults.

    `policy`, `threshold` and `window` (in steps) are keyed by the detector's name. `roll_backs` is how many times a run
    may return to an earlier checkpoint before it ends, and both learning rates are multiplied by `back_off` each
    time, unless a change of the recipe is tried instead (policy `advise`).
    """

    policy: dict[str, Policy] = Field(default_factory=dict)
    threshold: dict[str, float] = Field(default_factory=dict)
    window: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    roll_backs: int = Field(default=3, ge=0, le=100)
    back_off: float = Field(default=0.5, gt=0, le=1)

    @field_validator("policy", "threshold", "window")
    @classmethod
    def _check_names(cls, values: dict[str, object]) -> dict[str, object]:
        for name in values:
            if name not in DETECTORS:
                reject_value(f"no such detector '{name}'", key=name, cure=did_you_mean(name, list(DETECTORS)))
        return values

    def policy_of(self, name: str) -> Policy:
        """The policy of the detector of that name."""
        return self.policy.get(name, DETECTORS[name].policy)


class _MonitorTable(Config):
    """A recipe of nothing else, so that an error has the path of its key in a recipe."""

    monitor: MonitorConfig


def monitor_config(table: Mapping[str, Any]) -> MonitorConfig:
    """The config that a table `[monitor]` describes.

    Raises:
        RecipeError: it is no table, or a key or a value is invalid.
    """
    if not isinstance(table, Mapping):
        cure = "give the family of the losses by its name, family=..." if isinstance(table, str) else ""
        raise RecipeError("must be a table", where="config", found=repr(table)[:60], cure=cure)
    return validate(_MonitorTable, {"monitor": dict(table)}).monitor


def idle_settings(config: MonitorConfig, family: Family | None) -> list[tuple[str, str, str]]:
    """The settings of detectors that can't act, each as its table, the detector and the reason.

    The detector does not run for this family of losses, or has no threshold or window. If the family is None, every
    detector runs.
    """
    tables = {"policy": config.policy, "threshold": config.threshold, "window": config.window}
    idle: list[tuple[str, str, str]] = []
    for table, names in tables.items():
        for name in names:
            detector = DETECTORS[name]
            if config.policy_of(name) == "off":
                continue
            if family is not None and family not in detector.families:
                applies = ", ".join(sorted(detector.families))
                idle.append((table, name, f"losses are of the family {family}, and {name} is for {applies}"))
            elif (table == "threshold" and not detector.threshold) or (table == "window" and detector.window == 1):
                idle.append((table, name, f"{name} has no {table}"))
    return idle


def family_of(name: str | None, where: str = "family") -> Family | None:
    """The family of losses of that name, or of the objective that has this name; None for None.

    Usual names of objectives, such as "bce", "lsgan" and "wgan", are known as well.

    Args:
        name: a name of `ALL_FAMILIES`, of an objective, or a usual name of one.
        where: what an error names.

    Raises:
        RecipeError: there is no such family or objective; the error names the closest match.
    """
    if name is None or name in ALL_FAMILIES:
        return name  # type: ignore[return-value]
    if name in RETIRED_FAMILIES:
        return RETIRED_FAMILIES[name]
    objective = SYNONYMS.get(name.lower(), name)
    if objective not in FAMILIES:
        cure = did_you_mean(name, sorted({*ALL_FAMILIES, *FAMILIES}))
        raise RecipeError("no such family of losses", where=where, found=f"'{name}'", cure=cure)
    return FAMILIES[objective]


class Monitor:
    """Runs the detectors over metrics that arrive step by step.

    Args:
        config: policies, thresholds and windows that differ from the defaults, as a table like `[monitor]` in a recipe:
            `{"policy": {"d_fooled": "off"}, "threshold": {"collapse": 0.2}, "window": {"collapse": 500}}`.
        family: the family of the losses, or the name of an objective. If it is None, every detector is active.
        length: the number of steps of the whole run, at least 1, if known, see `MetricHistory`.

    Raises:
        RecipeError: a key or a value of the table is invalid, there is no such family, or the length is not a whole
            number above 0.
    """

    def __init__(
        self,
        config: MonitorConfig | Mapping[str, Any] | None = None,
        family: Family | str | None = None,
        length: int | None = None,
    ) -> None:
        self.config = config if isinstance(config, MonitorConfig) else monitor_config(config or {})
        self.family = family_of(family)
        if length is not None and (not isinstance(length, Integral) or isinstance(length, bool) or length < 1):
            cure = "give the number of steps of the whole run, or leave it out"
            raise RecipeError("must be a whole number above 0", where="length", found=repr(length)[:60], cure=cure)
        self.history = MetricHistory(None if length is None else int(length))
        self._pending: list[tuple[int, dict[str, Stat]]] = []
        self._num_rows = 0
        self._has_warned, self._num_repeats = False, 0
        self._judged_from = 0
        self._active: dict[str, int] = {}  # the last step with the sign, until it is absent for a window
        self._reported: set[str] = set()  # those of the active detectors that have raised an alarm for it
        self._raised: dict[str, Alarm] = {}  # the last alarm of each detector
        self._detectors = [
            detector
            for name, detector in DETECTORS.items()
            if self.config.policy_of(name) != "off" and (self.family is None or self.family in detector.families)
        ]

    def hear(self, step: int, numbers: Mapping[str, float | Stat]) -> list[Alarm]:
        """Add a row of metrics and return the alarms that it raises.

        Args:
            step: the number of steps done in the whole run. It must not decrease, or stay the same for twenty rows; if
                it does, a warning says so once.
            numbers: the metrics by the names of `rows.jsonl`, each a single value or statistics over an interval.
                `d/adversarial` is the mean of D's losses on real and on generated samples: halve a loss that is their
                sum. Losses of pairs are single ones. Leave out a measure where nothing was measured: NaN is a failure.
                If the first row has no metric that a detector reads, a warning says so; one of measures may have none.
        """
        is_first = bool(numbers) and not self.history.series
        if is_first and not any(name in INPUTS or name.startswith(MEASURES) for name in numbers):
            warnings.warn(_describe_unknown(numbers), stacklevel=2)
        step, last = int(step), self._pending[-1][0] if self._pending else self.history.step
        if self.history.series and not self._has_warned and (fault := self._fault_of_step(step, last, numbers)):
            self._has_warned = True
            cure = "count steps over the whole run, not within each epoch; alarms may be missing"
            warnings.warn(f"{fault}: {cure}", stacklevel=2)
        stats = {name: value if isinstance(value, Stat) else Stat.of(float(value)) for name, value in numbers.items()}
        self._pending.append((step, stats))
        self._num_rows += 1
        urgent = any(
            name.startswith("measure/") or stat.min != stat.max or not math.isfinite(stat.mean)
            for name, stat in stats.items()
        )
        if self._num_rows > MAX_UNBATCHED_ROWS and len(self._pending) < BATCH_ROWS and not urgent:
            return []
        return self.flush()

    def _fault_of_step(self, step: int, last: int, names: Iterable[str]) -> str:
        """What is wrong with the step of a row of these metrics after a row of step `last`; empty if nothing is."""
        known = self._pending[-1][1] if self._pending else self.history.series
        self._num_repeats = self._num_repeats + 1 if step == last and any(name in known for name in names) else 0
        if step < last:
            return f"step {step:,} comes after step {last:,}"
        return f"the step has been {step:,} for {MAX_REPEATS} rows" if self._num_repeats >= MAX_REPEATS - 1 else ""

    def flush(self) -> list[Alarm]:
        """Examine the rows that are still pending; `hear` calls it as needed. Call it at the end of a log."""
        if not self._pending:
            return []
        rows, self._pending = self._pending, []
        counts = Counter(name for _, stats in rows for name in stats)
        self.history.add(rows[-1][0], _merge_rows([stats for _, stats in rows]), counts)
        return [alarm for detector in self._detectors if (alarm := self._run(detector)) is not None]

    def inactive_detectors(self) -> list[str]:
        """The detectors for which no metric has been logged so far."""
        return [one.name for one in self._detectors if one.inputs and not self.history.series.keys() & set(one.inputs)]

    def open_alarms(self) -> list[Alarm]:
        """The alarms whose condition still held in the last rows examined, in the order in which they were raised."""
        open_now = [name for name, last in self._active.items() if last == self.history.step]
        return [self._raised[name] for name in open_now if name in self._raised]

    def recall(self, alarms: Iterable[Alarm], until: int) -> None:
        """Replace the alarms up to the step `until` by those that were raised when its rows were new.

        The length of the run, a threshold or a window may have been another one then, so that this monitor has found
        signs in other rows. An alarm that was raised is not repeated while its sign is present, and one that was not is
        raised with the next row that has the sign. `not_finite` is left as it is: it has no window.

        Args:
            alarms: those alarms, in the order in which they were raised.
            until: the step; the monitor must have heard the rows up to there.
        """
        last = {alarm.detector: alarm for alarm in alarms if alarm.step <= until}
        for name in (detector.name for detector in self._detectors if detector.window > 1):
            own, alarm = self._raised.get(name), last.get(name)
            if own is not None and own.step > until:
                continue
            if alarm is None:
                self._raised.pop(name, None)
                self._reported.discard(name)
            elif own is None or own.step != alarm.step:
                self._raised[name] = alarm
                self._active.setdefault(name, alarm.step)
                self._reported.add(name)

    def judge_from(self, step: int) -> None:
        """Raise no alarm after `step` about a window that began before it.

        For a run that has returned to this step with lower learning rates or another recipe, which would otherwise be
        judged by rows from before the change.
        """
        self._judged_from = step

    def longest_window(self, names: Collection[str]) -> int | None:
        """The number of steps of the longest window of those of these detectors that run; None if none of them does."""
        chosen = [detector for detector in self._detectors if detector.name in names]
        return max((self._window_steps(detector, self._window_length(detector)) for detector in chosen), default=None)

    def _window_length(self, detector: Detector) -> WindowLength:
        return WindowLength(self.config.window.get(detector.name, detector.window), detector.values)

    def _window_steps(self, detector: Detector, length: WindowLength) -> int:
        """The length of a detector's window in steps, for the first metric that it reads."""
        name = next((name for name in detector.inputs if name in self.history.series), None)
        return length.steps if name is None else self.history.window_steps(name, length)

    def _run(self, detector: Detector) -> Alarm | None:
        """The alarm of a detector; None if it finds nothing, or raised one for the same sign or not long ago.

        A sign that returns raises another alarm only if it was absent for a window, and once the run is twice as long
        as at the last alarm.
        """
        name, step = detector.name, self.history.step
        length = self._window_length(detector)
        settings = DetectorSettings(self.config.threshold.get(name, detector.threshold), length, self.family)
        found = detector.detect(self.history, settings)
        if found is None:
            if name in self._active and step - self._active[name] >= self._window_steps(detector, length):
                del self._active[name]
                self._reported.discard(name)
            return None
        self._active[name] = step
        if name in self._reported or (name in self._raised and step < 2 * self._raised[name].step):
            return None
        detection = found if isinstance(found, Detection) else Detection(found)
        level, advice = LEVELS[self.config.policy_of(name)], detection.advice or detector.advice
        since = detection.since if detection.since is not None else step - self._window_steps(detector, length)
        if detection.since is None and since < self._judged_from < step:
            return None
        alarm = Alarm(step, name, level, detection.message, advice, detector.tip, max(0, since))
        self._raised[name] = alarm
        self._reported.add(name)
        return alarm


def _describe_unknown(names: Iterable[str]) -> str:
    """That no detector reads any of these metrics, and which of them may be meant."""
    shown = list(names)[:10]
    meant = {name: SHORT_NAMES[short] for name in shown if (short := quantity_of(name)) is not None}
    cure = "; ".join(f"rename {name!r} to {metric!r}" for name, metric in meant.items())
    if not meant:
        cure = "its names are those of rows.jsonl, such as 'd/adversarial' (D's loss), 'g/adversarial', 'd/accuracy'"
    return f"no detector but not_finite reads any of the metrics {', '.join(map(repr, shown))}; {cure}"


def _merge_rows(rows: list[dict[str, Stat]]) -> dict[str, Stat]:
    """Several rows as one."""
    if len(rows) == 1:
        return rows[0]
    by_name: dict[str, list[Stat]] = {}
    for row in rows:
        for name, stat in row.items():
            by_name.setdefault(name, []).append(stat)
    return {name: _merge_stats(stats) for name, stats in by_name.items()}


def _merge_stats(stats: list[Stat]) -> Stat:
    mean = sum(stat.mean / len(stats) for stat in stats)
    spreads = ((stat.std, stat.mean - mean) for stat in stats)
    variance = sum(std * std + gap * gap for std, gap in spreads) / len(stats)  # where ** would raise, * gives infinity
    return Stat(mean, math.sqrt(variance), min(stat.min for stat in stats), max(stat.max for stat in stats))
