"""`poise sample`: generates samples from a finished or running run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poise.cli.options import Best, DataRoot, Gap, Label, LatentSeed, MovedData, Raw, RunArgument, TrustCode
from poise.utils.printing import count_noun, print_line

if TYPE_CHECKING:
    from poise.runs.run import Run
    from poise.runs.sample_folder import Origin

NUM_SAMPLES = 64
"""The default of `--n`."""


def sample(
    run: RunArgument,
    n: Annotated[
        int | None,
        typer.Option(
            "--n", min=1, max=1_000_000, help="The number of samples.", show_default="64, or as many as --grid shows"
        ),
    ] = None,
    seed: LatentSeed = 0,
    label: Label = None,
    out: Annotated[
        Path | None, typer.Option(help="A .png file for the sample grid.", show_default="RUN/sample.png")
    ] = None,
    npz: Annotated[Path | None, typer.Option(help="A .npz file for the samples as an array.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="A folder for the samples as one .png file each; it is continued if interrupted."),
    ] = None,
    grid: Annotated[
        str | None, typer.Option(help="The rows and columns of the sample grid, such as 8x8.", metavar="ROWSxCOLUMNS")
    ] = None,
    gap: Gap = None,
    truncation: Annotated[float, typer.Option(help="Above 0 and at most 1: less variety for better samples.")] = 1.0,
    raw: Raw = False,
    best: Best = False,
    data: MovedData = None,
    data_root: DataRoot = None,
    trust_code: TrustCode = False,
) -> None:
    """Generate samples from a run: as a grid in a .png, as an array in a .npz, or as one .png file each in a folder.

    An image-to-image generator (pix2pix, CycleGAN) gets held-out images as input, or training images if none are held
    out. The grid and the arrays show these too: source, output and, if there is one, target. A folder has the outputs,
    in sub-folders a and b if G generates images of both domains. To translate your own images, use poise translate.

    If G is conditional, an array and a folder have the class frequencies of the training data, a folder has one
    sub-folder per class, and a grid has one class per row.

    A grid has at most 16 classes, unless --grid says otherwise, and is at most 4,096 pixels wide and high.
    """
    from poise.cli.files import check_run, check_writable, output_in_run, read_moved_data, report_skipped_checkpoints

    check_run(run)
    layout = _check_arguments(n, out, npz, folder, grid, gap)
    out = out if out is not None or npz is not None or folder is not None else output_in_run(run, "sample.png")
    for path, suffix, option in ((out, ".png", "--out"), (npz, ".npz", "--npz")):
        if path is not None:
            check_writable(path, (suffix,), option)

    from poise.runs.run import Run
    from poise.runs.sample_folder import Origin
    from poise.truncation import check_truncation

    check_truncation(truncation, "--truncation")
    opened = Run(run, trust_code=trust_code, best=best)
    read_moved_data(opened, data, data_root)
    _ = opened.game
    report_skipped_checkpoints(opened)
    origin = Origin(seed, None if label is None else opened.label(label), raw, truncation)
    if layout is not None:
        _check_layout(opened, layout, gap)
        n = layout[0] * layout[1] if n is None else n
    n = NUM_SAMPLES if n is None else n
    written = 0
    if folder is not None:
        _write_folder(opened, folder, n, origin)
        written = n
    if npz is not None:
        _write_array(opened, npz, n, origin)
        written = n
    if out is not None:
        written = max(written, _write_grid(opened, out, n, origin, layout, gap))
    for note in opened.starting_notes(written):
        print_line(f"note: {note}", err=True)


def _check_arguments(
    n: int | None, out: Path | None, npz: Path | None, folder: Path | None, grid: str | None, gap: int | None
) -> tuple[int, int] | None:
    """The rows and columns of `--grid`, after the options have been compared with each other.

    Raises:
        RecipeError: some of them contradict each other.
    """
    import re

    from poise.errors import RecipeError

    given = {"--out": out, "--npz": npz, "--grid": grid, "--gap": gap}
    if folder is not None:
        for option, value in given.items():
            if value is not None:
                raise RecipeError("can't be combined with --dir", where=option, cure="use one command for each")
    for option in ("--grid", "--gap"):
        if given[option] is not None and npz is not None and out is None:
            raise RecipeError("no grid is written", where=option, cure="add --out FILE.png, or leave it out")
    if grid is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,3})[xX×]([1-9]\d{0,3})", grid.strip())
    if match is None:
        raise RecipeError("must be rows x columns", where="--grid", found=f"'{grid}'", cure="for example --grid 8x8")
    rows, columns = int(match[1]), int(match[2])
    if n is not None and n < rows * columns:
        what = f"a grid of {rows} x {columns} has {count_noun(rows * columns, 'sample')}"
        raise RecipeError(what, where="--grid", found=f"--n {n}", cure="leave --n out")
    return rows, columns


def _check_layout(run: Run, layout: tuple[int, int], gap: int | None) -> None:
    """Refuse a grid of points, and one that is too large.

    Raises:
        RecipeError: it is one of these.
    """
    from poise.errors import RecipeError
    from poise.utils.image_grid import GAP, MAX_SIDE, grid_capacity

    if len(run.shape) != 3:
        raise RecipeError("this run generates points, which have no grid", where="--grid", cure="leave it out")
    rows, columns = grid_capacity(run.shape, GAP if gap is None else gap, run.view.group_size)
    columns //= run.view.images_per_sample
    if layout[0] > rows or layout[1] > columns:
        what = f"a grid has at most {MAX_SIDE:,} pixels on a side: {rows} x {columns} samples of this run"
        cure = "write single images with --dir"
        raise RecipeError(what, where="--grid", found=f"{layout[0]} x {layout[1]}", cure=cure)


def _write_folder(run: Run, folder: Path, n: int, origin: Origin) -> None:
    """Write one file per sample; a signal leaves complete files, and the same command continues."""
    from poise.cli.results import progress_bar
    from poise.runs.sample_folder import image_folders, write_samples
    from poise.training.signals import Signals

    advice = f"; the files in {folder} are complete, and the same command writes the missing ones"
    with Signals(advice), progress_bar("writing samples") as progress:
        written, total = write_samples(run, folder, n, origin, progress)
    notes = [f"{count_noun(total, 'sample')} of seed {origin.seed} from step {run.checkpoint.step:,}"]
    notes += [f"{total - written:,} of them were there already"] if written < total else []
    notes += [f"an image of each domain, in {' and '.join(folders)}"] if len(folders := image_folders(run)) > 1 else []
    print_line(f"{folder}: {', '.join(notes)}", err=True)


def _write_array(run: Run, path: Path, n: int, origin: Origin) -> None:
    """Write the samples as an array."""
    import numpy as np

    from poise.utils.files import open_atomic
    from poise.utils.images import to_bytes

    samples, labels = run.sample_images(n, **origin._asdict()), run.labels(n, origin.label, origin.seed)
    arrays = {name: to_bytes(images) if images.dim() == 4 else images.numpy() for name, images in samples.items()}
    arrays |= {} if labels is None else {"labels": labels.numpy(), "classes": np.array(run.classes, np.str_)}
    with open_atomic(path) as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
    print_line(f"{path}: {count_noun(n, 'sample')}", err=True)


def _write_grid(run: Run, path: Path, n: int, origin: Origin, layout: tuple[int, int] | None, gap: int | None) -> int:
    """Write a grid of samples: of `layout`, rows and columns, or as many as fit; returns how many it shows."""
    from poise.utils.image_grid import GAP, grid_by_class, num_shown, sample_grid, write_png

    gap = GAP if gap is None else gap
    if not run.view.is_plain and len(run.shape) == 3:
        return _write_translations(run, path, n, origin, layout, gap)
    max_shown, columns, labels = num_shown(run.shape, n, gap), None, None
    remark = "" if max_shown == n else f", the first of {n:,}: no more fit into a grid"
    if layout is not None:
        max_shown, columns = layout[0] * layout[1], layout[1]
        labels = run.labels_of_grid(*layout) if origin.label is None else None
        remark = "" if max_shown == n else f", the first of {n:,}"
    elif origin.label is None:
        labels = run.grid_labels(n)
    samples = run.sample(max_shown if labels is None else len(labels), labels=labels, **origin._asdict())
    if labels is not None and layout is None:  # a grid has equally many samples of each class
        samples, columns = grid_by_class(samples, labels)
    if labels is not None:
        num_shown_classes, num_classes = len(labels.unique()), len(run.classes)
        few = f", one row for each of {num_shown_classes} of the {num_classes:,} classes"
        remark = few if num_shown_classes < num_classes else "" if layout is not None else remark
    samples = samples[:max_shown]
    write_png(sample_grid(samples, run.real(2000), columns, alpha=run.alpha, gap=gap), path)
    print_line(f"{path}: {count_noun(len(samples), 'sample')}{remark}", err=True)
    return len(samples)


def _write_translations(run: Run, path: Path, n: int, origin: Origin, layout: tuple[int, int] | None, gap: int) -> int:
    """Write a grid of samples that consist of several images; returns how many it shows."""
    from poise.utils.image_grid import write_png

    view = run.view
    shown, columns = (
        (min(n, view.capacity(run.shape, gap)), None) if layout is None else (layout[0] * layout[1], layout[1])
    )
    images = run.sample_images(shown, **origin._asdict())
    write_png(view.draw(images, columns, gap), path)
    remark = f", the first of {n:,}" + ("" if layout else ": no more fit into a grid") if shown < n else ""
    print_line(f"{path}: {count_noun(shown, 'sample')}{remark}, each as {view.caption}", err=True)
    return shown
