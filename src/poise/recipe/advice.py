"""What of an alarm's advice advances on a recipe. Does not import torch.

Advice names `--set` options without knowing the values of the recipe (`poise.watch.advice`). A recipe may have such a
trick already, or have gone further.
"""

from __future__ import annotations

import re
from copy import deepcopy
from fnmatch import fnmatchcase

from poise.errors import RecipeError
from poise.recipe.toml import Table, dotted_fields, set_value
from poise.watch.advice import OPTION

ALREADY = "the recipe has this already, or more of it"

RISING = ("*.gamma", "tempo.d")
FALLING = ("*.lr", "objective.sigma")
"""The paths of the numbers that advice raises, and of those that it lowers."""

CHANGE = re.compile(rf"[,:]?(?:{OPTION.pattern})+")
"""A change in a piece of advice: its options, and what separates it from the text before."""


def useful_options(table: Table, options: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the options of a change that advance on a recipe's table.

    Advice sets numbers to values that a recipe may have passed (`RISING`, `FALLING`), and adds tricks that a recipe may
    have. Of such a trick, the options that are larger, or are not single numbers in the recipe, are set instead.

    Raises:
        RecipeError: an option can't be applied, or none of them advances.
    """
    useful: list[str] = []
    for option in options:
        for change in _as_settings(table, option):
            after = deepcopy(table)
            set_value(after, change)
            old, new = dotted_fields(table), dotted_fields(after)
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
        kept += found[0] if useful == (option,) else "".join(f" --set {new}" for new in useful)
    separator = change[0] if kept and change[0] in ",:" else ""
    return f"{separator}{kept}" + (f" ({' and '.join(known)})" if known else "")


def _what_is_there(table: Table, option: str) -> str:
    """What a recipe has that makes an option superfluous, as a clause."""
    after = deepcopy(table)
    try:
        set_value(after, option)
    except RecipeError:
        return f"{option.partition('=')[0]} is not in the recipe"
    if added := _added_tricks(table, after):
        return f"the recipe has {' and '.join(trick['kind'] for trick in added)} already"
    old, new = dotted_fields(table), dotted_fields(after)
    name = option.partition("=")[0].strip()
    passed = [path for path in new if _goes_back(path, old.get(path), new[path])]
    value = old[passed[0]] if passed else old.get(name)
    if not isinstance(value, int | float):
        return "the recipe has this already"
    is_inner = passed and passed[0].rpartition(".")[2] != name.rpartition(".")[2]
    return f"{passed[0] if is_inner else name} is {value:g} already"


def _as_settings(table: Table, option: str) -> list[str]:
    """An option that adds tricks; for those that a recipe has once, options that set what is smaller there."""
    after = deepcopy(table)
    set_value(after, option)
    tricks, added = _tricks(table), _added_tricks(table, after)
    if not any(old["kind"] == new["kind"] for old in tricks for new in added):
        return [option]
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


def _tricks(table: Table) -> list[Table]:
    """The tricks of a recipe, which may have been edited since it was checked."""
    tricks = table.get("tricks")
    is_valid = isinstance(tricks, list) and all(isinstance(trick, dict) and "kind" in trick for trick in tricks)
    return tricks if is_valid else []


def _added_tricks(before: Table, after: Table) -> list[Table]:
    return _tricks(after)[len(_tricks(before)) :]


def _goes_back(path: str, old: object, new: object) -> bool:
    """Whether a number that advice raises is lowered, or the other way round."""
    if not isinstance(old, int | float) or not isinstance(new, int | float):
        return False
    up, down = (any(fnmatchcase(path, pattern) for pattern in patterns) for patterns in (RISING, FALLING))
    return (up and new < old) or (down and new > old)


def _covers(old: Table, new: Table) -> bool:
    """Whether a trick has the same kind as another one, and for each of its options a number at least as large."""
    return old["kind"] == new["kind"] and all(
        _is_at_least(old.get(name), value) for name, value in new.items() if name != "kind"
    )


def _is_at_least(old: object, new: float) -> bool:
    return isinstance(old, int | float) and old >= new
