"""The tables of a study's report, as rows of cells; the first row is the header."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import median

from poise.report.document import Cell, Tone
from poise.study.effects import Effect, Estimate, Verdict
from poise.study.records import StudyBase
from poise.study.summary import StudyResults

Row = list[str | Cell]

TONES: dict[Verdict, Tone] = {
    "helps": "good",
    "harms": "bad",
    "unstable": "warning",
    "no effect seen": "neutral",
    "too few seeds": "",
}


LARGE_EFFECT = 0.2
"""A fraction of the control: where an effect of this size would have been missed, more seeds are needed."""


def overview_table(effects: Sequence[Effect], bases: Sequence[StudyBase]) -> Iterator[Row]:
    """Tips by bases and measures: verdict and change."""
    columns = [(base.name, measure) for base in bases for measure in base.measures]
    cells = {(effect.base, effect.measure, effect.tip, effect.name): effect for effect in effects}
    yield ["tip", *(f"{base}: {measure.name} ({measure.better} is better)" for base, measure in columns)]
    for tip, name in dict.fromkeys((effect.tip, effect.name) for effect in effects):
        found = [cells.get((base, measure.name, tip, name)) for base, measure in columns]
        yield [_title(tip, name), *(_verdict_cell(effect) if effect else "" for effect in found)]


def effect_table(effects: Sequence[Effect], costs: dict[str, float | None]) -> Iterator[Row]:
    """The effects on one measure of one base: verdict, effect, interval, seeds, failures, cost.

    Args:
        effects: of the same base and measure.
        costs: the ratio of the cost by the name of the comparison.
    """
    yield ["tip", "verdict", "effect", "95 % interval", "seeds", "failures with / without", "cost ratio", "expected"]
    for effect in effects:
        cost = costs[effect.name]
        yield [
            _title(effect.tip, effect.name),
            Cell(effect.short_verdict, TONES[effect.verdict]),
            effect.change,
            effect.interval,
            str(effect.seeds),
            failure_counts(effect),
            "" if cost is None else f"{cost:.2f}",
            effect.expected,
        ]


def detail_table(effects: Sequence[Effect]) -> Iterator[Row]:
    """All numbers of the effects, in the units of the measures."""
    yield [
        *("tip", "data", "measure", "verdict", "mean without", "mean with", "difference of means"),
        *("difference of medians", "p", "adjusted p", "detectable", "failure rate with", "failure rate without"),
        *("p of more failures", "adjusted p of more failures", "p of fewer failures", "adjusted p of fewer failures"),
    ]
    for effect in effects:
        difference = None
        if effect.effect is not None and effect.low is not None and effect.high is not None:
            difference = Estimate(effect.effect, effect.low, effect.high)
        yield [
            *(_title(effect.tip, effect.name), effect.base, effect.measure),
            Cell(effect.short_verdict, TONES[effect.verdict]),
            _mean(effect.control_iqm, effect.control_values, effect.seeds),
            _mean(effect.treatment_iqm, effect.values, effect.seeds),
            _estimate(difference),
            _estimate(effect.median_effect),
            *(_number(effect.p, 3), _number(effect.p_adjusted, 3), _number(effect.detectable, 3)),
            *(_estimate(effect.failure_rate, 2), _estimate(effect.control_failure_rate, 2)),
            *(_number(effect.p_failures, 3), _number(effect.p_failures_adjusted, 3)),
            *(_number(effect.p_fewer_failures, 3), _number(effect.p_fewer_failures_adjusted, 3)),
        ]


def _mean(value: float | None, measured: int, seeds: int) -> str:
    """A mean, with the number of the seeds whose values are the worst ones of the base, as they have none."""
    return _number(value) + (
        f" ({seeds - measured} of {seeds} imputed)" if value is not None and measured < seeds else ""
    )


def value_table(results: StudyResults) -> Iterator[Row]:
    """The final measures of each arm over its seeds, the floors of each base, and the CPU time of a run."""
    names = list(dict.fromkeys(measure.name for base in results.study.bases for measure in base.measures))
    yield ["base", "arm", "seeds", *names, "CPU minutes"]
    for base, arms in groupby(results.final_values(), lambda one: one.base):
        for one in arms:
            values = (spread(one.measures.get(name, [])) for name in names)
            yield [base, one.arm, str(one.seeds), *values, spread(one.cpu_minutes)]
        floors = [_number(results.floor(base, name), 3) for name in names]
        if any(floors):
            yield [base, "real samples", "", *floors, ""]


def spread(values: Sequence[float]) -> str:
    """The median with the smallest and the largest value; the value alone if it is the only one; empty without any."""
    if len(values) < 2:
        return "".join(_number(value, 3) for value in values)
    return f"{_number(median(values), 3)} [{_number(min(values), 3)}, {_number(max(values), 3)}]"


def agreement_table(effects: Sequence[Effect]) -> Iterator[Row]:
    """What the literature expects beside what was found."""
    tones: dict[str, Tone] = {"agrees": "good", "disagrees": "bad"}
    yield ["tip", "data", "measure", "expected", "found", "agreement"]
    for effect in effects:
        yield [
            *(_title(effect.tip, effect.name), effect.base, effect.measure, effect.expected),
            _verdict_cell(effect),
            Cell(effect.agreement, tones.get(effect.agreement, "")),
        ]


def seeds_table(effects: Sequence[Effect]) -> Iterator[Row]:
    """Where more seeds are needed, and why."""
    yield ["tip", "data", "measure", "seeds", "verdict", "change", "reason"]
    for effect in effects:
        yield [
            *(_title(effect.tip, effect.name), effect.base, effect.measure, str(effect.seeds)),
            Cell(effect.short_verdict, TONES[effect.verdict]),
            " ".join(filter(None, (effect.change, effect.interval))),
            reason_for_seeds(effect),
        ]


def reason_for_seeds(effect: Effect) -> str:
    """Why an effect needs more seeds; empty if it does not."""
    if effect.verdict == "too few seeds":
        return "fewer than 6 pairs"
    if effect.verdict != "no effect seen":
        return ""
    if effect.low is not None and effect.high is not None and (effect.low > 0 or effect.high < 0):
        return f"the interval does not contain zero, but the adjusted p is {_number(effect.p_adjusted, 2)}"
    detectable = _relative_detectable(effect)
    if detectable is not None and detectable > LARGE_EFFECT:
        return f"an effect of {_percent(detectable)} % would have been missed in one of five such studies"
    return ""


def failure_counts(effect: Effect) -> str:
    """The seeds that failed with and without the tip; empty without any pair, where they could not be compared."""
    return f"{effect.failures} / {effect.control_failures}" if effect.seeds else ""


def unmeasured(results: StudyResults) -> Iterator[str]:
    """A sentence for each measure of a base that none of its runs that were trained to the end has."""
    for base in results.study.bases:
        runs = [run for arm in results.study.arms if arm.base == base.name for run in results.of(arm).values()]
        done = [run for run in runs if run.state == "done"]
        for measure in base.measures:
            if done and not any(measure.name in run.values for run in done):
                yield f"{measure.name} could not be computed for any run on {base.name}, so it decides nothing."


def _percent(fraction: float) -> str:
    """Two significant digits, without an exponent."""
    return f"{float(f'{100 * fraction:.2g}'):,.12g}"


def _relative_detectable(effect: Effect) -> float | None:
    """The detectable effect as a fraction of the control; None where there is no relative scale."""
    if effect.detectable is None or effect.relative is None or not effect.control_iqm:
        return None
    return effect.detectable / effect.control_iqm


def failure_table(results: StudyResults) -> Iterator[Row]:
    """The runs that were not trained to the end, once for each arm that has them."""
    yield ["arm", "data", "seed", "state", "step", "reason", "run"]
    for arm in results.study.arms:
        for seed, result in results.of(arm).items():
            if result.state != "done":
                yield [arm.name, arm.base, seed, result.state, f"{result.step:,}", result.reason, result.run]


def changes_table(results: StudyResults) -> Iterator[Row]:
    """The runs that changed their recipes on the advice of alarms."""
    yield ["arm", "data", "seed", "changes", "run"]
    for arm in results.study.arms:
        for seed, result in results.of(arm).items():
            if result.changes:
                yield [arm.name, arm.base, seed, "; ".join(result.changes), result.run]


def missing_table(results: StudyResults) -> Iterator[Row]:
    """The runs without a result, one line for each arm."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for run in results.missing():
        seeds.setdefault((run.arm, run.base), []).append(run.seed)
    yield ["arm", "data", "seeds without a result"]
    for (arm, base), missing in seeds.items():
        yield [arm, base, ", ".join(missing)]


def arm_table(results: StudyResults) -> Iterator[Row]:
    """All arms: what they change, their budget and their runs."""
    yield ["arm", "data", "changes to the base", "steps", "images", "runs", "done"]
    for arm in results.study.arms:
        done = sum(result.state == "done" for result in results.of(arm).values())
        budget = (f"{arm.steps:,}", f"{arm.images:,}")
        yield [arm.name, arm.base, "; ".join(arm.changes) or "none", *budget, str(len(arm.runs)), str(done)]


def _title(tip: str, name: str) -> str:
    return f"{name} ({tip})" if tip else name


def _verdict_cell(effect: Effect) -> Cell:
    words = (effect.short_verdict, effect.change, effect.interval)
    return Cell(" ".join(filter(None, words)), TONES[effect.verdict])


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}g}"


def _estimate(estimate: Estimate | None, digits: int = 3) -> str:
    return (
        ""
        if estimate is None
        else f"{estimate.value:.{digits}g} [{estimate.low:.{digits}g}, {estimate.high:.{digits}g}]"
    )
