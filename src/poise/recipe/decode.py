"""Validates a dictionary into a recipe, with errors that name the path, what was found and how to fix it."""

from __future__ import annotations

from poise.core.validation import validate
from poise.recipe.model import Recipe
from poise.recipe.toml import Table


def decode(table: Table, where: str = "") -> Recipe:
    """The recipe that a table describes.

    Args:
        table: the contents of a TOML file.
        where: the file or name that it came from, for the message.

    Raises:
        RecipeError: the table is not a valid recipe; describes the first error in one line.
    """
    return validate(Recipe, table, where)
