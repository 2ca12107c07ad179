"""The default recipe for a data set, and the number of steps that fit in a time: what is measured on this machine.

`poise.recipe.choose` has the rules.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from poise.data.facts import image_facts
from poise.data.lookup import data_config, data_table, table_config
from poise.errors import DataError, RecipeError
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.choose import DEFAULT_SECONDS, Choice, Limits, choose
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.toml import Table
from poise.training.step_time import StepTime, step_seconds_at, time_recipe
from poise.utils.durations import duration_text, parse_duration

TRAINING_SHARE = 0.9
"""The part of a training time that is left for steps; the rest is for sample grids, measures and checkpoints."""

EVALUATIONS = 8
"""How often a run of a given time is measured."""


class ChosenRecipe(NamedTuple):
    """A recipe that was chosen for a data set.

    Attributes:
        recipe: the recipe.
        reasons: sentences that say what was chosen and why.
    """

    recipe: Recipe
    reasons: list[str]


def choose_recipe(
    data: str | Path,
    *,
    time: str | float | None = None,
    steps: int | None = None,
    size: int | None = None,
    batch: int | None = None,
    mirror: bool = False,
    device: str = "auto",
    precision: str = "auto",
    data_root: str | Path | None = None,
) -> ChosenRecipe:
    """The recipe that `poise train --data DATA` trains, for scripts and notebooks.

    Fewer than 1,000 headers of the images are read. A larger size than 32 x 32 is chosen only if a few steps of it on
    noise are fast enough, and unless `steps` is given, the data is loaded and a few steps are timed.

    Args:
        data: a folder, .zip or .npz of images, or the name of a data set.
        time: the training time, in seconds or as text such as "30m" or "1h30m". The default is an hour.
        steps: the number of steps, instead of a time.
        size: the side of the images in pixels.
        batch: the batch size.
        mirror: whether half of the real images are flipped left to right.
        device: the device that the recipe will be trained on: "auto", "cpu", "cuda", "cuda:1".
        precision: "auto", "fp32" or "bf16".
        data_root: the folder that is searched for data sets given by name.

    Returns:
        The recipe and the reasons, as in `recipe, reasons = poise.choose_recipe("images", time="30m")`.

    Raises:
        DataError: there is no such data, it can't be read, or it is not images of a known size.
        RecipeError: a value is invalid, or the recipe can't be trained.
    """
    if time is not None and steps is not None:
        raise RecipeError("can't be combined with steps", where="time", cure="leave one of them out")
    seconds = None if time is None else training_seconds(time, "time")
    root = None if data_root is None else Path(data_root)
    choice = default_choice(str(data), Limits(seconds, size, batch), device=device, precision=precision, option="data")
    if choice is None:
        data_config(str(data), option="data").load(root)  # raises an error that says why, if it can't be read
        cure = "give images, or train a recipe by name, such as dcgan for images or ring for points"
        raise DataError("no recipe can be chosen for this data", where="data", found=f"'{data}'", cure=cure)
    if mirror:
        choice.table["data"]["mirror"] = True
    if steps is not None:
        return ChosenRecipe(decode(choice.table | {"steps": steps}), choice.reasons)
    recipe, reason = train_for(
        decode(choice.table), seconds or DEFAULT_SECONDS, device=device, precision=precision, data_root=root
    )
    return ChosenRecipe(recipe, [*choice.reasons, reason])


def training_seconds(time: str | float, option: str) -> float:
    """A training time in seconds.

    Args:
        time: a number of seconds, or text such as 90s, 30m, 2h or 1h30m.
        option: what an error names.

    Raises:
        RecipeError: it is no duration, or not positive.
    """
    seconds = parse_duration(time) if isinstance(time, str) else float(time)
    if seconds is None or not 0 < seconds < float("inf"):
        raise RecipeError("not a duration", where=option, found=f"'{time}'", cure="write 90s, 30m, 2h or 1h30m")
    return seconds


def default_choice(data: str, limits: Limits, *, device: str, precision: str, option: str = "--data") -> Choice | None:
    """The default recipe for a data set, without a number of steps; None if nothing is known of the images.

    Args:
        data: the name of a data set, or a path.
        limits: what the user has decided.
        device: the device that steps are timed on.
        precision: their precision.
        option: what an error about `data` names.

    Raises:
        DataError: there is no such data.
        RecipeError: the device is not available, or the networks do not fit the size that the user has decided.
    """
    table = data_table(data, option=option)
    facts = image_facts(table_config(table))
    if facts is None:
        return None

    def parts_of(candidate: Table) -> tuple[int, ...]:
        both = candidate["data"].get("channels")
        return (both, both) if both and facts.parts else facts.parts

    def images_per_second(candidate: Table) -> float:
        recipe, size, parts = decode(candidate), int(candidate["data"]["size"]), parts_of(candidate)
        shape = (size, size, sum(parts) or (1 if facts.grey else 3))
        seconds = step_seconds_at(recipe, shape, parts, device=device, precision=precision)
        return recipe.batch / seconds

    choice = choose(facts, table, limits, images_per_second)
    parts, size = parts_of(choice.table), int(choice.table["data"]["size"])
    shape = (sum(parts) or (1 if facts.grey else 3), size, size)
    check_compatibility(decode(choice.table), shape, parts=parts).raise_first()
    return choice


def steps_within(seconds: float, step_time: StepTime) -> int:
    """The number of steps of a run that takes `seconds` with its evaluations."""
    return step_time.steps_within(TRAINING_SHARE * seconds)


def train_for(
    recipe: Recipe,
    seconds: float,
    *,
    data_root: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    accumulate: int = 1,
    trust_code: bool = False,
    given: Collection[str] = (),
) -> tuple[Recipe, str]:
    """The recipe with the steps that fit in a training time, and a sentence about them.

    The intervals of sample grids, checkpoints and measures become an eighth of the run, unless they are `given`.

    Args:
        recipe: the recipe.
        seconds: the training time.
        data_root: the folder that is searched for data sets given by name.
        device: the device that steps are timed on.
        precision: their precision.
        accumulate: the number of parts of a batch that are computed one after another.
        trust_code: whether Python files that the recipe names may be run.
        given: the fields that the user has set, such as "log.saves".

    Raises:
        PoiseError: the recipe can't be trained.
    """
    on = {"device": device, "precision": precision, "accumulate": accumulate}
    step = time_recipe(recipe, data_root=data_root, trust_code=trust_code, **on)
    steps = steps_within(seconds, step)
    sentence = f"{steps:,} steps of {1000 * step.seconds:,.0f} ms, about {duration_text(seconds)}"
    return train_for_steps(recipe, steps, given), sentence


def train_for_steps(recipe: Recipe, steps: int, given: Collection[str] = ()) -> Recipe:
    """The recipe with a number of steps, of which the intervals of grids, checkpoints and measures are an eighth.

    Args:
        recipe: the recipe.
        steps: the number of steps.
        given: the fields whose values are kept, such as "log.saves", or all of a table, such as "log".
    """
    table = recipe.canonical() | {"steps": steps}
    every = max(1, round(steps / EVALUATIONS))
    for key, name in (("log", "samples"), ("log", "saves"), ("measure", "every")):
        if key in table and not {key, f"{key}.{name}"} & set(given):
            table[key] |= {name: every}
    return decode(table)
