"""The runs of a detection study as failed or healthy ones, and how well the monitor tells them apart."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from poise.errors import DataError
from poise.study.folder import StudyFolder
from poise.study.records import RunResult, StudyMeasure
from poise.study.statistics import failure_rate
from poise.study.verdicts import is_beyond
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


class Outcome(NamedTuple):
    """A run as failed or healthy, and its alarms; a line of `outcomes.jsonl`.

    Attributes:
        collection: the collection.
        configuration: see `Run`.
        seed: see `Run`.
        run: the hash of its recipe.
        steps: the steps that were trained.
        failure: see `Run`.
        shown_at: see `Run`; None for a run that did not fail.
        doubled_at: see `Run`.
        values: the final measures.
        alarms: by detector, the step of the first alarm of a monitor with its default settings.
        without_measures: the same from losses, gradients and statistics of the samples alone.
    """

    collection: str
    configuration: str
    seed: int
    run: str
    steps: int
    failure: str
    shown_at: int | None
    doubled_at: int | None
    values: dict[str, float]
    alarms: dict[str, int]
    without_measures: dict[str, int]

    @property
    def first(self) -> int | None:
        """The step of the first alarm that is not a note."""
        return min((step for name, step in self.alarms.items() if is_alarm(name)), default=None)

    def bare(self) -> Outcome:
        """The outcome with the alarms of the monitor that gets no measures."""
        return self._replace(alarms=self.without_measures)


def first_alarms(run: Run) -> dict[str, int]:
    """The step of the first alarm of each detector with its default settings."""
    first: dict[str, int] = {}
    for alarm in replay(run.log._replace(monitor={})).alarms:
        first.setdefault(alarm.detector, alarm.step)
    return first


def find_outcome(collection: str, run: Run) -> Outcome:
    """Replay the monitor over a run, with and without its measures."""
    return Outcome(
        collection=collection,
        configuration=run.configuration,
        seed=run.seed,
        run=run.result.run,
        steps=run.result.step,
        failure=run.failure,
        shown_at=run.shown_at if run.failure else None,
        doubled_at=run.doubled_at,
        values=run.result.values,
        alarms=first_alarms(run),
        without_measures=first_alarms(without_measures(run)),
    )


NEWER = frozenset({"losses_constant"})
"""Detectors that did not exist when the runs of the committed outcomes were replayed, so that they have no rates.

Whoever replays these runs again removes the names."""


def is_alarm(detector: str) -> bool:
    """Whether what the detector raises counts as an alarm; notes do not."""
    return DETECTORS[detector].policy != "note"


def evaluate(outcomes: Sequence[Outcome], title: str) -> dict[str, Any]:
    """The detection rates of a monitor with its default settings.

    Returns:
        `detectors` has recall, false alarms and lead for each detector, `any` those of all alarms that are not notes,
        `configurations` the same for the runs of each configuration. A lead is the number of steps from the first
        alarm on a failed run to the first measurement that shows the failure. `in_time` is the share of the failed
        runs with an alarm before their FID had doubled; a run whose FID never doubled counts if it has an alarm.
    """

    def rates(chosen: Sequence[Outcome], step_of: Callable[[Outcome], int | None]) -> dict[str, Any]:
        firsts = [(one, step_of(one)) for one in chosen]
        failed = [(one, first) for one, first in firsts if one.failure]
        healthy = [first for one, first in firsts if not one.failure]
        leads = [one.shown_at - first for one, first in failed if first is not None and one.shown_at is not None]
        in_time = [one for one, first in failed if first is not None and first < (one.doubled_at or math.inf)]
        return {
            "recall": Rate(len(leads), len(failed)).as_json(),
            "false_alarms": Rate(len([first for first in healthy if first is not None]), len(healthy)).as_json(),
            "in_time": Rate(len(in_time), len(failed)).as_json(),
            "lead": {"median": median(leads), "min": min(leads), "max": max(leads)} if leads else None,
        }

    def of_detector(name: str) -> Callable[[Outcome], int | None]:
        return lambda one: one.alarms.get(name)

    def of_any(one: Outcome) -> int | None:
        return one.first

    names = dict.fromkeys(one.configuration for one in outcomes)
    return {
        "title": title,
        "detectors": {
            name: {"threshold": detector.threshold} | rates(outcomes, of_detector(name))
            for name, detector in DETECTORS.items()
            if name not in NEWER
        },
        "any": rates(outcomes, of_any),
        "configurations": {
            name: rates([one for one in outcomes if one.configuration == name], of_any) for name in names
        },
        "missed": [
            f"{one.configuration}, seed {one.seed}: {one.failure}"
            for one in outcomes
            if one.failure and one.first is None
        ],
        "false_alarms": [
            f"{one.configuration}, seed {one.seed}: {name} at step {step:,}"
            for one in outcomes
            for name, step in one.alarms.items()
            if not one.failure and is_alarm(name)
        ],
    }


def write_outcomes(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write a line for each run."""
    path.write_text("".join(f"{json.dumps(one._asdict())}\n" for one in outcomes), "utf-8")


def read_outcomes(path: Path) -> list[Outcome]:
    """The runs that `write_outcomes` has written.

    Raises:
        DataError: there is no such file.
    """
    if not path.is_file():
        raise DataError("no such file", where=str(path), cure="benchmarks/detection.py replay writes it")
    return [Outcome(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]
