"""Expands a plan into recipes and comparisons. Pure functions: the same plan gives the same recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from poise.core.config import ComponentConfig, did_you_mean
from poise.data.config import ImageDataConfig
from poise.errors import RecipeError, errors_in
from poise.measure.catalogue import MEASURES
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.toml import Table, set_value
from poise.study.budget import Load, TooManyRuns, images_per_step, steps_within_images
from poise.study.components import changed_components
from poise.study.continuity import (
    definition_of,
    kept_recipe,
    load_base,
    recorded_arms,
    recorded_runs,
    same_base,
    timing_key,
)
from poise.study.drafts import Draft, Versus, draft_arms
from poise.study.overridden import refuse_overridden
from poise.study.plan import BASE, BasePlan, Plan, label_of
from poise.study.records import Arm, Comparison, Study, StudyBase
from poise.utils.printing import count_noun

StepsFor = Callable[[Recipe, str], int]
"""The number of steps of a recipe within the budget of the plan; the second argument is `timing_key` of its arm."""


class Expansion(NamedTuple):
    """A plan in expanded form.

    Attributes:
        study: the content of `study.json`.
        recipes: the recipe of each run, in the order of training: all arms with the first seed come first,
            so that a study that is stopped early has complete seeds.
        notes: messages about arms that were dropped, and bases that poise has changed since the study began.
        origins: for each base and arm, what its results depend on besides the recipe; see `origin.py`.
    """

    study: Study
    recipes: dict[str, Recipe]
    notes: list[str]
    origins: Mapping[tuple[str, str], dict[str, str]] = MappingProxyType({})


class _Beginning(NamedTuple):
    """A base on one data set, before the changes of its arms.

    Attributes:
        label: its name.
        table: its recipe, to which the arms are added.
        definition: what the plan says of it, see `definition_of`.
        recipe: its recipe in canonical form, as `study.json` has it.
        recorded: the arms whose runs have been recorded, by name.
    """

    label: str
    table: Table
    definition: str
    recipe: Table
    recorded: dict[str, Arm]


class _Layout(NamedTuple):
    """The arms on one base with one data set.

    Attributes:
        beginning: the base as the study began it.
        plan: the base in the plan.
        arms: for each arm its changes, its recipe with the first seed, and its seeds.
        comparisons: what is compared.
    """

    beginning: _Beginning
    plan: BasePlan
    arms: dict[str, tuple[Draft, Recipe, tuple[int, ...]]]
    comparisons: list[Comparison]

    @property
    def label(self) -> str:
        """The name of the base."""
        return self.beginning.label

    @property
    def base(self) -> Recipe:
        """The recipe of the base."""
        return self.arms[BASE][1]


def expand(plan: Plan, folder: Path, steps_for: StepsFor | None = None, before: Study | None = None) -> Expansion:
    """The runs and comparisons of a plan.

    Args:
        plan: the plan.
        folder: the folder of its file, in which recipe files are looked for.
        steps_for: the steps of a recipe within the budget; by default those of `steps_within_images`.
        before: the study as it was last started, if it is continued: it keeps its bases and its runs, see
            `continuity.py`.

    Raises:
        RecipeError: an arm is not a valid recipe; names the arm.
        TooManyRuns: the plan has more runs than its limit.
    """
    steps_for = steps_for or (lambda recipe, key: steps_within_images(recipe, plan))
    notes: list[str] = []
    layouts = [
        _lay_out(plan, name, _begin(plan, name, data, table, folder, before, notes), steps_for, notes)
        for name, base in plan.base.items()
        for data, table in base_tables(plan, name, folder).items()
    ]
    _check_leave_out(plan, layouts)
    loads = _loads(layouts)
    if sum(load.runs for load in loads) > plan.limit:
        raise TooManyRuns(plan.limit, loads)
    recipes: dict[str, Recipe] = {}
    names = _recorded_names(layouts)
    arms = [
        _arm(layout, draft, recipe, seeds, recipes, names, notes)
        for layout in layouts
        for draft, recipe, seeds in layout.arms.values()
    ]
    study = Study(
        name=plan.name,
        bases=tuple(
            StudyBase(
                name=layout.label,
                measures=layout.plan.study_measures,
                summary=describe(layout.base),
                recipe=layout.beginning.recipe,
                definition=layout.beginning.definition,
            )
            for layout in layouts
        ),
        arms=tuple(arms),
        comparisons=tuple(comparison for layout in layouts for comparison in layout.comparisons),
        evaluations=plan.evaluations,
    )
    return Expansion(study, dict(sorted(recipes.items(), key=lambda item: item[1].seed)), notes)


def _begin(
    plan: Plan, name: str, data: str, table: Table, folder: Path, before: Study | None, notes: list[str]
) -> _Beginning:
    """A base on a data set as the study began it; as the plan has it now if the study is new or has another one.

    Raises:
        RecipeError: it is not a valid recipe; names the base.
    """
    base, label = plan.base[name], label_of(name, data)
    definition = definition_of(base, plan.data.get(data), folder)
    recipe = decode(_planned(plan, base, label, table, Draft(BASE, (), base.seeds or plan.seeds)), label)
    began = same_base(before, label, definition)
    if began is None:
        return _Beginning(label, table, definition, recipe.canonical(), {})
    if (kept := kept_recipe(recipe, began, label)) is not None:
        what = "this version of poise makes another recipe of it than when the study began, which the study keeps"
        notes.append(f"{label}: {what}")
        table = kept.canonical()
    recorded = {arm.name: arm for arm in recorded_arms(plan, measured(base), began, before)}
    return _Beginning(label, table, definition, began.recipe, recorded)


def _lay_out(plan: Plan, name: str, beginning: _Beginning, steps_for: StepsFor, notes: list[str]) -> _Layout:
    """The arms of a base on a data set.

    Raises:
        RecipeError: an arm is not a valid recipe; names the arm.
        TooManyRuns: a factorial design alone has more arms than the plan may have runs.
    """
    base, label = plan.base[name], beginning.label
    first = Draft(BASE, (), base.seeds or plan.seeds)

    def recipe_of(draft: Draft) -> Recipe:
        key = timing_key(beginning.definition, draft.changes)
        return _recipe(plan, base, label, beginning.table, draft, lambda recipe: steps_for(recipe, key))

    recipe = recipe_of(first)
    for factorial in plan.factorial:
        combinations = prod(len(levels) for levels in factorial.factors.values())
        if combinations > plan.limit and (factorial.on is None or name in factorial.on):
            raise TooManyRuns(plan.limit, [Load(recipe, recipe, combinations * len(first.seeds))])
    drafts, pairs = draft_arms(plan, name, base, recipe.tricks)
    made = {key: recipe_of(draft) for key, draft in drafts.items()}
    merged = _merge_equal(label, made, notes)
    seeds: dict[str, set[int]] = {}
    for key, draft in drafts.items():
        seeds.setdefault(merged[key], set()).update(draft.seeds)
    arms = {key: (drafts[key], made[key], tuple(sorted(seeds[key]))) for key in drafts if key in seeds}
    return _Layout(beginning, base, arms, list(_distinct(label, pairs, merged, notes)))


def _loads(layouts: list[_Layout]) -> list[Load]:
    """The runs of each arm that no earlier arm has."""
    known: dict[str, set[int]] = {}
    loads = []
    for layout in layouts:
        for _, recipe, seeds in layout.arms.values():
            before = known.setdefault(recipe.model_copy(update={"seed": 0}).hash, set())
            loads.append(Load(layout.base, recipe, len(set(seeds) - before)))
            before.update(seeds)
    return loads


def _check_leave_out(plan: Plan, layouts: list[_Layout]) -> None:
    """Refuse a kind of trick that no base has."""
    kinds = {trick.trick_name for layout in layouts for trick in layout.base.tricks}
    for kind in plan.leave_out:
        if kind not in kinds:
            cure = did_you_mean(kind, sorted(kinds)) if kinds else "no base has any trick"
            raise RecipeError("no base has this trick", where="leave_out", found=f"'{kind}'", cure=cure)


def base_tables(plan: Plan, name: str, folder: Path) -> dict[str, Table]:
    """The recipe's table of a base on each data set; with the empty name if the plan has no data sets.

    Args:
        plan: the plan.
        name: the name of the base.
        folder: the folder in which its recipe file is looked for.

    Raises:
        RecipeError: there is no such recipe, or a change can't be made.
    """
    base = plan.base[name]
    with errors_in(name):
        table = load_base(base, folder)
        for change in base.set:
            refuse_overridden(change, plan)
            set_value(table, change)
    return {data: deepcopy(table) | {"data": entry} for data, entry in plan.data.items()} or {"": table}


def _merge_equal(label: str, made: dict[str, Recipe], notes: list[str]) -> dict[str, str]:
    """For each arm, the first arm with the same recipe, which stands for both."""
    first: dict[str, str] = {}
    merged: dict[str, str] = {}
    for name, recipe in made.items():
        merged[name] = first.setdefault(recipe.model_copy(update={"seed": 0}).hash, name)
        if merged[name] != name:
            notes.append(f"{label}: '{name}' is the same recipe as '{merged[name]}', which is trained once")
    return merged


def _planned(plan: Plan, base: BasePlan, where: str, table: Table, draft: Draft) -> Table:
    """The table of an arm with its changes, the fields that the plan sets, and the steps of the recipe.

    Raises:
        RecipeError: a change can't be made; names the arm.
    """
    table = deepcopy(table)
    with errors_in(where):
        for change in draft.changes:
            refuse_overridden(change, plan, of_arm=True)
            set_value(table, change)
    measure = _table(table, "measure", where) | {"measures": measured(base), "every": 1}
    return table | {"name": plan.name, "about": "", "seed": draft.seeds[0], "measure": measure}


def _recipe(
    plan: Plan, base: BasePlan, label: str, table: Table, draft: Draft, steps_for: Callable[[Recipe], int]
) -> Recipe:
    """The recipe of an arm, with the first seed.

    Raises:
        RecipeError: it is not a valid recipe; names the arm.
    """
    where = label if draft.name == BASE else f"{label}, arm '{draft.name}'"
    table = _planned(plan, base, where, table, draft)
    steps = max(1, round(draft.budget_factor * steps_for(decode(table, where))))
    table["steps"] = steps
    table["measure"] = table["measure"] | {"every": -(-steps // plan.evaluations)}
    # a sample grid at the end, a few checkpoints to resume from, and no frames of thousands of runs
    log = {"samples": steps, "saves": max(1, -(-steps // 4)), "frames": 0}
    table["log"] = _table(table, "log", where) | log
    return decode(table, where)


def _table(table: Table, key: str, where: str) -> Table:
    """A table of the recipe.

    Raises:
        RecipeError: it is something else.
    """
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise RecipeError("must be a table", where=f"{where}: {key}", found=repr(value)[:40])
    return value


def measured(base: BasePlan) -> list[str]:
    """The measures of each run. The first one selects the best weights, so it must have a direction of its own."""
    names = [measure.name for measure in base.study_measures]
    return sorted(names, key=lambda name: name != next((n for n in names if MEASURES[n].better != "floor"), None))


def _arm(
    layout: _Layout,
    draft: Draft,
    recipe: Recipe,
    seeds: tuple[int, ...],
    recipes: dict[str, Recipe],
    names: Mapping[str, str],
    notes: list[str],
) -> Arm:
    """An arm; its recipes, one for each seed, are added to `recipes`.

    A run has the name that this arm has recorded, otherwise that which another arm has recorded for the same recipe,
    and otherwise the hash of its recipe.
    """
    runs: dict[str, str] = {}
    known = 0
    recorded = _recorded_runs(layout, draft, recipe)
    for seed in seeds:
        seeded = recipe.model_copy(update={"seed": seed})
        run = recorded.get(str(seed)) or names.get(seeded.hash, seeded.hash)
        runs[str(seed)] = run
        known += run in recipes
        recipes.setdefault(run, seeded)
    if known:
        notes.append(f"{layout.label}: {count_noun(known, 'run')} of '{draft.name}' belong to another base as well")
    return Arm(
        base=layout.label,
        name=draft.name,
        changes=draft.changes,
        steps=recipe.steps,
        images=recipe.steps * images_per_step(recipe),
        runs=runs,
        components=changed_components(layout.base, recipe),
    )


def _recorded_runs(layout: _Layout, draft: Draft, recipe: Recipe) -> Mapping[str, str]:
    """The recorded run of each seed of an arm."""
    images = recipe.steps * images_per_step(recipe)
    return recorded_runs(layout.beginning.recorded.get(draft.name), draft.changes, recipe.steps, images)


def _recorded_names(layouts: list[_Layout]) -> dict[str, str]:
    """The names of the recorded runs by the present hash of their recipes."""
    return {
        recipe.model_copy(update={"seed": int(seed)}).hash: run
        for layout in layouts
        for draft, recipe, seeds in layout.arms.values()
        for seed, run in _recorded_runs(layout, draft, recipe).items()
        if int(seed) in seeds
    }


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
    size = f" at {' x '.join(map(str, data.height_width))}" if isinstance(data, ImageDataConfig) else ""
    # the encoder of a GAN is an addition; without D it is a player
    players = {"G": networks.g, "D": networks.d} if networks.d is not None else {"E": networks.e, "G": networks.g}
    nets = " and ".join(_tag_and_width(net) for net in players.values() if net is not None)
    return (
        f"{data.tag()}{size}; {' and '.join(players)}: {nets}; objective {recipe.objective.tag()}; "
        f"batch {recipe.batch}, {count_noun(recipe.steps, 'step')}"
    )


def _tag_and_width(net: ComponentConfig) -> str:
    return f"{net.tag()} (width {net.width})" if hasattr(net, "width") else str(net.tag())  # type: ignore[attr-defined]
