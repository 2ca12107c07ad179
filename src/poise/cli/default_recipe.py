"""The recipe of `poise train --data DIR` without a recipe, and the number of steps for `--time`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from poise.recipe.toml import Table
from poise.utils.durations import duration_text, parse_duration

if TYPE_CHECKING:
    from poise.recipe.choose import Choice, Limits
    from poise.recipe.model import Recipe

TRAINING_SHARE = 0.9
"""The part of `--time` that is left for steps; the rest is for sample grids, measures and checkpoints."""

EVALUATIONS = 8
"""How often a run of a given time is measured."""


def check_time(text: str | None) -> float | None:
    """The seconds that `--time` states; None if it is not given.

    Raises:
        RecipeError: the text is not a duration.
    """
    from poise.errors import RecipeError

    seconds = None if text is None else parse_duration(text)
    if text is not None and seconds is None:
        raise RecipeError("not a duration", where="--time", found=f"'{text}'", cure="write 90s, 30m, 2h or 1h30m")
    return seconds


def choose_recipe(data: str, limits: Limits, *, device: str, precision: str) -> Choice | None:
    """The default recipe for the value of `--data`; None for data that the default recipe is not chosen for.

    Raises:
        DataError: there is no such data.
        RecipeError: the device is not available.
    """
    from poise.data.facts import image_facts
    from poise.data.lookup import data_table, table_config
    from poise.recipe.choose import choose
    from poise.recipe.decode import decode
    from poise.training.step_time import step_seconds_at

    table = data_table(data, None)
    facts = image_facts(table_config(table))
    if facts is None:
        return None
    channels = 1 if facts.grey else 3

    def images_per_second(candidate: Table) -> float:
        recipe, size = decode(candidate), int(candidate["data"]["size"])
        return recipe.batch / step_seconds_at(recipe, (size, size, channels), device=device, precision=precision)

    return choose(facts, table, limits, images_per_second)


def set_size(table: Table, size: int) -> None:
    """Set `data.size`.

    Raises:
        RecipeError: the data of the recipe is not images.
    """
    from poise.core.config import find_components
    from poise.data.source import DataConfig, ImageDataConfig
    from poise.errors import RecipeError

    data = table.get("data", {})
    kind = find_components(DataConfig, "poise.data").get(str(data.get("kind")))
    if kind is not None and not issubclass(kind, ImageDataConfig):
        raise RecipeError("the data is points, not images", where="--size", found=f"data.kind {data['kind']}")
    table["data"] = data | {"size": size}


def steps_within(seconds: float, step_seconds: float) -> int:
    """The number of steps of a run that takes `seconds` with its evaluations."""
    return max(1, round(TRAINING_SHARE * seconds / step_seconds))


def train_for(recipe: Recipe, seconds: float, **options: Any) -> tuple[Recipe, str]:
    """The recipe with the steps that a training time allows, and a sentence about them.

    The intervals of sample grids, checkpoints and measures become an eighth of the run.

    Args:
        recipe: the recipe.
        seconds: the training time.
        options: those of `recipe_step_seconds`.

    Raises:
        PoiseError: the recipe can't be trained.
    """
    from poise.recipe.decode import decode
    from poise.training.step_time import recipe_step_seconds

    step = recipe_step_seconds(recipe, **options)
    steps = steps_within(seconds, step)
    table = recipe.canonical() | {"steps": steps}
    every = max(1, round(steps / EVALUATIONS))
    table["log"] |= {"samples": every, "saves": every}
    if "measure" in table:
        table["measure"] |= {"every": every}
    milliseconds = f"{1000 * step:,.0f} ms"
    return decode(
        table
    ), f"{steps:,} steps of {milliseconds}, about {duration_text(seconds)}; --time or --steps change it"


def sets_steps(changes: Sequence[str] | None) -> bool:
    """Whether `--set` states the number of steps."""
    return any(change.partition("=")[0].strip() == "steps" for change in changes or [])
