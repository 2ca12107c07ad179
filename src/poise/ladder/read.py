"""Loads the results of a ladder from its run folders, without torch."""

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
        name: the name of its folder.
        path: the folder.
        recipe: the content of `recipe.toml`.
        info: the content of `run.json`.
        results: the content of `ladder/figures.json`.
        alarms: the lines of `alarms.jsonl`.
    """

    name: str
    path: Path
    recipe: Table
    info: dict[str, Any]
    results: dict[str, Any]
    alarms: list[dict[str, Any]]

    def value(self, measure: str, group: str = "measures") -> float | None:
        """The value of a measure; None if there is none.

        Args:
            measure: its name.
            group: "measures", or "fitted" for samples from fitted codes.
        """
        result = self.results.get(group, {}).get(measure)
        return None if result is None else result["value"]

    def image(self, name: str) -> Path | None:
        """The path of an image grid; None if there is none."""
        path = self.path / "ladder" / f"{name}.png"
        return path if path.is_file() else None


def read_rungs(out: Path, names: list[str]) -> list[Rung]:
    """The rungs called `names` in the folder `out`.

    Raises:
        CheckpointError: a model is missing or has not been evaluated.
    """
    return [_read_rung(out / name) for name in names]


def _read_rung(path: Path) -> Rung:
    folder = RunFolder(path)
    try:
        info = folder.read_info() if folder.info.is_file() else {}
        results = json.loads((path / "ladder" / "figures.json").read_text("utf-8"))
        _ = results["step"], results["measures"], results["spectrum"]["real"], info["parameters"]
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError("not an evaluated model of a ladder", where=str(path), cure="run poise ladder") from None
    return Rung(path.name, path, folder.read_recipe(), info, results, folder.read_alarms())
