"""The recipes that come with the package: their names, and one line about each. No torch."""

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
    """One shipped recipe."""

    name: str
    about: str
    data: str


def recipe_names() -> list[str]:
    """All names, sorted."""
    return sorted(file.name[:-5] for file in files("poise.recipes").iterdir() if file.name.endswith(".toml"))


def load_table(name: str) -> Table:
    """A shipped recipe as a dictionary."""
    file = f"{name}.toml"
    return parse_toml((files("poise.recipes") / file).read_text("utf-8"), file)


def list_recipes() -> list[ShippedRecipe]:
    """One line for each."""
    tables = [load_table(name) for name in recipe_names()]
    return [ShippedRecipe(t["name"], t["about"], t["data"]["kind"]) for t in tables]


def load_recipe(recipe: str) -> Table:
    """The recipe called `recipe`, or the one in the file of that path.

    Raises:
        RecipeError: neither is there; names the nearest shipped one.
    """
    if recipe.endswith(".toml"):
        return read_file(Path(recipe))
    if recipe in recipe_names():
        return load_table(recipe)
    cure = did_you_mean(recipe, recipe_names())
    raise RecipeError(
        "no shipped recipe of that name",
        where="RECIPE",
        found=f"'{recipe}'",
        cure=f"{cure} (or give a .toml file)",
    )


__getattr__ = attribute_of(__name__)
