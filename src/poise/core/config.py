"""The base classes of a recipe's tables, and the registry of components.

A component's config is a frozen pydantic model tagged by `kind`. It is defined next to the component that it builds. A
family is all configs of one sort (tricks, objectives, generators, ...), found by importing the modules of a package, so
that a new component is one new file.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


def reject_value(what: str, *, found: str = "", key: str = "", cure: str = "") -> NoReturn:
    """Raise a validation error from a pydantic validator; `recipe/decode.py` adds the path and makes it one line."""
    raise PydanticCustomError("poise", "{what}", {"what": what, "found": found, "key": key, "cure": cure})


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
                    reject_value(f"unknown key '{key}'", key=str(key), cure=did_you_mean(str(key), known))
        return given


class ComponentConfig(Config):
    """The config of a component; each subclass declares `kind: Literal["its_name"] = "its_name"`."""

    @classmethod
    def tag(cls) -> str | None:
        """The `kind` that selects this class in a recipe, or None for an abstract base."""
        field = cls.model_fields.get("kind")
        return None if field is None else str(field.default)


def find_components(base: type[ComponentConfig], package: str, *packages: str) -> dict[str, type[ComponentConfig]]:
    """All subclasses of `base` that the modules of these packages define, by kind."""
    places = (package, *packages)
    for place in places:
        home = importlib.import_module(place)
        for module in pkgutil.iter_modules(getattr(home, "__path__", ())):
            importlib.import_module(f"{place}.{module.name}")
    found: dict[str, type[ComponentConfig]] = {}
    pending = [base]
    while pending:
        config = pending.pop()
        pending += config.__subclasses__()
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
