"""`poise.train`: the command line's `train` for scripts and notebooks.

Recipes are given by name, path or table, and progress is printed as plain text.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from poise.cli.progress_view import choose_view
from poise.cli.recipe_arguments import apply_changes
from poise.cli.train import initial_table
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.retired import renamed_argument
from poise.runs.run import Run
from poise.training.listener import ProgressListener
from poise.training.train import train as begin


def train(
    recipe: str | Path | Mapping[str, Any] | Recipe | None = None,
    out: str | Path | None = None,
    *,
    data: str | Path | None = None,
    steps: int | None = None,
    seed: int | None = None,
    resume: bool = False,
    device: str = "auto",
    precision: str = "auto",
    data_root: str | Path | None = None,
    progress: bool = True,
    listener: ProgressListener | None = None,
    trust_code: bool = False,
    **retired: Any,
) -> Run:
    """Train a GAN and leave everything about it in a run folder.

    Args:
        recipe: a shipped recipe's name, the path of a `.toml` file, a table as such a file holds, or a `Recipe`. Left
            out, the default; with `resume`, the recipe of the run in `out`.
        out: the run folder; left out, `runs/NAME`, numbered if it is taken.
        data: a folder, .zip or .npz of pictures, or a data set's name, in place of the recipe's; with `resume`, where
            the run's data lies now.
        steps: steps in the whole run, in place of the recipe's.
        seed: all random numbers follow from it; in place of the recipe's.
        resume: go on with the run in `out`, bit for bit if machine and libraries are the same.
        device: "auto", "cpu", "cuda", "cuda:1".
        precision: "auto", "fp32" or "bf16" (autocast).
        data_root: where data sets by name are looked for.
        progress: whether to print how it goes: a panel on a terminal, a line that is written over in a notebook, else a
            line for each row. False prints nothing.
        listener: called as training proceeds, in place of printing (see `poise.NullListener`).
        trust_code: whether Python files that the recipe names may run (docs/custom-components.md).

    Raises:
        RecipeError, DataError, CheckpointError: before anything is written.
        Diverged, DiskError, OutOfMemory: during training; earlier saves stay.
        Stopped: by Ctrl-C or another signal, with the state saved.
    """
    listener = renamed_argument("watcher", "listener", retired, listener)
    if isinstance(recipe, Recipe) and data is None and steps is None and seed is None:
        decoded = recipe
    else:
        moved, numbers = resume and recipe is None, {"steps": steps, "seed": seed}
        table = apply_changes(_table(recipe, out, resume=resume), _text(data), numbers, None, moved=moved)
        decoded = decode(table, str(recipe) if isinstance(recipe, str | Path) and str(recipe).endswith(".toml") else "")
    if listener is None and progress:
        listener = choose_view()
    return begin(
        decoded,
        out,
        resume=resume,
        device=device,
        precision=precision,
        data_root=None if data_root is None else Path(data_root),
        listener=listener,
        trust_code=trust_code,
    )


def _table(recipe: Any, out: str | Path | None, *, resume: bool) -> dict[str, Any]:
    if isinstance(recipe, Recipe):
        return recipe.canonical()
    if isinstance(recipe, Mapping):
        return deepcopy(dict(recipe))
    return initial_table(_text(recipe), _text(out), resume=resume)


def _text(words: str | Path | None) -> str | None:
    return None if words is None else str(words)
