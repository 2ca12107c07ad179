"""The options `--time` and `--size` of `poise train`."""

from __future__ import annotations

from collections.abc import Sequence

from poise.recipe.toml import Table


def check_time(text: str | None) -> float | None:
    """The seconds that `--time` states; None if it is not given.

    Raises:
        RecipeError: the text is not a duration.
    """
    from poise.training.default_recipe import training_seconds

    return None if text is None else training_seconds(text, "--time")


def set_size(table: Table, size: int) -> None:
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


def describe_changes(changes: Sequence[str] | None) -> list[str]:
    """A sentence on the changes that follow the choice of a recipe, whose reasons do not know them; none without."""
    return [f"changed afterwards: {', '.join(changes)}"] if changes else []
