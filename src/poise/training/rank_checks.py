"""What a run whose batches are divided requires of its recipe, and what its user must know."""

from __future__ import annotations

from poise.core.ranks import Ranks
from poise.errors import RecipeError
from poise.recipe.model import Recipe
from poise.utils.printing import count_noun
from poise.watch.monitor import MonitorConfig


def check_division(recipe: Recipe, ranks: Ranks, accumulate: int, *, resume: bool = False) -> None:
    """Refuse a batch that can't be divided among the ranks, and on each of them into parts.

    Args:
        recipe: the recipe.
        ranks: the processes that train the run together.
        accumulate: the number of parts of a batch on each of them.
        resume: whether the run is resumed, so that its batch can't be changed.

    Raises:
        RecipeError: a part of the batch, in packs, would not be whole.
    """
    multiple = ranks.size * accumulate * recipe.pack
    if recipe.batch % multiple:
        reasons = [f"on {ranks.size} ranks"] if ranks.size > 1 else []
        reasons += [f"with --accumulate {accumulate}"] if accumulate > 1 else []
        reasons += [f"in packs of {recipe.pack}"] if recipe.pack > 1 else []
        whole, rest = divmod(recipe.batch, ranks.size * recipe.pack)
        cures = [f"choose --accumulate {_nearest_divisor(whole, accumulate)}"] if accumulate > 1 and not rest else []
        if not resume:
            cures.append(f"set it to {max(1, round(recipe.batch / multiple)) * multiple}")
        elif rest:
            size = _nearest_divisor(recipe.batch // recipe.pack, ranks.size)
            cures.append(f"a resumed run keeps its batch: start it on {count_noun(size, 'rank')}")
        what = f"must be a multiple of {multiple} {' '.join(reasons)}"
        raise RecipeError(what, where="batch", found=str(recipe.batch), cure=", or ".join(cures))


def _nearest_divisor(whole: int, number: int) -> int:
    """The divisor of `whole` that is nearest to `number`."""
    return min((one for one in range(1, whole + 1) if whole % one == 0), key=lambda one: abs(one - number))


def check_advise(recipe: Recipe, ranks: Ranks) -> None:
    """Refuse the policy `advise` on several ranks, as only rank 0 would know of the recipe that it changes.

    Raises:
        RecipeError: a detector has this policy.
    """
    names = [name for name, policy in (recipe.monitor or MonitorConfig()).policy.items() if policy == "advise"]
    if names and ranks.size > 1:
        cure = "use 'roll_back', or train on one rank"
        what = f"the recipe of a run on {ranks.size} ranks can't be changed while it trains"
        raise RecipeError(what, where=f"monitor.policy.{names[0]}", found="'advise'", cure=cure)


def of_one_part(recipe: Recipe, ranks: Ranks, accumulate: int) -> Recipe:
    """The recipe with the batch that one rank computes at once."""
    return recipe.model_copy(update={"batch": recipe.batch // (ranks.size * accumulate)})


def division_note(recipe: Recipe, ranks: Ranks, accumulate: int) -> list[str]:
    """A sentence about how the batch is divided; none if it is not."""
    if ranks.size * accumulate == 1:
        return []
    part = count_noun(recipe.batch // (ranks.size * accumulate), "sample")
    divided = []
    if ranks.size > 1:
        divided.append(f"{ranks.size} ranks")
    if accumulate > 1:
        divided.append(f"{accumulate} parts one after another")
    among = " and, on each of them, ".join(divided)
    local = "statistics such as those of batch norm are over these"
    if recipe.sync_batch_norm and ranks.size > 1:
        local = "statistics are over these, but those of batch norm over all ranks"
    return [f"a batch is divided among {among}, {part} each; {local}"]
