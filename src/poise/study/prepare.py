"""Expands a plan and checks every recipe with its data, before anything is trained or written."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

from poise.data.source import DataSplits
from poise.engine.compute import choose_compute
from poise.errors import PoiseError, RecipeError, errors_in
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.model import Recipe
from poise.study.budget import TooManyRuns, estimate_seconds
from poise.study.expand import Expansion, expand
from poise.study.measurable import check_measures
from poise.study.origin import origin_of
from poise.study.plan import Plan
from poise.study.records import Study
from poise.study.timing import Timing, TimingFile, measure_timing
from poise.training.train import train
from poise.user_code.loading import allow_user_code

MANY_STEPS = 10_000
"""The steps with which a plan with a budget in seconds is checked; enough that arms with other budgets differ."""


class Options(NamedTuple):
    """How the runs of a study are trained; see `train`, and `engines.ENGINES`."""

    device: str = "auto"
    data_root: Path | None = None
    trust_code: bool = False
    engine: str = "local"


def time_recipe(recipe: Recipe, plan: Plan, options: Options) -> Timing:
    """The time that a recipe needs on this machine, measured by a few steps.

    Raises:
        PoiseError: the recipe can't be trained.
    """
    timed = functools.partial(
        train,
        device=options.device,
        precision=plan.precision,
        data_root=options.data_root,
        trust_code=options.trust_code,
    )
    return measure_timing(recipe, timed, choose_compute(options.device, plan.precision, recipe).device)


def timing_file(plan: Plan, path: Path, options: Options) -> TimingFile:
    """The measured times per step, as far as a file has them; the others are measured when they are needed.

    Args:
        plan: the plan.
        path: the file, `timing.json`.
        options: see `Options`.

    Raises:
        CheckpointError: the file is damaged.
    """
    return TimingFile(path, lambda recipe: time_recipe(recipe, plan, options).step)


def prepare(plan: Plan, file: Path, times: TimingFile, options: Options, before: Study | None = None) -> Expansion:
    """Expand a plan and check every recipe with its data.

    Args:
        plan: the plan.
        file: its file, which errors name, and in whose folder recipe files are looked for.
        times: the times per step, which a budget in seconds needs.
        options: see `Options`.
        before: the study as it was last started, if it is continued; see `expand`.

    Raises:
        RecipeError, DataError: an arm can't be trained or measured; names it. Or nothing is left of the comparisons.
        TooManyRuns: the plan has more runs than its limit; says how long they would take.
    """
    with errors_in(str(file)):
        _check_recipe_files(plan)
        return _prepare(plan, file.parent, times, options, before)


def _check_recipe_files(plan: Plan) -> None:
    """Refuse a recipe file whose copy would replace that of the plan in the folder of the study."""
    for name, base in plan.base.items():
        if Path(base.recipe) == Path("plan.toml"):
            what = "a recipe file can't have the name that the plan has in the folder of the study"
            raise RecipeError(what, where=f"{name}: recipe", found=f"'{base.recipe}'", cure="rename the file")


def _prepare(plan: Plan, folder: Path, times: TimingFile, options: Options, before: Study | None) -> Expansion:
    seconds = plan.budget.seconds if plan.budget is not None else None
    try:
        expansion = expand(plan, folder, None if seconds is None else lambda recipe, key: MANY_STEPS, before)
    except TooManyRuns as error:
        raise _with_estimate(error, plan, options) from None
    if plan.compares and not expansion.study.comparisons:
        raise RecipeError("there is nothing to compare", where="tip", cure="; ".join(expansion.notes))
    origins = check(expansion, plan, options)
    if seconds is not None:

        def steps_for(recipe: Recipe, key: str) -> int:
            return max(1, round(seconds / times.step_seconds(recipe, key)))

        expansion = expand(plan, folder, steps_for, before)
    return expansion._replace(origins=origins)


def _with_estimate(error: TooManyRuns, plan: Plan, options: Options) -> TooManyRuns:
    """The refusal with the estimated time, unless a base can't be trained."""
    if plan.budget is not None and plan.budget.seconds is not None:
        return TooManyRuns(error.limit, error.loads, sum(load.runs for load in error.loads) * plan.budget.seconds)
    try:
        seconds = estimate_seconds(error.loads, lambda base: time_recipe(base, plan, options), plan.evaluations)
    except PoiseError:
        return error
    return TooManyRuns(error.limit, error.loads, seconds)


def check(expansion: Expansion, plan: Plan, options: Options) -> dict[tuple[str, str], dict[str, str]]:
    """Check every recipe of a plan with its data.

    Returns:
        The origin of the results of each base and arm; see `origin.py`.

    Raises:
        RecipeError, DataError: an arm can't be trained or measured; names it.
    """
    loaded: dict[str, DataSplits] = {}
    origins: dict[tuple[str, str], dict[str, str]] = {}
    for arm in expansion.study.arms:
        recipe = expansion.recipes[next(iter(arm.runs.values()))]
        with errors_in(f"{arm.base}, arm '{arm.name}'"):
            allow_user_code(recipe, options.trust_code)
            compute = choose_compute(options.device, plan.precision, recipe)
            data = recipe.data.model_dump_json()
            if data not in loaded:
                loaded[data] = recipe.data.load(options.data_root)
            source = loaded[data].train
            check_compatibility(recipe, source.shape, len(source.classes), source.parts).raise_first()
            check_measures(recipe, loaded[data])
            origins[arm.base, arm.name] = origin_of(recipe, source, compute)
    return origins
