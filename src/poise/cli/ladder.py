"""`poise ladder`: autoencoder, VAE, GAN and hybrid on one decoder, and a report that has them side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poise.cli import completion

Text = str | None


def ladder(
    data: Annotated[
        Text,
        typer.Option(help="A folder, .zip or .npz of pictures, or a data set's name.", autocompletion=completion.data),
    ] = None,
    out: Annotated[Path, typer.Option(help="The ladder's folder; a ladder that is there is gone on with.")] = Path(
        "runs/ladder"
    ),
    data_root: Annotated[Path | None, typer.Option(help="Where data sets by name are looked for.")] = None,
    steps: Annotated[int, typer.Option(min=1, max=10**9, help="Steps of each rung.")] = 3000,
    batch: Annotated[int | None, typer.Option(min=2, max=65536, help="Pictures in a step.", show_default="64")] = None,
    size: Annotated[int | None, typer.Option(min=8, help="Side of the pictures.", show_default="32")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of each rung.")] = 0,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:N, mps.", autocompletion=completion.devices)
    ] = "auto",
) -> None:
    """Start simple (tip T25): climb from an autoencoder to a GAN on the same decoder, and see what each step brings."""
    from poise.ladder.plan import REFERENCE, ladder_tables
    from poise.recipe.shipped import load_table

    told = dict(load_table(REFERENCE)["data"])
    if data is not None:
        from poise.cli.data_arguments import data_table

        told = data_table(data, told)
    if size is not None:
        told["size"] = size
    from poise.cli.progress_view import choose_view
    from poise.ladder.run import run_ladder
    from poise.recipe.decode import decode

    recipes = {rung: decode(recipe) for rung, recipe in ladder_tables(told, steps, seed, batch).items()}
    view = choose_view()
    view.on_message("getting ready ...")
    report = run_ladder(recipes, out, device=device, data_root=data_root, listener=view, progress=view.on_progress)
    view.on_message(f"done: {report}, and {report.with_suffix('.md').name} beside it")
