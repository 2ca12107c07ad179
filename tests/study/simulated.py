"""Studies whose results are drawn at random: a base and tips with known effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from poise.study.records import Arm, Comparison, Expected, RunResult, Study, StudyBase, StudyMeasure

FID = StudyMeasure(name="fid", better="less", failure=60.0)
MODES = StudyMeasure(name="modes", better="more")


def study_of(
    arms: Mapping[str, int],
    comparisons: Sequence[Comparison] | None = None,
    measures: tuple[StudyMeasure, ...] = (FID,),
    base: str = "digits",
) -> Study:
    """A study of these arms with so many seeds each; by default each arm but the first is compared with the first."""
    control, *tips = arms
    if comparisons is None:
        comparisons = [comparison(name, [name], [control], base=base) for name in tips]
    return Study(
        name="simulated",
        bases=(StudyBase(name=base, measures=measures),),
        arms=tuple(
            Arm(base=base, name=name, steps=10, images=320, runs={str(s): f"{base}/{name}/{s}" for s in range(seeds)})
            for name, seeds in arms.items()
        ),
        comparisons=tuple(comparisons),
    )


def comparison(
    name: str, treatment: Sequence[str], control: Sequence[str], expected: Expected = "", base: str = "digits"
) -> Comparison:
    """A comparison of arms of one base."""
    return Comparison(base=base, name=name, treatment=tuple(treatment), control=tuple(control), expected=expected)


def done(run: str, **values: float) -> RunResult:
    """The result of a run that was trained to its end."""
    return RunResult(run=run, state="done", step=10, images=320, values=values)


def diverged(run: str) -> RunResult:
    """The result of a run that diverged."""
    return RunResult(run=run, state="diverged", reason="not finite", step=5, images=160)


def results_of(study: Study, values: Mapping[str, Sequence[float]], measure: str = "fid") -> list[RunResult]:
    """A result for each run, from the final values of each arm by seed; NaN stands for a run that diverged."""
    return [
        diverged(run) if np.isnan(value) else done(run, **{measure: float(value)})
        for arm in study.arms
        for run, value in zip(arm.runs.values(), values[arm.name], strict=True)
    ]


def family(seed: int, effects: Sequence[float], seeds: int = 10, failing: float = 0.0) -> tuple[Study, list[RunResult]]:
    """A base with FID 20 +- 2, and tips that change it by these numbers of standard deviations.

    Args:
        seed: of the random values.
        effects: the effect of each tip in standard deviations; negative ones help.
        seeds: the number of pairs.
        failing: the share of runs that diverge, with and without a tip.
    """
    rng = np.random.default_rng(seed)
    shifts = {"base": 0.0} | {f"tip {number}": effect for number, effect in enumerate(effects)}
    study = study_of(dict.fromkeys(shifts, seeds))
    values = {name: 20 + 2 * (rng.normal(size=seeds) + shift) for name, shift in shifts.items()}
    for drawn in values.values():
        drawn[rng.random(seeds) < failing] = np.nan
    return study, results_of(study, values)
