"""Which components two recipes do not share, and the source file of each."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import poise
from poise.core.config import ComponentConfig
from poise.recipe.model import Recipe

PACKAGE = Path(poise.__file__).parent
USER_CODE = PACKAGE / "user_code"
"""The configs of all custom components are here; the components themselves are not."""

FIELDS = {"judging": "engine/game.py"}
"""The fields of a recipe that select an algorithm without being a component, and the file that implements it."""


def changed_components(before: Recipe, after: Recipe) -> dict[str, str]:
    """The components that only one of two recipes has, or that differ in a field.

    Returns:
        For each of them, such as "tricks.packing" or "network.d.dcgan", its source file relative to the package, and
        for each of `FIELDS` in which they differ, the file that implements it. Components of the user's own code are
        left out.
    """
    old, new = dict(_components(before)), dict(_components(after))
    changed = [(place, config) for place, config in (old | new).items() if old.get(place) != new.get(place)]
    files = {place: Path(inspect.getfile(type(config))) for place, config in changed}
    inside = {place: file for place, file in files.items() if file.is_relative_to(PACKAGE) and file.parent != USER_CODE}
    fields = {name: file for name, file in FIELDS.items() if getattr(before, name) != getattr(after, name)}
    fields |= {place: file.relative_to(PACKAGE).as_posix() for place, file in inside.items()}
    return dict(sorted(fields.items()))


def _components(recipe: Recipe) -> Iterator[tuple[str, ComponentConfig]]:
    """All components of a recipe with their places and kinds."""
    groups = {
        "": recipe,
        "network.": recipe.network,
        "optimizer.": recipe.optimizer,
        "conditioning.": recipe.labels,
    }
    for prefix, table in groups.items():
        for name in type(table).model_fields:
            value = getattr(table, name)
            if isinstance(value, ComponentConfig):
                yield f"{prefix}{name}.{value.tag()}", value
    for name, trick in zip(recipe.trick_names(), recipe.tricks, strict=True):
        yield f"tricks.{name}", trick
