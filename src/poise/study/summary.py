"""Summaries of a study's results for its report: counts of runs, cost, learning curves, runs in order of quality."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np

from poise.study.effects import Effect
from poise.study.effects import as_json as effect_json
from poise.study.records import Arm, Better, Comparison, RunResult, Study, StudyBase, StudyMeasure


class Band(NamedTuple):
    """A learning curve over several seeds.

    Attributes:
        images: the real images that D had seen at each point, ascending.
        median: the median over the seeds.
        low: the lower quartile.
        high: the upper quartile.
    """

    images: list[float]
    median: list[float]
    low: list[float]
    high: list[float]


class MissingRun(NamedTuple):
    """A run of the study without a result."""

    base: str
    arm: str
    seed: str


class FinalValues(NamedTuple):
    """What the runs of an arm ended with, of those that were trained to the end.

    Attributes:
        base: the name of the base.
        arm: the name of the arm.
        seeds: the number of these runs.
        measures: the value of each seed, by measure; shorter where a run lacks a measure.
        cpu_minutes: the CPU time of each run; shorter where it is not known, after an interruption.
    """

    base: str
    arm: str
    seeds: int
    measures: dict[str, list[float]]
    cpu_minutes: list[float]


class StudyResults:
    """A study with the results of its runs.

    Args:
        study: what the study consists of.
        results: the results, in any order; results of other runs are ignored.
        effects: the effects with their verdicts.
    """

    def __init__(self, study: Study, results: Iterable[RunResult], effects: Sequence[Effect] = ()) -> None:
        self.study, self.effects = study, effects
        self.arms = {(arm.base, arm.name): arm for arm in study.arms}
        self._comparisons = {(one.base, one.name): one for one in study.comparisons}
        planned = {run for arm in study.arms for run in arm.runs.values()}
        self.results = {result.run: result for result in results if result.run in planned}
        self.num_planned = len(planned)

    def as_json(self) -> dict[str, Any]:
        """The effects, their cost, and the number of runs in each state, as `poise report --json` prints them."""
        tips = [effect_json(one) | {"cost_ratio": self.cost_ratio(self.comparison(one))} for one in self.effects]
        return {"study": self.study.name, "runs": dict(self.states()), "tips": tips}

    def states(self) -> Counter[str]:
        """The number of runs in each state, "missing" for those without a result. Runs that arms share count once."""
        counts = Counter[str](result.state for result in self.results.values())
        counts["missing"] = self.num_planned - len(self.results)
        return counts

    def missing(self) -> Iterator[MissingRun]:
        """The runs without a result, once for each arm that has them."""
        for arm in self.study.arms:
            for seed, run in arm.runs.items():
                if run not in self.results:
                    yield MissingRun(arm.base, arm.name, seed)

    def of(self, arm: Arm) -> dict[str, RunResult]:
        """The results of an arm by seed, in ascending order."""
        seeds = sorted(arm.runs, key=int)
        return {seed: self.results[arm.runs[seed]] for seed in seeds if arm.runs[seed] in self.results}

    def final_values(self) -> Iterator[FinalValues]:
        """The final values of all arms with a finished run, in the order of the plan."""
        for arm in self.study.arms:
            runs = [run for run in self.of(arm).values() if run.state == "done"]
            names = [measure.name for base in self.study.bases if base.name == arm.base for measure in base.measures]
            values = {name: [run.values[name] for run in runs if name in run.values] for name in names}
            if runs:
                minutes = [run.cpu_seconds / 60 for run in runs if run.cpu_seconds]
                yield FinalValues(arm.base, arm.name, len(runs), values, minutes)

    def groups(self) -> Iterator[tuple[StudyBase, str, list[Effect]]]:
        """The effects on each measure of each base."""
        for base in self.study.bases:
            for measure in base.measures:
                effects = [one for one in self.effects if (one.base, one.measure) == (base.name, measure.name)]
                if effects:
                    yield base, measure.name, effects

    def comparison(self, effect: Effect) -> Comparison:
        """The comparison that an effect is that of."""
        return self._comparisons[effect.base, effect.name]

    def sides(self, comparison: Comparison) -> tuple[list[Arm], list[Arm]]:
        """The arms with and without the tip."""
        treatment, control = (
            [self.arms[comparison.base, name] for name in names] for names in (comparison.treatment, comparison.control)
        )
        return treatment, control

    def cost_ratio(self, comparison: Comparison) -> float | None:
        """The median over the seeds of CPU time per image with the tip, divided by that without it.

        A seed counts if all its runs were trained to the end. None if there is no such seed.
        """
        treatment, control = self.sides(comparison)
        ratios = []
        for seed in treatment[0].runs:
            costs = [self._cost(arms, seed) for arms in (treatment, control)]
            if costs[0] is not None and costs[1]:
                ratios.append(costs[0] / costs[1])
        return median(ratios) if ratios else None

    def _cost(self, arms: Sequence[Arm], seed: str) -> float | None:
        """CPU seconds per image, the mean of the arms; None if one of them is not known (0, after an interruption)."""
        runs = [self.results.get(arm.runs.get(seed, "")) for arm in arms]
        done = [run for run in runs if run is not None and run.state == "done" and run.images > 0 < run.cpu_seconds]
        return fmean(run.cpu_seconds / run.images for run in done) if len(done) == len(arms) else None

    def band(self, arms: Sequence[Arm], measure: str, better: Better = "less") -> Band | None:
        """The learning curves of one or several arms: median and quartiles over the seeds at each point.

        Of several arms, the mean is taken for each seed. A seed whose run failed before a point has the worst value of
        the other seeds there, as the median would otherwise be that of the survivors. Points that fewer than half of
        the seeds have are left out. None if nothing is left.
        """
        curves = [self._curve(arms, seed, measure) for seed in arms[0].runs if self._have_ended(arms, seed)]
        points = Counter(images for curve in curves for images in curve)
        images = sorted(at for at, count in points.items() if count >= len(curves) / 2)
        if not images:
            return None
        known = [[curve[at] for curve in curves if at in curve] for at in images]
        worst = max if better == "less" else min
        columns = [[*column, *[worst(column)] * (len(curves) - len(column))] for column in known]
        low, middle, high = ([float(np.quantile(column, share)) for column in columns] for share in (0.25, 0.5, 0.75))
        return Band(images, middle, low, high)

    def _have_ended(self, arms: Sequence[Arm], seed: str) -> bool:
        """Whether all runs of a seed have a result."""
        runs = [self.results.get(arm.runs.get(seed, "")) for arm in arms]
        return all(run is not None and run.state != "crashed" for run in runs)

    def _curve(self, arms: Sequence[Arm], seed: str, measure: str) -> dict[float, float]:
        """The mean of the arms' curves of one seed, by the real images seen; empty if an arm has none."""
        curves = []
        for arm in arms:
            run = self.results.get(arm.runs.get(seed, ""))
            points = run.curves.get(measure, []) if run is not None else []
            scale = arm.images / max(arm.steps, 1)
            curves.append({step * scale: value for step, value in points})
        shared = set(curves[0]).intersection(*curves[1:])
        return {at: fmean(curve[at] for curve in curves) for at in sorted(shared)}

    def floor(self, base: str, measure: str) -> float | None:
        """The median of the measure of real samples over all runs of a base; None if no run has it."""
        runs = {run for arm in self.study.arms if arm.base == base for run in arm.runs.values()}
        floors = [self.results[run].floor[measure] for run in runs if measure in self._floor(run)]
        return median(floors) if floors else None

    def _floor(self, run: str) -> dict[str, float]:
        return self.results[run].floor if run in self.results else {}

    def ranked(self, arm: Arm, measure: StudyMeasure) -> list[tuple[str, RunResult]]:
        """The seeds and results of an arm that have a final value of the measure, the best one first."""
        runs = [item for item in self.of(arm).items() if item[1].state == "done" and measure.name in item[1].values]
        sign = 1.0 if measure.better == "less" else -1.0
        return sorted(runs, key=lambda item: (sign * item[1].values[measure.name], int(item[0])))
