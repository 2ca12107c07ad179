"""`poise project`: finds the latent of an image, and shows the steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from poise.cli.options import Best, DataRoot, MovedData, Raw, RunArgument, Text, TrustCode
from poise.utils.printing import count_noun, print_line

if TYPE_CHECKING:
    from poise.data.single_image import SingleImage
    from poise.runs.project import Projection
    from poise.runs.run import Run


def project(
    run: RunArgument,
    image: Annotated[Path, typer.Argument(help="The image file.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .png file for the steps; the latent is written beside it, as .npz.",
            show_default="RUN/projection.png",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, max=100_000, help="The number of optimisation steps.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="The seed of the random latents and of the noise.")] = 0,
    space: Annotated[
        Literal["z", "w"] | None,
        typer.Option(help="The latent space.", show_default="w if the generator has one, else z"),
    ] = None,
    starts: Annotated[
        int,
        typer.Option(
            min=1,
            max=100_000,
            help="In z: how many random latents are tried; the optimisation starts from the one whose sample is "
            "nearest to the image.",
        ),
    ] = 64,
    label: Annotated[
        Text,
        typer.Option(
            help="The class of the projection, by name or number (conditional runs only).",
            show_default="the class whose start is nearest",
        ),
    ] = None,
    raw: Raw = False,
    best: Best = False,
    data: MovedData = None,
    data_root: DataRoot = None,
    trust_code: TrustCode = False,
) -> None:
    """Find the latent whose sample is nearest to an image, by optimisation, and show the steps.

    The image is cropped and resized like the data of the run. The .png shows it, the start, samples along the way and
    the result.
    """
    from poise.cli.files import check_run, check_writable, output_in_run, read_moved_data, report_skipped_checkpoints

    check_run(run)
    out = out or output_in_run(run, "projection.png")
    arrays = out.with_suffix(".npz")
    check_writable(out, (".png",), "--out")
    check_writable(arrays, (".npz",), "--out")

    from poise.cli.results import progress_bar
    from poise.data.config import ImageDataConfig
    from poise.data.single_image import read_image
    from poise.errors import RecipeError
    from poise.runs.project import ProjectionSettings
    from poise.runs.project import project as project_image
    from poise.runs.run import Run
    from poise.utils.images import to_float

    opened = Run(run, trust_code=trust_code, best=best)
    if not isinstance(opened.recipe.data, ImageDataConfig):
        what = "only images can be projected, and this run generates points"
        raise RecipeError(what, where=str(opened.path), found=opened.recipe.data.tag() or "")
    opened.check_space()
    class_index = None if label is None else opened.label(label)
    target = read_image(image, opened.recipe.data, opened.shape)
    read_moved_data(opened, data, data_root)
    _ = opened.game
    report_skipped_checkpoints(opened)
    settings = ProjectionSettings(steps, seed, space, class_index, starts, raw)
    with progress_bar("opening the run") as progress:
        import torch

        pixels = to_float(torch.from_numpy(target.pixels[None]))[0]
        projection = project_image(opened, pixels, settings, data_root=data_root, progress=progress)
    _write_grid(out, opened, target, projection)
    _write_arrays(arrays, target, projection)
    _print_result(out, arrays, image, opened, target, projection, chosen=label is None)


def _write_grid(path: Path, run: Run, target: SingleImage, projection: Projection) -> None:
    """Write the target, the start, the samples along the way and the result, in one row if they fit."""
    import torch

    from poise.utils.image_grid import grid_capacity, sample_grid, write_png
    from poise.utils.images import to_float

    pixels = to_float(torch.from_numpy(target.pixels[None]))
    images = torch.cat(
        (pixels, *(image[None] for image in projection.trajectory.snapshots.values()), projection.image[None])
    )
    columns = min(len(images), grid_capacity(run.shape)[1])
    write_png(sample_grid(images, None, columns, alpha=run.alpha), path)


def _write_arrays(path: Path, target: SingleImage, projection: Projection) -> None:
    """Write the latent, both images and the distances."""
    import numpy as np

    from poise.utils.files import open_atomic
    from poise.utils.images import to_bytes

    distances = projection.trajectory.distances
    arrays = {
        "latent": projection.latent.numpy(),
        "image": to_bytes(projection.image[None])[0],
        "target": target.pixels,
        "distance": np.array(list(distances.values()), np.float32),
        "step": np.array(list(distances), np.int64),
        "space": np.array(projection.space),
    }
    arrays |= {} if projection.label is None else {"label": np.array(projection.label, np.int64)}
    with open_atomic(path) as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def _print_result(
    out: Path, arrays: Path, image: Path, run: Run, target: SingleImage, projection: Projection, *, chosen: bool
) -> None:
    """Print what was changed and chosen, what the files contain, and the distances."""
    trajectory, comparison = projection.trajectory, projection.comparison
    if target.changes:
        print_line(f"{image}: {', '.join(target.changes)}", err=True)
    for note in projection.notes:
        print_line(f"note: {note}", err=True)
    if chosen and projection.label is not None:
        print_line(
            f"without --label, the class is {run.classes[projection.label]}, whose start is the nearest to the image",
            err=True,
        )
    between = [f"{step:,}" for step in trajectory.snapshots if step]
    shown = [f"the start ({projection.start})", *([f"steps {', '.join(between)}"] if between else [])]
    print_line(f"{out}: the image, {', '.join(shown)}, and the result of step {trajectory.best_step:,}", err=True)
    print_line(
        f"{arrays}: latent {projection.space} ({count_noun(len(projection.latent), 'number')}), images, distances",
        err=True,
    )
    first, last = trajectory.distances[0], trajectory.distances[trajectory.best_step]
    searched = count_noun(comparison.num_searched, "training image")
    print_line(
        f"distance from the image: {first:.3g} at the start, {last:.3g} at the end; a random sample: "
        f"{comparison.random:.3g}, the nearest of {searched}: {comparison.nearest:.3g}, two random training images: 1",
        err=True,
    )
    print_line(f"the distance is in {projection.distance}", err=True)
