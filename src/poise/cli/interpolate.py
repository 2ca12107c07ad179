"""`poise interpolate`: walks between latents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def interpolate(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    path: Annotated[Literal["slerp", "lerp"], typer.Option(help="The great circle, or the straight line.")] = "slerp",
    steps: Annotated[int, typer.Option(min=2, max=1000, help="Pictures from one latent to the next.")] = 10,
    rows: Annotated[int, typer.Option(min=1, max=100, help="Walks, one below the other.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Which latents.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="A .png sheet or a .gif.", show_default="RUN/interpolation.png")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Only this class, by name or number (conditional runs).")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The live weights, not the averaged ones.")] = False,
    best: Annotated[bool, typer.Option("--best", help="The weights that were measured best, not the newest.")] = False,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Let the recipe's own Python files run.")] = False,
) -> None:
    """Walk between latents: a row per walk in a sheet, or all walks at once in a moving picture."""
    from poise.cli.files import a_run, writable

    a_run(run)
    out = out or run / "interpolation.png"
    writable(out, (".png", ".gif"), "--out")

    import torch

    from poise.latents import lerp, slerp
    from poise.randomness import Dice
    from poise.sheets import as_image, draw, write_png
    from poise.training.folder import on_disk
    from poise.training.record import generate
    from poise.training.run import Run

    opened = Run(run, trust_code=trust_code, best=best)
    walk = {"slerp": slerp, "lerp": lerp}[path]
    start, end = opened.latents(2 * rows, seed).chunk(2)
    shares = torch.linspace(0, 1, steps)
    labels = opened.labels(rows, None if label is None else opened.label(label))  # one class to a walk
    net, dice = opened.generator(raw=raw), Dice(seed)  # a G that draws noise draws the same in every frame
    frames = [generate(net, walk(start, end, share), labels, dice=dice) for share in shares]
    samples = torch.stack(frames, dim=1)  # rows x steps x shape
    real = opened.real(2000)
    if out.suffix.lower() == ".png":
        with on_disk(out):
            write_png(draw(samples.flatten(0, 1), real, columns=steps, alpha=opened.alpha), out)
    else:
        shown = [as_image(draw(frame, real, alpha=opened.alpha)) for frame in frames]
        there_and_back = shown + shown[-2:0:-1]
        with on_disk(out):
            there_and_back[0].save(out, save_all=True, append_images=there_and_back[1:], duration=80, loop=0)
    typer.echo(f"{out}: {rows} walks of {steps} by {path}", err=True)
