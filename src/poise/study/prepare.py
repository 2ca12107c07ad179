"""Checks a plan before anything is trained: expands it, and checks every recipe with its data."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

from poise.engine.compute import choose_compute
from poise.errors import RecipeError
from poise.recipe.checks.compatibility import check_compatibility
from poise.study.expand import Expansion, expand, steps_within_images
from poise.study.plan import Plan
from poise.study.timing import TimingFile
from poise.training.train import train
from poise.user_code.loading import allow_user_code


class Options(NamedTuple):
    """How the runs of a study are trained; see `poise.training.train.train`."""

    device: str = "auto"
    data_root: Path | None = None
    trust_code: bool = False


def timing_file(plan: Plan, path: Path, options: Options) -> TimingFile:
    """The measured times of the plan's recipes, for a budget in seconds; those in the file are not measured again."""
    timed = functools.partial(
        train,
        device=options.device,
        precision=plan.precision,
        data_root=options.data_root,
        trust_code=options.trust_code,
    )
    return TimingFile(path, timed, device=options.device)


def prepare(plan: Plan, folder: Path, times: TimingFile, options: Options) -> Expansion:
    """Expand a plan and check every recipe with its data, before anything is trained.

    Args:
        plan: the plan.
        folder: the folder of its file.
        times: the measured times, if the budget is in seconds.
        options: see `Options`.

    Raises:
        RecipeError, DataError: an arm can't be trained; names it.
    """
    steps_for = functools.partial(steps_within_images, plan=plan)
    if plan.budget is not None and plan.budget.seconds is not None:
        seconds = plan.budget.seconds
        steps_for = lambda recipe: max(1, round(seconds / times.step_seconds(recipe)))  # noqa: E731
    expansion = expand(plan, folder, steps_for)
    shapes: dict[str, tuple[tuple[int, ...], int]] = {}
    for arm in expansion.study.arms:
        recipe = expansion.recipes[next(iter(arm.runs.values()))]
        try:
            allow_user_code(recipe, options.trust_code)
            choose_compute(options.device, plan.precision, recipe)
            data = recipe.data.model_dump_json()
            if data not in shapes:
                source = recipe.data.load(options.data_root).train
                shapes[data] = (source.shape, len(source.classes))
            check_compatibility(recipe, *shapes[data]).raise_first()
        except RecipeError as error:
            where = f"{arm.base}, arm '{arm.name}': {error.where}"
            raise RecipeError(error.what, where=where, found=error.found, cure=error.cure) from None
    return expansion
