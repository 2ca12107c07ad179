"""The policy `advise`: after a roll-back, the run tries the changes that the alarm's advice names, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from fnmatch import fnmatchcase
from typing import NamedTuple

from poise.errors import RecipeError
from poise.recipe.model import Recipe, dotted_fields
from poise.recipe.toml import Table, set_value
from poise.runs.changes import Change, changed_table, describe, in_force
from poise.runs.resume import changed_recipe
from poise.training.state import TrainState
from poise.watch.advice import changes_in
from poise.watch.base import Alarm

ALREADY = "the recipe has this already, or more of it"

RISING = ("*.gamma", "tempo.d")
FALLING = ("*.lr", "objective.sigma")
"""The paths of the numbers that advice raises, and of those that it lowers."""


class Trial(NamedTuple):
    """What a run does after a roll-back.

    Attributes:
        messages: what is tried, as phrases.
        skipped: a message about each change that could not be tried.
        lowers: whether no change is left, so that learning rates are lowered.
    """

    messages: list[str]
    skipped: list[str]
    lowers: bool


def begin_trial(state: TrainState, alarm: Alarm, step: int, check: Callable[[Recipe], object]) -> Trial:
    """Give a training state the recipe with the first change of an alarm's advice that its detector has not tried.

    The change that the detector made before is taken back. If no change is left, this is all that is done.

    Args:
        state: the training state, which is rolled back afterwards.
        alarm: the alarm.
        step: the step to which it is rolled back.
        check: raises RecipeError if the run can't be continued with a recipe.
    """
    name, advised, skipped = alarm.detector, changes_in(alarm.advice), list[str]()
    tried = {one.options for one in state.changes if one.detector == name}
    before = [describe(one) for one in in_force(state.changes) if one.detector == name]
    back = [f"taking back {text}" for text in before]
    without = (*state.changes, Change(step, name, ()))
    for number, options in enumerate(advised, 1):
        try:
            useful = useful_options(changed_table(state.original.canonical(), without), options)
            if useful in tried:
                continue
            change = Change(step, name, useful)
            changed = changed_recipe(state.original, (*state.changes, change))
            if changed == changed_recipe(state.original, without):  # an option spelled out what is the default
                raise RecipeError(ALREADY)
            check(changed)
            state.change((*state.changes, change))
        except RecipeError as error:
            skipped.append(f"{' and '.join(options)}, which {name} advises, is not tried: {error}")
            continue
        trial = f"trying the advice of {name}: {describe(change)} (change {number} of {len(advised)})"
        return Trial([*back, trial], skipped, lowers=False)
    if before:
        try:
            check(changed_recipe(state.original, without))
            state.change(without)
        except RecipeError as error:
            skipped.append(f"{before[0]} is not taken back: {error}")
            back = []
    return Trial([*back, f"no change that {name} advises is left"], skipped, lowers=True)


def useful_options(table: Table, options: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the options of a change that advance on a recipe's table.

    Advice sets numbers to values that a recipe may have passed (`RISING`, `FALLING`), and adds tricks that a recipe may
    have. Such a trick is added only if one of its options is larger, or is not a single number in the recipe.

    Raises:
        RecipeError: an option can't be applied, or none of them advances.
    """
    useful: list[str] = []
    for option in options:
        after = deepcopy(table)
        set_value(after, option)
        old, new = dotted_fields(table), dotted_fields(after)
        changed = {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}
        goes_back = any(_goes_back(path, old.get(path), new.get(path)) for path in changed)
        if changed and not goes_back and not _adds_nothing(table.get("tricks", []), after.get("tricks", [])):
            useful.append(option)
    if not useful:
        raise RecipeError(ALREADY)
    return tuple(useful)


def _goes_back(path: str, old: object, new: object) -> bool:
    """Whether a number that advice raises is lowered, or the other way round."""
    if not isinstance(old, int | float) or not isinstance(new, int | float):
        return False
    up, down = (any(fnmatchcase(path, pattern) for pattern in patterns) for patterns in (RISING, FALLING))
    return (up and new < old) or (down and new > old)


def _adds_nothing(before: list[Table], after: list[Table]) -> bool:
    """Whether tricks are added, and each is there already with options at least as large."""
    added = after[len(before) :]
    return bool(added) and all(any(_covers(old, new) for old in before) for new in added)


def _covers(old: Table, new: Table) -> bool:
    """Whether a trick has the same kind as another one, and for each of its options a number at least as large."""
    numbers = {name: value for name, value in new.items() if name != "kind"}
    return old["kind"] == new["kind"] and all(
        isinstance(old.get(name), int | float) and old[name] >= value for name, value in numbers.items()
    )
