"""What `measure` and `compare` share: the options' words, the progress bar, the table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from poise.utils.printing import count_noun, print_json, print_line

if TYPE_CHECKING:
    from poise.measure.catalogue import EvaluationResult, MeasureResult
    from poise.utils.progress import Progress

MEASURES = "Some of them, by name, with commas between; `all` takes the slow ones too."
FEATURES = "auto, pixels, classifier, d, inception=FILE, NAME=FILE (torchvision) or FILE.py:NAME."
DIRECTIONS = {"less": "less is better", "more": "more is better", "floor": "best near its floor"}


@contextmanager
def progress_bar(first: str = "reading the data") -> Iterator[Progress]:
    """While something takes its time: a bar on stderr where somebody is looking, else a line now and then.

    Args:
        first: what is done first.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from poise.cli.progress_view import PlainView
    from poise.utils.console import TerminalConsole
    from poise.utils.progress import progress_to

    console = TerminalConsole(err=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(first, total=1.0)

        def on_bar(what: str, share: float) -> None:
            bar.update(task, description=what or None, completed=share)

        tell = on_bar if console.is_terminal else PlainView().on_progress
        with progress_to(tell):
            yield tell


def print_result(result: EvaluationResult, *, as_json: bool, every: bool) -> None:
    """The figures, on stdout; notes on stderr. Of measures asked for by name, not `every` one, more is told."""
    if as_json:
        print_json(result.as_json())
        return
    from rich.table import Table

    from poise.measure.catalogue import MEASURES as KNOWN
    from poise.utils.console import TerminalConsole, styled_text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("measure", style="bold")
    table.add_column("value", justify="right")
    table.add_column("floor (real)", justify="right", style="dim")
    table.add_column("")
    for name, told in result.results.items():
        direction = "" if told.floor is None and KNOWN[name].better == "floor" else DIRECTIONS[KNOWN[name].better]
        said = direction if every else KNOWN[name].about
        table.add_row(name, *_figures(told), styled_text((said, "dim")))
    console = TerminalConsole()
    console.print(f"{count_noun(result.n, 'sample')} against as many real ones, by {result.features}\n")
    console.print(table)
    for note in result.notes:
        print_line(note, err=True)
    for name, why in () if every else result.skipped.items():
        print_line(f"no {name}: {why}", err=True)


def _figures(told: MeasureResult) -> tuple[str, str]:
    error = "" if told.value.stderr is None else f" ± {told.value.stderr:.2g}"
    if told.floor is None:
        return f"{told.value.value:.4g}{error}", ""
    spread = "" if told.floor.std is None else f" ± {told.floor.std:.2g}"
    return f"{told.value.value:.4g}{error}", f"{told.floor.value:.4g}{spread}"
