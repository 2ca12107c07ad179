"""`poise measure`: how good, how varied, how new a run's samples are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poise.cli import completion
from poise.cli.results import FEATURES, MEASURES, print_result, progress_bar
from poise.utils.printing import print_line

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
        typer.Option(help="Where the run's data lies now, if it was moved.", autocompletion=completion.data),
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where data sets by name are looked for.")] = None,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Let Python files that are named run.")] = False,
) -> None:
    """Measure a run against the data it held out, each figure beside its floor: real pictures against real ones."""
    from poise.cli.files import check_run, check_writable, report_skipped_checkpoints

    check_run(run)
    if neighbours is not None:
        check_writable(neighbours, (".png",), "--neighbours")

    from poise.cli.data_arguments import relocate_config
    from poise.measure.catalogue import select_measures
    from poise.runs.evaluate import measure_run
    from poise.runs.run import Run

    wanted = select_measures(measures)
    with progress_bar() as tell:
        opened = Run(run, trust_code=trust_code, best=best)
        if data is not None:
            opened.read_data_from(relocate_config(data, opened.recipe.data))
        result, bench = measure_run(
            opened, wanted, n=n, features=features, seed=seed, raw=raw, data_root=data_root, progress=tell
        )
        sheet = None if neighbours is None else bench.nearest_training_grid(opened.sample(24, seed, raw=raw))
    report_skipped_checkpoints(opened)
    print_result(result, as_json=as_json, every=measures in (None, "all"))
    if neighbours is not None and sheet is not None:
        from poise.utils.image_grid import write_png

        write_png(sheet, neighbours)
        print_line(f"{neighbours}: samples, each beside its three nearest training pictures", err=True)
