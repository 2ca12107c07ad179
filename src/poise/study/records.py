"""The records of a study: what it consists of and what it has measured (`study.json`, `results.jsonl`). No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, Strict, model_validator

from poise.core.config import Config, reject_value

Better = Literal["less", "more"]
Expected = Literal["", "helps", "harms", "no effect seen"]
State = Literal["done", "diverged", "out of memory", "crashed"]
Names = Annotated[tuple[str, ...], Strict(False)]

FORMAT = 2
"""The version of the format of `study.json`. The first one has neither the recipes of the bases nor `evaluations`."""

LARGEST = 1e100
"""The largest magnitude of a value: sums of squares of larger ones overflow. A run that had one has no such value."""

Value = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]


class StudyMeasure(Config):
    """A measure that decides.

    Attributes:
        name: its name, such as "fid".
        better: whether less or more of it is better.
        failure: a run whose final value is worse than this has failed; None if there is no limit.
    """

    name: str
    better: Better
    failure: float | None = None


class StudyBase(Config):
    """A base on one data set, to which the tips are added.

    Attributes:
        name: its name: that of the base in the plan, followed by "-" and that of the data set if the plan has any.
        measures: the measures that decide, each for itself; the first is the most important one.
        summary: the data, the networks and the budget in a sentence.
        recipe: its recipe in canonical form when the study began; empty in studies of earlier versions of poise.
        definition: what the plan says of it, as a hash; see `continuity.py`.
    """

    name: str
    measures: Annotated[tuple[StudyMeasure, ...], Strict(False)]
    summary: str = ""
    recipe: dict[str, Any] = Field(default_factory=dict)
    definition: str = ""


class Arm(Config):
    """A recipe that is trained with several seeds.

    Attributes:
        base: the name of its base.
        name: its name, unique within the base; that of the base itself is "base".
        changes: the changes to the base, as with `poise train --set`.
        steps: the steps of each run.
        images: the real images that D sees in each run.
        runs: the run of each seed, which names the run folder: the hash that its recipe had when it was planned.
        components: for each component that the changes add, remove or alter, such as "tricks.packing", the source file
            that implements it, relative to the package.
    """

    base: str
    name: str
    changes: Names = ()
    steps: int
    images: int
    runs: dict[str, str]
    components: dict[str, str] = Field(default_factory=dict)


class Comparison(Config):
    """The effect of a tip: the difference between arms with and without it.

    Attributes:
        base: the name of the base.
        tip: the id of the tip in the catalogue, such as "T07a"; may be empty.
        name: what is compared, for example "soft labels"; unique within the base.
        treatment: the arms with the tip. Of several, the mean is taken for each seed.
        control: the arms without it, as many as `treatment`.
        expected: what the literature says.
    """

    base: str
    tip: str = ""
    name: str
    treatment: Names
    control: Names
    expected: Expected = ""


class Study(Config):
    """A plan in expanded form; the content of `study.json`.

    Attributes:
        format: the version of this format.
        name: its name.
        bases: the bases.
        arms: the arms of all bases.
        comparisons: what is compared.
        sources: the SHA-256 of each source file of `Arm.components` when the first run was trained.
        evaluations: how often each run is measured; None in studies of earlier versions of poise.
    """

    format: Literal[1, 2] = FORMAT
    name: str
    bases: Annotated[tuple[StudyBase, ...], Strict(False)]
    arms: Annotated[tuple[Arm, ...], Strict(False)]
    comparisons: Annotated[tuple[Comparison, ...], Strict(False)]
    sources: dict[str, str] = Field(default_factory=dict)
    evaluations: int | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        """Refuse what only a file that was edited by hand can have: names without what they name."""
        bases = {base.name for base in self.bases if base.measures}
        arms = {(arm.base, arm.name) for arm in self.arms}
        for arm in self.arms:
            if arm.base not in bases:
                reject_value("is not a base with measures", key="arms", found=f"'{arm.base}'")
            if not all(seed.isdecimal() for seed in arm.runs):
                reject_value("has a seed that is not a number", key="arms", found=f"'{arm.name}'")
        for one in self.comparisons:
            if not one.treatment or len(one.treatment) != len(one.control):
                reject_value("has sides without arms, or of different sizes", key="comparisons", found=f"'{one.name}'")
            for name in (*one.treatment, *one.control):
                if (one.base, name) not in arms:
                    reject_value("has an arm that is missing", key="comparisons", found=f"'{name}'")
        return self


class RunResult(Config):
    """The result of one run; a line of `results.jsonl`.

    Attributes:
        run: the run, see `Arm.runs`.
        state: whether it was trained to the end, or how it failed.
        reason: the reason of a failure, one line.
        step: the steps done.
        images: the real images that D has seen.
        values: the final measures; without those that could not be computed, and empty for a run that failed.
        floor: the same measures of real samples, for those that have a floor.
        curves: for each measure, pairs of a step and the value at that step.
        changes: what it has changed in its recipe on the advice of alarms, in words.
        cpu_seconds: the CPU time of training and measuring.
        versions: of poise and torch, and the date, the device and the precision.
    """

    run: str
    state: State
    reason: str = ""
    step: int
    images: int
    values: dict[str, Value] = Field(default_factory=dict)
    floor: dict[str, Value] = Field(default_factory=dict)
    curves: dict[str, list[Annotated[tuple[int, Value], Strict(False)]]] = Field(default_factory=dict)
    changes: list[str] = Field(default_factory=list)
    cpu_seconds: float = 0.0
    versions: dict[str, str] = Field(default_factory=dict)
