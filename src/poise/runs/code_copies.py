"""Copies of the user's Python files in a run folder, so that a run can be opened without the original files.

Each file that the recipe names is copied, but nothing that such a file imports. A copy is code like the original: it
runs only if the user trusts it, and only if it is what the run was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from poise.core.config import Config
from poise.errors import CheckpointError
from poise.recipe.model import Recipe
from poise.user_code.loading import UserCode, digest_of_file, register_copy, source_of, use_copy, user_components

Part = TypeVar("Part")


def copy_names(recipe: Recipe) -> dict[str, str]:
    """The name of each file's copy: the file's own name, numbered if two files have the same."""
    names: dict[str, str] = {}
    for component in user_components(recipe):
        if component.file in names:
            continue
        path = Path(component.file)
        name, n = path.name, 1
        while name.lower() in (taken.lower() for taken in names.values()):  # some file systems ignore case
            n += 1
            name = f"{path.stem}-{n}{path.suffix}"
        names[component.file] = name
    return names


def code_contents(recipe: Recipe) -> dict[str, bytes]:
    """The code that ran, by the name of its copy."""
    names = copy_names(recipe)
    return {names[component.file]: source_of(component) for component in user_components(recipe)}


def use_copies(recipe: Recipe, folder: Path, hashes: Mapping[str, str]) -> Recipe:
    """The recipe with its code taken from the copies in `folder`, or from the original files if they are unchanged.

    Args:
        recipe: the recipe of a run.
        folder: the folder of the run's copies; a run of an older version has none and uses the original files.
        hashes: the hash of the code that the run was trained with, by file.

    Raises:
        CheckpointError: neither the copy nor the file is what the run was trained with.
    """
    if not folder.is_dir():
        return recipe
    paths = {file: _unchanged(file, folder / name, hashes.get(file)) for file, name in copy_names(recipe).items()}

    return _relocated(recipe, paths)


def code_of_generator(recipe: Recipe) -> dict[str, bytes]:
    """The code without which samples can't be generated, by the name of its copy.

    That is the file of G and those of tricks that change G. The files of all tricks are executed, to see what they do.
    """
    names, changing = copy_names(recipe), [trick for trick in recipe.tricks if trick.changes_generator]
    return {names[one.file]: source_of(one) for part in (recipe.network.g, *changing) for one in user_components(part)}


def use_code_beside(recipe: Recipe, place: str, folder: Path, hashes: Mapping[str, str]) -> Recipe:
    """The recipe of an exported generator with G's code from `folder`, and without tricks whose code it doesn't need.

    Args:
        recipe: the recipe, which names each Python file without a folder.
        place: the exported file, for messages.
        folder: the folder with the Python files.
        hashes: the hash of the code that the run was trained with, by file, of the files that are needed.

    Raises:
        CheckpointError: a file is missing, or is not what the run was trained with.
    """
    tricks = tuple(one for one in recipe.tricks if not isinstance(one, UserCode) or one.file in hashes)
    paths = {component.file: component.file for component in user_components(recipe)}
    for component in (one for part in (recipe.network.g, *tricks) for one in user_components(part)):
        file, path = component.file, folder / component.file
        found = digest_of_file(path)
        if found is None or found != hashes.get(file, found):
            cure = f"put the {file} there that poise export wrote with the generator"
            raise CheckpointError(
                f"{file} is needed beside {place}",
                found="none" if found is None else "another version of it",
                cure=cure,
            )
        register_copy(file, path)
        paths[file] = str(path)
    return _relocated(recipe.model_copy(update={"tricks": tricks}), paths)


def _relocated(value: Part, paths: Mapping[str, str]) -> Part:
    """A recipe, or a part of one, with other paths of its code; `value` itself if it has none."""
    if isinstance(value, UserCode):
        return type(value).model_validate({**_fields(value), "file": paths[value.file]})  # type: ignore[return-value]
    if isinstance(value, Config):
        changed = {name: new for name, old in _fields(value).items() if (new := _relocated(old, paths)) is not old}
        return value.model_copy(update=changed) if changed else value  # type: ignore[return-value]
    if isinstance(value, tuple):
        items = tuple(_relocated(item, paths) for item in value)
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value  # type: ignore[return-value]
    return value


def substitute_missing(recipe: Recipe, folder: Path, hashes: Mapping[str, str]) -> list[str]:
    """Use copies for missing files when a run is resumed; a note on each, and on each changed file.

    Raises:
        CheckpointError: a file is missing and its copy is damaged.
    """
    notes: list[str] = []
    for file, name in copy_names(recipe).items():
        copy, known = folder / name, hashes.get(file)
        if not Path(file).exists() and copy.is_file():
            use_copy(file, Path(_unchanged(file, copy, known)))
            notes.append(f"{file} does not exist: the run's copy {copy} is used")
        elif known is not None and digest_of_file(Path(file)) not in (known, None):
            notes.append(f"{file} has changed since this run was started: the new version is used from here on")
    return notes


def copies_of_changed(recipe: Recipe, folder: Path, hashes: Mapping[str, str]) -> dict[str, str]:
    """The paths of a run's copies of the files that are missing, or have changed since the run, by file.

    Args:
        recipe: the recipe of the run.
        folder: the folder of its copies.
        hashes: the hash of the code that it was trained with, by file.

    Raises:
        CheckpointError: such a copy is missing or damaged.
    """
    copies: dict[str, str] = {}
    for file, name in copy_names(recipe).items():
        known = hashes.get(file)
        if known is not None and digest_of_file(Path(file)) != known:
            copies[file] = _unchanged(file, folder / name, known)
    return copies


def replace_files(value: Any, paths: Mapping[str, str]) -> Any:
    """A table of a recipe, or a part of one, whose components from Python files have other paths."""
    if isinstance(value, dict):
        replaced = {key: replace_files(item, paths) for key, item in value.items()}
        is_code = value.get("kind") == "python" and value.get("file") in paths
        return {**replaced, "file": paths[value["file"]]} if is_code else replaced
    return [replace_files(item, paths) for item in value] if isinstance(value, list) else value


def notes_on_copies(recipe: Recipe, folder: Path) -> list[str]:
    """A note on each Python file of a recipe that is a copy in this folder of a run."""
    files = {one.file for one in user_components(recipe) if Path(one.file).resolve().parent == folder.resolve()}
    why = "as the file is missing, or has changed since that run"
    return [f"code: {file}, the copy of the run that the weights come from, {why}" for file in sorted(files)]


def _fields(component: Config) -> dict[str, Any]:
    return {name: value for name, value in vars(component).items() if name in type(component).model_fields}


def _unchanged(file: str, copy: Path, known: str | None) -> str:
    """The path of the copy if it is what the run was trained with, else that of the file."""
    register_copy(file, copy)
    for path in (copy, Path(file)):
        if known is not None and digest_of_file(path) == known:
            return str(path)
    if known is None:
        return file
    found = "changed or damaged" if copy.is_file() else "missing"
    cure = f"replace it by the {Path(file).name} that the run was trained with"
    raise CheckpointError("the run's copy of its code can't be used", where=str(copy), found=found, cure=cure)
