"""`poise report`: the verdicts of a study as a table, as HTML and Markdown, or as JSON. It imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poise.cli import completion
from poise.cli.options import AsJson
from poise.utils.printing import print_json, print_line

if TYPE_CHECKING:
    from rich.table import Table

    from poise.study.folder import StudyFolder
    from poise.study.summary import StudyResults

COLOURS = {"helps": "green", "harms": "red", "unstable": "yellow", "no effect seen": "", "too few seeds": "dim"}


def report(
    study: Annotated[
        Path,
        typer.Argument(help="The folder of a study.", metavar="STUDY", autocompletion=completion.paths),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The folder for the report.", show_default="the folder of the study")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which tips help in a study, and write report.html and report.md; the study may still be running."""
    from poise.study.folder import StudyFolder
    from poise.study.summary import StudyResults
    from poise.study.verdicts import analyse

    folder = StudyFolder(study)
    plan, runs = folder.read_study(), folder.read_results()
    results = StudyResults(plan, runs, analyse(plan, runs))
    if as_json:
        print_json(results.as_json())
        return
    page = _write(results, folder, study if out is None else out)
    (_print_effects if results.study.comparisons else _print_values)(results)
    print_line("")
    print_line(f"report: {page} and {page.with_suffix('.md').name}")


def _write(results: StudyResults, folder: StudyFolder, out: Path) -> Path:
    from poise.errors import DiskError
    from poise.study.report import write_report

    try:
        return write_report(results, out, folder.runs, _plan_text(folder.plan))
    except DiskError as error:
        raise DiskError(error.what, where=error.where, cure="name another folder: --out DIR") from None


def _plan_text(path: Path) -> str:
    """The plan, for the report to quote; empty if it can't be read, as the report does without it."""
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _print_effects(results: StudyResults) -> None:
    from poise.study.report_tables import failure_counts
    from poise.utils.console import styled_text

    table = _table()
    for column in ("tip", "data", "measure", "better", "verdict", "effect"):
        table.add_column(column, overflow="fold")
    for column in ("seeds", "failed with / without"):
        table.add_column(column, justify="right")
    for effect in results.effects:
        table.add_row(
            styled_text((effect.name, "bold"), f" {effect.tip}"),
            styled_text(effect.base),
            styled_text(effect.measure),
            styled_text((effect.better, "dim")),
            styled_text((effect.short_verdict, COLOURS[effect.verdict])),
            styled_text(f"{effect.change} {effect.interval}".strip()),
            str(effect.seeds),
            failure_counts(effect),
        )
    _print_with_counts(table, results)


def _print_values(results: StudyResults) -> None:
    """The final values of the bases, if there is nothing to compare."""
    from poise.study.report_tables import value_table
    from poise.utils.console import styled_text

    header, *rows = ([str(cell) for cell in row] for row in value_table(results))
    table = _table()
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(styled_text, row))
    _print_with_counts(table, results)


def _table() -> Table:
    from rich.table import Table

    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")


def _print_with_counts(table: Table, results: StudyResults) -> None:
    """The table below the number of runs in each state, and what was not measured."""
    from poise.study.report_tables import unmeasured
    from poise.utils.console import TerminalConsole, styled_text

    states = results.states()
    counts = ", ".join(f"{n:,} {state}" for state, n in states.items() if n) or "no runs"
    console = TerminalConsole()
    console.print(styled_text((results.study.name, "bold"), f": {counts}\n"))
    console.print(table)
    for sentence in unmeasured(results):
        print_line(sentence)
