"""A folder that a run's images are written to: what may be in it before, and the record of what its images are.

A folder that was interrupted is continued by the same command, and never mixes images of two origins.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from poise.data.listing import HIDDEN, ignored_reason
from poise.errors import RecipeError
from poise.runs.checkpoint import TENSORS
from poise.runs.run import Run
from poise.utils.paths import folder_around

OTHER_FOLDER = "choose a new or an empty folder"


def check_place(folder: Path, option: str, what: str, data: Iterable[str]) -> None:
    """Refuse a file, and a folder in which the images would become data.

    Args:
        folder: the folder.
        option: the option that gave it.
        what: the error if it is a folder of data.
        data: the paths of the data.

    Raises:
        RecipeError: it is one of these.
    """
    if folder.exists() and not folder.is_dir():
        raise RecipeError("is a file", where=option, found=f"'{folder}'", cure="give the name of a folder")
    around = folder_around(data, folder)
    if around is not None:
        cure = "choose a folder outside of it"
        raise RecipeError(what, where=f"{option} {folder}", found=str(around), cure=cure)


def origin_of(run: Run, *, raw: bool) -> dict[str, Any]:
    """What a record says of the generator.

    Only `run`, the name of the run's folder, may change later. `recipe` is a hash without what may change when a run is
    resumed, such as the path of the data; that of older versions is one of the whole recipe.
    """
    averaged = run.generator(raw=raw) is not run.game.g.net
    return {
        "run": run.path.resolve().name,
        "recipe": hashlib.sha256(run.recipe.core.encode()).hexdigest()[:16],
        "step": run.checkpoint.step,
        "weights": "averaged" if averaged else "trained",
        "tensors": run.checkpoint.manifest["files"][TENSORS]["sha256"],
    }


def entries(folder: Path) -> list[str]:
    """The names in a folder, sorted, without hidden ones, such as a lock or what a file manager leaves."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        return sorted(entry.name for entry in found if ignored_reason(entry.name) != HIDDEN)


def refuse_entry(folder: Path, option: str, name: str) -> RecipeError:
    """The error for a file that is none of those that are written."""
    return RecipeError("has other files in it", where=f"{option} {folder}", found=f"'{name}'", cure=OTHER_FOLDER)


def check_record(folder: Path, file: str, option: str, record: Mapping[str, Any], named: Sequence[str]) -> None:
    """Refuse a folder whose images have another origin.

    Args:
        folder: the folder.
        file: the name of its record.
        option: the option that gave the folder.
        record: what the record must be.
        named: the keys that an error names, the most telling first.

    Raises:
        RecipeError: they have, or the record is damaged.
    """
    what, where = file.removesuffix(".json"), f"{option} {folder}"
    try:
        found = dict(json.loads((folder / file).read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        raise RecipeError(f"its {file} can't be read", where=where, cure=OTHER_FOLDER) from None
    changed = [key for key in record if key not in ("run", "recipe") and found.get(key) != record[key]]
    name = next((key for key in named if key in changed), None)
    if changed and (name is None or ("tensors" in changed and found.get("recipe") != record["recipe"])):
        raise RecipeError(f"has {what} of another run", where=where, found=f"'{found.get('run')}'", cure=OTHER_FOLDER)
    if name is not None:
        shown = f"{found.get(name)} instead of {record[name]}"
        raise RecipeError(f"has {what} of another {name}", where=where, found=shown, cure=OTHER_FOLDER)
