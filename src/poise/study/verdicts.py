"""From the results of a study to its verdicts, by the rules of `docs/studies.md`. Pure functions of the records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import nan
from typing import NamedTuple

import numpy as np

from poise.study import statistics
from poise.study.effects import ALPHA, Agreement, Effect, Estimate, Verdict, as_json, is_significant
from poise.study.records import Arm, Comparison, Expected, RunResult, Study, StudyBase, StudyMeasure

__all__ = ["Effect", "Estimate", "Pairs", "analyse", "as_json", "estimate", "judge", "pairs_of"]

MINIMUM = 6
"""The fewest pairs for a verdict: with 5, no two-sided p-value is below 0.06; with 6 the smallest is 0.03 or 0.06."""


class Pairs(NamedTuple):
    """The paired final values of one measure with and without a tip, one entry per seed.

    Attributes:
        seeds: the seeds.
        treatment: the values with the tip; where it is missing, the worst one of the base, or NaN if no run has any.
        control: the same without it.
        failed: whether a run with the tip failed.
        control_failed: the same without it.
        measured: whether the value with the tip is that of its runs.
        control_measured: the same without it.
    """

    seeds: tuple[str, ...]
    treatment: tuple[float, ...]
    control: tuple[float, ...]
    failed: tuple[bool, ...]
    control_failed: tuple[bool, ...]
    measured: tuple[bool, ...]
    control_measured: tuple[bool, ...]


class Outcome(NamedTuple):
    """The final measures of a run, complete, whether it failed, and the measures of which it has no value."""

    values: dict[str, float]
    failed: bool
    missing: frozenset[str] = frozenset()


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
    or if a value is beyond the limit of its measure. A measure that no run has is NaN if none was trained to the end,
    and absent if any was.
    """
    runs = [results[run] for run in _runs_of(study, base.name) if run in results]
    worst: dict[str, float] = {}
    for measure in base.measures:
        values = [run.values[measure.name] for run in runs if _has(run, measure.name)]
        if values:
            worst[measure.name] = max(values) if measure.better == "less" else min(values)
        elif all(run.state != "done" for run in runs):
            worst[measure.name] = nan
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

    def measured(arms: Sequence[Arm]) -> tuple[bool, ...]:
        return tuple(all(measure not in outcomes[arm.runs[seed]].missing for arm in arms) for seed in seeds)

    return Pairs(
        seeds,
        *(values(treatment), values(control)),
        *(failed(treatment), failed(control)),
        *(measured(treatment), measured(control)),
    )


@lru_cache(maxsize=4096)
def estimate(comparison: Comparison, measure: StudyMeasure, pairs: Pairs) -> Effect:
    """The effect of a tip on one measure, before it is judged: with p-values that are not adjusted, and no verdict.

    It is remembered, as the live page asks for a study again whenever a run of it has finished.
    """
    n, failures, control_failures = len(pairs.seeds), sum(pairs.failed), sum(pairs.control_failed)
    treatment, control = pairs.treatment, pairs.control
    values, control_values = sum(pairs.measured), sum(pairs.control_measured)
    shown, control_shown = (n > 0 and 2 * number >= n for number in (values, control_values))
    comparable = n > 1 and shown and control_shown
    effect = statistics.iqm_difference(treatment, control) if comparable else None
    enough = n >= MINIMUM
    return Effect(
        base=comparison.base,
        tip=comparison.tip,
        name=comparison.name,
        measure=measure.name,
        better=measure.better,
        seeds=n,
        treatment_iqm=float(statistics.interquartile_mean(treatment)) if shown else None,
        control_iqm=float(statistics.interquartile_mean(control)) if control_shown else None,
        treatment_median=float(np.median(treatment)) if shown else None,
        control_median=float(np.median(control)) if control_shown else None,
        effect=effect.value if effect else None,
        low=effect.low if effect else None,
        high=effect.high if effect else None,
        relative=_relative(effect, pairs) if effect else None,
        median_effect=statistics.median_difference(treatment, control) if comparable else None,
        p=statistics.permutation_p(treatment, control) if comparable and enough else None,
        p_adjusted=None,
        failures=failures,
        control_failures=control_failures,
        values=values,
        control_values=control_values,
        failure_rate=statistics.failure_rate(failures, n) if n else None,
        control_failure_rate=statistics.failure_rate(control_failures, n) if n else None,
        p_failures=statistics.more_failures_p(failures, control_failures, n) if enough else None,
        p_failures_adjusted=None,
        p_fewer_failures=statistics.more_failures_p(control_failures, failures, n) if enough else None,
        p_fewer_failures_adjusted=None,
        detectable=statistics.detectable_effect(treatment, control) if comparable and enough else None,
        verdict="too few seeds",
        expected=comparison.expected,
        agreement="open",
    )


def judge(effects: Sequence[Effect]) -> list[Effect]:
    """The same effects with adjusted p-values and verdicts.

    A family is all effects on one measure of one base that have at least 6 pairs, or for the p-values of the measure
    itself, of them those whose runs have enough values of it.
    """
    families: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, effect in enumerate(effects):
        if effect.seeds >= MINIMUM:
            families[effect.base, effect.measure].append(index)
    judged = list(effects)
    for family in families.values():
        p, more, fewer = (
            _adjusted({index: getattr(effects[index], name) for index in family})
            for name in ("p", "p_failures", "p_fewer_failures")
        )
        for index in family:
            effect = effects[index]._replace(
                p_adjusted=p.get(index),
                p_failures_adjusted=more.get(index),
                p_fewer_failures_adjusted=fewer.get(index),
            )
            verdict = verdict_of(effect)
            judged[index] = effect._replace(verdict=verdict, agreement=agreement_of(verdict, effect.expected))
    return judged


def _adjusted(p_values: Mapping[int, float | None]) -> dict[int, float]:
    """The p-values of a family, adjusted, without those that are None."""
    known = {index: p for index, p in p_values.items() if p is not None}
    return dict(zip(known, statistics.adjusted(list(known.values())), strict=True))


def verdict_of(effect: Effect) -> Verdict:
    """The verdict by the table of `docs/studies.md`; more and fewer failures have half of the level each."""
    if effect.seeds < MINIMUM:
        return "too few seeds"
    if effect.direction == "worse":
        return "harms"
    if is_significant(effect.p_failures_adjusted, ALPHA / 2):
        return "unstable"
    fewer_fail = is_significant(effect.p_fewer_failures_adjusted, ALPHA / 2)
    return "helps" if effect.direction == "better" or fewer_fail else "no effect seen"


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
    failed = run.state != "done" or any(is_beyond(measure, values) for measure in measures)
    return Outcome(values, failed, frozenset(name for name in worst if not _has(run, name)))


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
