"""`poise interpolate`: interpolates between latents, between two real images, or from real images towards a class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from poise.cli.options import Best, DataRoot, LabelOfAll, LatentSeed, MovedData, Raw, RunArgument, TrustCode
from poise.utils.printing import count_noun, print_line

if TYPE_CHECKING:
    from torch import Tensor

    from poise.runs.encode import EncodedSamples
    from poise.runs.run import Run

FRAME_MILLISECONDS = 80
"""The time of each image of an animation, without --through."""

NUM_ENCODED = 2000
"""The number of training images whose latent codes determine the direction to a class."""


def interpolate(
    run: RunArgument,
    path: Annotated[Literal["slerp", "lerp"], typer.Option(help="Spherical or linear interpolation.")] = "slerp",
    steps: Annotated[
        int | None,
        typer.Option(min=2, max=1000, help="Images per interpolation, both ends included.", show_default="10"),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="The number of interpolations.", show_default="8, or 1 with --through"),
    ] = None,
    seed: LatentSeed = 0,
    between: Annotated[
        tuple[int, int] | None,
        typer.Option(min=0, help="Interpolate between two training images, given by their indices."),
    ] = None,
    towards: Annotated[
        str | None,
        typer.Option(help="Change training images of other classes into this class, by name or number."),
    ] = None,
    through: Annotated[
        int | None, typer.Option(min=2, max=1000, help="Walk through this many random latents, back to the first one.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, max=3600, help="The length of the walk.", show_default="2 per latent"),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(min=1, max=120, help="Frames per second of the walk.", show_default="30, or 25 in a .gif"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A .png grid, an animated .gif or a video, .mp4.", show_default="RUN/interpolation.png"),
    ] = None,
    label: LabelOfAll = None,
    raw: Raw = False,
    best: Best = False,
    data: MovedData = None,
    data_root: DataRoot = None,
    trust_code: TrustCode = False,
) -> None:
    """Interpolate between latents. A .png has one row per interpolation; a .gif or .mp4 shows all of them side by side.

    --through makes a closed walk through random latents, as a .gif or .mp4.

    --between and --towards start from real images and their latent codes, which requires a run with an encoder.
    """
    from poise.cli.files import check_run, check_writable, output_in_run, read_moved_data, report_skipped_checkpoints
    from poise.errors import RecipeError

    check_run(run)
    out = out or output_in_run(run, "interpolation.png")
    check_writable(out, (".png", ".gif", ".mp4"), "--out")
    never_walks: dict[str, object] = {"--steps": steps, "--between": between, "--towards": towards}
    never_walks |= {"--data": data, "--data-root": data_root}
    _check_walk(through, out, {"--seconds": seconds, "--fps": fps}, never_walks)
    if out.suffix.lower() == ".mp4":
        from poise.utils.video import import_av

        import_av()
    if through is not None:
        from poise.cli.walk import WalkOptions, write_walk

        options = WalkOptions(through, seconds, fps, rows or 1, path, seed, label, raw, best, trust_code)
        write_walk(run, out, options)
        return
    if between is not None and towards is not None:
        raise RecipeError("can't be combined with --between", where="--towards", cure="leave one of them out")
    if between is not None and rows is not None:
        raise RecipeError("two images have one interpolation", where="--rows", cure="leave it out")
    steps, rows = steps or 10, rows or 8

    import torch

    from poise.core.random_streams import RandomStreams
    from poise.interpolation import lerp, slerp
    from poise.runs.generate import generate
    from poise.runs.run import Run
    from poise.utils.animation import write_animation
    from poise.utils.image_grid import evenly_spaced, grid_capacity, sample_grid, write_png

    opened = Run(run, trust_code=trust_code, best=best)
    read_moved_data(opened, data, data_root)
    real_ends: tuple[Tensor, Tensor] | None = None
    interpolation, latent = {"slerp": slerp, "lerp": lerp}[path], opened.recipe.latent
    opened.check_space()
    if between is not None:
        encoded = _encode(opened, torch.tensor(between), data_root)
        real_ends = encoded.images[:1], encoded.images[1:]
        start, end = encoded.latents[:1], encoded.latents[1:]
    elif towards is not None:
        real, start, end = _encode_towards(opened, towards, rows, data_root)
        real_ends = real, real
        interpolation = lerp  # along a direction
    else:
        latents = opened.latents(2 * rows, seed)
        start, end = latents[::2], latents[1::2]  # interleaved, so that the first rows do not depend on their number
    class_index = None if label is None else opened.label(label)
    labels = (
        opened.labels_by_row(len(start)) if class_index is None else opened.labels(len(start), class_index)
    )  # one class per row
    uses_codes = real_ends is not None  # codes belong to the non-averaged weights
    _ = opened.game
    report_skipped_checkpoints(opened)
    net, streams = opened.generator(raw=raw or uses_codes), RandomStreams(seed)  # layer noise is equal in all frames
    shares, remark = torch.linspace(0, 1, steps), ""
    is_png = out.suffix.lower() == ".png"
    if len(opened.shape) > 1:
        max_rows, max_columns = grid_capacity(opened.shape)
        columns = evenly_spaced(steps, max(2, max_columns - 2 * uses_codes)) if is_png else torch.arange(steps)
        num_rows = min(len(start), max_rows if is_png else max_rows * max_columns)
        if len(columns) < steps or num_rows < len(start):
            remark = f"; the grid shows {len(columns)} images of {count_noun(num_rows, 'interpolation')}"
        shares, start, end = shares[columns], start[:num_rows], end[:num_rows]
        labels = None if labels is None else labels[:num_rows]
        real_ends = None if real_ends is None else (real_ends[0][:num_rows], real_ends[1][:num_rows])
    is_free = path == "lerp" and towards is None  # lerp was asked for, so its points are not mapped to the sphere
    points = [interpolation(start, end, share) for share in shares]
    frames = [generate(net, z if is_free else latent.to_support(z), labels, streams=streams) for z in points]
    if real_ends is not None:
        frames = [real_ends[0], *frames, *([real_ends[1]] if towards is None else [])]
    samples = torch.stack(frames, dim=1)  # rows x steps x shape
    real_points = opened.real(2000)
    if is_png:
        write_png(sample_grid(samples.flatten(0, 1), real_points, columns=len(frames), alpha=opened.alpha), out)
    else:
        grids = [sample_grid(frame, real_points, alpha=opened.alpha) for frame in frames]
        write_animation(grids + grids[-2:0:-1], out, FRAME_MILLISECONDS)  # forth and back
    method = "lerp" if interpolation is lerp else path
    print_line(f"{out}: {count_noun(len(start), f'{method} interpolation')} of {steps} images{remark}", err=True)


def _check_walk(through: int | None, out: Path, only_walks: dict[str, object], never_walks: dict[str, object]) -> None:
    """Refuse options that belong to the other kind of interpolation.

    Raises:
        RecipeError: one does.
    """
    from poise.errors import RecipeError

    for option, value in (only_walks if through is None else never_walks).items():
        if value is not None:
            what = "is only for --through" if through is None else "can't be combined with --through"
            raise RecipeError(what, where=option, cure="leave it out")
    if through is not None and out.suffix.lower() == ".png":
        raise RecipeError("a walk is an animation", where="--out", found=f"'{out}'", cure="write an .mp4 or a .gif")


def _encode(run: Run, indices: Tensor | None, data_root: Path | None) -> EncodedSamples:
    """Training samples and their latent codes: those at `indices`, or `NUM_ENCODED` evenly spaced ones."""
    from poise.data.source import SizedSource
    from poise.errors import RecipeError
    from poise.runs.encode import encode_training_samples

    source = run.load(data_root).train
    if not isinstance(source, SizedSource):
        cure = "leave --between and --towards out"
        raise RecipeError("the training data of this run is endless", where=str(run.path), cure=cure)
    return encode_training_samples(run, source, source.evenly_spaced(NUM_ENCODED) if indices is None else indices)


def _encode_towards(run: Run, label: str, rows: int, data_root: Path | None) -> tuple[Tensor, Tensor, Tensor]:
    """Real samples of other classes, their latent codes, and the codes moved to the class `label`."""
    import torch

    from poise.errors import RecipeError
    from poise.runs.encode import class_directions

    class_index = run.class_number(label, "--towards")
    encoded = _encode(run, None, data_root)
    assert encoded.labels is not None, "a class has a number only if there are labels"
    if not (encoded.labels == class_index).any():
        what = f"none of the {len(encoded.labels):,} encoded training images is of this class"
        raise RecipeError(what, where="--towards", found=f"'{label}'")
    others = torch.nonzero(encoded.labels != class_index).flatten()
    if not len(others):
        raise RecipeError("all training images are of this class already", where="--towards", found=f"'{label}'")
    indices = others[torch.linspace(0, len(others) - 1, min(rows, len(others))).long()]
    end = encoded.latents + class_directions(encoded, class_index)
    return encoded.images[indices], encoded.latents[indices], end[indices]
