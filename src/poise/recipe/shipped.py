"""The recipes that come with the package: their names, and one line about each. No torch."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from poise.entries import nearest
from poise.errors import RecipeError
from poise.recipe.text import Table, parse, read_file

DEFAULT = "dcgan"


class Shipped(NamedTuple):
    """One shipped recipe."""

    name: str
    about: str
    data: str


def names() -> list[str]:
    """All names, sorted."""
    return sorted(file.name[:-5] for file in files("poise.recipes").iterdir() if file.name.endswith(".toml"))


def table(name: str) -> Table:
    """A shipped recipe as a dictionary."""
    file = f"{name}.toml"
    return parse((files("poise.recipes") / file).read_text("utf-8"), file)


def shelf() -> list[Shipped]:
    """One line for each."""
    tables = [table(name) for name in names()]
    return [Shipped(t["name"], t["about"], t["data"]["kind"]) for t in tables]


def find(recipe: str) -> Table:
    """The recipe called `recipe`, or the one in the file of that path.

    Raises:
        RecipeError: neither is there; names the nearest shipped one.
    """
    if recipe.endswith(".toml"):
        return read_file(Path(recipe))
    if recipe in names():
        return table(recipe)
    cure = nearest(recipe, names())
    raise RecipeError(
        "no shipped recipe of that name",
        where="RECIPE",
        found=f"'{recipe}'",
        cure=f"{cure} (or give a .toml file)",
    )
