"""A run in the place of a pile of pictures: its samples, never the sheets that lie in its folder."""

from __future__ import annotations

from pathlib import Path

from poise.data.decode import TargetFormat, convert_array
from poise.data.source import DataSplits, ImageDataset
from poise.errors import DataError
from poise.runs.run import Run
from poise.utils.images import to_bytes

OWN = ("samples", "saves", "best", "kept", "ladder", "tensorboard", "code")
"""Folders of a run that hold no pictures to be compared."""


def is_run(folder: Path) -> bool:
    """Whether a folder is one that a run has left, whole or damaged."""
    return (folder / "run.json").is_file() or ((folder / "recipe.toml").is_file() and (folder / "saves").is_dir())


def open_run(folder: Path, where: str, *, trust_code: bool) -> Run | None:
    """The run in `folder`, given as the argument `where`; None if it is a folder of pictures.

    Raises:
        CheckpointError: it is a run that can't be sampled.
        DataError: it makes no pictures, or `folder` is a part of a run, such as its sheets.
    """
    place = folder.resolve()
    for above in place.parents:
        if is_run(above) and place.relative_to(above).parts[0] in OWN:
            what = f"{place.relative_to(above)} belongs to a run and holds no single samples"
            raise DataError(what, where=where, found=str(folder), cure=f"give the run itself, {above}: it is sampled")
    if not is_run(place):
        return None
    run = Run(folder, trust_code=trust_code)
    if len(run.shape) != 3:
        raise DataError("only pictures can be compared", where=where, found=f"a run on {run.recipe.data.tag()}")
    _ = run.checkpoint  # whether it can be sampled is found before anything else is done
    return run


def run_samples(run: Run, n: int, size: int | None = None, channels: int | None = None) -> DataSplits:
    """The first n samples of a run with seed 0, as `poise sample` makes them, and how they were made, in a note.

    Args:
        run: its pictures are taken from the averaged weights, where there are any.
        n: how many.
        size: the side that they are resized to, as files would be; left out, their own.
        channels: how many they get; left out, their own.
    """
    samples, labels = to_bytes(run.sample(n)), run.labels(n)
    images = convert_array(samples, TargetFormat(size or run.shape[-1], channels or run.shape[0], "white"))
    weights = "the averaged weights" if run.generator() is not run.game.g.net else "the weights"
    shares = "" if labels is None else ", classes in the shares of its training pictures"
    note = f"a run: {n:,} samples of seed 0 by {weights} of step {run.checkpoint.step:,}{shares}"
    classes = () if labels is None else run.classes
    return DataSplits(ImageDataset(images, None if labels is None else labels.numpy(), classes), notes=[note])
