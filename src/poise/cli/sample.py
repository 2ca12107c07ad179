"""`poise sample`: pictures from a finished or running run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poise.utils.printing import count_noun, print_line


def sample(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    n: Annotated[int, typer.Option("--n", min=1, max=1_000_000, help="How many.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Which latents.")] = 0,
    label: Annotated[str | None, typer.Option(help="Only this class, by name or number (conditional runs).")] = None,
    out: Annotated[Path | None, typer.Option(help="A .png sheet.", show_default="RUN/sample.png")] = None,
    npz: Annotated[Path | None, typer.Option(help="The samples themselves, as a .npz file.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The live weights, not the averaged ones.")] = False,
    best: Annotated[bool, typer.Option("--best", help="The weights that were measured best, not the newest.")] = False,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Let the recipe's own Python files run.")] = False,
) -> None:
    """Sample from a run: a sheet to look at, or an .npz to work with.

    Where G takes labels, an .npz holds the classes in the shares of the training pictures, and a sheet a row of each,
    or of 16 of many. A sheet has at most 4,096 pixels on a side.
    """
    from poise.cli.files import check_run, check_writable, report_skipped_checkpoints

    check_run(run)
    out = out if out is not None or npz is not None else run / "sample.png"
    for path, suffix, option in ((out, ".png", "--out"), (npz, ".npz", "--npz")):
        if path is not None:
            check_writable(path, (suffix,), option)

    import numpy as np

    from poise.runs.run import Run
    from poise.utils.files import open_atomic
    from poise.utils.image_grid import grid_by_class, num_shown, sample_grid, write_png
    from poise.utils.images import to_bytes

    opened = Run(run, trust_code=trust_code, best=best)
    _ = opened.game
    report_skipped_checkpoints(opened)
    kind = None if label is None else opened.label(label)
    rows = None if kind is not None else opened.grid_labels(n)
    room = num_shown(opened.shape, n)
    samples = None
    if npz is not None or rows is None:
        samples = opened.sample(n if npz is not None else room, seed, label=kind, raw=raw)
    if npz is not None and samples is not None:
        labels = opened.labels(n, kind, seed)
        arrays = {"images": to_bytes(samples)} if samples.dim() == 4 else {"points": samples.numpy()}
        arrays |= {} if labels is None else {"labels": labels.numpy(), "classes": np.array(opened.classes, np.str_)}
        with open_atomic(npz) as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)
        print_line(f"{npz}: {count_noun(n, 'sample')}", err=True)
    if out is not None:
        columns, told = None, "" if room == n else f", the first of {n:,}: a sheet has no room for more"
        if rows is not None:  # a grid asks for each class equally often
            samples, columns = grid_by_class(opened.sample(len(rows), seed, labels=rows, raw=raw), rows)
            kinds, classes = len(rows.unique()), len(opened.classes)
            told = f", a row for each of {kinds} of the {classes:,} classes" if kinds < classes else told
        assert samples is not None
        samples = samples[:room]
        write_png(sample_grid(samples, opened.real(2000), columns, alpha=opened.alpha), out)
        print_line(f"{out}: {count_noun(len(samples), 'sample')}{told}", err=True)
