"""`poise train`: trains a recipe, or resumes a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from poise.cli.options import (
    Accumulate,
    Batch,
    Changes,
    Data,
    DataRoot,
    Device,
    Freeze,
    InitFrom,
    InitPlayers,
    Mirror,
    Precision,
    Recipe,
    Size,
    Text,
    Time,
    TrustCode,
)
from poise.utils.launcher import max_restarts, number_of_ranks, rank_of_process, restarts


def train(
    recipe: Recipe = None,
    data: Data = None,
    data_root: DataRoot = None,
    out: Annotated[Text, typer.Option(help="The run folder.", show_default="runs/NAME")] = None,
    steps: Annotated[int | None, typer.Option(help="The number of training steps.")] = None,
    time: Time = None,
    size: Size = None,
    batch: Batch = None,
    seed: Annotated[int | None, typer.Option(help="The seed of all random numbers.")] = None,
    mirror: Mirror = False,
    init_from: InitFrom = None,
    init_players: InitPlayers = None,
    freeze: Freeze = None,
    changes: Changes = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in --out.")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    accumulate: Accumulate = None,
    trust_code: TrustCode = False,
) -> None:
    """Train a GAN: any recipe on any images.

    Without a recipe, one is chosen for the images in --data. Without --data as well, the default recipe learns
    handwritten digits.
    """
    from poise.cli.default_recipe import changed_fields, check_time, choose_for, set_size, sets_steps
    from poise.cli.fine_tuning_arguments import apply_fine_tuning, keep_channels, root_of_init
    from poise.cli.recipe_arguments import apply_changes
    from poise.utils.paths import refuse_url

    with _ranks_are_told(device):
        if out is not None:
            refuse_url(out)
        elif max_restarts():
            _refuse_restarts_without_folder()
        seconds = check_time(time)
        resume = resume or (restarts() > 0 and out is not None and (Path(out) / "recipe.toml").is_file())
        _check_time_and_steps(seconds, steps, changes, resume=resume)
        if out is not None and not resume:
            from poise.runs.folder import RunFolder

            RunFolder(Path(out)).check(resume=False)  # before data is loaded and steps are timed
        changes = ["data.mirror=true", *(changes or [])] if mirror else changes
        choice, left = None, changes
        if recipe is None and data is not None and init_from is None and not resume:
            _check_choice()
            from poise.recipe.choose import DEFAULT_SECONDS, Limits

            limits = Limits(seconds, size, batch)
            choice, left = choose_for(data, limits, changes, device=device, precision=precision)
            if choice.timed and seconds is None and steps is None and not sets_steps(changes):
                seconds = DEFAULT_SECONDS
        table = choice.table if choice else initial_table(recipe, out, resume=resume, init_from=init_from)
        apply_fine_tuning(table, init_from, init_players, freeze, moved=resume)
        fields = {"steps": steps, "seed": seed, "batch": batch}
        table = apply_changes(table, None if choice else data, fields, None)
        if size is not None and choice is None:
            set_size(table, size)
        table = apply_changes(table, None, {}, left)
        recipe_run = init_from if recipe is None and not resume else None
        if recipe_run is not None and data is not None:
            keep_channels(table, recipe_run)
        from poise.cli.progress_view import choose_view
        from poise.recipe.decode import decode
        from poise.training.listener import NullListener

        decoded = decode(table, recipe if recipe and recipe.endswith(".toml") else "")
        if recipe_run is not None and data is None:
            data_root = root_of_init(recipe_run, data_root, decoded.data)
        view = choose_view() if rank_of_process() == 0 else NullListener()
        if recipe_run is not None:
            view.on_message(f"recipe: that of {recipe_run}, with the changes given")
        view.on_message("starting ...")
        for reason in choice.reasons if choice else ():
            view.on_message(reason)
        if seconds is not None:
            from poise.training.default_recipe import train_for

            decoded, reason = train_for(
                decoded,
                seconds,
                data_root=data_root,
                device=device,
                precision=precision,
                accumulate=accumulate or 1,
                trust_code=trust_code,
                given=changed_fields(changes),
            )
            view.on_message(f"{reason}; --time or --steps change it")
    from poise.training.train import train as train_recipe

    train_recipe(
        decoded,
        out,
        resume=resume,
        device=device,
        precision=precision,
        accumulate=accumulate,
        data_root=data_root,
        listener=view,
        trust_code=trust_code,
    )


@contextmanager
def _ranks_are_told(device: str) -> Iterator[None]:
    """Tell the other ranks of an error of this block, as they would wait for this rank. The error may be theirs too.

    Raises:
        RankFailed: instead of the error, if rank 0 ends at the same time.
    """
    try:
        yield
    except Exception as error:
        if number_of_ranks() > 1:
            from poise.training.train import tell_ranks

            tell_ranks(error, device)
        raise


def _refuse_restarts_without_folder() -> NoReturn:
    """Refuse a run in a default folder that torchrun may restart: the restarted run would begin in another one.

    Raises:
        RecipeError: always.
    """
    from poise.errors import RecipeError

    cure = "give the run folder, for example --out runs/mine, or leave out --max-restarts"
    raise RecipeError("is needed to continue a run that torchrun restarts", where="--out", cure=cure)


def _check_time_and_steps(
    seconds: float | None, steps: int | None, changes: Sequence[str] | None, *, resume: bool
) -> None:
    """Refuse `--time` where the number of steps is already known.

    Raises:
        RecipeError: it is.
    """
    from poise.cli.default_recipe import sets_steps
    from poise.errors import RecipeError

    is_set = sets_steps(changes)
    if seconds is not None and (steps is not None or is_set or resume):
        other = "--resume" if resume else "--set steps" if is_set else "--steps"
        cure = "give the new number of steps with --steps" if resume else "leave one of them out"
        raise RecipeError(f"can't be combined with {other}", where="--time", cure=cure)
    if seconds is not None and number_of_ranks() > 1:
        cure = "give the number of steps with --steps"
        raise RecipeError("the time of a step on several ranks is not measured", where="--time", cure=cure)


def _check_choice() -> None:
    """Refuse to choose a recipe on several ranks: it depends on the time of a step, and each would choose its own.

    Raises:
        RecipeError: there are several.
    """
    from poise.errors import RecipeError

    if number_of_ranks() > 1:
        cure = "name one, for example images, or the recipe.toml of a run on one rank"
        raise RecipeError("no recipe is chosen on several ranks", where="RECIPE", cure=cure)


def initial_table(recipe: Text, out: Text, *, resume: bool, init_from: Text = None) -> dict[str, Any]:
    """The table of a recipe: of a shipped one, of a file, or of the run that is resumed or that weights come from.

    Args:
        recipe: the name of a shipped recipe or of a file; None for the default, or the one of the run.
        out: the run folder.
        resume: whether the run in `out` is resumed.
        init_from: the run whose weights the players start from.

    Raises:
        RecipeError: there is no such recipe, or `out` is missing.
        CheckpointError: there is no run to resume, or none in `init_from`.
    """
    from poise.errors import RecipeError
    from poise.recipe.shipped import DEFAULT, load_recipe
    from poise.runs.folder import RunFolder, no_run_to_resume
    from poise.utils.paths import refuse_url

    if resume and out is None:
        raise RecipeError("needs the folder of the run", where="--resume", cure="give it with --out")
    if resume and recipe is None:
        refuse_url(out or "")
        folder = Path(out or "")
        if not (folder / "recipe.toml").is_file():
            raise no_run_to_resume(folder)
        return RunFolder(folder).read_recipe()
    if recipe is None and init_from is not None:
        from poise.cli.fine_tuning_arguments import recipe_of_run

        return recipe_of_run(init_from)
    return load_recipe(DEFAULT if recipe is None else recipe)
