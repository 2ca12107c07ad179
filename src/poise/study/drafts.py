"""The arms of a plan on one base, before their recipes are decoded, and what is compared with what."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from poise.errors import RecipeError
from poise.recipe.toml import Table
from poise.study.plan import BASE, BasePlan, Plan, TipPlan
from poise.study.records import Expected
from poise.tips.catalogue import find


class Draft(NamedTuple):
    """An arm before its recipe has been decoded."""

    name: str
    changes: tuple[str, ...]
    seeds: tuple[int, ...]
    budget_factor: float = 1.0


class Versus(NamedTuple):
    """A comparison of drafts by name."""

    tip: str
    name: str
    treatment: tuple[str, ...]
    control: tuple[str, ...]
    expected: Expected = ""


def draft_arms(plan: Plan, base_name: str, base: BasePlan, table: Table) -> tuple[dict[str, Draft], list[Versus]]:
    """All arms of a base by name, and all comparisons.

    Args:
        plan: the plan.
        base_name: the name of the base in the plan.
        base: the base.
        table: its recipe's table, whose tricks may be left out.

    Raises:
        RecipeError: two arms have the same name, or a tip or an arm that is named does not exist.
    """
    seeds = base.seeds or plan.seeds
    drafts = {BASE: Draft(BASE, (), seeds)}
    pairs: list[Versus] = []

    def add(draft: Draft) -> None:
        if draft.name in drafts:
            raise RecipeError("two arms have the same name", where=base_name, found=f"'{draft.name}'")
        drafts[draft.name] = draft

    for tip in plan.tip:
        if tip.on is None or base_name in tip.on:
            add(Draft(tip.name, tip_changes(tip), tip.seeds or seeds, tip.budget_factor))
            pairs.append(_versus(tip))
    for kind in plan.leave_out:
        if kind in [trick.get("kind") for trick in table.get("tricks", ())]:
            name = f"without {kind}"
            add(Draft(name, (f"tricks.{kind}=none",), seeds))
            pairs.append(Versus(_tip_of(kind), kind, (BASE,), (name,)))
    for factorial in plan.factorial:
        if factorial.on is None or base_name in factorial.on:
            combinations = _combinations(factorial.name, factorial.factors, seeds)
            for draft in combinations.values():
                add(draft)
            pairs += _main_effects(factorial.id, factorial.name, factorial.factors, combinations)
    for pair in pairs:
        for name in (*pair.treatment, *pair.control):
            if name not in drafts:
                raise RecipeError("is compared with an arm that does not exist", where=pair.name, found=f"'{name}'")
    return _with_seeds_of_treatments(drafts, pairs), pairs


def _with_seeds_of_treatments(drafts: dict[str, Draft], pairs: list[Versus]) -> dict[str, Draft]:
    """The arms, each also with the seeds of those that are compared with it."""
    extended = dict(drafts)
    for pair in pairs:
        for treatment, control in zip(pair.treatment, pair.control, strict=True):
            seeds = {*extended[control].seeds, *drafts[treatment].seeds}
            extended[control] = extended[control]._replace(seeds=tuple(sorted(seeds)))
    return extended


def _versus(tip: TipPlan) -> Versus:
    """The comparison of an arm; the run with the tip is the treatment."""
    if tip.inverse:
        title = tip.title or f"{tip.against} instead of {tip.name}"
        return Versus(tip.id, title, (tip.against,), (tip.name,), tip.expected)
    return Versus(tip.id, tip.title or tip.name, (tip.name,), (tip.against,), tip.expected)


def tip_changes(tip: TipPlan) -> tuple[str, ...]:
    """The changes of an arm: its own, or those of the switch in the catalogue.

    Raises:
        RecipeError: there is no such tip.
    """
    if tip.id:
        (entry, *_) = find(tip.id)
        if tip.set is None:
            words = shlex.split(entry.switch)
            return tuple(word for word in words if word != "--set")
    return tip.set or ()


def _tip_of(kind: str) -> str:
    """The id of the tip that a trick implements, if any."""
    try:
        return find(kind)[0].id
    except RecipeError:
        return ""


def _combinations(
    name: str, factors: dict[str, dict[str, tuple[str, ...]]], seeds: tuple[int, ...]
) -> dict[tuple[str, ...], Draft]:
    """The arms of a factorial design by their levels."""
    drafts: dict[tuple[str, ...], Draft] = {}
    for levels in product(*factors.values()):
        changes = [change for factor, level in zip(factors.values(), levels, strict=True) for change in factor[level]]
        drafts[levels] = Draft(f"{name}: {', '.join(levels)}", tuple(changes), seeds)
    return drafts


def _main_effects(
    tip: str,
    name: str,
    factors: dict[str, dict[str, tuple[str, ...]]],
    drafts: dict[tuple[str, ...], Draft],
) -> Iterator[Versus]:
    """Each level of each factor against its first level, over all combinations of the other factors."""
    for position, (factor, levels) in enumerate(factors.items()):
        first, *others = levels
        for level in others:
            treatment = [key for key in drafts if key[position] == level]
            control = [(*key[:position], first, *key[position + 1 :]) for key in treatment]
            yield Versus(
                tip,
                f"{name}: {factor} {level} against {first}",
                tuple(drafts[key].name for key in treatment),
                tuple(drafts[key].name for key in control),
            )
