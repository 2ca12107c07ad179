"""The base classes of a recipe's tables, and the registry of components.

A component's config is a frozen pydantic model tagged by `kind`. It is defined next to the component that it builds. A
family is all configs of one sort (tricks, objectives, generators, ...), found by importing the modules of a package, so
that a new component is one new file.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


def reject_value(what: str, *, found: str = "", key: str = "", cure: str = "") -> NoReturn:
    """Raise a validation error from a pydantic validator; `recipe/decode.py` adds the path and makes it one line.

    Where a config is built in Python, pydantic's own error says the same: what is wrong, what was found, and the cure.
    """
    message = "{what}" + (", found {found}" if found else "") + ("; {cure}" if cure else "")
    raise PydanticCustomError("poise", message, {"what": what, "found": found, "key": key, "cure": cure})


SYNONYMS = {
    "ada": "adaptive_augment",
    "batch_size": "batch",
    "bce": "non_saturating",
    "channels": "width",
    "diffaug": "diff_augment",
    "ema": "averaged_weights",
    "gradient_penalty": "wgan_gp",
    "iterations": "steps",
    "label_smoothing": "soft_labels",
    "learning_rate": "lr",
    "lsgan": "least_squares",
    "max_steps": "steps",
    "n_critic": "d",
    "ndf": "width",
    "ngf": "width",
    "nz": "dim",
    "sn": "spectral",
    "spectral_norm": "spectral",
    "swa": "mean_weights",
    "wgan": "wasserstein",
    "z_dim": "dim",
}
"""Usual words for what has another name in recipes."""


def did_you_mean(word: str, words: list[str]) -> str:
    """A suggestion for a word that is not known: the one that means the same, the most similar one, or all of them."""
    if (same := SYNONYMS.get(word.lower().replace("-", "_"))) in words:
        return f"did you mean '{same}'?"
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(sorted(words))}"


MAX_KINDS = 4
"""A key that more kinds have is not explained by them."""


class Config(BaseModel):
    """A table of a recipe: frozen, strictly typed, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, given: Any) -> Any:
        if isinstance(given, dict):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in given:
                if key not in known:
                    cure = did_you_mean(str(key), known)
                    cure = cure if cure.startswith("did") else cls._explain_key(str(key)) or cure
                    reject_value(f"unknown key '{key}'", key=str(key), cure=cure)
        return given

    @classmethod
    def _explain_key(cls, key: str) -> str:
        """Where a key that this table doesn't have belongs to, or an empty string."""
        return ""


class ComponentConfig(Config):
    """The config of a component; each subclass declares `kind: Literal["its_name"] = "its_name"`."""

    @classmethod
    def tag(cls) -> str | None:
        """The `kind` that selects this class in a recipe, or None for an abstract base."""
        field = cls.model_fields.get("kind")
        return None if field is None else str(field.default)

    @classmethod
    def _explain_key(cls, key: str) -> str:
        """The other kinds that have this key: it is usually left over where only the kind of a table was changed."""
        base = next((c for c in cls.__mro__ if issubclass(c, ComponentConfig) and c.tag() is None), ComponentConfig)
        kinds = sorted(c.tag() or "" for c in _subclasses(base) if c.tag() is not None and key in c.model_fields)
        if base is ComponentConfig or not 0 < len(kinds) <= MAX_KINDS:
            return ""
        return f'it belongs to {", ".join(kinds)}; to change the kind, set the whole table: {{kind="{cls.tag()}"}}'


def _subclasses(base: type[ComponentConfig]) -> Iterator[type[ComponentConfig]]:
    """All direct and indirect subclasses."""
    for config in base.__subclasses__():
        yield config
        yield from _subclasses(config)


def find_components(base: type[ComponentConfig], package: str, *packages: str) -> dict[str, type[ComponentConfig]]:
    """All subclasses of `base` that the modules of these packages define, by kind."""
    places = (package, *packages)
    for place in places:
        home = importlib.import_module(place)
        for module in pkgutil.iter_modules(getattr(home, "__path__", ())):
            importlib.import_module(f"{place}.{module.name}")
    found: dict[str, type[ComponentConfig]] = {}
    for config in _subclasses(base):
        kind = config.tag()
        if kind is not None and config.__module__.startswith(places):
            found[kind] = config
    return dict(sorted(found.items()))


def component_union(base: type[ComponentConfig], package: str, *packages: str) -> Any:
    """The field type "any component of this family", discriminated by its `kind`."""
    union: Any = None
    members = find_components(base, package, *packages).values()
    for member in members:
        union = member if union is None else union | member
    return Annotated[union, Field(discriminator="kind")] if len(members) > 1 else union
