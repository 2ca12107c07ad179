"""From the results of a study to its verdicts, by the rules of `docs/studies.md`. Pure functions of the records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from poise.study import statistics
from poise.study.effects import Agreement, Effect, Estimate, Verdict, as_json
from poise.study.records import Arm, Comparison, Expected, RunResult, Study, StudyBase, StudyMeasure

__all__ = ["Effect", "Estimate", "Pairs", "analyse", "as_json", "estimate", "judge", "pairs_of"]

MINIMUM = 6
"""The fewest pairs for a verdict: with 5, no two-sided p-value is below 0.06; with 6 the smallest is 0.03 or 0.06."""


class Pairs(NamedTuple):
    """The paired final values of one measure with and without a tip, and which seeds failed; one entry per seed."""

    seeds: tuple[str, ...]
    treatment: tuple[float, ...]
    control: tuple[float, ...]
    failed: tuple[bool, ...]
    control_failed: tuple[bool, ...]


class Outcome(NamedTuple):
    """The final measures of a run, complete, and whether it failed."""

    values: dict[str, float]
    failed: bool


def analyse(study: Study, results: Iterable[RunResult]) -> list[Effect]:
    """The effects of all comparisons of a study, in the order of the plan's comparisons and the measures of each base.

    Args:
        study: what the study consists of.
        results: the results of its runs, in any order. Runs without a result are left out, with their partners.
    """
    found = {result.run: result for result in results}
    measures = {base.name: base for base in study.bases}
    outcomes = {base.name: outcomes_of(study, base, found) for base in study.bases}
    return judge(
        [
            estimate(comparison, measure, pairs_of(study, comparison, measure.name, outcomes[comparison.base]))
            for comparison in study.comparisons
            for measure in measures[comparison.base].measures
        ]
    )


def outcomes_of(study: Study, base: StudyBase, results: Mapping[str, RunResult]) -> dict[str, Outcome]:
    """What each finished run of a base ended with, by the hash of its recipe.

    A value that is missing is the worst one that any run of the base had. A run fails if it was not trained to the end,
    or if a value is beyond the limit of its measure. A measure that no run has is absent.
    """
    runs = [results[run] for run in _runs_of(study, base.name) if run in results]
    worst: dict[str, float] = {}
    for measure in base.measures:
        values = [run.values[measure.name] for run in runs if _has(run, measure.name)]
        if values:
            worst[measure.name] = max(values) if measure.better == "less" else min(values)
    return {run.run: _outcome(run, base.measures, worst) for run in runs}


def pairs_of(study: Study, comparison: Comparison, measure: str, outcomes: Mapping[str, Outcome]) -> Pairs:
    """The pairs of a comparison for one measure, by seed in ascending order.

    A seed counts if all its runs, with and without the tip, have an outcome. Of several arms, the mean is taken, and
    the seed has failed if any of its runs has: seeds are independent, while runs of one seed may fail together.
    """
    arms = {arm.name: arm for arm in study.arms if arm.base == comparison.base}
    treatment = [arms[name] for name in comparison.treatment]
    control = [arms[name] for name in comparison.control]

    def complete(seed: str) -> bool:
        runs = (arm.runs.get(seed, "") for arm in (*treatment, *control))
        return all(run in outcomes and measure in outcomes[run].values for run in runs)

    seeds = tuple(sorted(filter(complete, treatment[0].runs), key=int))

    def values(arms: Sequence[Arm]) -> tuple[float, ...]:
        return tuple(sum(outcomes[arm.runs[seed]].values[measure] for arm in arms) / len(arms) for seed in seeds)

    def failed(arms: Sequence[Arm]) -> tuple[bool, ...]:
        return tuple(any(outcomes[arm.runs[seed]].failed for arm in arms) for seed in seeds)

    return Pairs(seeds, values(treatment), values(control), failed(treatment), failed(control))


@lru_cache(maxsize=4096)
def estimate(comparison: Comparison, measure: StudyMeasure, pairs: Pairs) -> Effect:
    """The effect of a tip on one measure, before it is judged: with p-values that are not adjusted, and no verdict.

    It is remembered, as the live page asks for a study again whenever a run of it has finished.
    """
    n, failures, control_failures = len(pairs.seeds), sum(pairs.failed), sum(pairs.control_failed)
    treatment, control = pairs.treatment, pairs.control
    effect = statistics.iqm_difference(treatment, control) if n > 1 else None
    enough = n >= MINIMUM
    return Effect(
        base=comparison.base,
        tip=comparison.tip,
        name=comparison.name,
        measure=measure.name,
        better=measure.better,
        seeds=n,
        treatment_iqm=float(statistics.interquartile_mean(treatment)) if n else None,
        control_iqm=float(statistics.interquartile_mean(control)) if n else None,
        treatment_median=float(np.median(treatment)) if n else None,
        control_median=float(np.median(control)) if n else None,
        effect=effect.value if effect else None,
        low=effect.low if effect else None,
        high=effect.high if effect else None,
        relative=_relative(effect, pairs) if effect else None,
        median_effect=statistics.median_difference(treatment, control) if n > 1 else None,
        p=statistics.permutation_p(treatment, control) if enough else None,
        p_adjusted=None,
        failures=failures,
        control_failures=control_failures,
        failure_rate=statistics.failure_rate(failures, n) if n else None,
        control_failure_rate=statistics.failure_rate(control_failures, n) if n else None,
        p_failures=statistics.more_failures_p(failures, control_failures, n) if enough else None,
        p_failures_adjusted=None,
        detectable=statistics.detectable_effect(treatment, control) if enough else None,
        verdict="too few seeds",
        expected=comparison.expected,
        agreement="open",
    )


def judge(effects: Sequence[Effect]) -> list[Effect]:
    """The same effects with adjusted p-values and verdicts.

    A family is all effects on one measure of one base that have at least 6 pairs.
    """
    families: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, effect in enumerate(effects):
        if effect.seeds >= MINIMUM:
            families[effect.base, effect.measure].append(index)
    judged = list(effects)
    for family in families.values():
        p = statistics.adjusted([value for index in family if (value := effects[index].p) is not None])
        failing = statistics.adjusted([value for index in family if (value := effects[index].p_failures) is not None])
        for index, p_adjusted, p_failures in zip(family, p, failing, strict=True):
            effect = effects[index]._replace(p_adjusted=p_adjusted, p_failures_adjusted=p_failures)
            verdict = verdict_of(effect)
            judged[index] = effect._replace(verdict=verdict, agreement=agreement_of(verdict, effect.expected))
    return judged


def verdict_of(effect: Effect) -> Verdict:
    """The verdict by the table of `docs/studies.md`, from the adjusted p-values and the interval."""
    if effect.seeds < MINIMUM or effect.p_adjusted is None or effect.low is None or effect.high is None:
        return "too few seeds"
    more, less = effect.low > 0, effect.high < 0
    seen = effect.p_adjusted <= statistics.ALPHA and (more or less)
    better = more if effect.better == "more" else less
    if seen and not better:
        return "harms"
    if effect.p_failures_adjusted is not None and effect.p_failures_adjusted <= statistics.ALPHA:
        return "unstable"
    return "helps" if seen else "no effect seen"


def agreement_of(verdict: Verdict, expected: Expected) -> Agreement:
    """Whether a verdict agrees with what the literature says.

    It is open without an expectation, with too few seeds, and where an effect was expected and none was seen: that is
    not evidence against it. Failing more often counts as harm.
    """
    found = "harms" if verdict == "unstable" else verdict
    if not expected or found == "too few seeds" or (found == "no effect seen" and expected != found):
        return "open"
    return "agrees" if found == expected else "disagrees"


def _runs_of(study: Study, base: str) -> list[str]:
    """The hashes of all runs of a base, each once: arms may share them."""
    return list(dict.fromkeys(run for arm in study.arms if arm.base == base for run in arm.runs.values()))


def _has(run: RunResult, measure: str) -> bool:
    return run.state == "done" and measure in run.values


def _outcome(run: RunResult, measures: Sequence[StudyMeasure], worst: Mapping[str, float]) -> Outcome:
    values = {name: run.values[name] if _has(run, name) else value for name, value in worst.items()}
    return Outcome(values, run.state != "done" or any(is_beyond(measure, values) for measure in measures))


def is_beyond(measure: StudyMeasure, values: Mapping[str, float]) -> bool:
    """Whether the value of a measure is worse than its limit; False if it has no limit or no value."""
    if measure.failure is None or measure.name not in values:
        return False
    value = values[measure.name]
    return value > measure.failure if measure.better == "less" else value < measure.failure


def _relative(effect: Estimate, pairs: Pairs) -> Estimate | None:
    """The effect as fractions of the control; None where a percentage would mislead.

    This is so if the control is 0, if the measure can be negative, so that it has no natural zero, and if the interval
    includes a decrease by more than 100 %, which cannot be: the control is then too small, or varies too much.
    """
    control = float(statistics.interquartile_mean(pairs.control))
    if control == 0 or min(*pairs.treatment, *pairs.control) < 0 or effect.low < -control:
        return None
    return effect.scaled(1.0 / control)
