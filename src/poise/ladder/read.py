"""What a ladder's run folders say, as plain values: no torch, and nothing beside the folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from poise.errors import CheckpointError
from poise.recipe.toml import Table
from poise.runs.folder import RunFolder


class Rung(NamedTuple):
    """One run of a ladder.

    Attributes:
        name: of its folder.
        path: the folder.
        recipe: its `recipe.toml`.
        info: its `run.json`.
        figures: its `ladder/figures.json`.
        alarms: lines of `alarms.jsonl`.
    """

    name: str
    path: Path
    recipe: Table
    info: dict[str, Any]
    results: dict[str, Any]
    alarms: list[dict[str, Any]]

    def value(self, measure: str, group: str = "measures") -> float | None:
        """A measured figure, if it is there."""
        told = self.results.get(group, {}).get(measure)
        return None if told is None else told["value"]

    def image(self, name: str) -> Path | None:
        """A picture of it, if it was drawn."""
        path = self.path / "ladder" / f"{name}.png"
        return path if path.is_file() else None


def read_rungs(out: Path, names: list[str]) -> list[Rung]:
    """The rungs in `out`.

    Raises:
        CheckpointError: one is missing, or was not looked at.
    """
    return [_rung(out / name) for name in names]


def _rung(path: Path) -> Rung:
    folder = RunFolder(path)
    try:
        info = folder.read_info() if folder.info.is_file() else {}
        figures = json.loads((path / "ladder" / "figures.json").read_text("utf-8"))
        _ = figures["step"], figures["measures"], figures["spectrum"]["real"], info["parameters"]
    except (OSError, ValueError, KeyError, TypeError):
        cure = "poise ladder trains and measures it"
        raise CheckpointError("not a measured rung of a ladder", where=str(path), cure=cure) from None
    return Rung(path.name, path, folder.read_recipe(), info, figures, folder.read_alarms())
