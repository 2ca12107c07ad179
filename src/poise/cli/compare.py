"""`poise compare`: the same measures for any two piles of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poise.cli import complete
from poise.cli.figures import FEATURES, MEASURES, progress, show

if TYPE_CHECKING:
    from poise.data.source import DataEntry

Text = str | None


def compare(
    fake: Annotated[
        str, typer.Argument(help="A folder, .zip or .npz of pictures, whoever made them.", autocompletion=complete.data)
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
        typer.Option("--n", min=2, help="How many of each.", show_default="half of REAL at most, to 5,000"),
    ] = None,
    features: Annotated[str, typer.Option(help=FEATURES)] = "auto",
    size: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Compare at this size.", show_default="that of REAL")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, on stdout alone.")] = False,
    data_root: Annotated[Path | None, typer.Option(help="Where data sets by name are looked for.")] = None,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Let Python files that are named run.")] = False,
) -> None:
    """Compare two piles of pictures: how good and how varied FAKE is, for somebody who wants REAL."""
    from poise.data.native import at_native_side, native_side, whole
    from poise.measure.catalogue import chosen
    from poise.measure.compare import compare as compared
    from poise.measure.compare import same_channels

    wanted = chosen(measures)
    ours, given = _entry(fake, "FAKE"), _entry(real, "REAL")
    theirs = at_native_side(whole(given), size)
    with progress() as tell:
        reals = theirs.load(data_root)
        side = reals.train.shape[-1]
        fakes = same_channels(at_native_side(whole(ours), side), reals).load(data_root)
        result = compared(fakes, reals, wanted, entry=theirs, n=n, features=features, tell=tell, trust_code=trust_code)
    for name, entry in (("FAKE", ours), ("REAL", given)):
        seen = native_side(entry)
        if seen is not None and seen != side:
            note = f"{name} was resized from {seen} to {side} pixels (Lanczos, antialiased): the figures include that"
            result = result._replace(notes=(*result.notes, note))
    sides = (("FAKE", fakes), ("REAL", reals))
    doubts = [f"{name}: {doubt.message}; {doubt.cure}" for name, data in sides for doubt in data.doubts]
    result = result._replace(notes=(*result.notes, *doubts))
    show(result, as_json=as_json, every=measures in (None, "all"))


def _entry(words: str, where: str) -> DataEntry:
    """The data that an argument names."""
    from poise.cli.data_words import data_entry

    return data_entry(words, where)
