"""`poise measure`: how good, how varied, how new a run's samples are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poise.cli import complete
from poise.cli.figures import FEATURES, MEASURES, progress, show
from poise.printing import say

Text = str | None


def measure(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    measures: Annotated[Text, typer.Option(help=MEASURES, show_default="all but the slow ones")] = None,
    n: Annotated[
        int | None,
        typer.Option("--n", min=10, max=1_000_000, help="How many samples.", show_default="as many as are held out"),
    ] = None,
    features: Annotated[str, typer.Option(help=FEATURES)] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, on stdout alone.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Which latents.")] = 0,
    raw: Annotated[bool, typer.Option("--raw", help="The live weights, not the averaged ones.")] = False,
    best: Annotated[bool, typer.Option("--best", help="The weights that were measured best, not the newest.")] = False,
    neighbours: Annotated[
        Path | None, typer.Option(help="A .png: samples, each beside the three training pictures nearest to it.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Where the run's data lies now, if it was moved.", autocompletion=complete.data),
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where data sets by name are looked for.")] = None,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Let Python files that are named run.")] = False,
) -> None:
    """Measure a run against the data it held out, each figure beside its floor: real pictures against real ones."""
    from poise.cli.files import a_run, tell_passed, writable

    a_run(run)
    if neighbours is not None:
        writable(neighbours, (".png",), "--neighbours")

    from poise.cli.data_words import moved_entry
    from poise.measure.catalogue import chosen
    from poise.training.measuring import measure_run
    from poise.training.run import Run

    wanted = chosen(measures)
    with progress() as tell:
        opened = Run(run, trust_code=trust_code, best=best)
        if data is not None:
            opened.read_data_from(moved_entry(data, opened.recipe.data))
        result, bench = measure_run(
            opened, wanted, n=n, features=features, seed=seed, raw=raw, data_root=data_root, tell=tell
        )
        sheet = None if neighbours is None else bench.neighbours(opened.sample(24, seed, raw=raw))
    tell_passed(opened)
    show(result, as_json=as_json, every=measures in (None, "all"))
    if neighbours is not None and sheet is not None:
        from poise.sheets import write_png

        write_png(sheet, neighbours)
        say(f"{neighbours}: samples, each beside its three nearest training pictures", err=True)
