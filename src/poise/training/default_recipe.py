"""The default recipe for a data set, and the number of steps that fit in a time: what is measured on this machine.

`poise.recipe.choose` has the rules.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from poise.data.config import DataConfig, ImageDataConfig, PointsConfig, ToyConfig
from poise.data.density import DensityConfig
from poise.data.facts import ImageFacts, image_facts
from poise.data.listing import display_name
from poise.data.lookup import check_type, data_table, table_config
from poise.data.two_domains import TwoDomainsConfig
from poise.errors import RecipeError
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.choose import DEFAULT_SECONDS, Choice, Limits, choose, choose_without_facts, made_for
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.toml import Table
from poise.training.step_time import StepTime, step_seconds_at, time_recipe
from poise.utils.durations import duration_text, parse_duration

TRAINING_SHARE = 0.9
"""The part of a training time that is left for steps; the rest is for sample grids, measures and checkpoints."""

GREY_WITH_ALPHA = 2
"""The number of channels up to which images are greyscale."""

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
    **options: Any,
) -> ChosenRecipe:
    """The recipe that `poise train --data DATA` trains, for scripts and notebooks.

    Fewer than 1,000 headers of the images are read. A larger size than 32 x 32 is chosen only if a few steps of it on
    noise are fast enough, and unless `steps` is given, the data is loaded and a few steps are timed. If a shipped
    recipe is made for the data, such as `ring` for points on a ring, it is the choice, with its own number of steps
    unless `time` or `steps` is given.

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
        options: other keys of the recipe's table `data`, such as `follow_links=True` or `image="left"`. The choice is
            made for the images that they lead to.

    Returns:
        The recipe and the reasons, as in `recipe, reasons = poise.choose_recipe("images", time="30m")`.

    Raises:
        DataError: there is no such data, or it can't be read.
        RecipeError: a value or an option is invalid, no recipe is made for these points, or the recipe can't be
            trained.
    """
    if time is not None and steps is not None:
        raise RecipeError("can't be combined with steps", where="time", cure="leave one of them out")
    seconds = None if time is None else training_seconds(time, "time")
    check_type(data, tables=False)
    root = None if data_root is None else Path(data_root)
    table = data_table(str(data), option="data") | ({"mirror": True} if mirror else {}) | options
    if size is not None:
        table["size"] = size
    choice = default_choice(table, Limits(seconds, batch=batch), device=device, precision=precision)
    if not choice.timed:
        table_config(table).load(root)  # raises an error that says why, if it can't be read
        choice.table["batch"] = batch or choice.table["batch"]
    if steps is not None:
        return ChosenRecipe(decode(choice.table | {"steps": steps}), choice.reasons)
    if not choice.timed and seconds is None:
        return ChosenRecipe(decode(choice.table), choice.reasons)
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


def default_choice(data: Table, limits: Limits, *, device: str, precision: str) -> Choice:
    """The default recipe for a data set.

    Args:
        data: the table `data` of the recipe, with everything that changes which images are read and how. Its size, if
            it has one, takes the place of that of `limits`.
        limits: what the user has decided.
        device: the device that steps are timed on.
        precision: their precision.

    Raises:
        RecipeError: a key or a value of the table is invalid, the device is not available, the networks do not fit the
            size that the user has decided, or the data is points for which no recipe is made.
    """
    config = table_config(data)
    facts = image_facts(config)
    if facts is None:
        if isinstance(config, PointsConfig) and made_for(str(config.tag())) is None:
            raise _no_recipe_for(config)
        return choose_without_facts(data)
    known = _as_read(facts, config)
    if "size" in data and isinstance(config, ImageDataConfig):
        limits = limits._replace(size=config.size)

    def shape_of(recipe: Recipe) -> tuple[tuple[int, int, int], tuple[int, ...]]:
        """Height, width and channels of the samples of a recipe, and the channels of each domain."""
        assert isinstance(recipe.data, ImageDataConfig)
        parts = known.parts
        if parts and isinstance(recipe.data, TwoDomainsConfig):
            parts = tuple(recipe.data.domain_channels(k) or count for k, count in enumerate(parts))
        channels = getattr(recipe.data, "channels", None) or (1 if known.grey else 3)
        return (*recipe.data.height_width, sum(parts) or channels), parts

    def images_per_second(candidate: Table) -> float:
        recipe = decode(candidate)
        shape, parts = shape_of(recipe)
        return recipe.batch / step_seconds_at(recipe, shape, parts, device=device, precision=precision)

    choice = choose(known, data, limits, images_per_second)
    recipe = decode(choice.table)
    (height, width, channels), parts = shape_of(recipe)
    check_compatibility(recipe, (channels, height, width), parts=parts).raise_first()
    return choice


def _as_read(facts: ImageFacts, config: DataConfig) -> ImageFacts:
    """The facts about ordinary images with the number of channels that the data is read with, if it is set."""
    channels = None if facts.parts else getattr(config, "channels", None)
    return facts if channels is None else facts._replace(grey=channels <= GREY_WITH_ALPHA)


def _no_recipe_for(config: PointsConfig) -> RecipeError:
    """The error that data is points for which no shipped recipe is made."""
    if isinstance(config, DensityConfig):
        found, given = f"{display_name(config.path)}, which is read as a density of points", shlex.quote(config.path)
        cure = f"to train on images, give a folder of them; to train on points, poise train ring --data {given}"
    else:
        found, cure = f"points of kind '{config.tag()}'", "name a recipe for vectors, such as align"
        if isinstance(config, ToyConfig):
            cure = f"poise train ring --data {config.tag()}"
    return RecipeError("a recipe is chosen for images only", where="data", found=found, cure=cure)


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
