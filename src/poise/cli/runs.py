"""`poise runs`: lists the runs below a folder. It imports no torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poise.cli import completion
from poise.cli.options import AsJson
from poise.utils.printing import print_json, print_line, shape_text

if TYPE_CHECKING:
    from poise.runs.overview import RunSummary

DEFAULT = Path("runs")
COLOURS = {"running": "green", "failed": "red", "damaged": "red", "interrupted": "yellow", "stopped": "yellow"}
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def runs(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="A folder with run folders in it, up to three levels below, or the URL of one in an object store.",
            metavar="DIR",
            show_default="runs",
            autocompletion=completion.paths,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the runs in a folder, the last changed first, with their states, steps, data and best measures."""
    from poise.errors import RecipeError
    from poise.runs.overview import MAX_FOLDERS, list_runs
    from poise.runs.remote_runs import open_remote_runs
    from poise.utils.remote import with_urls

    root = DEFAULT if folder is None else folder
    remote = open_remote_runs(root)
    root = root if remote is None else remote.local
    if not root.is_dir() and (folder is not None or root.exists()):
        what = "not a folder" if root.exists() else "no such folder"
        raise RecipeError(what, where=str(root), cure="give the folder that contains the runs")
    found, complete = list_runs(root)
    if remote is not None:
        found = [run._replace(path=with_urls(run.path), reason=run.reason and with_urls(run.reason)) for run in found]
    if not complete:
        print_line(f"only the first {MAX_FOLDERS:,} folders were searched: give a folder further down", err=True)
    if as_json:
        print_json([run.as_json() for run in found])
    elif found:
        _print_table(found)
    else:
        print_line(f"no runs in {with_urls(str(root))}; poise train starts one", err=True)


def age(seconds: float) -> str:
    """A duration in its largest unit: `5 min`, `3 d`."""
    size, unit = next(((size, unit) for size, unit in UNITS if seconds >= size), (1, "s"))
    return f"{max(0, int(seconds / size))} {unit}"


def _print_table(found: list[RunSummary]) -> None:
    from rich.table import Table

    from poise.utils.console import TerminalConsole, styled_text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("run", "state", "step", "data", "best measure", "alarms", "changed"):
        table.add_column(column, justify="right" if column in ("step", "alarms", "changed") else "left")
    now = time.time()
    for run in found:
        best = "" if run.best is None else f"{run.best.measure} {run.best.value:.4g} at step {run.best.step:,}"
        shape = "" if run.shape is None else shape_text(run.shape, run.parts)
        table.add_row(
            styled_text((run.name, "bold")),
            styled_text((run.state, COLOURS.get(run.state, ""))),
            "" if run.step is None else f"{run.step:,} of {run.steps:,}",
            "" if run.data is None else f"{run.data} {shape}",
            run.reason or best,
            str(run.alarms) if run.alarms else "",
            f"{age(now - run.changed)} ago" if run.changed else "",
        )
    TerminalConsole().print(table)
