"""`poise translate`: image to image, with a generator that starts from images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poise.cli import completion
from poise.cli.options import Best, OneDirection, Raw, RunArgument, Text, TrustCode
from poise.utils.printing import agree, count_noun, print_line

if TYPE_CHECKING:
    from poise.runs.run import Run
    from poise.runs.translate import Translator
    from poise.runs.translate_folder import Result, Translated

GRID_IMAGES = 64
"""The largest number of images, sources and translations together, in the grid."""

MAX_NAMED = 10
"""The largest number of unusable files that are named."""


def translate(
    run: RunArgument,
    data: Annotated[
        str,
        typer.Option(
            help="A folder, .zip or .npz of images, or one image file.",
            autocompletion=completion.data,
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="A folder for the translations; it is continued if interrupted.")],
    direction: OneDirection = None,
    copies: Annotated[
        int,
        typer.Option(min=1, max=1000, help="The number of translations of each image, of a G with random layers."),
    ] = 1,
    label: Annotated[
        Text, typer.Option(help="The class to generate, by name or number; required if G takes labels.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of G's random layers, such as dropout.")] = 0,
    grid: Annotated[
        Path | None, typer.Option(help="A .png file for a grid of the first images beside their translations.")
    ] = None,
    raw: Raw = False,
    best: Best = False,
    trust_code: TrustCode = False,
) -> None:
    """Translate images with a generator that starts from images, such as that of pix2pix or CycleGAN.

    Each image becomes one .png file of the same name. It keeps its size if the network can translate that, otherwise it
    is fitted to the size of the run's data.
    """
    from poise.cli.files import check_run, check_writable, report_skipped_checkpoints

    check_run(run)
    if grid is not None:
        check_writable(grid, (".png",), "--grid")

    from poise.cli.results import progress_bar
    from poise.runs.run import Run
    from poise.runs.translate_folder import Settings, translate_folder
    from poise.training.signals import Signals

    opened = Run(run, trust_code=trust_code, best=best)
    _ = opened.game
    report_skipped_checkpoints(opened)
    class_index = None if label is None else opened.label(label)
    settings = Settings(direction, seed, copies, class_index, raw)
    show = 0 if grid is None else max(1, GRID_IMAGES // (1 + copies))
    advice = f"; the files in {out} are complete, and the same command writes the missing ones"
    with Signals(advice), progress_bar("reading the images") as progress:
        result = translate_folder(opened, data, out, settings, show=show, progress=progress)
    _report(opened, out, opened.translator(direction, label=class_index), result)
    if grid is not None:
        _write_grid(opened, grid, result.shown)


def _report(run: Run, out: Path, translator: Translator, result: Result) -> None:
    """Print what was written, and what was changed or left out."""
    from poise.runs.translate import sizes_in_words

    height, width = translator.data_size
    for file in result.bad[:MAX_NAMED]:
        print_line(f"not translated: {file.name}: {file.reason}", err=True)
    if len(result.bad) > MAX_NAMED:
        print_line(f"and {len(result.bad) - MAX_NAMED:,} more files that can't be used", err=True)
    if result.fitted:
        reason = "this network translates images of that size only"
        if sizes := sizes_in_words(translator.size_multiple, translator.least_size):
            reason = f"of the sizes that this network keeps, {sizes}"
        what = f"{result.fitted:,} of {count_noun(result.images, 'image')} {agree(result.fitted, 'was', 'were')} fitted"
        print_line(f"{what} to {width} x {height} pixels like the data: {reason}", err=True)
    total = result.written + result.present
    way = {"a_to_b": " from a to b", "b_to_a": " from b to a"}.get(translator.direction, "")
    notes = [f"{count_noun(result.images, 'image')} translated{way} by step {run.checkpoint.step:,}"]
    notes += [f"{total:,} files"] if total != result.images else []
    notes += [f"{result.present:,} of them were there already"] if result.present else []
    notes += [f"{result.renewed:,} of them translated again, because images have changed"] if result.renewed else []
    print_line(f"{out}: {', '.join(notes)}", err=True)


def _write_grid(run: Run, path: Path, shown: Sequence[Translated]) -> None:
    """Write the grid: each source beside its translations, all fitted to one size."""
    import numpy as np
    import torch

    from poise.data.fit import TargetFormat, convert_array
    from poise.utils.image_grid import grid_capacity, image_grid, side_by_side, write_png
    from poise.utils.images import Bytes, to_float

    columns: list[list[Bytes]] = [
        [one.source for one in shown],
        *([one.outputs[copy] for one in shown] for copy in range(len(shown[0].outputs))),
    ]
    sizes = {image.shape[:2] for images in columns for image in images}
    size = sizes.pop() if len(sizes) == 1 else (run.shape[1], run.shape[2])
    rows, tiles_per_row = grid_capacity((1, *size), group=len(columns))
    fitting = min(len(shown), rows * (tiles_per_row // len(columns)))
    tiles = [
        np.concatenate(
            [convert_array(image[None], TargetFormat(size, image.shape[2], "grey", "pad")) for image in images]
        )
        for images in (column[:fitting] for column in columns)
    ]
    images = side_by_side([to_float(torch.from_numpy(tile)) for tile in tiles], alpha=run.alpha)
    write_png(image_grid(images, alpha=run.alpha, group=len(columns)), path)
    remark = f", the first of {len(shown):,}: no more fit into a grid" if fitting < len(shown) else ""
    print_line(f"{path}: {count_noun(fitting, 'image')}, source | output{remark}", err=True)
