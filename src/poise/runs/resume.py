"""Chooses the checkpoint that a run is resumed from: the newest valid one with the same recipe and data that fits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from poise.errors import CheckpointError, PoiseError, RecipeError
from poise.recipe.decode import decode
from poise.recipe.model import Recipe, differences, with_free_fields
from poise.recipe.toml import parse_toml
from poise.runs import checkpoint


def core_hash(recipe: Recipe) -> str:
    """SHA-256 of the part of a recipe that may not change when a run is resumed, 16 hex digits."""
    return hashlib.sha256(recipe.core.encode()).hexdigest()[:16]


def choose_checkpoint(
    saves: Path,
    recipe: Recipe,
    fingerprint: str,
    restore: Callable[[checkpoint.Checkpoint], None],
    critics: Mapping[str, str] = MappingProxyType({}),
) -> tuple[checkpoint.Checkpoint, list[str]]:
    """Load the newest checkpoint that can be resumed from; also returns a message for each newer one that was skipped.

    Args:
        saves: the folder of the checkpoints.
        recipe: the run's recipe.
        fingerprint: the fingerprint of the run's data.
        restore: loads a checkpoint into the players; raises CheckpointError, and changes nothing, if it does not fit.
        critics: the hashes of the run's frozen networks, by trick.

    Raises:
        RecipeError: there are valid checkpoints, but the newest was written with another recipe; names the fields.
        CheckpointError: there are none, or they belong to other data or other critics.
    """
    skipped: list[str] = []
    mismatches: list[PoiseError] = []
    for candidate in checkpoint.valid_checkpoints(saves, skipped):
        mismatch = _mismatch(candidate, recipe, fingerprint, saves, critics)
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
    found = "; ".join(skipped) or "none at all"
    raise CheckpointError("no valid checkpoint to resume from", where=str(saves), found=found, cure="start a new run")


def _mismatch(
    candidate: checkpoint.Checkpoint, recipe: Recipe, fingerprint: str, saves: Path, critics: Mapping[str, str]
) -> PoiseError | None:
    """Why a valid checkpoint does not belong to this run; None if it does."""
    if candidate.manifest.get("data") != fingerprint:
        cure = "restore that data, or start a new run"
        return CheckpointError("the data is not what this run was trained on", where=str(saves.parent), cure=cure)
    if candidate.manifest.get("core") in (None, core_hash(recipe)):  # None: written by a version without this entry
        return _other_critics(candidate.manifest.get("critics", {}), critics, saves)
    fields = _different_fields(candidate.state.get("recipe"), recipe)
    if not fields:
        return _other_critics(candidate.manifest.get("critics", {}), critics, saves)
    found = f"different values of {', '.join(fields)} in {candidate.path.name}"
    cure = f"undo the change, or start a new run; {saves.parent / 'recipe.toml'} may have been edited"
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
