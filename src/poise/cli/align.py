"""`poise align`: maps one set of vectors onto another without known pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poise.cli.options import AsJson, Changes, Device, Text
from poise.cli.results import progress_bar
from poise.utils.printing import count_noun, print_json, print_line

if TYPE_CHECKING:
    from poise.alignment.align import Alignment
    from poise.alignment.record import Evaluation


def align(
    source: Annotated[
        Text,
        typer.Argument(metavar="SRC", help="The vectors to map: .vec, .txt, .bin, .npz or .npy.", show_default=False),
    ] = None,
    target: Annotated[
        Text, typer.Argument(metavar="TGT", help="The vectors to map them onto.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder of the results.", show_default="runs/align, runs/align-2, ...")
    ] = None,
    dictionary: Annotated[
        Path | None, typer.Option(help="Known translations, a pair of words per line, to compare the result with.")
    ] = None,
    starts: Annotated[int, typer.Option(min=1, max=1000, help="The largest number of random starts.")] = 10,
    steps: Annotated[
        int | None, typer.Option(min=1, max=10**9, help="Training steps per start.", show_default="the recipe's")
    ] = None,
    most_frequent: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="D is trained on this many of the most frequent words, the first vectors of each file.",
            show_default="75000",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The seed of the first start.", show_default="0")] = None,
    changes: Changes = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the alignment in --out.")] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Map one set of vectors onto another without known pairs, such as the words of two languages."""
    from poise.alignment.align import align as align_sets
    from poise.cli.recipe_arguments import apply_changes
    from poise.recipe.decode import decode
    from poise.training.listener import NullListener
    from poise.utils.progress import Progress

    table = initial_table(source, target, out, most_frequent, resume=resume)
    recipe = decode(apply_changes(table, None, {"steps": steps, "seed": seed}, changes))

    class Messages(NullListener):
        """Prints messages, and shows the progress of long work."""

        def __init__(self, progress: Progress) -> None:
            self.on_progress = progress

        def on_message(self, sentence: str) -> None:
            """See `NullListener.on_message`."""
            print_line(sentence, err=True)

    with progress_bar("reading the vectors") as progress:
        result = align_sets(
            recipe,
            out,
            dictionary=dictionary,
            starts=starts,
            resume=resume,
            device=device,
            listener=Messages(progress),
            notify=_print_evaluation,
        )
    if as_json:
        print_json(result.as_json())
    else:
        _print_result(result)


def initial_table(
    source: Text, target: Text, out: Path | None, most_frequent: int | None, *, resume: bool
) -> dict[str, Any]:
    """The table of the recipe of an alignment: the shipped one, or that of the alignment that is resumed.

    Args:
        source: the file of the sources; None, as `target`, for those of the alignment that is resumed.
        target: the file of the targets.
        out: the folder of the alignment.
        most_frequent: how many of the first vectors D sees, if it is given.
        resume: whether the alignment in `out` is resumed.

    Raises:
        RecipeError: the files or `out` are missing.
        CheckpointError: there is no alignment to resume.
    """
    from poise.alignment.align import RECIPE, align_table
    from poise.alignment.record import read_record
    from poise.errors import RecipeError
    from poise.recipe.shipped import load_table
    from poise.utils.paths import refuse_url

    if out is not None:
        refuse_url(out)
    if resume and out is None:
        raise RecipeError("needs the folder of the alignment", where="--resume", cure="give it with --out")
    if (source is None or target is None) and not (resume and source is target):
        cure = "poise align SRC TGT, or poise align --resume --out DIR"
        raise RecipeError("needs two files of vectors", where="SRC TGT", cure=cure)
    table = read_record(out).recipe.canonical() if resume and out is not None else load_table(RECIPE)
    if source is not None and target is not None:
        return align_table(source, target, table, most_frequent)
    if most_frequent is not None:
        table["data"]["most_frequent"] = most_frequent
    return table


def _print_evaluation(found: Evaluation) -> None:
    print_line(
        f"start {found.start}, step {found.step:,}: criterion {found.before:.3f}, refined {found.criterion:.3f}; "
        f"{count_noun(found.pairs, 'pair')}, {found.agreement:.0%} of them confirmed",
        err=True,
    )


def _print_result(result: Alignment) -> None:
    """Print whether the map is clear, how good it is, and where it is."""
    best, judged = result.refined, result.found.best
    verdict = "a clear map" if result.found.is_clear else "no clear map was found; this is the best one"
    confirmed = f"{judged.agreement:.0%} of its {judged.pairs:,} pairs confirmed"
    if best.pairs > judged.pairs:  # the search looks at the most frequent words only
        confirmed += f" among the most frequent words, {best.agreement:.0%} of {best.pairs:,} among all"
    print_line(f"{verdict}: start {best.start}, step {best.step:,}, criterion {best.criterion:.3f}, {confirmed}")
    if result.precision is not None and result.known is not None:
        scores = ", ".join(f"P@{k} {share:.1%}" for k, share in result.precision.csls.items())
        print_line(f"{scores} of {len(result.known.sources):,} of the {result.known.total:,} words of the dictionary")
    print_line(f"{result.folder}: map.npy, dictionary.tsv, mapped and target vectors, align.json")
