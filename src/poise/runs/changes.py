"""The changes that a run has made to its recipe on the advice of alarms (the policy `advise`), one after another.

The recipe of a run follows from the one that it was started with and from its changes. Does not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, NamedTuple

from poise.core.metrics_log import check_count
from poise.recipe.toml import Table, set_value


class Change(NamedTuple):
    """One change. It replaces the one before of the same detector, and stays beside those of others.

    Attributes:
        step: the step to which the run was rolled back.
        detector: the detector whose advice it is.
        options: the arguments of `--set`; none if the change before was taken back without another in its place.
    """

    step: int
    detector: str
    options: tuple[str, ...]


Changes = tuple[Change, ...]


def changes_to_json(changes: Changes) -> list[dict[str, Any]]:
    """Changes as in `run.json` and in a checkpoint: `{"step", "detector", "set"}`."""
    return [{"step": one.step, "detector": one.detector, "set": list(one.options)} for one in changes]


def changes_from_json(lines: Any) -> Changes:
    """The changes that `changes_to_json` has written.

    Raises:
        ValueError, KeyError, TypeError: it has not written these.
    """
    changes = tuple(Change(check_count(line["step"]), line["detector"], tuple(line["set"])) for line in lines)
    if not all(isinstance(text, str) for one in changes for text in (one.detector, *one.options)):
        raise ValueError("not a change")
    return changes


def in_force(changes: Sequence[Change]) -> Changes:
    """The last change of each detector, without those that were taken back."""
    last = {one.detector: number for number, one in enumerate(changes)}
    return tuple(changes[number] for number in sorted(last.values()) if changes[number].options)


def changed_table(original: Table, changes: Sequence[Change]) -> Table:
    """The table of a recipe with the changes that are in force; `original` is left as it is.

    Raises:
        RecipeError: an option can't be applied.
    """
    table = deepcopy(original)
    for change in in_force(changes):
        for option in change.options:
            set_value(table, option)
    return table


def describe(change: Change) -> str:
    """The options of a change as a phrase."""
    return " and ".join(change.options)


def describe_with_cause(change: Change) -> str:
    """The options of a change, with the detector whose advice it is and the step."""
    return f"{describe(change)} ({change.detector}, step {change.step:,})"
