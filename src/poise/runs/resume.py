"""Chooses the checkpoint that a run is resumed from: the newest valid one with the same recipe and data that fits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from poise.errors import CheckpointError, PoiseError, RecipeError
from poise.recipe.decode import decode
from poise.recipe.model import Recipe, differences, with_free_fields
from poise.recipe.toml import parse_toml
from poise.runs import checkpoint, checkpoint_folder
from poise.runs.changes import Changes, changed_table, changes_from_json
from poise.runs.folder import RunFolder
from poise.utils.printing import shorten_list

KEEP = "undo the change, or start a new run"
"""What to do about a recipe with which a run can't be resumed."""


def core_hash(recipe: Recipe) -> str:
    """SHA-256 of the part of a recipe that may not change when a run is resumed, 16 hex digits."""
    return hash_of_core(recipe.core)


def hash_of_core(core: str) -> str:
    """The `core_hash` of the recipe with this core."""
    return hashlib.sha256(core.encode()).hexdigest()[:16]


def changed_recipe(original: Recipe, changes: Changes) -> Recipe:
    """A recipe with the changes that are in force.

    Raises:
        RecipeError: the result is not a recipe.
    """
    return decode(changed_table(original.canonical(), changes)) if changes else original


def cores_of_stages(original: Recipe, changes: Changes) -> frozenset[str]:
    """The cores of all recipes that a run with these changes has had, one after another."""
    cores = set[str]()
    for count in range(len(changes) + 1):
        with suppress(RecipeError):  # of a version that knows other options
            cores.add(changed_recipe(original, changes[:count]).core)
    return frozenset(cores)


class Stage(NamedTuple):
    """Where a run is with the changes that it makes to its recipe.

    Attributes:
        original: the recipe that it was started with.
        changes: the changes up to the checkpoint that it is resumed from.
        known: the cores of the recipes that it has had; none if there have been no changes.
    """

    original: Recipe
    changes: Changes = ()
    known: frozenset[str] = frozenset()

    @property
    def recipe(self) -> Recipe:
        """The recipe of this stage."""
        return changed_recipe(self.original, self.changes)


def find_stage(folder: RunFolder, given: Recipe) -> Stage:
    """The stage of a run that is resumed, by its newest valid checkpoint.

    A process may have been killed after it had written a checkpoint and before it wrote `recipe.toml`, or after it had
    deleted the checkpoints of a stage. So the checkpoint decides, and any recipe that the run has had may be given.

    Args:
        folder: the run folder.
        given: the recipe with which it is resumed; its fields that are free to change are those of the result.

    Raises:
        RecipeError: the run has never had this recipe; names the fields.
    """
    recorded: Changes = ()
    with suppress(CheckpointError):
        recorded = changes_from_json(folder.read_info().get("changes", []))
    if not recorded and not checkpoint_folder.may_have_changes(folder.saves):
        return Stage(given)
    newest, _ = checkpoint_folder.newest_valid(folder.saves)
    if newest is None or "recipe" not in newest.state:
        return Stage(given)
    changes = changes_from_json(newest.state.get("changes", []))
    core = str(newest.state["original" if changes else "recipe"])
    original = decode(with_free_fields(parse_toml(core, str(newest.path)), given))
    known = cores_of_stages(original, changes) | cores_of_stages(original, recorded)
    stage = Stage(original, changes, known)
    if given.core in known:
        return stage
    fields = min((differences(recipe, given) for recipe in (original, stage.recipe)), key=len)
    found = f"different values of {shorten_list(fields)}"
    raise RecipeError("a resumed run must keep its recipe", where="--resume", found=found, cure=KEEP)


def choose_checkpoint(
    saves: Path,
    recipe: Recipe,
    fingerprint: str,
    restore: Callable[[checkpoint.Checkpoint], None],
    critics: Mapping[str, str] = MappingProxyType({}),
    stages: Collection[str] = (),
) -> tuple[checkpoint.Checkpoint, list[str]]:
    """Load the newest checkpoint that can be resumed from; also returns a message for each newer one that was skipped.

    Args:
        saves: the folder of the checkpoints.
        recipe: the run's recipe.
        fingerprint: the fingerprint of the run's data.
        restore: loads a checkpoint into the players; raises CheckpointError, and changes nothing, if it does not fit.
        critics: the hashes of the run's frozen networks, by trick.
        stages: the `core_hash` of other recipes whose checkpoints may be restored.

    Raises:
        RecipeError: there are valid checkpoints, but the newest was written with another recipe; names the fields.
        CheckpointError: there are none, or they belong to other data or other critics. If there is an intact one in
            `best/` or `kept/` beside `saves`, it is named.
    """
    skipped: list[str] = []
    mismatches: list[PoiseError] = []
    for candidate in checkpoint_folder.valid_checkpoints(saves, skipped):
        mismatch = _mismatch(candidate, recipe, fingerprint, saves, critics, stages)
        if mismatch is None:
            try:
                restore(candidate)
                return candidate, skipped
            except CheckpointError as error:
                skipped.append(f"{candidate.path.name}: {error.what}")
                continue
        mismatches.append(mismatch)
        found = f" ({mismatch.found})" if mismatch.found else ""
        skipped.append(f"{candidate.path.name}: {mismatch.what}{found}")
    if mismatches:
        raise mismatches[0]
    found, cure = "; ".join(skipped) or "none at all", "start a new run"
    for folder in (saves.parent / "best", saves.parent / "kept"):
        intact, _ = checkpoint_folder.newest_valid(folder)
        if intact is not None and _mismatch(intact, recipe, fingerprint, saves, critics, stages) is None:
            cure = f"{checkpoint_folder.how_to_use(intact.path, saves)}, or {cure}"
            break
    raise CheckpointError("no valid checkpoint to resume from", where=str(saves), found=found, cure=cure)


def _mismatch(
    candidate: checkpoint.Checkpoint,
    recipe: Recipe,
    fingerprint: str,
    saves: Path,
    critics: Mapping[str, str],
    stages: Collection[str],
) -> PoiseError | None:
    """Why a valid checkpoint does not belong to this run; None if it does."""
    if candidate.manifest.get("data") != fingerprint:
        cure = "restore that data, or start a new run"
        return CheckpointError("the data is not what this run was trained on", where=str(saves.parent), cure=cure)
    core = candidate.manifest.get("core")
    if core is None or core == core_hash(recipe) or core in stages:  # None: written by a version without this entry
        return _other_critics(candidate.manifest.get("critics", {}), critics, saves)
    fields = _different_fields(candidate.state.get("recipe"), recipe)
    if not fields:
        return _other_critics(candidate.manifest.get("critics", {}), critics, saves)
    found = f"different values of {shorten_list(fields)} in {candidate.path.name}"
    cure = f"{KEEP}; {saves.parent / 'recipe.toml'} may have been edited"
    return RecipeError("a resumed run must keep its recipe", where="--resume", found=found, cure=cure)


def _other_critics(before: Mapping[str, str], now: Mapping[str, str], saves: Path) -> PoiseError | None:
    """An error that names the frozen networks whose weights differ; None if they are the same."""
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if not changed:
        return None
    found = ", ".join(f"{name}: {before.get(name, 'none')} then, {now.get(name, 'none')} now" for name in changed)
    cure = f"restore {saves.parent / 'critics'}, or what your code loads, as it was then, or start a new run"
    what = "a frozen critic does not have the weights that this run was trained with"
    return CheckpointError(what, where=str(saves.parent), found=found, cure=cure)


def _different_fields(core: object, recipe: Recipe) -> list[str]:
    """The fields that differ between a checkpoint's recipe and this one; none if only the spelling differs."""
    try:
        return differences(decode(with_free_fields(parse_toml(str(core), ""), recipe)), recipe)
    except RecipeError:
        return ["fields that this version does not know"]
