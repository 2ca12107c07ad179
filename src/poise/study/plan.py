"""The plan of a study: its TOML file as a typed model (docs/studies.md). `expand.py` makes recipes of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, Strict, field_validator, model_validator

from poise.core.config import Config, did_you_mean, reject_value
from poise.core.validation import validate
from poise.measure.catalogue import MEASURES
from poise.recipe.toml import NAME, read_file
from poise.study.records import Better, Expected, Names, StudyMeasure

BASE = "base"
"""The name of the arm that is the base itself."""

MAX_RUNS = 2000

MAX_SEEDS = 10_000

MAX_SEED = 2**63 - 1
"""The largest seed of a recipe."""


def _list_seeds(seeds: Any) -> Any:
    """A number of seeds as the list of the first ones."""
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        if not 1 <= seeds <= MAX_SEEDS:
            reject_value(f"must be from 1 to {MAX_SEEDS:,} seeds", found=str(seeds)[:40])
        return tuple(range(seeds))
    if seeds is not None and not isinstance(seeds, list | tuple):
        reject_value("must be a number of seeds, or a list of seeds", found=repr(seeds)[:40])
    return seeds


def _check_distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) > MAX_SEED:
        reject_value("must be different seeds from 0 to 2^63 - 1, at least one", found=str(list(seeds))[:40])
    return seeds


class _Seeds(Config):
    """A table with seeds: a number n for the seeds 0 to n - 1, or a list."""

    seeds: Annotated[tuple[int, ...], Strict(False)] | None = None

    @field_validator("seeds", mode="before")
    @classmethod
    def _numbers(cls, seeds: Any) -> Any:
        return _list_seeds(seeds)

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if seeds is None else _check_distinct(seeds)


class MeasureChoice(Config):
    """A measure that decides, with its direction."""

    name: str
    better: Better


class BasePlan(_Seeds):
    """A recipe to which tips are added.

    Attributes:
        recipe: the name of a shipped recipe, or a .toml file relative to the plan.
        set: changes to the recipe.
        measures: the measures that decide; a name has the direction of the catalogue.
        failure: for some measures, the value beyond which a run has failed.
    """

    recipe: str
    set: Names = ()
    measures: Annotated[tuple[str | MeasureChoice, ...], Strict(False)]
    failure: dict[str, float] = Field(default_factory=dict)

    @field_validator("measures", mode="before")
    @classmethod
    def _written_as(cls, measures: Any) -> Any:
        """Refuse what is neither form of a measure in one sentence; a union would report each form by itself."""
        for one in measures if isinstance(measures, list | tuple) else ():
            is_table = isinstance(one, dict) and one.keys() == {"name", "better"}
            if is_table and isinstance(one["name"], str) and one["better"] in ("less", "more"):
                continue
            if not isinstance(one, str | MeasureChoice):
                cure = 'write { name = "high_quality", better = "more" }, with "less" or "more"'
                reject_value("must be the name of a measure, or a table of its name and direction", cure=cure)
        return measures

    @model_validator(mode="after")
    def _known(self) -> Self:
        names = [one if isinstance(one, str) else one.name for one in self.measures]
        if not names:
            reject_value("names no measure", key="measures", cure='for example measures = ["fid"]')
        for name in names:
            if name not in MEASURES:
                cure = did_you_mean(name, list(MEASURES))
                reject_value("no such measure", key="measures", found=f"'{name}'", cure=cure)
            if names.count(name) > 1:
                reject_value("names a measure more than once", key="measures", found=f"'{name}'")
        for one in self.measures:
            if isinstance(one, str) and MEASURES[one].better == "floor":
                cure = f'say whether less or more is better: {{ name = "{one}", better = "more" }}'
                what = "has no direction of its own, because it is best where real samples are"
                reject_value(what, key="measures", found=f"'{one}'", cure=cure)
            if isinstance(one, MeasureChoice) and MEASURES[one.name].better not in ("floor", one.better):
                cure = f"of this measure, {MEASURES[one.name].better} is better"
                reject_value("has the opposite direction", key="measures", found=f"'{one.name}'", cure=cure)
        for name in self.failure:
            if name not in names:
                reject_value(
                    "is not one of the measures", key="failure", found=f"'{name}'", cure=did_you_mean(name, names)
                )
        return self

    @property
    def study_measures(self) -> tuple[StudyMeasure, ...]:
        """The measures with their directions and limits."""
        choices = [
            MeasureChoice(name=one, better=MEASURES[one].better)  # type: ignore[arg-type]  # not "floor", see `_known`
            if isinstance(one, str)
            else one
            for one in self.measures
        ]
        return tuple(
            StudyMeasure(name=one.name, better=one.better, failure=self.failure.get(one.name)) for one in choices
        )


class TipPlan(_Seeds):
    """An arm with one tip.

    Attributes:
        id: the id of the tip in the catalogue.
        name: the name of the arm.
        set: changes to the base; None for the switch of the catalogue.
        against: the arm that it is compared with.
        on: the bases; None for all.
        expected: what the literature says.
        budget_factor: the budget of this arm as a multiple of that of the plan.
        inverse: whether this arm is the one without the tip, because the base follows it. The effect is then that of
            `against`, with the tip, compared with this arm.
        title: what the comparison is called; by default the name of the arm, or "BASE instead of NAME".
    """

    id: str = ""
    name: str = Field(min_length=1, max_length=60)
    set: Names | None = None
    against: str = BASE
    on: Names | None = None
    expected: Expected = ""
    budget_factor: float = Field(default=1.0, gt=0)
    inverse: bool = False
    title: str = Field(default="", max_length=60)

    @model_validator(mode="after")
    def _has_changes(self) -> Self:
        if self.name == BASE:
            reject_value(f"'{BASE}' is the name of the base itself", key="name")
        if self.against == self.name:
            reject_value("is the name of this arm itself", key="against", found=f"'{self.against}'")
        if self.set is None and not self.id:
            reject_value("needs 'set', or the 'id' of a tip whose switch is used", key="set")
        return self


class FactorialPlan(Config):
    """All combinations of the levels of some factors.

    Attributes:
        name: its name.
        id: the id of a tip.
        on: the bases; None for all.
        factors: the levels of each factor by name, each a list of changes.
    """

    name: str = Field(min_length=1, max_length=40)
    id: str = ""
    on: Names | None = None
    factors: Annotated[dict[str, dict[str, Names]], Field(min_length=1)]

    @model_validator(mode="after")
    def _levels(self) -> Self:
        for name, levels in self.factors.items():
            if len(levels) < 2:
                reject_value("needs at least two levels", key=f"factors.{name}", found=str(len(levels)))
        return self


class Budget(Config):
    """What every run may use: a number of real images that D sees, or seconds of training."""

    images: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.images is None) == (self.seconds is None):
            reject_value("needs either 'images' or 'seconds'")
        return self


class Plan(_Seeds):
    """A plan; docs/studies.md explains each key.

    Attributes:
        evaluations: how often each run is measured; the points of its learning curve.
    """

    name: str = Field(pattern=f"^{NAME}$")
    seeds: Annotated[tuple[int, ...], Strict(False)]
    budget: Budget | None = None
    limit: int = Field(default=MAX_RUNS, ge=1)
    evaluations: int = Field(default=4, ge=1, le=100)
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    keep_checkpoints: bool = False
    base: dict[str, BasePlan]
    data: dict[str, dict[str, Any]] = Field(default_factory=dict)
    tip: Annotated[tuple[TipPlan, ...], Strict(False)] = ()
    leave_out: Names = ()
    factorial: Annotated[tuple[FactorialPlan, ...], Strict(False)] = ()

    @model_validator(mode="after")
    def _names(self) -> Self:
        if not self.base:
            reject_value("a plan needs a base", key="base", cure="for example [base.ring] with 'recipe' and 'measures'")
        for key, tables in (("base", self.base), ("data", self.data)):
            for name in tables:
                if not re.fullmatch(NAME, name):
                    cure = "1 to 64 letters, digits, '.', '_' or '-', not beginning with a dot"
                    reject_value("is not a valid name", key=key, found=f"'{name[:40]}'", cure=cure)
        labels = [label_of(base, data) for base in self.base for data in self.data or ("",)]
        for label in labels:
            if labels.count(label) > 1:
                reject_value("two bases with their data have the same name", key="base", found=f"'{label}'")
        return self

    @model_validator(mode="after")
    def _known_bases(self) -> Self:
        for key, entries in (("tip", self.tip), ("factorial", self.factorial)):
            for number, entry in enumerate(entries):
                if entry.on == ():
                    reject_value("names no base", key=f"{key}.{number}.on", cure="remove it for all bases")
                for base in entry.on or ():
                    if base not in self.base:
                        cure = did_you_mean(base, list(self.base))
                        reject_value("no such base", key=f"{key}.{number}.on", found=f"'{base}'", cure=cure)
        return self

    @property
    def compares(self) -> bool:
        """Whether the plan names anything to compare. If not, its bases are trained over the seeds, and that is all."""
        return bool(self.tip or self.leave_out or self.factorial)


def label_of(base: str, data: str) -> str:
    """The name of a base on a data set of the plan; `data` is empty if the plan has none."""
    return f"{base}-{data}" if data else base


def read_plan(path: Path) -> Plan:
    """The plan in a TOML file.

    Raises:
        RecipeError: the file is missing, or is not a valid plan; names the key.
    """
    return validate(Plan, read_file(path, "plan"), str(path))
