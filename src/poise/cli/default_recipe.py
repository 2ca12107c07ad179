"""The choice of a recipe for `--data`, and the options `--time` and `--size` of `poise train` and `poise check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from poise.recipe.toml import Table

if TYPE_CHECKING:
    from poise.recipe.choose import Choice, Limits


def choose_for(
    data: str, limits: Limits, changes: Sequence[str] | None, *, device: str, precision: str
) -> tuple[Choice, list[str]]:
    """The default recipe for `--data`, as `--size` and the part of `--set` that changes the data let it be read.

    Args:
        data: the value of `--data`.
        limits: the values of `--time`, `--size` and `--batch`.
        changes: the values of `--set`.
        device: the device that steps are timed on.
        precision: their precision.

    Returns:
        The choice, and those of `changes` that remain to be applied to its table.

    Raises:
        DataError: there is no such data.
        RecipeError: a change is invalid, or see `training.default_recipe.default_choice`.
    """
    from poise.cli.recipe_arguments import apply_changes
    from poise.training.default_recipe import default_choice

    of_data, others = of_the_data(changes)
    table = apply_changes({}, data, {}, None)
    if limits.size is not None:
        set_size(table, limits.size)
    table = apply_changes(table, None, {}, of_data)
    choice = default_choice(table.get("data", {}), limits, device=device, precision=precision)
    reasons = [f"the data is read with {', '.join(of_data)}"] if of_data else []
    reasons += [f"changed afterwards: {', '.join(others)}"] if others else []
    return choice._replace(reasons=[*choice.reasons, *reasons]), others


def of_the_data(changes: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The values of `--set` that change the table `data`, and the others."""
    of_data = [change for change in changes or [] if change.split("=")[0].split(".")[0].strip("+ ") == "data"]
    return of_data, [change for change in changes or [] if change not in of_data]


def check_time(text: str | None) -> float | None:
    """The seconds that `--time` states; None if it is not given.

    Raises:
        RecipeError: the text is not a duration.
    """
    from poise.training.default_recipe import training_seconds

    return None if text is None else training_seconds(text, "--time")


def set_size(table: Table, size: int | tuple[int, int]) -> None:
    """Set `data.size`.

    Raises:
        RecipeError: the data of the recipe is not images.
    """
    from poise.core.config import find_components
    from poise.data.config import DataConfig, ImageDataConfig
    from poise.errors import RecipeError

    data = table.get("data", {})
    kind = find_components(DataConfig, "poise.data").get(str(data.get("kind")))
    if kind is not None and not issubclass(kind, ImageDataConfig):
        raise RecipeError("the data is points, not images", where="--size", found=f"data.kind {data['kind']}")
    table["data"] = data | {"size": size}


def changed_fields(changes: Sequence[str] | None) -> set[str]:
    """The fields that `--set` changes, such as "log.saves"."""
    return {change.partition("=")[0].strip() for change in changes or []}


def sets_steps(changes: Sequence[str] | None) -> bool:
    """Whether `--set` states the number of steps."""
    return "steps" in changed_fields(changes)
