"""The runs of a detection study as failed or healthy ones, and how well the monitor tells them apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from poise.study.folder import StudyFolder
from poise.study.records import RunResult, StudyMeasure
from poise.study.statistics import failure_rate
from poise.study.verdicts import is_beyond
from poise.watch.base import Alarm
from poise.watch.logs import Log, read_log
from poise.watch.monitor import DETECTORS
from poise.watch.replay import replay

MEASURED = ("measure/", "floor/")

WORSE = 1.5
"""A run fails if its FID ends at this multiple of its best one."""

TWICE = 2.0
"""An alarm on a run that was good at first should come before its FID is this multiple of the best one."""


class Run(NamedTuple):
    """A run and its outcome.

    Attributes:
        configuration: the name of the arm, or of the base for the base itself.
        seed: the seed.
        result: its result.
        log: the logged rows and measures.
        failure: why the run failed; empty if it did not.
        shown_at: the step of the first measurement that shows the failure; see `find_shown_at`.
        doubled_at: the step of the first FID after the best one that is at least twice as large; None if there is none.
    """

    configuration: str
    seed: int
    result: RunResult
    log: Log
    failure: str
    shown_at: int
    doubled_at: int | None = None


class Rate(NamedTuple):
    """How many of some runs had an alarm."""

    count: int
    of: int

    def as_json(self) -> dict[str, Any]:
        """The counts, and the share with its Clopper-Pearson interval at 95 %; without runs, the counts alone."""
        counts = {"count": self.count, "of": self.of}
        if not self.of:
            return counts
        share = failure_rate(self.count, self.of)
        return counts | {"share": share.value, "low": share.low, "high": share.high}


def find_failure(result: RunResult, measures: Sequence[StudyMeasure]) -> str:
    """Why a run failed; empty if it did not.

    It failed if it diverged, if a final measure is beyond its limit in the plan, or if the last FID is more than
    `WORSE` times the best one plus the FID of real samples.
    """
    if result.state != "done":
        return result.state
    for measure in measures:
        if is_beyond(measure, result.values):
            return f"{measure.name} {result.values[measure.name]:.2f}"
    fids = [value for _, value in result.curves.get("fid", ())]
    if fids and fids[-1] > WORSE * min(fids) + result.floor.get("fid", 0.0):
        return f"fid {fids[-1]:.1f}, at best {min(fids):.1f}"
    return ""


def healthy_steps(result: RunResult, measures: Sequence[StudyMeasure]) -> tuple[list[int], list[int]]:
    """The steps at which a run was measured, and those of them at which it would not have counted as failed."""
    steps = sorted({step for curve in result.curves.values() for step, _ in curve})
    healthy = []
    for step in steps:
        so_far = {name: [point for point in curve if point[0] <= step] for name, curve in result.curves.items()}
        values = {name: curve[-1][1] for name, curve in so_far.items() if curve and curve[-1][0] == step}
        at_step = result.model_copy(update={"state": "done", "values": values, "curves": so_far})
        if not find_failure(at_step, measures):
            healthy.append(step)
    return steps, healthy


def find_shown_at(result: RunResult, measures: Sequence[StudyMeasure], expected: float) -> int:
    """The step of the first measurement from which on a failed run is never measured as a healthy one.

    Args:
        result: the run's result.
        measures: the measures with their limits.
        expected: the step from which on a healthy run is within the limits; earlier measurements show no failure.

    Returns:
        The step; for a run that was healthy to its last measurement and then diverged, its last step.
    """
    steps, healthy = healthy_steps(result, measures)
    after = [step for step in steps if step >= expected and step > max(healthy, default=0)]
    return min(after, default=result.step)


def find_doubled_at(result: RunResult) -> int | None:
    """The step of the first FID after the best one that is at least twice as large; None if there is none."""
    curve = result.curves.get("fid", ())
    best_step, best = min(curve, key=lambda point: point[1], default=(0, math.inf))
    return next((step for step, value in curve if step > best_step and value >= TWICE * best), None)


def read_runs(out: Path) -> tuple[list[Run], Counter[str]]:
    """The runs of a study that ended or diverged, in the order of the plan, and the number of others by their state.

    Raises:
        RecipeError, CheckpointError: the folder has no study, or a file in it is damaged.
    """
    folder = StudyFolder(out)
    study, results = folder.read_study(), {result.run: result for result in folder.read_results()}
    measures = {base.name: base.measures for base in study.bases}
    found: list[tuple[str, int, RunResult, tuple[StudyMeasure, ...]]] = []
    others: Counter[str] = Counter()
    for arm in study.arms:
        configuration = arm.base if arm.name == "base" else arm.name
        for seed, run in arm.runs.items():
            if run in results and results[run].state in ("done", "diverged"):
                found.append((configuration, int(seed), results[run], measures[arm.base]))
            else:
                others[results[run].state if run in results else "not finished"] += 1
    starts = [
        min(healthy_steps(result, limits)[1], default=0)
        for _, _, result, limits in found
        if not find_failure(result, limits)
    ]
    expected = median(starts) if starts else 0
    runs = []
    for configuration, seed, result, limits in found:
        log, failure = read_log(folder.runs / result.run), find_failure(result, limits)
        shown_at = find_shown_at(result, limits, expected) if failure else result.step
        runs.append(Run(configuration, seed, result, log, failure, shown_at, find_doubled_at(result)))
    return runs, others


def without_measures(run: Run) -> Run:
    """The run as if it had not been measured: losses, gradients and statistics of the samples alone."""
    rows = [(step, {n: s for n, s in row.items() if not n.startswith(MEASURED)}) for step, row in run.log.rows]
    return run._replace(log=run.log._replace(rows=[(step, row) for step, row in rows if row]))


def find_alarms(run: Run) -> list[Alarm]:
    """The alarms of a monitor with its default settings on a run."""
    return replay(run.log._replace(monitor={})).alarms


def is_alarm(alarm: Alarm) -> bool:
    """Whether it counts as an alarm; notes do not."""
    return alarm.level != "note"


def evaluate(runs: Sequence[Run], title: str) -> dict[str, Any]:
    """The detection rates of a monitor with its default settings, as JSON.

    Returns:
        `detectors` has recall, false alarms and lead for each detector, `any` those of all alarms that are not notes,
        `configurations` the same for the runs of each configuration. A lead is the number of steps from the first
        alarm on a failed run to the first measurement that shows the failure. `in_time` is the share of the failed
        runs with an alarm before their FID had doubled; a run whose FID never doubled counts if it has an alarm.
    """
    alarms = [(run, find_alarms(run)) for run in runs]

    def rates(configuration: str | None, counts: Callable[[Alarm], bool]) -> dict[str, Any]:
        chosen = [(run, found) for run, found in alarms if configuration in (None, run.configuration)]
        firsts = [(run, next((alarm.step for alarm in found if counts(alarm)), None)) for run, found in chosen]
        failed = [(run, first) for run, first in firsts if run.failure]
        healthy = [first for run, first in firsts if not run.failure]
        leads = [run.shown_at - first for run, first in failed if first is not None]
        in_time = [run for run, first in failed if first is not None and first < (run.doubled_at or math.inf)]
        return {
            "recall": Rate(len(leads), len(failed)).as_json(),
            "false_alarms": Rate(len([first for first in healthy if first is not None]), len(healthy)).as_json(),
            "in_time": Rate(len(in_time), len(failed)).as_json(),
            "lead": {"median": median(leads), "min": min(leads), "max": max(leads)} if leads else None,
        }

    def by_detector(name: str) -> Callable[[Alarm], bool]:
        return lambda alarm: alarm.detector == name

    names = dict.fromkeys(run.configuration for run in runs)
    return {
        "title": title,
        "detectors": {
            name: {"threshold": detector.threshold} | rates(None, by_detector(name))
            for name, detector in DETECTORS.items()
        },
        "any": rates(None, is_alarm),
        "configurations": {name: rates(name, is_alarm) for name in names},
        "missed": [
            f"{run.configuration}, seed {run.seed}: {run.failure}"
            for run, found in alarms
            if run.failure and not any(map(is_alarm, found))
        ],
        "false_alarms": [
            f"{run.configuration}, seed {run.seed}: {alarm.detector} at step {alarm.step:,}"
            for run, found in alarms
            for alarm in found
            if not run.failure and is_alarm(alarm)
        ],
    }


def summarise(run: Run) -> dict[str, Any]:
    """A run, its outcome, and the step of the first alarm of each detector with default thresholds, as JSON."""
    first: dict[str, int] = {}
    for alarm in find_alarms(run):
        first.setdefault(alarm.detector, alarm.step)
    return {
        "configuration": run.configuration,
        "seed": run.seed,
        "run": run.result.run,
        "step": run.result.step,
        "failure": run.failure,
        "shown_at": run.shown_at if run.failure else None,
        "doubled_at": run.doubled_at,
        "values": run.result.values,
        "alarms": first,
    }
