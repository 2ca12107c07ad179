"""The recipes of the package: their names, contents and descriptions. Does not import torch."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from poise.core.config import did_you_mean
from poise.errors import RecipeError
from poise.recipe.toml import Table, parse_toml, read_file
from poise.retired import attribute_of

DEFAULT = "dcgan"


class ShippedRecipe(NamedTuple):
    """A shipped recipe.

    Attributes:
        name: its name.
        about: its description, one line.
        data: the kind of its data.
    """

    name: str
    about: str
    data: str


def recipe_names() -> list[str]:
    """The names of all shipped recipes, sorted."""
    return sorted(file.name[:-5] for file in files("poise.recipes").iterdir() if file.name.endswith(".toml"))


def load_table(name: str) -> Table:
    """A shipped recipe as a table."""
    file = f"{name}.toml"
    return parse_toml((files("poise.recipes") / file).read_text("utf-8"), file)


def list_recipes() -> list[ShippedRecipe]:
    """All shipped recipes with their descriptions, sorted by name."""
    tables = [load_table(name) for name in recipe_names()]
    return [ShippedRecipe(t["name"], t["about"], t["data"]["kind"]) for t in tables]


def load_recipe(recipe: str, where: str = "RECIPE") -> Table:
    """The shipped recipe named `recipe`, or the recipe in the file with that path, which ends in `.toml`.

    Args:
        recipe: the name or the path.
        where: the argument or the key that names it, for messages.

    Raises:
        RecipeError: there is no such recipe or file; suggests the nearest shipped one.
    """
    if recipe.endswith(".toml"):
        return read_file(Path(recipe))
    if recipe in recipe_names():
        return load_table(recipe)
    if (own := Path(recipe) / "recipe.toml").is_file():
        raise RecipeError("a run folder is not a recipe", where=where, found=f"'{recipe}'", cure=f"its recipe is {own}")
    cure = did_you_mean(recipe, recipe_names())
    raise RecipeError(
        "no shipped recipe of that name",
        where=where,
        found=f"'{recipe}'",
        cure=f"{cure} (or give the path of a .toml file)",
    )


__getattr__ = attribute_of(__name__)
