"""Entries: the typed tables a recipe is made of.

An entry is a frozen pydantic model tagged by `kind`; it stands beside the part it builds and knows how to
build it. A family is all entries of one sort (tricks, objectives, generators, ...), found by walking a
package, so that a new part is one new file.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


def reject_value(what: str, *, found: str = "", key: str = "", cure: str = "") -> NoReturn:
    """Refuse a value inside a validator; the recipe's reader adds the path and makes it one line."""
    raise PydanticCustomError("poise", "{what}", {"what": what, "found": found, "key": key, "cure": cure})


def did_you_mean(word: str, words: list[str]) -> str:
    """A clause that helps with a misspelt word: the nearest right one, or all of them."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(sorted(words))}"


class Config(BaseModel):
    """One table of a recipe: frozen, strictly typed, and deaf to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _know_every_key(cls, given: Any) -> Any:
        if isinstance(given, dict):
            known = list(cls.model_fields)
            for key in given:
                if key not in known:
                    reject_value(f"unknown key '{key}'", key=str(key), cure=did_you_mean(str(key), known))
        return given


class ComponentConfig(Config):
    """An entry that is one of several kinds; subclasses say `kind: Literal["its_name"] = "its_name"`."""

    @classmethod
    def tag(cls) -> str | None:
        """The `kind` a recipe writes, or None for a class that is only a base."""
        field = cls.model_fields.get("kind")
        return None if field is None else str(field.default)


def find_components(base: type[ComponentConfig], *packages: str) -> dict[str, type[ComponentConfig]]:
    """All parts below `base` that the modules of `packages` define, by kind."""
    for package in packages:
        home = importlib.import_module(package)
        for module in pkgutil.iter_modules(getattr(home, "__path__", ())):
            importlib.import_module(f"{package}.{module.name}")
    found: dict[str, type[ComponentConfig]] = {}
    waiting = [base]
    while waiting:
        part = waiting.pop()
        waiting += part.__subclasses__()
        name = part.tag()
        if name is not None and part.__module__.startswith(packages):
            found[name] = part
    return dict(sorted(found.items()))


def component_union(base: type[ComponentConfig], *packages: str) -> Any:
    """The field type "any part of this family", chosen by its `kind`."""
    union: Any = None
    members = find_components(base, *packages).values()
    for member in members:
        union = member if union is None else union | member
    return Annotated[union, Field(discriminator="kind")] if len(members) > 1 else union
