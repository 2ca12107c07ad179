"""Expands a plan into recipes and comparisons. Pure functions: the same plan gives the same recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

from poise.errors import RecipeError
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_recipe
from poise.recipe.toml import Table, set_value
from poise.study.components import changed_components
from poise.study.drafts import Draft, Versus, draft_arms
from poise.study.plan import BASE, BasePlan, Plan
from poise.study.records import Arm, Comparison, Study, StudyBase
from poise.utils.printing import count_noun

StepsFor = Callable[[Recipe], int]
"""The number of steps of a recipe within the budget of the plan."""


class Expansion(NamedTuple):
    """A plan in expanded form.

    Attributes:
        study: the content of `study.json`.
        recipes: the recipe of each run by its hash, in the order of training: all arms with the first seed come first,
            so that a study that is stopped early has complete seeds.
        notes: messages about arms that were dropped.
    """

    study: Study
    recipes: dict[str, Recipe]
    notes: list[str]


def expand(plan: Plan, folder: Path, steps_for: StepsFor | None = None) -> Expansion:
    """The runs and comparisons of a plan.

    Args:
        plan: the plan.
        folder: the folder of its file, in which recipe files are looked for.
        steps_for: the steps of a recipe within the budget; by default those of `steps_within_images`.

    Raises:
        RecipeError: an arm is not a valid recipe, or the plan has more runs than its limit; names the arm.
    """
    steps_for = steps_for or (lambda recipe: steps_within_images(recipe, plan))
    bases: list[StudyBase] = []
    arms: list[Arm] = []
    comparisons: list[Comparison] = []
    recipes: dict[str, Recipe] = {}
    notes: list[str] = []
    for name, base in plan.base.items():
        for data, table in base_tables(plan, base, folder).items():
            label = f"{name}-{data}" if data else name
            drafts, pairs = draft_arms(plan, name, base, table)
            made = {key: _recipe(plan, base, label, table, draft, steps_for) for key, draft in drafts.items()}
            merged = _merge_equal(label, made, notes)
            for draft in drafts.values():
                if merged[draft.name] == draft.name:
                    seeds = sorted({seed for key in drafts if merged[key] == draft.name for seed in drafts[key].seeds})
                    arms.append(_arm(label, draft, made[draft.name], made[BASE], seeds, recipes))
            comparisons += _distinct(label, pairs, merged, notes)
            bases.append(StudyBase(name=label, measures=base.study_measures, summary=describe(made[BASE])))
    if len(recipes) > plan.limit:
        cure = "reduce the seeds or the tips, or raise 'limit' in the plan"
        raise RecipeError(
            f"the plan has more than {count_noun(plan.limit, 'run')}", found=f"{len(recipes):,}", cure=cure
        )
    ordered = dict(sorted(recipes.items(), key=lambda item: item[1].seed))
    study = Study(name=plan.name, bases=tuple(bases), arms=tuple(arms), comparisons=tuple(comparisons))
    return Expansion(study, ordered, notes)


def base_tables(plan: Plan, base: BasePlan, folder: Path) -> dict[str, Table]:
    """The recipe's table of a base on each data set; with the empty name if the plan has no data sets.

    Raises:
        RecipeError: there is no such recipe, or a change can't be made.
    """
    table = load_recipe(str(folder / base.recipe) if base.recipe.endswith(".toml") else base.recipe)
    for change in base.set:
        set_value(table, change)
    return {name: deepcopy(table) | {"data": data} for name, data in plan.data.items()} or {"": table}


def _merge_equal(label: str, made: dict[str, Recipe], notes: list[str]) -> dict[str, str]:
    """For each arm, the first arm with the same recipe, which stands for both."""
    first: dict[str, str] = {}
    merged: dict[str, str] = {}
    for name, recipe in made.items():
        merged[name] = first.setdefault(recipe.model_copy(update={"seed": 0}).hash, name)
        if merged[name] != name:
            notes.append(f"{label}: '{name}' is the same recipe as '{merged[name]}', which is trained once")
    return merged


def _recipe(plan: Plan, base: BasePlan, label: str, table: Table, draft: Draft, steps_for: StepsFor) -> Recipe:
    """The recipe of an arm, with the first seed.

    Raises:
        RecipeError: it is not a valid recipe; names the arm.
    """
    table = deepcopy(table)
    where = f"{label}, arm '{draft.name}'"
    try:
        for change in draft.changes:
            set_value(table, change)
    except RecipeError as error:
        raise RecipeError(error.what, where=f"{where}: {error.where}", found=error.found, cure=error.cure) from None
    measures = [measure.name for measure in base.study_measures]
    measure = table.get("measure", {}) | {"measures": measures, "every": 1}
    table |= {"name": plan.name, "about": "", "seed": draft.seeds[0], "measure": measure}
    steps = max(1, round(draft.budget_factor * steps_for(decode(table, where))))
    table["steps"] = steps
    table["measure"] = measure | {"every": -(-steps // plan.evaluations)}
    # a sample grid at the end, and a few checkpoints to resume from
    table["log"] = table.get("log", {}) | {"samples": steps, "saves": max(1, -(-steps // 4))}
    return decode(table, where)


def images_per_step(recipe: Recipe) -> int:
    """The real images that D sees in a step; a tempo that decides while it trains counts as one move of D."""
    return recipe.batch * int(getattr(recipe.tempo, "d", 1))


def steps_within_images(recipe: Recipe, plan: Plan) -> int:
    """The steps in which D sees the images of the budget; those of the recipe if there is no such budget."""
    if plan.budget is None or plan.budget.images is None:
        return recipe.steps
    return max(1, round(plan.budget.images / images_per_step(recipe)))


def _arm(label: str, draft: Draft, recipe: Recipe, base: Recipe, seeds: list[int], recipes: dict[str, Recipe]) -> Arm:
    """An arm; its recipes, one for each seed, are added to `recipes`."""
    runs: dict[str, str] = {}
    for seed in seeds:
        seeded = recipe.model_copy(update={"seed": seed})
        runs[str(seed)] = seeded.hash
        recipes.setdefault(seeded.hash, seeded)
    return Arm(
        base=label,
        name=draft.name,
        changes=draft.changes,
        steps=recipe.steps,
        images=recipe.steps * images_per_step(recipe),
        runs=runs,
        components=changed_components(base, recipe),
    )


def _distinct(label: str, pairs: list[Versus], merged: dict[str, str], notes: list[str]) -> Iterator[Comparison]:
    """The comparisons without those of an arm with itself, and without repetitions."""
    seen: dict[tuple[tuple[str, ...], tuple[str, ...]], str] = {}
    for pair in pairs:
        treatment = tuple(merged[name] for name in pair.treatment)
        control = tuple(merged[name] for name in pair.control)
        if treatment == control:
            notes.append(f"{label}: '{pair.name}' changes nothing here, so there is nothing to compare")
        elif (treatment, control) in seen:
            notes.append(f"{label}: '{pair.name}' is the same comparison as '{seen[treatment, control]}'")
        else:
            seen[treatment, control] = pair.name
            yield Comparison(
                base=label,
                tip=pair.tip,
                name=pair.name,
                treatment=treatment,
                control=control,
                expected=pair.expected,
            )


def describe(recipe: Recipe) -> str:
    """The data, the networks and the length of a run in a line."""
    data, networks = recipe.data, recipe.network
    size = f" at {data.size} x {data.size}" if hasattr(data, "size") else ""  # type: ignore[attr-defined]
    players = [net for net in (networks.g, networks.d) if net is not None]
    nets = " and ".join(f"{net.tag()} (width {net.width})" for net in players if hasattr(net, "width"))  # type: ignore[attr-defined]
    return (
        f"{data.tag()}{size}; G and D: {nets}; objective {recipe.objective.tag()}; batch {recipe.batch}, "
        f"{count_noun(recipe.steps, 'step')}"
    )
