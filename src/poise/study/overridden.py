"""The fields of recipes that a plan sets for all of its runs, and which its changes therefore can't set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from poise.errors import RecipeError
from poise.recipe.toml import Table, set_value
from poise.study.plan import Plan

OVERRIDDEN = {
    "name": "",
    "about": "",
    "seed": "seeds",
    "measure.measures": "measures",
    "measure.every": "evaluations",
    "log.samples": "",
    "log.saves": "",
    "log.frames": "",
}
"""The fields that a plan sets in all recipes, and the key of the plan that does so, if there is one."""


def refuse_overridden(change: str, plan: Plan, *, of_arm: bool = False) -> None:
    """Refuse a change of a base or an arm to a field that the plan sets for all arms, because it would have no effect.

    An arm can't change how it is measured at all, as its results would not be comparable with those of the base.

    Args:
        change: the change, as with `poise train --set`.
        plan: the plan.
        of_arm: whether it is that of an arm.

    Raises:
        RecipeError: it is one; names the key of the plan that sets the field.
    """
    where = f"set: {change}"
    for field in _assigned_fields(change):
        if field == "steps" and plan.budget is not None:
            cure = "use 'budget_factor' for this arm" if of_arm else "remove the change, or the plan's budget"
            raise RecipeError("the budget sets the steps", where=where, cure=cure)
        if field in OVERRIDDEN:
            cure = f"set it by '{OVERRIDDEN[field]}' of the plan" if OVERRIDDEN[field] else "remove the change"
            raise RecipeError(
                "the plan sets this field for all arms", where=where, found=_unless_in(field, change), cure=cure
            )
        if of_arm and field.split(".")[0] == "measure":
            cure = "change it in the base, for all its arms"
            raise RecipeError(
                "the arms of a base are measured alike", where=where, found=_unless_in(field, change), cure=cure
            )
        if not of_arm and plan.data and field.split(".")[0] == "data":
            cure = "change it in [data.NAME], or in an arm"
            raise RecipeError("the plan's data sets replace the data of all bases", where=where, cure=cure)


def _unless_in(field: str, change: str) -> str:
    """The field, for the message; empty if the change begins with it, and does not assign a whole table."""
    return "" if change.strip().startswith(field) else f"'{field}'"


def _assigned_fields(change: str) -> list[str]:
    """The dotted names of the fields that a change assigns; of those in a table, if it assigns a whole table."""
    alone: Table = {}
    with suppress(RecipeError):  # it changes an item of a list, which none of the fields of interest is
        set_value(alone, change)
    return list(_names(alone, "")) or [change.partition("=")[0].strip().removesuffix("+").strip()]


def _names(table: Table, prefix: str) -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from _names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
