"""The closed walk of `poise interpolate --through`, as a .gif or .mp4."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from poise.utils.printing import count_noun, print_line

if TYPE_CHECKING:
    from poise.utils.images import Bytes

MIN_WIDTH = 256
"""The smallest width of an animation in pixels: browsers and players show smaller ones blurred or not at all."""

MAX_GIF_FRAMES = 1000
"""The largest number of frames of a .gif, which are all kept in memory."""

SECONDS_PER_LATENT = 2.0


class WalkOptions(NamedTuple):
    """The options of a walk, as the command line has them."""

    through: int
    seconds: float | None
    fps: float | None
    rows: int
    path: str
    seed: int
    label: str | None
    raw: bool
    best: bool
    trust_code: bool


def frame_time(fps: float | None, *, gif: bool) -> float:
    """The milliseconds of a frame. In a .gif it is a multiple of 10, and at least 20, which viewers keep to."""
    if not gif:
        return 1000 / (fps or 30)
    return max(2, round(100 / (fps or 25))) * 10


def write_walk(run: Path, out: Path, options: WalkOptions) -> None:
    """Write the walk to `out`.

    Raises:
        RecipeError: it has too few frames for its latents, or too many for a .gif.
    """
    from poise.errors import RecipeError

    is_gif = out.suffix.lower() == ".gif"
    milliseconds = frame_time(options.fps, gif=is_gif)
    seconds = options.seconds or SECONDS_PER_LATENT * options.through
    frames = max(1, round(seconds * 1000 / milliseconds))
    if frames < options.through:
        what = f"{count_noun(frames, 'frame')} can't pass through {count_noun(options.through, 'latent')}"
        raise RecipeError(what, where="--through", cure="use more --seconds or --fps")
    if is_gif and frames > MAX_GIF_FRAMES:
        what = f"a .gif has at most {MAX_GIF_FRAMES:,} frames"
        raise RecipeError(what, where="--seconds", found=f"{frames:,}", cure="write an .mp4, or use a lower --fps")

    from poise.cli.files import report_skipped_checkpoints
    from poise.cli.results import progress_bar
    from poise.interpolation import lerp, slerp
    from poise.runs.run import Run
    from poise.runs.walk import walk_samples
    from poise.utils.animation import write_animation
    from poise.utils.image_grid import GAP, sample_grid

    opened = Run(run, trust_code=options.trust_code, best=options.best)
    _ = opened.game
    report_skipped_checkpoints(opened)
    samples = walk_samples(
        opened,
        options.through,
        frames,
        {"slerp": slerp, "lerp": lerp}[options.path],
        walks=options.rows,
        seed=options.seed,
        label=None if options.label is None else opened.label(options.label),
        raw=options.raw,
        project=options.path != "lerp",
    )
    real, gap = opened.real(2000), GAP if options.rows > 1 else 0
    with progress_bar("generating frames") as progress:

        def images() -> Iterator[Bytes]:
            for number, frame in enumerate(samples):
                progress(f"frame {number:,} of {frames:,}", number / frames)
                yield sample_grid(frame, real, alpha=opened.alpha, gap=gap, min_width=MIN_WIDTH)

        _, width, height = write_animation(images(), out, milliseconds)
    facts = f"{options.path} walk through {count_noun(options.through, 'latent')}, {frames:,} frames"
    facts += f" in {frames * milliseconds / 1000:.3g} s"
    original = opened.shape[-1] if len(opened.shape) == 3 and options.rows == 1 else width
    enlarged = f", enlarged {width // original} times" if width > original else ""
    print_line(f"{out}: {facts}, {width} x {height} pixels{enlarged}", err=True)
