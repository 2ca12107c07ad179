"""`poise compare`: the same measures for any two piles of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poise.cli import completion
from poise.cli.results import FEATURES, MEASURES, print_result, progress_bar

if TYPE_CHECKING:
    from poise.core.types import Shape
    from poise.data.source import DataConfig, DataSplits
    from poise.runs.run import Run

Text = str | None


def compare(
    fake: Annotated[
        str,
        typer.Argument(help="Pictures as a folder, .zip or .npz, or a run.", autocompletion=completion.data),
    ],
    real: Annotated[
        str,
        typer.Argument(
            help="The pictures they are held against; a data set's name will do.", autocompletion=completion.data
        ),
    ],
    measures: Annotated[Text, typer.Option(help=MEASURES, show_default="all but the slow ones")] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n", min=2, max=1_000_000, help="How many of each.", show_default="half of REAL at most, to 5,000"
        ),
    ] = None,
    features: Annotated[str, typer.Option(help=FEATURES)] = "auto",
    size: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Compare at this size.", show_default="that of REAL")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, on stdout alone.")] = False,
    data_root: Annotated[Path | None, typer.Option(help="Where data sets by name are looked for.")] = None,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Let Python files that are named run.")] = False,
) -> None:
    """Compare two piles of pictures: how good and how varied FAKE is, for somebody who wants REAL.

    A run folder stands for samples of that run.
    """
    from poise.data.native_size import native_side
    from poise.measure.catalogue import select_measures
    from poise.measure.compare import compare as compared
    from poise.runs.run import Run

    wanted = select_measures(measures)
    ours, given = _side(fake, "FAKE", trust_code), _side(real, "REAL", trust_code)
    with progress_bar() as tell:
        fakes, reals, theirs = _loaded(ours, given, size, n, data_root)
        result = compared(
            fakes, reals, wanted, entry=theirs, n=n, features=features, progress=tell, trust_code=trust_code
        )
    notes, side = list(result.notes), reals.train.shape[-1]
    for name, entry, data in (("FAKE", ours, fakes), ("REAL", given, reals)):
        seen = entry.shape[-1] if isinstance(entry, Run) else native_side(entry)
        if seen is not None and seen != side:
            resized = f"was resized from {seen} to {side} pixels (Lanczos, antialiased)"
            notes.append(f"{name} {resized}: the figures include that")
        notes += [f"{name} is {note}" for note in data.notes if isinstance(entry, Run)]
        notes += [f"{name}: {doubt.message}; {doubt.cure}" for doubt in data.warnings]
    print_result(result._replace(notes=tuple(notes)), as_json=as_json, every=measures in (None, "all"))


def _side(words: str, where: str, trust_code: bool) -> DataConfig | Run:
    """The data, or the run, that an argument names."""
    from poise.cli.data_arguments import data_config
    from poise.data.folder import FolderConfig
    from poise.runs.run_samples import open_run

    entry = data_config(words, where)
    run = open_run(Path(entry.path), where, trust_code=trust_code) if isinstance(entry, FolderConfig) else None
    return run or entry


def _loaded(
    ours: DataConfig | Run, given: DataConfig | Run, size: int | None, n: int | None, data_root: Path | None
) -> tuple[DataSplits, DataSplits, DataConfig]:
    """FAKE and REAL at one size and with as many channels, and what REAL is an entry of."""
    from poise.data.native_size import at_native_side, native_side, without_held_out
    from poise.data.source import SizedSource
    from poise.measure.compare import match_channels, max_samples
    from poise.measure.evaluator import MOST
    from poise.runs.run import Run
    from poise.runs.run_samples import run_samples

    def fakes(shape: Shape, most: int) -> DataSplits:
        if isinstance(ours, Run):
            return run_samples(ours, n or most, shape[-1], shape[0])
        return match_channels(at_native_side(without_held_out(ours), shape[-1]), shape[0]).load(data_root)

    if isinstance(given, Run):
        side = size or given.shape[-1]
        made = fakes((given.shape[0], side, side), MOST)
        there = len(made.train) if isinstance(made.train, SizedSource) else MOST
        return (
            made,
            run_samples(given, 2 * min(n or MOST, there), side),
            given.recipe.data,
        )  # half of them for the floors
    own = ours.shape[-1] if isinstance(ours, Run) and native_side(given) is None else None
    theirs = at_native_side(without_held_out(given), size or own)
    reals = theirs.load(data_root)
    return fakes(reals.train.shape, max_samples(reals)), reals, theirs
