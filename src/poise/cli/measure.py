"""`poise measure`: measures the quality, variety and novelty of a run's samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from poise.cli.options import (
    AsJson,
    Best,
    DataRoot,
    Features,
    LatentSeed,
    Measures,
    MovedData,
    Raw,
    RunArgument,
    TrustNamedCode,
)
from poise.cli.results import print_result, progress_bar
from poise.utils.printing import print_line


def measure(
    run: RunArgument,
    measures: Measures = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            min=10,
            max=1_000_000,
            help="The number of samples.",
            show_default="the held-out samples, at most 5,000; 2,500 points for 2-D data",
        ),
    ] = None,
    features: Features = "auto",
    as_json: AsJson = False,
    seed: LatentSeed = 0,
    raw: Raw = False,
    best: Best = False,
    domain: Annotated[
        Literal["a", "b"] | None,
        typer.Option(help="The domain whose images are measured, of a G that translates both ways.", show_default="b"),
    ] = None,
    neighbours: Annotated[
        Path | None,
        typer.Option(help="A .png file for samples, each beside its three nearest training images."),
    ] = None,
    data: MovedData = None,
    data_root: DataRoot = None,
    trust_code: TrustNamedCode = False,
) -> None:
    """Measure a run against its held-out data. Each value is shown next to the same measure of real data."""
    from poise.cli.files import check_run, check_writable, read_moved_data, report_skipped_checkpoints

    check_run(run)
    if neighbours is not None:
        check_writable(neighbours, (".png",), "--neighbours")

    from poise.measure.catalogue import select_measures
    from poise.runs.evaluate import measure_run, measured_domain
    from poise.runs.run import Run

    selected = select_measures(measures)
    with progress_bar() as progress:
        opened = Run(run, trust_code=trust_code, best=best)
        read_moved_data(opened, data, data_root)
        result, evaluator = measure_run(
            opened,
            selected,
            n=n,
            features=features,
            seed=seed,
            raw=raw,
            domain=domain,
            data_root=data_root,
            neighbours=neighbours is not None,
            progress=progress,
        )
    report_skipped_checkpoints(opened)
    print_result(result, as_json=as_json, brief=measures in (None, "all"))
    if neighbours is not None:
        from poise.utils.image_grid import write_png

        with progress_bar("searching the training images") as evaluator.progress:  # the first bar has ended
            domain = domain or measured_domain(opened.recipe)
            grid = evaluator.nearest_training_grid(opened.sample(24, seed, raw=raw, domain=domain))
        write_png(grid, neighbours)
        print_line(f"{neighbours}: samples, each beside its three nearest training images", err=True)
