"""The options that several commands share, as annotated types of their parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from poise.cli import completion

Text = str | None

Recipe = Annotated[
    Text,
    typer.Argument(
        help="A shipped recipe or a .toml file.",
        show_default="chosen for --data, else dcgan",
        autocompletion=completion.recipes,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change a field of the recipe: optimizer.d.lr=1e-4"),
]
Data = Annotated[
    Text,
    typer.Option(help="A folder, .zip, .npz or .tar of images, or the name of a set.", autocompletion=completion.data),
]
DataRoot = Annotated[Path | None, typer.Option(help="The folder that contains the data sets given by name.")]
MovedData = Annotated[
    Text,
    typer.Option(help="The new location of the run's data, if it was moved.", autocompletion=completion.data),
]
InitFrom = Annotated[
    Text, typer.Option(metavar="RUN", help="Start from the weights of this run; without RECIPE, with its recipe.")
]
InitPlayers = Annotated[Text, typer.Option(help="The players that start from these weights.", show_default="g,d")]
Freeze = Annotated[
    list[str] | None,
    typer.Option(
        metavar="d:N",
        help="Freeze the first layers: d:N for D (counted from the image), g:N for G (counted from the latent).",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", autocompletion=completion.devices)]
Precision = Annotated[str, typer.Option(help="auto, fp32 or bf16.", autocompletion=completion.precisions)]
Accumulate = Annotated[
    int | None, typer.Option(min=1, help="Compute a batch in this many parts, one after another: saves memory.")
]
TrustCode = Annotated[bool, typer.Option("--trust-code", help="Allow the recipe to run its own Python files.")]
TrustNamedCode = Annotated[bool, typer.Option("--trust-code", help="Allow Python files that are named to run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text to stdout.")]

RunArgument = Annotated[Path, typer.Argument(help="The run folder, or its URL in an object store.")]
Label = Annotated[Text, typer.Option(help="Only this class, by name or number (conditional runs only).")]
LabelOfAll = Annotated[Text, typer.Option(help="The class of all images, by name or number (conditional runs only).")]
LatentSeed = Annotated[int, typer.Option(min=0, help="The seed of the latents.")]
Raw = Annotated[bool, typer.Option("--raw", help="Use G's non-averaged weights.")]
Best = Annotated[
    bool, typer.Option("--best", help="Use the checkpoint with the best measure instead of the newest one.")
]
OneDirection = Annotated[
    Literal["a_to_b", "b_to_a"] | None,
    typer.Option("--direction", help="The direction, of a G that translates both ways.", show_default="a_to_b"),
]
Gap = Annotated[
    int | None,
    typer.Option(min=0, max=1000, help="The pixels between two images of a grid, and around it.", show_default="2"),
]

NoNoise = Annotated[
    bool, typer.Option("--no-noise", help="Replace layers of G that draw random numbers by their means.")
]
License = Annotated[
    Text, typer.Option("--license", help="The licence to state, by its identifier: mit, cc-by-4.0, other.")
]

Time = Annotated[
    Text, typer.Option("--time", metavar="<duration>", help="The training time, 30m or 2h; sets the number of steps.")
]
Size = Annotated[int | None, typer.Option("--size", min=1, help="The side of the images in pixels.")]
Batch = Annotated[int | None, typer.Option("--batch", min=1, help="The batch size.")]
Mirror = Annotated[bool, typer.Option("--mirror", help="Flip half of the real images left to right.")]

Measures = Annotated[
    Text,
    typer.Option(
        help="Measures by name, separated by commas; `all` includes the slow ones.",
        show_default="all but the slow ones",
    ),
]
Features = Annotated[
    str,
    typer.Option(
        help="auto, pixels, classifier, rotations, d, FILE.safetensors, inception=FILE, NAME=FILE (torchvision) "
        "or FILE.py:NAME."
    ),
]
