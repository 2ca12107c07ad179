"""Schedules: values that change during a run. `docs/recipes.md` lists the fields of a recipe that accept one.

A plain number is a constant. A schedule moves from one value to another while the run goes from `after` to `until`,
counted in `progress` (the fraction of the run, 0 to 1) or in `steps`:

    sigma = 0.1
    sigma = { kind = "linear", start = 0.1, end = 0.0, until = 0.5 }
    lr    = { kind = "cosine", start = 2e-4, end = 0.0 }
    gamma = { kind = "steps", values = [1.0, 0.1], at = [2000], over = "steps" }
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Strict, Tag, model_validator

from poise.core.config import Config, reject_value
from poise.utils.printing import count_noun

if TYPE_CHECKING:
    from poise.core.types import MoveContext

ScheduleUnit = Literal["progress", "steps"]


class Schedule(Config):
    """A value that changes during the run; `over` is the unit of its time axis."""

    over: ScheduleUnit = "progress"

    def value_at(self, time: float) -> float:
        """The value at `time`, in the unit `over`."""
        raise NotImplementedError

    def bounds(self) -> tuple[float, ...]:
        """Values between which all others lie."""
        raise NotImplementedError


class Ramp(Schedule):
    """From `start` to `end` between the times `after` and `until`; constant before and afterwards.

    In progress, `until` is 1 by default; in steps it must be given.
    """

    start: float
    end: float
    after: float = Field(default=0.0, ge=0)
    until: float = Field(default=1.0, gt=0)

    def ease(self, t: float) -> float:
        """The fraction of the change that is done at the fraction t of the time, both 0 to 1."""
        raise NotImplementedError

    def value_at(self, time: float) -> float:
        """start + (end - start) * ease(t), with t the fraction of [after, until] that has passed."""
        t = min(1.0, max(0.0, (time - self.after) / (self.until - self.after)))
        return self.start + (self.end - self.start) * self.ease(t) if t < 1.0 else self.end

    def bounds(self) -> tuple[float, ...]:
        """Both ends."""
        return (self.start, self.end)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.over == "steps" and "until" not in self.model_fields_set:
            reject_value("needs 'until', the step at which it ends, as it counts steps")
        if self.until <= self.after:
            reject_value("'until' must be greater than 'after'", found=f"after {self.after}, until {self.until}")
        if self.over == "progress" and self.until > 1:
            reject_value("progress ends at 1; use over = 'steps' for later times", found=f"until {self.until}")
        return self


class Linear(Ramp):
    """A straight line."""

    kind: Literal["linear"] = "linear"

    def ease(self, t: float) -> float:
        """t."""
        return t


class Cosine(Ramp):
    """Half a cosine: (1 - cos(pi t)) / 2, flat at both ends (Loshchilov & Hutter 2017, arXiv:1608.03983)."""

    kind: Literal["cosine"] = "cosine"

    def ease(self, t: float) -> float:
        """(1 - cos(pi t)) / 2."""
        return (1 - math.cos(math.pi * t)) / 2


class Staircase(Schedule):
    """`values[0]` until `at[0]`, then `values[1]` until `at[1]`, and so on."""

    kind: Literal["steps"] = "steps"
    values: Annotated[tuple[float, ...], Strict(False)] = Field(min_length=2)
    at: Annotated[tuple[float, ...], Strict(False)] = Field(min_length=1)

    def value_at(self, time: float) -> float:
        """The value of the interval that `time` lies in."""
        return self.values[bisect_right(self.at, time)]

    def bounds(self) -> tuple[float, ...]:
        """All values."""
        return self.values

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.values) != len(self.at) + 1:
            reject_value(
                "needs one more value than times",
                found=f"{count_noun(len(self.values), 'value')}, {count_noun(len(self.at), 'time')}",
            )
        if list(self.at) != sorted(set(self.at)):
            reject_value("the times 'at' must increase", found=str(list(self.at)))
        return self


def _tag(given: Any) -> str:
    kind = given.get("kind", "linear") if isinstance(given, dict) else getattr(given, "kind", "number")
    return kind if isinstance(kind, str) else "linear"


Schedulable = Annotated[
    Annotated[float, Tag("number")]
    | Annotated[Linear, Tag("linear")]
    | Annotated[Cosine, Tag("cosine")]
    | Annotated[Staircase, Tag("steps")],
    Discriminator(_tag),
]
"""A number, or a schedule."""


def current_value(schedule: Schedulable, context: MoveContext) -> float:
    """The value in this step, as a Python float."""
    return value_at(schedule, context.step, context.progress)


def value_at(schedule: Schedulable, step: int, progress: float) -> float:
    """The value in a step, which is the fraction `progress` of the run, 0 to 1."""
    if isinstance(schedule, float | int):  # first, because nearly all are plain numbers
        return schedule
    return schedule.value_at(step if schedule.over == "steps" else progress)


def bounds(schedule: Schedulable) -> tuple[float, ...]:
    """Values between which it stays for the whole run."""
    return schedule.bounds() if isinstance(schedule, Schedule) else (schedule,)


@dataclass(frozen=True)
class ValueRange:
    """The range of a number or schedule over the whole run: `low` and `high` inclusive, `below` exclusive."""

    low: float = 0.0
    high: float = math.inf
    below: float = math.inf

    def __call__(self, schedule: Schedulable) -> Schedulable:
        """Return it, or raise a validation error with the range and the value outside it."""
        for number in bounds(schedule):
            if not self.low <= number <= self.high or not number < self.below:
                reject_value(f"must be {self}", found=repr(number))
        return schedule

    def __str__(self) -> str:
        low = f"at least {self.low:g}"
        if self.below < math.inf:
            return f"{low} and less than {self.below:g}"
        return low if self.high == math.inf else f"{low} and at most {self.high:g}"


def in_range(low: float = 0.0, high: float = math.inf, *, below: float = math.inf) -> AfterValidator:
    """A validator for [low, high] or [low, below): `sigma: Annotated[Schedulable, in_range(0)] = 0.1`."""
    return AfterValidator(ValueRange(low, high, below))
