"""The progress bar and the table of results that `measure` and `compare` share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from poise.utils.printing import print_json, print_line

if TYPE_CHECKING:
    from poise.measure.catalogue import EvaluationResult, MeasureResult
    from poise.utils.progress import Progress

DIRECTIONS = {"less": "lower is better", "more": "higher is better", "floor": "best near that of real data"}


@contextmanager
def progress_bar(description: str = "reading the data") -> Iterator[Progress]:
    """Show the progress of the block on stderr: a bar on a terminal, otherwise a line every few seconds.

    Args:
        description: what is done first.

    Yields:
        A callback for further progress; `poise.utils.progress.report` reaches it, too.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from poise.cli.progress_view import PlainView
    from poise.utils.console import TerminalConsole
    from poise.utils.progress import progress_to

    console = TerminalConsole(err=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=1.0)

        def update_bar(what: str, fraction: float) -> None:
            bar.update(task, description=what or None, completed=fraction)

        callback = update_bar if console.is_terminal else PlainView().on_progress
        with progress_to(callback):
            yield callback


def print_result(result: EvaluationResult, *, as_json: bool, brief: bool) -> None:
    """Print the results to stdout and the notes to stderr.

    Args:
        result: the results.
        as_json: whether to print JSON.
        brief: whether the table says only which direction of a measure is better. Otherwise it describes each measure.
            The reasons of skipped measures are printed, if brief only those that are not of the data or the run.
    """
    if as_json:
        print_json(result.as_json())
        return
    from rich.table import Table

    from poise.measure.base import MISSING_REASONS
    from poise.measure.catalogue import MEASURES
    from poise.utils.console import TerminalConsole, styled_text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("measure", style="bold")
    table.add_column("value", justify="right")
    table.add_column("real data", justify="right", style="dim")
    table.add_column("")
    for name, measured in result.results.items():
        measure = MEASURES[name]
        direction = "" if measured.floor is None and measure.better == "floor" else DIRECTIONS[measure.better]
        remark = direction if brief else measure.description
        remark += "" if measured.baseline is None else f"; without translation {measured.baseline:.4g}"
        table.add_row(name, *_format_values(measured), styled_text((remark, "dim")))
    console = TerminalConsole()
    title = f"{result.n:,} generated and {result.n:,} real samples, features: {result.features}\n"
    console.print(title, soft_wrap=True)
    console.print(table)
    for note in result.notes:
        print_line(note, err=True)
    usual = MISSING_REASONS.values() if brief else ()
    skipped: dict[str, list[str]] = {}
    for name, reason in result.skipped.items():
        if reason not in usual:
            skipped.setdefault(reason if brief else name, []).append(name)
    for names in skipped.values():
        print_line(f"no {', '.join(names)}: {result.skipped[names[0]]}", err=True)


def _format_values(measured: MeasureResult) -> tuple[str, str]:
    """The value with its standard error, and the floor with its standard deviation."""
    error = "" if measured.value.stderr is None else f" ± {measured.value.stderr:.2g}"
    value = f"{measured.value.value:.4g}{error}"
    if measured.floor is None:
        return value, ""
    spread = "" if measured.floor.std is None else f" ± {measured.floor.std:.2g}"
    return value, f"{measured.floor.value:.4g}{spread}"
