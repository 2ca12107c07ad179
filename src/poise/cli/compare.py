"""`poise compare`: the same measures for any two piles of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poise.cli import complete
from poise.cli.figures import FEATURES, MEASURES, progress, show

if TYPE_CHECKING:
    from poise.core import Shape
    from poise.data.source import DataEntry, Loaded
    from poise.training.run import Run

Text = str | None


def compare(
    fake: Annotated[
        str,
        typer.Argument(help="Pictures as a folder, .zip or .npz, or a run.", autocompletion=complete.data),
    ],
    real: Annotated[
        str,
        typer.Argument(
            help="The pictures they are held against; a data set's name will do.", autocompletion=complete.data
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
    from poise.data.native import native_side
    from poise.measure.catalogue import chosen
    from poise.measure.compare import compare as compared
    from poise.training.run import Run

    wanted = chosen(measures)
    ours, given = _side(fake, "FAKE", trust_code), _side(real, "REAL", trust_code)
    with progress() as tell:
        fakes, reals, theirs = _loaded(ours, given, size, n, data_root)
        result = compared(fakes, reals, wanted, entry=theirs, n=n, features=features, tell=tell, trust_code=trust_code)
    notes, side = list(result.notes), reals.train.shape[-1]
    for name, entry, data in (("FAKE", ours, fakes), ("REAL", given, reals)):
        seen = entry.shape[-1] if isinstance(entry, Run) else native_side(entry)
        if seen is not None and seen != side:
            resized = f"was resized from {seen} to {side} pixels (Lanczos, antialiased)"
            notes.append(f"{name} {resized}: the figures include that")
        notes += [f"{name} is {note}" for note in data.notes if isinstance(entry, Run)]
        notes += [f"{name}: {doubt.message}; {doubt.cure}" for doubt in data.doubts]
    show(result._replace(notes=tuple(notes)), as_json=as_json, every=measures in (None, "all"))


def _side(words: str, where: str, trust_code: bool) -> DataEntry | Run:
    """The data, or the run, that an argument names."""
    from poise.cli.data_words import data_entry
    from poise.data.folder import FolderEntry
    from poise.training.sampled import run_at

    entry = data_entry(words, where)
    run = run_at(Path(entry.path), where, trust_code=trust_code) if isinstance(entry, FolderEntry) else None
    return run or entry


def _loaded(
    ours: DataEntry | Run, given: DataEntry | Run, size: int | None, n: int | None, data_root: Path | None
) -> tuple[Loaded, Loaded, DataEntry]:
    """FAKE and REAL at one size and with as many channels, and what REAL is an entry of."""
    from poise.data.native import at_native_side, native_side, whole
    from poise.data.source import Finite
    from poise.measure.bench import MOST
    from poise.measure.compare import at_most, same_channels
    from poise.training.run import Run
    from poise.training.sampled import sampled

    def fakes(shape: Shape, most: int) -> Loaded:
        if isinstance(ours, Run):
            return sampled(ours, n or most, shape[-1], shape[0])
        return same_channels(at_native_side(whole(ours), shape[-1]), shape[0]).load(data_root)

    if isinstance(given, Run):
        side = size or given.shape[-1]
        made = fakes((given.shape[0], side, side), MOST)
        there = len(made.train) if isinstance(made.train, Finite) else MOST
        return made, sampled(given, 2 * min(n or MOST, there), side), given.recipe.data  # half of them for the floors
    own = ours.shape[-1] if isinstance(ours, Run) and native_side(given) is None else None
    theirs = at_native_side(whole(given), size or own)
    reals = theirs.load(data_root)
    return fakes(reals.train.shape, at_most(reals)), reals, theirs
