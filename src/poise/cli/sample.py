"""`poise sample`: generates samples from a finished or running run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poise.cli.options import Best, Label, LatentSeed, Raw, RunArgument, TrustCode
from poise.utils.printing import count_noun, print_line


def sample(
    run: RunArgument,
    n: Annotated[int, typer.Option("--n", min=1, max=1_000_000, help="The number of samples.")] = 64,
    seed: LatentSeed = 0,
    label: Label = None,
    out: Annotated[
        Path | None, typer.Option(help="A .png file for the sample grid.", show_default="RUN/sample.png")
    ] = None,
    npz: Annotated[Path | None, typer.Option(help="A .npz file for the samples as an array.")] = None,
    raw: Raw = False,
    best: Best = False,
    trust_code: TrustCode = False,
) -> None:
    """Generate samples from a run, as a grid in a .png or as an array in a .npz file.

    If G is conditional, the .npz has the class frequencies of the training data, and the grid one row per class.

    A grid has at most 16 classes and is at most 4,096 pixels wide and high.
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
    class_index = None if label is None else opened.label(label)
    grid_labels = None if class_index is not None else opened.grid_labels(n)
    max_shown = num_shown(opened.shape, n)
    samples = None
    if npz is not None or grid_labels is None:
        samples = opened.sample(n if npz is not None else max_shown, seed, label=class_index, raw=raw)
    if npz is not None and samples is not None:
        labels = opened.labels(n, class_index, seed)
        arrays = {"images": to_bytes(samples)} if samples.dim() == 4 else {"points": samples.numpy()}
        arrays |= {} if labels is None else {"labels": labels.numpy(), "classes": np.array(opened.classes, np.str_)}
        with open_atomic(npz) as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)
        print_line(f"{npz}: {count_noun(n, 'sample')}", err=True)
    if out is not None:
        columns, remark = None, "" if max_shown == n else f", the first of {n:,}: no more fit into a grid"
        if grid_labels is not None:  # a grid has equally many samples of each class
            samples, columns = grid_by_class(
                opened.sample(len(grid_labels), seed, labels=grid_labels, raw=raw), grid_labels
            )
            num_rows, num_classes = len(grid_labels.unique()), len(opened.classes)
            remark = (
                f", one row for each of {num_rows} of the {num_classes:,} classes" if num_rows < num_classes else remark
            )
        assert samples is not None
        samples = samples[:max_shown]
        write_png(sample_grid(samples, opened.real(2000), columns, alpha=opened.alpha), out)
        print_line(f"{out}: {count_noun(len(samples), 'sample')}{remark}", err=True)
