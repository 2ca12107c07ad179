"""`poise ladder`: an autoencoder, a VAE, a GAN and a VAE-GAN with the same decoder, and a report that compares them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from poise.cli.options import Data, DataRoot, Device

STEPS = 3000


def ladder(
    data: Data = None,
    out: Annotated[Path, typer.Option(help="The folder of the ladder; an unfinished one is resumed.")] = Path(
        "runs/ladder"
    ),
    data_root: DataRoot = None,
    steps: Annotated[int, typer.Option(min=1, max=10**9, help="Training steps per model.")] = STEPS,
    batch: Annotated[int | None, typer.Option(min=2, max=65536, help="Batch size.", show_default="64")] = None,
    size: Annotated[int | None, typer.Option(min=8, help="Image size in pixels.", show_default="32")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of each model.")] = 0,
    device: Device = "auto",
) -> None:
    """Start simple (tip T25): train an autoencoder, a VAE, a GAN and a VAE-GAN on one decoder and compare them."""
    from poise.ladder.plan import REFERENCE, ladder_tables
    from poise.recipe.shipped import load_table

    table = dict(load_table(REFERENCE)["data"])
    if data is not None:
        from poise.data.lookup import data_table

        table = data_table(data, table)
    if size is not None:
        table["size"] = size
    from poise.cli.progress_view import choose_view
    from poise.ladder.run import run_ladder
    from poise.recipe.decode import decode

    recipes = {rung: decode(recipe) for rung, recipe in ladder_tables(table, steps, seed, batch).items()}
    given = {"data": data, "out": out, "data-root": data_root, "batch": batch, "size": size}
    given |= {"steps": steps if steps != STEPS else None, "seed": seed or None}
    given |= {"device": device if device != "auto" else None}
    command = ["poise", "ladder"]
    for option, value in given.items():
        command += [] if value is None else [f"--{option}", str(value)]
    view = choose_view()
    view.on_message("starting ...")
    report = run_ladder(
        recipes,
        out,
        device=device,
        data_root=data_root,
        listener=view,
        progress=view.on_progress,
        command=shlex.join(command),
    )
    view.on_message(f"report: {report} and {report.with_suffix('.md').name}")
