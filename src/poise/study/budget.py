"""The budget of a study: how many steps of a recipe it allows, and how long its runs will take."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from poise.errors import RecipeError
from poise.recipe.model import Recipe
from poise.study.plan import Plan
from poise.study.timing import Timing
from poise.utils.printing import count_noun


def images_per_step(recipe: Recipe) -> int:
    """The real images that D sees in a step; a tempo that decides while it trains counts as one move of D."""
    return recipe.batch * int(getattr(recipe.tempo, "d", 1))


def steps_within_images(recipe: Recipe, plan: Plan) -> int:
    """The steps in which D sees the images of the budget; those of the recipe if there is no such budget."""
    if plan.budget is None or plan.budget.images is None:
        return recipe.steps
    return max(1, round(plan.budget.images / images_per_step(recipe)))


class Load(NamedTuple):
    """A number of runs of one arm, whose time is estimated from that of its base."""

    base: Recipe
    arm: Recipe
    runs: int


def estimate_seconds(loads: Iterable[Load], timing: Callable[[Recipe], Timing], evaluations: int) -> float:
    """The estimated CPU time of some runs.

    A move of D or G is taken to cost half of a step of the base, so an arm with five moves of D for each one of G has
    steps that take three times as long.

    Args:
        loads: the runs.
        timing: measures a base; called once for each.
        evaluations: how often each run is measured.
    """
    measured: dict[str, Timing] = {}
    seconds = 0.0
    for load in loads:
        if load.runs:
            if load.base.hash not in measured:
                measured[load.base.hash] = timing(load.base)
            moves = images_per_step(load.arm) / images_per_step(load.base)
            steps = round(load.arm.steps * (moves + 1) / 2)
            seconds += load.runs * measured[load.base.hash].run(steps, evaluations)
    return seconds


def format_hours(seconds: float) -> str:
    """A CPU time in core-hours, with two significant digits; at least the 4 seconds that are 0.001 hours."""
    hours = seconds / 3600
    if hours < 0.01:
        return f"{max(hours, 0.001):.3f} core-hours"
    return f"{hours:,.0f} core-hours" if hours >= 10 else f"{hours:.2g} core-hours"


class TooManyRuns(RecipeError):
    """The plan has more runs than its limit.

    Args:
        limit: the limit.
        loads: the runs.
        seconds: the estimated CPU time, if it is known.
    """

    def __init__(self, limit: int, loads: list[Load], seconds: float | None = None) -> None:
        self.limit, self.loads = limit, loads
        found = f"{sum(load.runs for load in loads):,}"
        found += "" if seconds is None else f", which would take about {format_hours(seconds)}"
        cure = "reduce the seeds or the tips, or raise 'limit' in the plan"
        super().__init__(f"the plan has more than {count_noun(limit, 'run')}", found=found, cure=cure)
