"""Trains or resumes the rungs of a ladder, evaluates them and writes the report."""

from __future__ import annotations

import shlex
from pathlib import Path

from poise.errors import RecipeError, Stopped
from poise.ladder.evaluate import evaluate_rung
from poise.ladder.report import write_report
from poise.recipe.model import Recipe, differences
from poise.runs.folder import RunFolder
from poise.runs.run import Run
from poise.training.listener import ProgressListener
from poise.training.signals import Signals
from poise.training.train import train
from poise.utils.plotting import import_matplotlib
from poise.utils.progress import Progress, no_progress, progress_to


def run_ladder(
    recipes: dict[str, Recipe],
    out: Path,
    *,
    device: str = "auto",
    data_root: Path | None = None,
    listener: ProgressListener | None = None,
    progress: Progress = no_progress,
    command: str = "",
) -> Path:
    """Train and evaluate the rungs, as far as this has not been done, and write the report.

    `train` lists further errors.

    Args:
        recipes: the recipes by rung, see `ladder_tables`.
        out: the ladder's folder, which gets a run folder for each rung, `report.html` and `report.md`.
        device: see `train`.
        data_root: the folder that contains the data sets given by name.
        listener: is notified while a rung is trained.
        progress: gets the progress of the evaluations.
        command: the command that continues the ladder with the same options, for the message of an interruption.

    Returns:
        The path of `report.html`.

    Raises:
        RecipeError: `out` contains a ladder with other recipes.
    """
    import_matplotlib()
    resume = {rung: _resume(recipe, out / rung) for rung, recipe in recipes.items()}
    command = command or shlex.join(["poise", "ladder", "--out", str(out)])
    advice = f"; continue with the same command: {command}"
    with Signals(advice, hears_inner=True):  # between the runs, and during an evaluation
        for rung, recipe in recipes.items():
            run = out / rung
            if resume[rung] is not None:
                try:
                    train(recipe, run, resume=bool(resume[rung]), device=device, data_root=data_root, listener=listener)
                except Stopped as stopped:
                    raise Stopped(str(stopped).partition("; continue with")[0] + advice) from None
            completed = Run(run)
            completed.read_data_from(recipe.data)  # the data may have been moved
            with progress_to(progress):
                evaluate_rung(completed, data_root=data_root, progress=progress)
            progress("", 1.0)
        return write_report(out, list(recipes))


def _resume(recipe: Recipe, path: Path) -> bool | None:
    """Whether there is a run to resume at `path`; None if it is complete.

    Raises:
        RecipeError: the folder contains a run of another recipe, a run that can't be resumed, or other files.
    """
    if not (path / "run.json").is_file():
        RunFolder(path).check(resume=False)
        return False
    run = Run(path)
    with_new_data = run.recipe.model_copy(update={"data": recipe.data})
    changed = differences(run.recipe, recipe) or with_new_data.hash != recipe.hash
    if changed and run.info.get("original") != recipe.hash:  # the run itself may have changed it (`advise`)
        cure = "give another --out, or use the same options as before"
        raise RecipeError("contains a ladder with other options", where=f"--out {path.parent}", cure=cure)
    if run.info["state"] == "done":
        return None
    if not any(run.folder.saves.glob("step-*")):  # stopped before its first checkpoint: start again
        RunFolder(path).check(resume=False)
        return False
    return True
