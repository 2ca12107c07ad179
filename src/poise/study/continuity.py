"""What a study that is continued keeps: the recipes of its bases and the names of its runs.

A plan names shipped recipes, and these change with poise, as do the defaults of fields and with both the hashes of
recipes. `study.json` therefore has the recipe of each base as the study began it, and the name of each run, which is
the hash that its recipe had then. Neither depends on where the data lies: its content is checked by `origin.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from poise.errors import RecipeError, errors_in
from poise.recipe.decode import decode
from poise.recipe.model import DATA_LOCATION, Recipe
from poise.recipe.shipped import load_recipe
from poise.recipe.toml import Table, set_value
from poise.study.plan import BasePlan, Plan
from poise.study.records import Arm, Study, StudyBase

PLACE = tuple(field.removeprefix("data.") for field in DATA_LOCATION if field != "data.kind")
"""The fields of `data` that say where the data is and how it is read, but not what it contains."""

SET_BY_PLAN = ("name", "about", "seed")
"""The fields of a recipe file that a plan replaces, whatever they are."""


def load_base(base: BasePlan, folder: Path) -> Table:
    """The recipe of a base, before the changes of the plan.

    Args:
        base: the base.
        folder: the folder of the plan, in which a recipe file is looked for.

    Raises:
        RecipeError: there is no such recipe.
    """
    return load_recipe(str(folder / base.recipe) if base.recipe.endswith(".toml") else base.recipe, "recipe")


def definition_of(base: BasePlan, data: Table | None, folder: Path) -> str:
    """What a plan says of a base, as a hash: its recipe, its changes and its data, without the place of the data.

    A shipped recipe counts by its name and a file by its content, so the hash is the same in all versions of poise.

    Args:
        base: the base.
        data: its table `data` in the plan, if the plan has data sets.
        folder: the folder of the plan.

    Raises:
        RecipeError: there is no such recipe.
    """
    own: Any = base.recipe
    if base.recipe.endswith(".toml"):
        own = {key: value for key, value in load_base(base, folder).items() if key not in SET_BY_PLAN}
    said = [_placeless(own), list(map(_placeless_change, base.set)), _placeless({"data": data})]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:16]


def same_base(before: Study | None, label: str, definition: str) -> StudyBase | None:
    """The base of a study that was begun; None if it has none of this name, or the plan says something else of it now.

    Args:
        before: the study as it was last started; None if it is new.
        label: the name of the base.
        definition: what the plan says of it now, see `definition_of`.
    """
    bases = before.bases if before is not None else ()
    return next((base for base in bases if base.name == label and base.recipe and base.definition == definition), None)


def kept_recipe(now: Recipe, began: StudyBase, where: str) -> Recipe | None:
    """The recipe with which a base began, if this version of poise makes another one of the same plan.

    Args:
        now: the recipe that this version of poise makes of the plan.
        began: the base in `study.json`.
        where: the name of the base, for errors.

    Returns:
        The recipe with the data at its present place, and with the fields that the plan sets as they are in `now`; None
        if it is the same as `now`, apart from what is logged.

    Raises:
        RecipeError: it is not a valid recipe any more.
    """
    table, present = _placeless(began.recipe), now.canonical()
    table |= {key: present[key] for key in SET_BY_PLAN}
    table["data"] |= {key: value for key, value in present["data"].items() if key in PLACE}
    table["measure"] = table["measure"] | {key: present["measure"][key] for key in ("measures", "every")}
    with errors_in(f"{where}, as the study began"):
        kept = decode(table)
    return kept if _without_log(kept) != _without_log(now) else None


def recorded_arms(plan: Plan, measures: Iterable[str], began: StudyBase | None, before: Study | None) -> list[Arm]:
    """The arms of a base whose results a study has recorded; none if its runs were measured in another way.

    Args:
        plan: the plan.
        measures: what the runs of the base are measured by.
        began: the base in `study.json`, if the study keeps it.
        before: the study as it was last started.
    """
    if before is None or began is None or before.evaluations != plan.evaluations:
        return []
    alike = {measure.name for measure in began.measures} == set(measures)
    return [arm for arm in before.arms if arm.base == began.name] if alike else []


def recorded_runs(arm: Arm | None, changes: Sequence[str], steps: int, images: int) -> Mapping[str, str]:
    """The recorded run of each seed of an arm; none if the arm was another one.

    Args:
        arm: the recorded arm of the same name on the same base.
        changes: the changes of the arm to its base.
        steps: its steps.
        images: the real images that D sees in them.
    """
    if arm is None or (arm.steps, arm.images) != (steps, images):
        return {}
    same = list(map(_placeless_change, arm.changes)) == list(map(_placeless_change, changes))
    return arm.runs if same else {}


def timing_key(definition: str, changes: Sequence[str]) -> str:
    """The name of the time of an arm in `timing.json`, which is the same in all versions of poise."""
    return f"{definition} {json.dumps(list(map(_placeless_change, changes)), default=str)}"


def _placeless_change(change: str) -> Any:
    """A change as a table without the place of the data, if it is one of the data; otherwise as it is."""
    alone: Table = {}
    with suppress(RecipeError):  # it changes an item of a list
        set_value(alone, change)
    return _placeless(alone) if list(alone) == ["data"] else change


def _placeless(table: Any) -> Any:
    """A recipe's table without the place of its data."""
    if not isinstance(table, dict) or not isinstance(table.get("data"), dict):
        return table
    return table | {"data": {key: value for key, value in table["data"].items() if key not in PLACE}}


def _without_log(recipe: Recipe) -> Table:
    """The fields on which results depend: all but those of the log and the place of the data."""
    return _placeless({key: value for key, value in recipe.canonical().items() if key != "log"})
