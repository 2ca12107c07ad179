"""What commands read and write: refused before any work is done, if it can't be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from poise.errors import CheckpointError, RecipeError
from poise.utils.printing import print_line

if TYPE_CHECKING:
    from poise.runs.run import Run


def check_writable(path: Path, suffixes: tuple[str, ...], option: str) -> None:
    """Raises RecipeError unless `path` ends as it should and its folder is there."""
    if path.suffix.lower() not in suffixes:
        wanted = " or ".join(suffixes)
        raise RecipeError(
            f"must end in {wanted}", where=option, found=f"'{path}'", cure=f"write {path.stem}{suffixes[0]}"
        )
    if path.is_dir():
        raise RecipeError("names a folder", where=option, found=f"'{path}'", cure="name a file")
    if not path.parent.is_dir():
        raise RecipeError("its folder does not exist", where=option, found=f"'{path.parent}'", cure="make it first")


def check_run(run: Path) -> None:
    """Raises CheckpointError unless there is a run folder at `run`."""
    if not (run / "run.json").is_file():
        raise CheckpointError("not a run folder: it has no run.json", where=str(run))


def report_skipped_checkpoints(run: Run) -> None:
    """Say which saves were passed over for older ones."""
    for sentence in run.skipped_checkpoints:
        print_line(f"skipped a damaged checkpoint: {sentence}", err=True)
