"""The policy `advise`: after a roll-back, the run tries the changes that the alarm's advice names, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from poise.errors import RecipeError
from poise.recipe.advice import ALREADY, useful_options
from poise.recipe.model import Recipe
from poise.runs.changes import Change, changed_table, describe, in_force
from poise.runs.resume import changed_recipe
from poise.training.state import TrainState
from poise.watch.advice import changes_in
from poise.watch.base import Alarm


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
