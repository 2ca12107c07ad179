"""The checkpoints of a run in a folder, `step-00000500` and so on: the newest valid one, pruning, and returning to one.

An older checkpoint is deleted only after a newer one has been written and read back. Damaged ones are reported and
skipped, and stay as evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from poise.errors import CheckpointError, DiskError
from poise.runs.checkpoint import STATE, Checkpoint, read, step_of, verify
from poise.utils.files import remove_folder, write_folder
from poise.utils.system import disk_errors
from poise.utils.temporary import remove_leftovers


def valid_checkpoints(
    saves: Path, skipped: list[str], fetch: Callable[[Path], None] | None = None
) -> Iterator[Checkpoint]:
    """The valid checkpoints, newest first; a message for each damaged one is appended to `skipped`.

    `fetch` is called with each one before it is read.
    """
    paths = [(step, path) for path in saves.glob("step-*") if (step := step_of(path)) is not None]
    for _, path in sorted(paths, reverse=True):
        if fetch is not None:
            fetch(path)
        try:
            checkpoint = read(path)
        except CheckpointError as error:
            skipped.append(str(error))
            continue
        yield checkpoint


def newest_valid(saves: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest valid checkpoint, and a message for each newer one that is damaged."""
    skipped: list[str] = []
    return next(valid_checkpoints(saves, skipped), None), skipped


def any_step(_: int) -> bool:
    """Every step is due."""
    return True


def newest_manifest(saves: Path) -> dict[str, Any]:
    """The manifest of the newest valid checkpoint; empty if there is none."""
    valid = valid_steps(saves)
    return verify(valid[max(valid)]) if valid else {}


def prune(saves: Path, keep: int, horizon: int | None = None, is_due: Callable[[int], bool] = any_step) -> None:
    """Delete all but the newest `keep` valid checkpoints, and what a killed run left half written.

    Damaged checkpoints stay, as evidence; they are never loaded.

    Args:
        saves: the folder of the checkpoints.
        keep: the number of checkpoints that stay.
        horizon: a step that increases from call to call. More checkpoints that are due stay if need be: the newest
            `keep`, the newest one that is not later than the horizon, and the oldest one that is, which will take its
            place. So there is always one from before the horizon, however many are written after it.
        is_due: whether a checkpoint is due after this number of steps, and was not written because the run was stopped.
    """
    remove_leftovers(saves)
    valid = valid_steps(saves)
    kept = set(sorted(valid)[-keep:])
    if horizon is not None:
        due = sorted(filter(is_due, valid))
        kept |= {*due[-keep:], *[step for step in due if step <= horizon][-1:]}
        kept |= {*[step for step in due if step > horizon][:1]}
    for step in valid.keys() - kept:
        _delete(valid[step])


def valid_steps(saves: Path) -> dict[int, Path]:
    """The valid checkpoints by step."""
    valid: dict[int, Path] = {}
    for path in saves.glob("step-*"):
        with suppress(CheckpointError):
            valid[verify(path)["step"]] = path
    return valid


def how_to_use(intact: Path, saves: Path) -> str:
    """What to do with an intact checkpoint of `best/` or `kept/` if those of `saves` are damaged."""
    return f"{intact} is intact: copy this folder into {saves} and repeat the command"


def copy(path: Path, folder: Path) -> None:
    """Copy a checkpoint to another folder.

    Raises:
        OSError: it can't be read, or the copy not be written.
    """
    write_folder(folder / path.name, {file.name: file.read_bytes() for file in path.iterdir()})


def may_have_changes(saves: Path) -> bool:
    """Whether a checkpoint says that the recipe of its run has been changed; looks at the text alone."""
    for path in saves.glob(f"step-*/{STATE}"):
        with suppress(OSError):
            if b'"changes"' in path.read_bytes():
                return True
    return False


def choosable(saves: Path, is_due: Callable[[int], bool], best: Path | None = None) -> dict[int, Path]:
    """The valid checkpoints, by step, from which one from before a sign of failure is chosen.

    Args:
        saves: the folder of the checkpoints.
        is_due: whether a checkpoint is due after this number of steps. Others, which were written because the run was
            stopped, are left out, as long as there are any, so that it goes on like one that was never stopped.
        best: a folder of further checkpoints.
    """
    saved = valid_steps(saves)
    return ({} if best is None else valid_steps(best)) | {step: saved[step] for step in saved if is_due(step)} or saved


def sound_step(steps: Collection[int], sound: int) -> int:
    """The newest of these steps that is not later than step `sound`; the oldest one if all are later."""
    return max((step for step in steps if step <= sound), default=min(steps))


def return_to(
    saves: Path,
    sound: int,
    best: Path | None = None,
    is_due: Callable[[int], bool] = any_step,
    *,
    knows_beginning: bool = False,
) -> int:
    """Make the newest checkpoint that is not later than step `sound` the newest of all, by deleting the later ones.

    If all are later, it is the oldest one. If `sound` is 0, the run was never healthy, and all are deleted.

    Args:
        saves: the folder of the checkpoints.
        sound: the step.
        best: a folder of further checkpoints. One of them is copied to `saves` if it is the one.
        is_due: see `choosable`.
        knows_beginning: whether the run can start again; otherwise it returns to the oldest one if `sound` is 0, too.

    Returns:
        Its step; 0 for the beginning of the run.

    Raises:
        DiskError: the copy can't be written, or a later checkpoint not be deleted.
    """
    valid = choosable(saves, is_due, best)
    if knows_beginning and sound == 0:
        valid = {0: saves}
    if not valid:
        return 0
    step = sound_step(valid, sound)
    if step and valid[step].parent != saves:
        with disk_errors(saves):
            copy(valid[step], saves)
    delete_after(saves, step)
    if later := [path for path in saves.glob("step-*") if (step_of(path) or 0) > step]:
        cure = f"delete it and continue with --resume: the run goes back to step {step:,}"
        raise DiskError("a checkpoint from after a sign of failure can't be deleted", where=str(later[0]), cure=cure)
    return step


def delete_after(saves: Path, after: int) -> None:
    """Delete the checkpoints of later steps than `after`."""
    for path in saves.glob("step-*"):
        if (step := step_of(path)) is not None and step > after:
            _delete(path)


def _delete(path: Path) -> None:
    with suppress(OSError):  # a folder that can't be removed does no harm
        remove_folder(path)
