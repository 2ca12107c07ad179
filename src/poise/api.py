"""`poise.train` and `poise.align`: the commands `poise train` and `poise align` for scripts and notebooks.

The recipe may be a name, a path or a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from poise.alignment.align import Alignment
from poise.alignment.align import align as align_sets
from poise.cli.align import initial_table as initial_align_table
from poise.cli.fine_tuning_arguments import apply_fine_tuning, keep_channels, root_of_init
from poise.cli.progress_view import choose_view
from poise.cli.recipe_arguments import apply_changes
from poise.cli.train import initial_table
from poise.data.lookup import check_type
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.retired import renamed_argument
from poise.runs.run import Run
from poise.training.listener import ProgressListener
from poise.training.train import train as start_training


def train(
    recipe: str | Path | Mapping[str, Any] | Recipe | None = None,
    out: str | Path | None = None,
    *,
    data: str | Path | Mapping[str, Any] | None = None,
    steps: int | None = None,
    seed: int | None = None,
    init_from: str | Path | None = None,
    init_players: str | None = None,
    freeze: str | None = None,
    resume: bool = False,
    device: str = "auto",
    precision: str = "auto",
    accumulate: int | None = None,
    data_root: str | Path | None = None,
    progress: bool = True,
    listener: ProgressListener | None = None,
    trust_code: bool = False,
    **retired: Any,
) -> Run:
    """Train a GAN and write everything about the run to a run folder.

    Args:
        recipe: the name of a shipped recipe, the path of a `.toml` file, a table with the contents of such a file, or
            a `Recipe`, such as `poise.choose_recipe` returns. The default is DCGAN on digits; with `resume` it is the
            recipe of the run in `out`, and with `init_from` that of the run there.
        out: the run folder. The default is `runs/NAME`, with a number if this folder exists.
        data: a folder, .zip or .npz of images, or the name of a data set; replaces that of the recipe, whose other keys
            of the table `data` are kept. Or a whole table `data`, such as `{"kind": "grid"}`. With `resume`, the new
            location of the run's data.
        steps: the number of steps of the whole run; replaces that of the recipe.
        seed: the seed of all random numbers; replaces that of the recipe.
        init_from: the folder of a run whose weights the players start from.
        init_players: those players, "g", "d" or "g,d" (the default).
        freeze: how many layers keep their weights: "d:3" the first 3 of D, "d:3,g:1" also the first of G.
        resume: continue the run in `out`. On the same machine with the same libraries the result is bit-identical.
        device: "auto", "cpu", "cuda", "cuda:1". "auto" is the device of the run that is resumed, if it is available.
        precision: "auto", "fp32" or "bf16" (autocast). "auto" is the precision of the run that is resumed.
        accumulate: the number of parts of a batch whose gradients are computed one after another, which saves memory;
            None for that of the run that is resumed, or else 1.
        data_root: the folder that is searched for data sets given by name; None for that of the run that is resumed or
            whose weights are taken, or else `data` in the current directory.
        progress: whether to print the progress: a panel in a terminal, a single line that is updated in a notebook,
            otherwise one line per logged row.
        listener: notified as training proceeds, instead of printing (see `poise.NullListener`).
        trust_code: whether Python files that the recipe names may be run (docs/custom-components.md).

    Raises:
        RecipeError, DataError, CheckpointError: before anything is written.
        Diverged, DiskError, OutOfMemory: during training; earlier checkpoints stay.
        Stopped: a signal (Ctrl-C) or the listener has stopped the run; its state is saved.
    """
    listener = renamed_argument("watcher", "listener", retired, listener)
    if data is not None:
        check_type(data)
    root = None if data_root is None else Path(data_root)
    changed = (data, steps, seed, init_from, init_players, freeze) != (None,) * 6
    if isinstance(recipe, Recipe) and not changed:
        decoded = recipe
    else:
        table = _table(recipe, out, _text(init_from), resume=resume)
        apply_fine_tuning(table, _text(init_from), init_players, None if freeze is None else [freeze], moved=resume)
        if isinstance(data, Mapping):
            table["data"] = dict(data)
        path = None if isinstance(data, Mapping) else _text(data)
        table = apply_changes(table, path, {"steps": steps, "seed": seed}, None, "data")
        tunes = recipe is None and init_from is not None and not resume
        if tunes and data is not None:
            keep_channels(table, str(init_from))
        decoded = decode(table, str(recipe) if isinstance(recipe, str | Path) and str(recipe).endswith(".toml") else "")
        if tunes and data is None:
            root = root_of_init(str(init_from), root, decoded.data)
    if listener is None and progress:
        listener = choose_view()
    return start_training(
        decoded,
        out,
        resume=resume,
        device=device,
        precision=precision,
        accumulate=accumulate,
        data_root=root,
        listener=listener,
        trust_code=trust_code,
    )


def _table(recipe: Any, out: str | Path | None, init_from: str | None, *, resume: bool) -> dict[str, Any]:
    if isinstance(recipe, Recipe):
        return recipe.canonical()
    if isinstance(recipe, Mapping):
        return deepcopy(dict(recipe))
    return initial_table(_text(recipe), _text(out), resume=resume, init_from=init_from)


def _text(value: str | Path | None) -> str | None:
    return None if value is None else str(value)


def align(
    source: str | Path | None = None,
    target: str | Path | None = None,
    out: str | Path | None = None,
    *,
    dictionary: str | Path | None = None,
    starts: int = 10,
    steps: int | None = None,
    most_frequent: int | None = None,
    seed: int | None = None,
    changes: Sequence[str] = (),
    resume: bool = False,
    device: str = "auto",
    listener: ProgressListener | None = None,
) -> Alignment:
    """Map one set of vectors onto another without known pairs, and write the map, a dictionary and the mapped vectors.

    Args:
        source: the file of the vectors to map, `.vec`, `.txt`, `.bin`, `.npz` or `.npy`, the most frequent words first.
            With `resume`, it and `target` may be left out.
        target: that of the vectors to map them onto.
        out: the folder of the results. The default is `runs/align`, with a number if this folder exists.
        dictionary: a file of known translations, a pair of words per line, with which the result is compared.
        starts: the largest number of random starts.
        steps: the number of training steps of each; replaces that of the recipe `align`.
        most_frequent: how many of the first vectors of each file D sees; replaces that of the recipe.
        seed: the seed of the first start, 0 by default; the next ones follow.
        changes: other fields of the recipe as after `--set`, such as ["optimizer.g.lr=1e-3"].
        resume: continue the alignment in `out`, with its recipe, or add more starts to it.
        device: "auto", "cpu", "cuda", "cuda:1".
        listener: is told of messages, alarms and the progress of long work (see `poise.NullListener`).

    Raises:
        RecipeError, DataError, CheckpointError: before anything is written.
        Diverged, DiskError, OutOfMemory: during the search.
        Stopped: a signal (Ctrl-C) or the listener has stopped the search, which `resume` continues.
    """
    a, b = (None if path is None else str(path) for path in (source, target))
    folder = None if out is None else Path(out)
    table = initial_align_table(a, b, folder, most_frequent, resume=resume)
    table = apply_changes(table, None, {"seed": seed, "steps": steps}, list(changes))
    return align_sets(
        decode(table),
        folder,
        dictionary=None if dictionary is None else Path(dictionary),
        starts=starts,
        resume=resume,
        device=device,
        listener=listener,
    )
