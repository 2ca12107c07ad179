"""What a run on several ranks requires of its recipe, and what its user must know."""

from __future__ import annotations

from poise.core.ranks import Ranks
from poise.errors import RecipeError
from poise.recipe.model import Recipe
from poise.utils.printing import count_noun


def check_ranks(recipe: Recipe, ranks: Ranks) -> None:
    """Refuse a batch that can't be divided among the ranks.

    Raises:
        RecipeError: the batch, or a rank's part of it in packs, is not a multiple.
    """
    multiple = ranks.size * recipe.pack
    if recipe.batch % multiple:
        packs = f" in packs of {recipe.pack}" if recipe.pack > 1 else ""
        cure = f"set it to {max(1, round(recipe.batch / multiple)) * multiple}"
        what = f"must be a multiple of {multiple} on {ranks.size} ranks{packs}"
        raise RecipeError(what, where="batch", found=str(recipe.batch), cure=cure)


def of_one_rank(recipe: Recipe, ranks: Ranks) -> Recipe:
    """The recipe with the batch that one rank has."""
    return recipe.model_copy(update={"batch": recipe.batch // ranks.size})


def ranks_note(recipe: Recipe, ranks: Ranks) -> list[str]:
    """A sentence about how the batch is divided; none for a single rank."""
    if ranks.size == 1:
        return []
    part = count_noun(recipe.batch // ranks.size, "sample")
    return [f"{ranks.size} ranks, each with {part} of a batch; statistics such as those of batch norm are over these"]
