"""A view of a recipe's table that needs no torch, and the status of a tip in a recipe."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter

from poise.core.schedules import Schedulable, value_at
from poise.recipe.toml import Table
from poise.tips.catalogue import parts

StatusKind = Literal["followed", "not followed", "open"]

FIXED = {
    ("g", "linear_map"): ("none", "none"),
    ("g", "r3gan"): ("leaky_relu", "none"),
    ("d", "r3gan"): ("leaky_relu", "none"),
    ("g", "refiner"): ("relu", ""),
    ("g", "stylegan2"): ("leaky_relu", "none"),
    ("d", "stylegan2"): ("leaky_relu", "none"),
    ("g", "translator"): ("relu", ""),
    ("g", "unet"): ("relu", ""),  # in its decoder
    ("d", "patch"): ("leaky_relu", ""),
    ("g", "unrolled"): ("relu", "batch"),
    ("d", "unrolled"): ("leaky_relu", "batch"),
}
"""The activations and norms that networks without such a field always have; an empty text for a field that there is."""


class TipStatus(NamedTuple):
    """Whether a recipe follows a tip, and why."""

    status: StatusKind
    reason: str


class RecipeView:
    """A recipe's table, with the defaults of its components filled in."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.tricks: dict[str, dict[str, Any]] = {}
        for trick in table.get("tricks", ()):
            if isinstance(trick, dict) and isinstance(trick.get("kind"), str):
                self.tricks[trick["kind"]] = parts()["tricks"].get(trick["kind"], {}) | trick

    def part(self, path: str) -> dict[str, Any]:
        """The component at `path` with its defaults; empty if there is none."""
        node: Any = self.table
        for key in path.split("."):
            node = node.get(key) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            return {}
        return parts().get(path, {}).get(str(node.get("kind")), {}) | node

    def get(self, path: str) -> Any:
        """The field at `path`, or None."""
        part, _, field = path.rpartition(".")
        return self.part(part).get(field) if part else self.table.get(field)

    def present_tricks(self, *kinds: str) -> list[str]:
        """Those of the given kinds of tricks that the recipe has."""
        return [kind for kind in kinds if kind in self.tricks]

    def last_value(self, schedule: Any) -> float:
        """The value of a number or of a schedule at the end of the run."""
        value: Schedulable = TypeAdapter(Schedulable).validate_python(schedule)
        return value_at(value, self.get("steps"), 1.0)

    def norm(self, side: str) -> str:
        """The normalisation layers of a player's network; those that it always has, if it has no such field."""
        fixed = FIXED.get((side, str(self.get(f"network.{side}.kind"))), ("", ""))[1]
        return str(self.get(f"network.{side}.norm") or fixed or "none")

    def activation(self, side: str) -> str | None:
        """The activations of a player's network; those that it always has, if it has no such field; None if unknown."""
        fixed = FIXED.get((side, str(self.get(f"network.{side}.kind"))), ("", ""))[0]
        return self.get(f"network.{side}.activation") or fixed or None

    @property
    def has_no_discriminator(self) -> bool:
        """Whether the recipe trains G without a discriminator."""
        return self.get("tempo.kind") == "alone"

    @property
    def is_toy(self) -> bool:
        """Whether the data are points or vectors."""
        return self.get("data.kind") in parts()["points"]


def followed(reason: str) -> TipStatus:
    """The recipe follows the tip."""
    return TipStatus("followed", reason)


def not_followed(reason: str) -> TipStatus:
    """The recipe does the opposite."""
    return TipStatus("not followed", reason)


def left_open(reason: str) -> TipStatus:
    """The recipe neither follows nor breaks the tip."""
    return TipStatus("open", reason)
