"""`poise interpolate`: walks between latents, between two real pictures, or from real pictures towards a class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from poise.cli import completion
from poise.utils.printing import count_noun, print_line

if TYPE_CHECKING:
    from torch import Tensor

    from poise.runs.encode import EncodedSamples
    from poise.runs.run import Run

EXAMPLES = 2000
"""Training pictures whose codes tell where a class lies."""


def interpolate(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    path: Annotated[Literal["slerp", "lerp"], typer.Option(help="The great circle, or the straight line.")] = "slerp",
    steps: Annotated[int, typer.Option(min=2, max=1000, help="Pictures from one latent to the next.")] = 10,
    rows: Annotated[int, typer.Option(min=1, max=100, help="Walks, one below the other.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Which latents.")] = 0,
    between: Annotated[
        tuple[int, int] | None, typer.Option(min=0, help="From one training picture to another, by their numbers.")
    ] = None,
    towards: Annotated[
        str | None, typer.Option(help="From training pictures of other classes to what would be theirs in this one.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A .png sheet or a .gif.", show_default="RUN/interpolation.png")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Only this class, by name or number (conditional runs).")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The live weights, not the averaged ones.")] = False,
    best: Annotated[bool, typer.Option("--best", help="The weights that were measured best, not the newest.")] = False,
    data: Annotated[
        str | None,
        typer.Option(help="Where the run's data lies now, if it was moved.", autocompletion=completion.data),
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where data sets by name are looked for.")] = None,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Let the recipe's own Python files run.")] = False,
) -> None:
    """Walk between latents: a row per walk in a sheet, or all walks at once in a moving picture.

    With --between or --towards a row begins with a real picture and its code; that takes a run with an encoder.
    """
    from poise.cli.files import check_run, check_writable, report_skipped_checkpoints
    from poise.errors import RecipeError

    check_run(run)
    out = out or run / "interpolation.png"
    check_writable(out, (".png", ".gif"), "--out")
    if between is not None and towards is not None:
        raise RecipeError("one walk at a time", where="--towards", found="--between as well", cure="leave one out")

    import torch

    from poise.cli.data_arguments import relocate_config
    from poise.core.random_streams import RandomStreams
    from poise.latents import lerp, slerp
    from poise.runs.generate import generate
    from poise.runs.run import Run
    from poise.utils.files import open_atomic
    from poise.utils.image_grid import evenly_spaced, grid_capacity, sample_grid, to_pil, write_png

    opened = Run(run, trust_code=trust_code, best=best)
    if data is not None:
        opened.read_data_from(relocate_config(data, opened.recipe.data))
    ends: tuple[Tensor, Tensor] | None = None
    walk, latent = {"slerp": slerp, "lerp": lerp}[path], opened.recipe.latent
    if between is not None:
        found = _known(opened, torch.tensor(between), data_root)
        ends = found.images[:1], found.images[1:]
        start, end = found.latents[:1], found.latents[1:]
    elif towards is not None:
        real, start, end = _towards(opened, towards, rows, data_root)
        ends = real, real
        walk = lerp  # a direction is straight
    else:
        latents = opened.latents(2 * rows, seed)
        start, end = latents[::2], latents[1::2]  # so that fewer walks are the first of more
    kind = None if label is None else opened.label(label)
    labels = (
        opened.labels_by_row(len(start)) if kind is None else opened.labels(len(start), kind)
    )  # one class to a walk
    coded = ends is not None  # codes are those of the live weights
    _ = opened.game
    report_skipped_checkpoints(opened)
    net, streams = (
        opened.generator(raw=raw or coded),
        RandomStreams(seed),
    )  # a G that draws noise draws the same in every frame
    shares, told = torch.linspace(0, 1, steps), ""
    if len(opened.shape) > 1:
        down, across = grid_capacity(opened.shape)
        shown = (
            evenly_spaced(steps, max(2, across - 2 * coded)) if out.suffix.lower() == ".png" else torch.arange(steps)
        )
        kept = min(len(start), down if out.suffix.lower() == ".png" else down * across)
        if len(shown) < steps or kept < len(start):
            told = f"; a sheet has room for {len(shown)} pictures of {count_noun(kept, 'walk')}"
        shares, start, end = shares[shown], start[:kept], end[:kept]
        labels = None if labels is None else labels[:kept]
        ends = None if ends is None else (ends[0][:kept], ends[1][:kept])
    straight = path == "lerp" and towards is None  # who asks for the straight path gets it, off the sphere and all
    places = [walk(start, end, share) for share in shares]
    frames = [generate(net, z if straight else latent.project(z), labels, streams=streams) for z in places]
    if ends is not None:
        frames = [ends[0], *frames, *([ends[1]] if towards is None else [])]
    samples = torch.stack(frames, dim=1)  # rows x steps x shape
    real_points = opened.real(2000)
    if out.suffix.lower() == ".png":
        write_png(sample_grid(samples.flatten(0, 1), real_points, columns=len(frames), alpha=opened.alpha), out)
    else:
        shown = [to_pil(sample_grid(frame, real_points, alpha=opened.alpha)) for frame in frames]
        there_and_back = shown + shown[-2:0:-1]
        with open_atomic(out) as stream:
            there_and_back[0].save(stream, "gif", save_all=True, append_images=there_and_back[1:], duration=80, loop=0)
    print_line(
        f"{out}: {count_noun(len(start), 'walk')} of {steps} by {'lerp' if walk is lerp else path}{told}", err=True
    )


def _known(run: Run, places: Tensor | None, data_root: Path | None) -> EncodedSamples:
    """Training samples and their codes: those at `places`, or some from all over the data."""
    from poise.data.source import SizedSource
    from poise.errors import RecipeError
    from poise.runs.encode import encode_training_samples

    source = run.load(data_root).train
    if not isinstance(source, SizedSource):
        cure = "leave --between and --towards out"
        raise RecipeError("this run's training samples have no end", where=str(run.path), cure=cure)
    return encode_training_samples(run, source, source.evenly_spaced(EXAMPLES) if places is None else places)


def _towards(run: Run, word: str, rows: int, data_root: Path | None) -> tuple[Tensor, Tensor, Tensor]:
    """Real samples of other classes, their codes, and where these would lie if they were of the class `word`."""
    import torch

    from poise.errors import RecipeError
    from poise.runs.encode import class_directions

    kind = run.class_number(word, "--towards")
    found = _known(run, None, data_root)
    assert found.labels is not None, "a class has a number only where there are labels"
    if not (found.labels == kind).any():
        what = f"none of the {len(found.labels):,} training pictures that were looked at is of this class"
        raise RecipeError(what, where="--towards", found=f"'{word}'")
    others = torch.nonzero(found.labels != kind).flatten()
    if not len(others):
        raise RecipeError("all training pictures are of this class already", where="--towards", found=f"'{word}'")
    chosen = others[torch.linspace(0, len(others) - 1, min(rows, len(others))).long()]
    end = found.latents + class_directions(found, kind)
    return found.images[chosen], found.latents[chosen], end[chosen]
