"""Uses a run as a set of images: its generated samples, never the sample grids in its folder."""

from __future__ import annotations

from pathlib import Path

from poise.data.fit import TargetFormat, convert_array
from poise.data.paths import access_error
from poise.data.source import DataSplits, ImageDataset
from poise.errors import DataError
from poise.measure.sample_set import check_finite
from poise.runs.folder import is_run_folder
from poise.runs.run import Run
from poise.utils.images import to_bytes
from poise.utils.paths import url_of

RUN_FOLDERS = ("samples", "saves", "best", "kept", "ladder", "tensorboard", "code")
"""The subfolders of a run, which contain no images to be compared."""


def open_run(folder: str | Path, where: str, *, trust_code: bool) -> Run | None:
    """Open the run in `folder`; None if it is a folder of images.

    Args:
        folder: the folder, or the URL of a run in an object store.
        where: the command-line argument that gave it, for messages.
        trust_code: whether Python files that the run's recipe names may be executed.

    Raises:
        CheckpointError: the run has no valid checkpoint.
        DataError: the run generates no images, or `folder` is a part of a run, such as its sample grids.
    """
    if url_of(folder) is None and not _is_local_run(Path(folder).resolve(), where, str(folder)):
        return None
    run = Run(folder, trust_code=trust_code)
    if len(run.shape) != 3:
        found = f"a run on {run.recipe.data.tag()}"
        cure = "two run folders alone, without options, are compared by their recipes, progress, measures and alarms"
        raise DataError("only images can be compared", where=where, found=found, cure=cure)
    _ = run.checkpoint  # raises if there is no valid checkpoint, before any other work is done
    return run


def _is_local_run(path: Path, where: str, folder: str) -> bool:
    """Whether a folder is a run folder; one that is a part of a run is refused, see `open_run`."""
    try:
        for parent in path.parents:
            if is_run_folder(parent) and path.relative_to(parent).parts[0] in RUN_FOLDERS:
                what = f"{path.relative_to(parent)} is part of a run and contains no single samples"
                cure = f"give the run {parent} itself, from which samples are generated"
                raise DataError(what, where=where, found=folder, cure=cure)
        return is_run_folder(path)
    except OSError as error:
        raise access_error(folder, error, where) from None


def run_samples(
    run: Run, n: int, size: tuple[int, int] | None = None, channels: int | None = None, seed: int = 0
) -> DataSplits:
    """The first n samples of a run, as `poise sample` generates them, with notes on their origin.

    Args:
        run: the run; its averaged weights are used if there are any.
        n: the number of samples.
        size: height and width that they are cropped and resized to, as image files would be; defaults to their own.
        channels: the number of channels that they are converted to; defaults to their own.
        seed: that of the latents. Two runs that are compared have different ones: with the same latents, similar
            generators have similar samples, and would seem closer than two sets of samples of one distribution are.

    Raises:
        DataError: samples are not finite.
    """
    generated, labels = run.sample(n, seed=seed), run.labels(n, seed=seed)
    check_finite(generated, str(run.path))
    samples = to_bytes(generated)
    target = TargetFormat(size or (run.shape[1], run.shape[2]), channels or run.generated_shape[0], "white")
    images = convert_array(samples, target)
    weights = "the averaged weights" if run.generator() is not run.game.g.net else "the weights"
    classes_note = "" if labels is None else ", classes in the proportions of its training set"
    domain = run.generated_part().domain if run.recipe.network.direction == "both_ways" else None
    domain_note = "" if domain is None else f" (domain {domain})"
    what = "translations" if run.recipe.network.direction is not None else "samples"
    note = f"a run: {n:,} {what}{domain_note} of seed {seed} by {weights} of step {run.checkpoint.step:,}{classes_note}"
    classes = () if labels is None else run.classes
    notes = [note, *(f"a run: {remark}" for remark in run.starting_notes(n, domain))]
    return DataSplits(ImageDataset(images, None if labels is None else labels.numpy(), classes), notes=notes)
