"""`poise ladder`: autoencoder, VAE, GAN and hybrid on one decoder, and a report that has them side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poise.cli import complete

Text = str | None


def ladder(
    data: Annotated[
        Text,
        typer.Option(help="A folder, .zip or .npz of pictures, or a data set's name.", autocompletion=complete.data),
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
        str, typer.Option(help="auto, cpu, cuda, cuda:N, mps.", autocompletion=complete.devices)
    ] = "auto",
) -> None:
    """Start simple (tip T25): climb from an autoencoder to a GAN on the same decoder, and see what each step brings."""
    from poise.ladder.plan import MODEL, plan
    from poise.recipe.shipped import table

    told = dict(table(MODEL)["data"])
    if data is not None:
        from poise.cli.data_words import data_table

        told = data_table(data, told)
    if size is not None:
        told["size"] = size
    from poise.cli.view import look_on
    from poise.ladder.climb import climb
    from poise.recipe.read import decode

    recipes = {rung: decode(recipe) for rung, recipe in plan(told, steps, seed, batch).items()}
    view = look_on()
    view.say("getting ready ...")
    report = climb(recipes, out, device=device, data_root=data_root, watcher=view, tell=view.progress)
    view.say(f"done: {report}, and {report.with_suffix('.md').name} beside it")
