"""Which save a run goes on from: the newest that is whole, and of this recipe and this data, and fits the players."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from poise.errors import CheckpointError, PoiseError, RecipeError
from poise.recipe.decode import decode
from poise.recipe.model import Recipe, differences, with_free_fields
from poise.recipe.toml import parse_toml
from poise.runs import checkpoint


def core_hash(recipe: Recipe) -> str:
    """SHA-256 of what of a recipe may not change when a run is resumed, 16 hex digits."""
    return hashlib.sha256(recipe.core.encode()).hexdigest()[:16]


def choose_checkpoint(
    saves: Path, recipe: Recipe, fingerprint: str, restore: Callable[[checkpoint.Checkpoint], None]
) -> tuple[checkpoint.Checkpoint, list[str]]:
    """The newest save that can be gone on from, restored; and a sentence for each newer one that was passed over.

    Args:
        saves: their folder.
        recipe: of the run.
        fingerprint: of its data.
        restore: loads a checkpoint into the players; raises CheckpointError, and changes nothing, if it does not fit.

    Raises:
        RecipeError: there are whole saves, but the newest of them was made with another recipe; names the fields.
        CheckpointError: there are none, or they are of other data.
    """
    passed: list[str] = []
    strange: list[PoiseError] = []
    for past in checkpoint.valid_checkpoints(saves, passed):
        error = _strange(past, recipe, fingerprint, saves)
        if error is None:
            try:
                restore(past)
                return past, passed
            except CheckpointError as unfit:
                passed.append(f"{past.path.name}: {unfit.what}")
                continue
        strange.append(error)
        passed.append(f"{past.path.name}: {error.what}" + (f" ({error.found})" if error.found else ""))
    if strange:
        raise strange[0]
    found = "; ".join(passed) or "none at all"
    raise CheckpointError("no valid save to go on with", where=str(saves), found=found, cure="start a new run")


def _strange(past: checkpoint.Checkpoint, recipe: Recipe, fingerprint: str, saves: Path) -> PoiseError | None:
    """Why a whole save is not of this run."""
    if past.manifest.get("data") != fingerprint:
        cure = "bring that data back, or start a new run"
        return CheckpointError("the data is not what this run was trained on", where=str(saves.parent), cure=cure)
    if past.manifest.get("core") in (None, core_hash(recipe)):  # None: by a version that did not write it
        return None
    fields = _other(past.state.get("recipe"), recipe)
    if not fields:
        return None
    found = f"other {', '.join(fields)} in {past.path.name}"
    cure = f"take it back, or start a new run; {saves.parent / 'recipe.toml'} may have been edited"
    return RecipeError("a resumed run must keep its recipe", where="--resume", found=found, cure=cure)


def _other(core: object, recipe: Recipe) -> list[str]:
    """Which fields a save's recipe has otherwise; none if it is the same in other words (an older version's)."""
    try:
        return differences(decode(with_free_fields(parse_toml(str(core), ""), recipe)), recipe)
    except RecipeError:
        return ["fields that this version does not know"]
