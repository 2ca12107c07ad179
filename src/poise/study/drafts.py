"""The arms of a plan on one base, before their recipes are decoded, and what is compared with what."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

from poise.core.config import did_you_mean
from poise.errors import RecipeError
from poise.study.plan import BASE, BasePlan, FactorialPlan, Plan, TipPlan
from poise.study.records import Expected
from poise.tips.catalogue import Tip, find, tips
from poise.tricks.base import TrickConfig


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


def draft_arms(
    plan: Plan, base_name: str, base: BasePlan, tricks: Sequence[TrickConfig]
) -> tuple[dict[str, Draft], list[Versus]]:
    """All arms of a base by name, and all comparisons.

    Args:
        plan: the plan.
        base_name: the name of the base in the plan.
        base: the base.
        tricks: its tricks, which may be left out.

    Raises:
        RecipeError: two arms or comparisons have the same name, or a tip or an arm that is named does not exist.
    """
    seeds = base.seeds or plan.seeds
    drafts = {BASE: Draft(BASE, (), seeds)}
    pairs: list[Versus] = []

    def add(draft: Draft) -> None:
        if draft.name in drafts:
            raise RecipeError("two arms have the same name", where=base_name, found=f"'{draft.name}'")
        drafts[draft.name] = draft

    arms = [tip for tip in plan.tip if tip.on is None or base_name in tip.on]
    for tip in arms:
        where = f"{base_name}, arm '{tip.name}': id"
        add(Draft(tip.name, tip_changes(tip, where), tip.seeds or seeds, tip.budget_factor))
        pairs.append(_versus(tip, where))
    for kind in plan.leave_out:
        if places := [i for i, trick in enumerate(tricks) if trick.trick_name == kind]:
            name = f"without {kind}"
            by_kind = len(places) == 1 and tricks[places[0]].tag() == kind
            removals = [f"tricks.{kind}=none"] if by_kind else [f"tricks.{i}=none" for i in reversed(places)]
            add(Draft(name, tuple(removals), seeds))
            pairs.append(Versus(_tip_of(kind), kind, (BASE,), (name,)))
    for factorial in plan.factorial:
        if factorial.on is None or base_name in factorial.on:
            combinations = _combinations(factorial, seeds)
            for draft in combinations.values():
                add(draft)
            pairs += _main_effects(factorial, combinations, f"{base_name}, factorial '{factorial.name}': id")
    _check_pairs(base_name, drafts, pairs)
    return _with_common_seeds(drafts, arms), pairs


def _check_pairs(base_name: str, drafts: dict[str, Draft], pairs: list[Versus]) -> None:
    names = [pair.name for pair in pairs]
    for pair in pairs:
        if names.count(pair.name) > 1:
            raise RecipeError("two comparisons have the same name", where=base_name, found=f"'{pair.name}'")
        for name in (*pair.treatment, *pair.control):
            if name not in drafts:
                where, cure = f"{base_name}, arm '{pair.name}': against", did_you_mean(name, list(drafts))
                raise RecipeError("there is no such arm on this base", where=where, found=f"'{name}'", cure=cure)


def _with_common_seeds(drafts: dict[str, Draft], arms: Iterable[TipPlan]) -> dict[str, Draft]:
    """The arms, each also with the seeds of those that name it as `against`."""
    extended = dict(drafts)
    for tip in arms:
        seeds = {*extended[tip.against].seeds, *drafts[tip.name].seeds}
        extended[tip.against] = extended[tip.against]._replace(seeds=tuple(sorted(seeds)))
    return extended


def _versus(tip: TipPlan, where: str) -> Versus:
    """The comparison of an arm; the run with the tip is the treatment."""
    if tip.inverse:
        title = tip.title or f"{tip.against} instead of {tip.name}"
        return Versus(tip_id(tip.id, where), title, (tip.against,), (tip.name,), tip.expected)
    return Versus(tip_id(tip.id, where), tip.title or tip.name, (tip.name,), (tip.against,), tip.expected)


def tip_id(query: str, where: str) -> str:
    """The id of a tip in the catalogue as it is written there; empty if none is given.

    Args:
        query: what the plan says.
        where: the key in the plan, for the message.

    Raises:
        RecipeError: there is no such tip, or more than one.
    """
    return _find(query, where).id if query else ""


def _find(query: str, where: str) -> Tip:
    try:
        first, *others = find(query)
    except RecipeError as error:
        raise RecipeError(error.what, where=where, found=error.found, cure=error.cure) from None
    if others:
        ids = ", ".join(tip.id for tip in (first, *others))
        raise RecipeError("stands for more than one tip", where=where, found=f"'{query}'", cure=f"one of {ids}")
    return first


def tip_changes(tip: TipPlan, where: str) -> tuple[str, ...]:
    """The changes of an arm: its own, or those of the switch in the catalogue.

    Args:
        tip: the arm in the plan.
        where: the key of the tip's id, for the message.

    Raises:
        RecipeError: there is no such tip, or more than one.
    """
    if tip.set is not None:
        return tip.set
    return tuple(word for word in shlex.split(_find(tip.id, where).switch) if word != "--set")


def _tip_of(kind: str) -> str:
    """The id of the tip that a trick implements, if any."""
    return next((tip.id for tip in tips() for part in tip.parts if (part.at, part.kind) == ("tricks", kind)), "")


def _combinations(factorial: FactorialPlan, seeds: tuple[int, ...]) -> dict[tuple[str, ...], Draft]:
    """The arms of a factorial design by their levels."""
    factors = factorial.factors
    drafts: dict[tuple[str, ...], Draft] = {}
    for levels in product(*factors.values()):
        changes = [change for factor, level in zip(factors.values(), levels, strict=True) for change in factor[level]]
        drafts[levels] = Draft(f"{factorial.name}: {', '.join(levels)}", tuple(changes), seeds)
    return drafts


def _main_effects(factorial: FactorialPlan, drafts: dict[tuple[str, ...], Draft], where: str) -> Iterator[Versus]:
    """Each level of each factor against its first level, over all combinations of the other factors."""
    for position, (factor, (first, *others)) in enumerate(factorial.factors.items()):
        for level in others:
            treatment = [key for key in drafts if key[position] == level]
            control = [(*key[:position], first, *key[position + 1 :]) for key in treatment]
            yield Versus(
                tip_id(factorial.id, where),
                f"{factorial.name}: {factor} {level} against {first}",
                tuple(drafts[key].name for key in treatment),
                tuple(drafts[key].name for key in control),
            )
