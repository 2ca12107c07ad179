"""`poise train`: from words to a run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from poise.cli import completion

Text = str | None


def train(
    recipe: Annotated[
        Text,
        typer.Argument(
            help="A shipped recipe or a .toml file.", show_default="dcgan", autocompletion=completion.recipes
        ),
    ] = None,
    data: Annotated[
        Text,
        typer.Option(help="A folder, .zip or .npz of pictures, or a data set's name.", autocompletion=completion.data),
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where data sets by name are looked for.")] = None,
    out: Annotated[Text, typer.Option(help="The run folder.", show_default="runs/NAME")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps in the whole run.")] = None,
    seed: Annotated[int | None, typer.Option(help="All random numbers follow from it.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change the recipe: optimizer.d.lr=1e-4"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:N, mps.", autocompletion=completion.devices)
    ] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.", autocompletion=completion.precisions)] = "auto",
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Let the recipe's own Python files run.")] = False,
) -> None:
    """Train a GAN: the default recipe on real handwritten digits, or any recipe on any pictures."""
    from poise.cli.recipe_arguments import apply_changes

    numbers = {"steps": steps, "seed": seed}
    table = apply_changes(
        start_table(recipe, out, resume=resume), data, numbers, changes, moved=resume and recipe is None
    )
    from poise.cli.progress_view import choose_view
    from poise.recipe.decode import decode

    decoded = decode(table, recipe if recipe and recipe.endswith(".toml") else "")
    view = choose_view()
    view.on_message("getting ready ...")
    from poise.training.train import train as run

    finished = run(
        decoded,
        out,
        resume=resume,
        device=device,
        precision=precision,
        data_root=data_root,
        listener=view,
        trust_code=trust_code,
    )
    newest = max((finished.path / "samples").glob("step-*.png"), default=finished.path)
    view.on_message(
        f"{'samples' if finished.info.get('alarms') else 'done'}: {newest}"
    )  # else it was said with the alarms
    view.on_message(f"more of them: poise sample {shlex.quote(str(finished.path))}")


def start_table(recipe: Text, out: Text, *, resume: bool) -> dict[str, Any]:
    """Where the recipe comes from: a name, a file, or the run that is resumed."""
    from poise.errors import CheckpointError, RecipeError
    from poise.recipe.shipped import DEFAULT, load_recipe

    if resume and out is None:
        raise RecipeError("needs to know which run", where="--resume", cure="name its folder with --out")
    if resume and recipe is None:
        folder = Path(out or "")
        if not (folder / "recipe.toml").is_file():
            raise CheckpointError("no run to resume", where=str(folder), cure="start it without --resume")
        from poise.runs.folder import RunFolder

        return RunFolder(folder).read_recipe()
    return load_recipe(DEFAULT if recipe is None else recipe)
