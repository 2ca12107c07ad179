"""A recipe as it is told, read off its table without torch, and how it may stand to a tip."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from poise.recipe.toml import Table
from poise.tips.catalogue import parts

StatusKind = Literal["followed", "broken", "open"]


class TipStatus(NamedTuple):
    """How a recipe stands to a tip, and why."""

    status: StatusKind
    reason: str


class RecipeView:
    """A recipe's table, with the defaults of its parts where it is silent."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.tricks: dict[str, dict[str, Any]] = {}
        for trick in table.get("tricks", ()):
            if isinstance(trick, dict) and isinstance(trick.get("kind"), str):
                self.tricks[trick["kind"]] = parts()["tricks"].get(trick["kind"], {}) | trick

    def part(self, path: str) -> dict[str, Any]:
        """The part at `path`, defaults spelled out; empty where there is none."""
        here: Any = self.table
        for key in path.split("."):
            here = here.get(key) if isinstance(here, dict) else None
        if not isinstance(here, dict):
            return {}
        return parts().get(path, {}).get(str(here.get("kind")), {}) | here

    def get(self, path: str) -> Any:
        """The field at `path`, or None."""
        part, _, field = path.rpartition(".")
        return self.part(part).get(field) if part else self.table.get(field)

    def has(self, *kinds: str) -> list[str]:
        """Those of some tricks that are there."""
        return [kind for kind in kinds if kind in self.tricks]

    def norm(self, side: str) -> str:
        """The norm of a player; a network without that field has none."""
        return str(self.get(f"network.{side}.norm") or "none")

    @property
    def has_no_discriminator(self) -> bool:
        """Whether it is a game for one, without a D."""
        return self.get("tempo.kind") == "alone"

    @property
    def is_toy(self) -> bool:
        """Whether its data is points of the plane, by kind."""
        return self.get("data.kind") in parts()["points"]


def followed(reason: str) -> TipStatus:
    """It does as the tip says."""
    return TipStatus("followed", reason)


def broken(reason: str) -> TipStatus:
    """It does otherwise."""
    return TipStatus("broken", reason)


def neither(reason: str) -> TipStatus:
    """It says nothing to this."""
    return TipStatus("open", reason)
