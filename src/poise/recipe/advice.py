"""What of an alarm's advice advances on a recipe. Does not import torch.

Advice names `--set` options without knowing the values of the recipe (`poise.watch.advice`). A recipe may have such a
trick already, or have gone further. It may also have a schedule where advice has a number, which then must not be on
the wrong side of the schedule in any step.
"""

from __future__ import annotations

import json
import re
import shlex
from copy import deepcopy
from fnmatch import fnmatchcase

from poise.errors import RecipeError
from poise.recipe.toml import Table, dotted_fields, set_value
from poise.watch.advice import OPTION

ALREADY = "the recipe has this already, or more of it"

RISING = ("*.gamma", "tricks.*.sigma", "tricks.*.samples", "tempo.d")
FALLING = ("*.lr", "objective.sigma", "tricks.*.weight", "tempo.g")
"""The paths of the numbers that advice raises, and of those that it lowers; the only weight is that of a KL term."""

SCHEDULED = ("start", "end", "values")
"""The keys of the values of a schedule, see `poise.core.schedules`."""

CHANGE = re.compile(rf"[,:]?(?:{OPTION.pattern})+")
"""A change in a piece of advice: its options, and what separates it from the text before."""


def useful_options(table: Table, options: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the options of a change that advance on a recipe's table.

    Advice sets numbers to values that a recipe may have passed (`RISING`, `FALLING`), and adds tricks that a recipe may
    have. Of such a trick, the options that are larger are set instead, and of a component that the recipe has in the
    same place, such as a tempo, those that differ. Where the recipe has a schedule, see `_fit_schedule`.

    Raises:
        RecipeError: an option can't be applied, or none of them advances.
    """
    useful: list[str] = []
    for option in options:
        for setting in _as_settings(table, option):
            for change in _fit_schedule(table, setting):
                old, new = _fields(table, change)
                changed = {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}
                if changed and not any(_goes_back(path, old.get(path), new.get(path)) for path in changed):
                    useful.append(change)
    if not useful:
        raise RecipeError(ALREADY)
    return tuple(useful)


def fit_advice(advice: str, table: Table) -> str:
    """A piece of advice for a recipe: instead of the options that do not advance on its table, what it has is said.

    `weaken D: --set 'tricks+=[{kind="instance_noise", sigma=0.5}]', or make it narrower` becomes
    `weaken D (the recipe has instance_noise already), or make it narrower`.

    Args:
        advice: the advice.
        table: the recipe, with all defaults (`Recipe.canonical`).
    """
    return CHANGE.sub(lambda change: _fit_change(change[0], table), advice)


def _fit_change(change: str, table: Table) -> str:
    kept, known = "", list[str]()
    for found in OPTION.finditer(change):
        option = found[2] if found[2] is not None else found[3]
        try:
            useful = useful_options(table, (option,))
        except RecipeError:
            known.append(_what_is_there(table, option))
            continue
        kept += found[0] if useful == (option,) else "".join(f" --set {shlex.quote(new)}" for new in useful)
    separator = change[0] if kept and change[0] in ",:" else ""
    return f"{separator}{kept}" + (f" ({' and '.join(known)})" if known else "")


def _what_is_there(table: Table, option: str) -> str:
    """What a recipe has that makes an option superfluous, as a clause."""
    name = option.partition("=")[0].strip()
    try:
        after = _set(table, option)
    except RecipeError:
        return f"{name} is not in the recipe"
    if added := _added_tricks(table, after):
        return f"the recipe has {' and '.join(trick['kind'] for trick in added)} already"
    old, new = dotted_fields(table), dotted_fields(after)
    if path := _scheduled_path(old, new):
        bounds = _bounds(_scheduled_values(old, path))
        is_rising = _direction(path) > 0
        return f"{name} is {'at least' if is_rising else 'at most'} {bounds[0 if is_rising else 1]:g} already"
    passed = [path for path in new if _goes_back(path, old.get(path), new[path])]
    passed += [path for path in new if path.startswith(f"{name}.") and _direction(path) and old.get(path) == new[path]]
    value = old[passed[0]] if passed else old.get(name)
    if not isinstance(value, int | float):
        return "the recipe has this already"
    is_inner = passed and passed[0].rpartition(".")[2] != name.rpartition(".")[2]
    return f"{passed[0] if is_inner else name} is {value:g} already"


def _as_settings(table: Table, option: str) -> list[str]:
    """An option; of one that adds what a recipe has, options that set what differs there.

    These are for tricks that the recipe has once what is smaller there, and for a component such as a tempo that it has
    with the same kind what is another value there.
    """
    after = _set(table, option)
    tricks, added = _tricks(table), _added_tricks(table, after)
    if not any(old["kind"] == new["kind"] for old in tricks for new in added):
        return _component_settings(dotted_fields(table), dotted_fields(after), option)
    if all(any(_covers(old, new) for old in tricks) for new in added):
        return []
    (new,) = added
    same = [old for old in tricks if old["kind"] == new["kind"]]
    if len(same) > 1:
        return [option]
    return [
        f"tricks.{new['kind']}.{name}={value}"
        for name, value in new.items()
        if name != "kind" and not _is_at_least(same[0].get(name), value)
    ]


def _component_settings(old: Table, new: Table, option: str) -> list[str]:
    """An option; of one that replaces a component by one of the same kind, options that set what differs in it.

    A schedule is replaced as a whole, unless the recipe's has all of its values.
    """
    name = option.partition("=")[0].strip()
    given = {path: value for path, value in new.items() if path.startswith(f"{name}.")}
    kind = f"{name}.kind"
    if kind not in given or old.get(kind) != given[kind]:
        return [option]
    differing = [path for path, value in given.items() if old.get(path) != value]
    if differing and _scheduled_values(new, name):
        return [option]
    return [f"{path}={json.dumps(given[path])}" for path in differing]


def _fit_schedule(table: Table, setting: str) -> list[str]:
    """A setting of a number; where a recipe has a schedule instead, settings that advance on it in every step.

    This is the number itself if it is nowhere on the wrong side of the schedule. Otherwise, what advice lowers is
    scaled so that the largest value of the schedule is this number, and what advice raises is at least this number.
    """
    old, new = _fields(table, setting)
    path = _scheduled_path(old, new)
    if path is None:
        return [setting]
    number, values, name = new[path], _scheduled_values(old, path), setting.partition("=")[0].strip()
    low, high = _bounds(values)
    is_rising = _direction(path) > 0
    if number <= low if is_rising else number >= high:
        return []
    if number >= high or number <= low:
        return [setting]

    def move(value: float) -> float:
        return max(value, number) if is_rising else value * (number / high)

    moved = {key: [move(value) for value in row] for key, row in values.items()}
    return [f"{name}.{key}={_as_toml(key, row)}" for key, row in moved.items() if row != values[key]]


def _as_toml(key: str, row: list[float]) -> str:
    numbers = ",".join(f"{value:g}" for value in row)
    return f"[{numbers}]" if key == "values" else numbers


def _scheduled_path(old: Table, new: Table) -> str | None:
    """The path of a number that advice raises or lowers, where there was a schedule before."""
    return next(
        (
            path
            for path, value in new.items()
            if path not in old and isinstance(value, int | float) and _direction(path) and _scheduled_values(old, path)
        ),
        None,
    )


def _scheduled_values(fields: Table, path: str) -> dict[str, list[float]]:
    """The values of the schedule at a path, by their keys; empty if there is none."""
    found = {key: fields[f"{path}.{key}"] for key in SCHEDULED if f"{path}.{key}" in fields}
    return {key: value if isinstance(value, list) else [value] for key, value in found.items()}


def _bounds(values: dict[str, list[float]]) -> tuple[float, float]:
    numbers = [number for row in values.values() for number in row]
    return min(numbers), max(numbers)


def _set(table: Table, option: str) -> Table:
    """A copy of a table with an option applied.

    Raises:
        RecipeError: it can't be applied.
    """
    after = deepcopy(table)
    set_value(after, option)
    return after


def _fields(table: Table, option: str) -> tuple[Table, Table]:
    """The fields of a table by their dotted paths, and those with an option applied."""
    return dotted_fields(table), dotted_fields(_set(table, option))


def _tricks(table: Table) -> list[Table]:
    """The tricks of a recipe, which may have been edited since it was checked."""
    tricks = table.get("tricks")
    is_valid = isinstance(tricks, list) and all(isinstance(trick, dict) and "kind" in trick for trick in tricks)
    return tricks if is_valid else []


def _added_tricks(before: Table, after: Table) -> list[Table]:
    return _tricks(after)[len(_tricks(before)) :]


def _direction(path: str) -> int:
    """1 for the path of a number that advice raises, -1 for one that it lowers, 0 for others."""
    up, down = (any(fnmatchcase(path, pattern) for pattern in patterns) for patterns in (RISING, FALLING))
    return up - down


def _goes_back(path: str, old: object, new: object) -> bool:
    """Whether a number that advice raises is lowered, or the other way round."""
    if not isinstance(old, int | float) or not isinstance(new, int | float):
        return False
    return _direction(path) * (new - old) < 0


def _covers(old: Table, new: Table) -> bool:
    """Whether a trick has the same kind as another one, and for each of its options a number at least as large."""
    return old["kind"] == new["kind"] and all(
        _is_at_least(old.get(name), value) for name, value in new.items() if name != "kind"
    )


def _is_at_least(old: object, new: float) -> bool:
    return isinstance(old, int | float) and old >= new
