"""Copies of the user's Python files in a run folder, so that a run can be opened where the files themselves are not.

A copy is taken of each file that a recipe names, and of nothing that such a file imports. It is code like any other: it
runs only where the user trusts it, and only if it is what the run was trained with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from poise.errors import CheckpointError
from poise.recipe.model import Recipe
from poise.user_code.loading import UserCode, source_of, use_copy, user_components

Part = TypeVar("Part")


def copy_names(recipe: Recipe) -> dict[str, str]:
    """What the copy of each file is called: its own name, numbered where two files have the same."""
    names: dict[str, str] = {}
    for part in user_components(recipe):
        if part.file in names:
            continue
        path = Path(part.file)
        name, n = path.name, 1
        while name.lower() in (taken.lower() for taken in names.values()):  # some file systems know no case
            n += 1
            name = f"{path.stem}-{n}{path.suffix}"
        names[part.file] = name
    return names


def code_contents(recipe: Recipe) -> dict[str, bytes]:
    """The code that ran, by the name of its copy."""
    names = copy_names(recipe)
    return {names[part.file]: source_of(part) for part in user_components(recipe)}


def use_copies(recipe: Recipe, folder: Path, hashes: Mapping[str, str]) -> Recipe:
    """The recipe with its code taken from the copies in `folder`, or from the files themselves if these are the same.

    Args:
        recipe: of a run.
        folder: where the run's copies are; a run of an older version has none, and its files are taken as they are.
        hashes: of the code that the run was trained with, by file.

    Raises:
        CheckpointError: neither the copy nor the file is what the run was trained with.
    """
    if not folder.is_dir():
        return recipe
    places = {file: _whole(file, folder / name, hashes.get(file)) for file, name in copy_names(recipe).items()}

    def moved(part: Part) -> Part:
        if not isinstance(part, UserCode):
            return part
        return type(part).model_validate({**_fields(part), "file": places[part.file]})  # type: ignore[return-value]

    networks = {name: moved(network) for name, network in recipe.network}
    return recipe.model_copy(
        update={
            "network": recipe.network.model_copy(update=networks),
            "objective": moved(recipe.objective),
            "tricks": tuple(map(moved, recipe.tricks)),
        }
    )


def substitute_missing(recipe: Recipe, folder: Path, hashes: Mapping[str, str]) -> list[str]:
    """Let copies stand in for files that are not there, when a run is resumed; a note on each, and on changed files.

    Raises:
        CheckpointError: a file is not there and its copy is damaged.
    """
    notes: list[str] = []
    for file, name in copy_names(recipe).items():
        copy, known = folder / name, hashes.get(file)
        if not Path(file).exists() and copy.is_file():
            use_copy(file, Path(_whole(file, copy, known)))
            notes.append(f"{file} is not there: the run's copy of it is taken, {copy}")
        elif known is not None and _hash(Path(file)) not in (known, None):
            notes.append(f"{file} is not what this run was trained with: what it says now is taken from here on")
    return notes


def _fields(part: UserCode) -> dict[str, Any]:
    return {name: value for name, value in vars(part).items() if name in type(part).model_fields}


def _whole(file: str, copy: Path, known: str | None) -> str:
    """The path of the code: the copy's, if that is what the run was trained with, else the file's."""
    for path in (copy, Path(file)):
        if known is not None and _hash(path) == known:
            return str(path)
    if known is None:
        return file
    found = "changed or damaged" if copy.is_file() else "missing"
    cure = f"put the {Path(file).name} there that the run was trained with"
    raise CheckpointError("the run's copy of its code can't be used", where=str(copy), found=found, cure=cure)


def _hash(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return None
