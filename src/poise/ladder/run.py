"""Up the ladder: each rung trained, or taken up where it was left, then looked at."""

from __future__ import annotations

from pathlib import Path

from poise.errors import RecipeError, Stopped
from poise.ladder.evaluate import evaluate_rung
from poise.ladder.plan import RUNGS
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
) -> Path:
    """Train what is not trained yet, look at what was not looked at yet, write the report; gives its path.

    Args:
        recipes: by rung, see `plan`.
        out: the ladder's folder: a run folder for each rung, `report.html` and `report.md`.
        device: see `train`.
        data_root: where data sets by name are looked for.
        listener: looks on while a rung is trained.
        progress: gets the progress of the work between the runs.

    `train` lists the other errors.

    Raises:
        RecipeError: there is another ladder in `out`.
    """
    import_matplotlib()
    left = {rung: _left(recipe, out / rung) for rung, recipe in recipes.items()}
    again = f"; continue with the same command: poise ladder --out {out}"
    with Signals(again):  # between the rungs, and while one is looked at
        for rung, recipe in recipes.items():
            run = out / rung
            if left[rung] is not None:
                try:
                    train(recipe, run, resume=bool(left[rung]), device=device, data_root=data_root, listener=listener)
                except Stopped as stopped:
                    raise Stopped(str(stopped).partition("; continue with")[0] + again) from None
            done = Run(run)
            done.read_data_from(recipe.data)  # it may lie elsewhere now
            with progress_to(progress):
                evaluate_rung(done, data_root=data_root, progress=progress)
            progress("", 1.0)
        return write_report(out, list(recipes))


def _left(recipe: Recipe, path: Path) -> bool | None:
    """None if the run there is done; whether there is one to go on with.

    Raises:
        RecipeError: it is another run, or no run at all, or one that can't be gone on with.
    """
    if not (path / "run.json").is_file():
        RunFolder(path).check(resume=False)
        return False
    run = Run(path)
    same_place = run.recipe.model_copy(update={"data": recipe.data})
    if differences(run.recipe, recipe) or same_place.hash != recipe.hash:
        cure = f"name another --out, or take the words that it was made with ({len(RUNGS)} rungs: {', '.join(RUNGS)})"
        raise RecipeError("there is another ladder here", where=f"--out {path.parent}", cure=cure)
    if run.info["state"] == "done":
        return None
    if not any(run.folder.saves.glob("step-*")):  # ended before its first save: begun anew
        RunFolder(path).check(resume=False)
        return False
    return True
