"""`poise check`: inspects a recipe before training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from poise.cli.options import (
    Accumulate,
    AsJson,
    Batch,
    Changes,
    Data,
    DataRoot,
    Device,
    Mirror,
    Precision,
    Recipe,
    Size,
    Time,
    TrustCode,
)
from poise.utils.printing import print_json

if TYPE_CHECKING:
    from rich.text import Text

    from poise.data.source import BadFile
    from poise.recipe.checks.findings import Finding
    from poise.training.precheck import Estimate, Report


def check(
    recipe: Recipe = None,
    data: Data = None,
    data_root: DataRoot = None,
    no_data: Annotated[bool, typer.Option("--no-data", help="Check the recipe alone, without its data.")] = False,
    steps: Annotated[int | None, typer.Option(help="The number of training steps.")] = None,
    time: Time = None,
    size: Size = None,
    batch: Batch = None,
    mirror: Mirror = False,
    changes: Changes = None,
    warm_up: Annotated[
        bool,
        typer.Option("--warm-up", help="Train D alone for a few hundred updates: its loss should approach 0."),
    ] = False,
    as_json: AsJson = False,
    device: Device = "auto",
    precision: Precision = "auto",
    accumulate: Accumulate = None,
    trust_code: TrustCode = False,
) -> None:
    """Inspect a recipe before training: errors, warnings, and an estimate of time and memory. Writes nothing."""
    from poise.cli.default_recipe import check_time, choose_for, set_size, sets_steps
    from poise.cli.recipe_arguments import apply_changes
    from poise.errors import RecipeError
    from poise.recipe.choose import DEFAULT_SECONDS
    from poise.recipe.decode import decode
    from poise.recipe.shipped import DEFAULT, load_recipe

    with _errors_reported(as_json=as_json):
        if warm_up and no_data:
            raise RecipeError("can't be combined with --no-data", where="--warm-up", cure="leave one of them out")
        changes = ["data.mirror=true", *(changes or [])] if mirror else changes
        seconds, choice, left = check_time(time), None, changes
        if seconds is not None and (steps is not None or sets_steps(changes)):
            raise RecipeError("can't be combined with a number of steps", where="--time", cure="leave one of them out")
        if recipe is None and data is not None:
            from poise.recipe.choose import Limits

            limits = Limits(seconds, size, batch)
            choice, left = choose_for(data, limits, changes, device=device, precision=precision)
        table = choice.table if choice else load_recipe(DEFAULT if recipe is None else recipe)
        table = apply_changes(table, None if choice else data, {"steps": steps, "batch": batch}, None)
        if size is not None and choice is None:
            set_size(table, size)
        table = apply_changes(table, None, {}, left)
        decoded = decode(table, recipe if recipe and recipe.endswith(".toml") else "")
    from poise.cli.results import progress_bar
    from poise.training.precheck import check as run_checks

    with _errors_reported(as_json=as_json), progress_bar("checking"):
        report = run_checks(
            decoded,
            data_root=data_root,
            with_data=not no_data,
            warm_up=warm_up,
            device=device,
            precision=precision,
            accumulate=accumulate or 1,
            trust_code=trust_code,
        )
    if choice is not None:
        report = report._replace(notes=[*choice.reasons, *report.notes])
        if choice.timed and seconds is None and steps is None and not sets_steps(changes):
            seconds = DEFAULT_SECONDS
    if seconds is not None and report.estimate is not None:
        report = _for_time(report, report.estimate, seconds)
    if as_json:
        print_json(report.as_json())
    else:
        _print_report(decoded.name, report)
    report.findings.raise_first()


@contextmanager
def _errors_reported(*, as_json: bool) -> Iterator[None]:
    """Print what is known of an error, which ends the check: the files that can't be used, in JSON also the error."""
    from poise.data.source import UnusableFilesError
    from poise.errors import PoiseError
    from poise.recipe.checks.findings import Findings
    from poise.training.precheck import Report
    from poise.utils.printing import print_line

    try:
        yield
    except PoiseError as error:
        bad_files = error.bad_files if isinstance(error, UnusableFilesError) else ()
        if as_json:
            findings = Findings()
            findings.refuse(error)
            print_json(Report(findings, [], None, None, bad_files).as_json())
        else:
            for line in _bad_file_lines(bad_files):
                print_line(line)
        raise


def _bad_file_lines(bad_files: Sequence[BadFile]) -> list[str]:
    from poise.training.run_info import bad_image_notes

    return bad_image_notes(bad_files, "--json lists all of them")


def _for_time(report: Report, estimate: Estimate, seconds: float) -> Report:
    """The report on a run of this time instead of the recipe's number of steps."""
    from poise.training.default_recipe import steps_within
    from poise.utils.durations import duration_text

    steps = steps_within(seconds, estimate.step_time)
    note = f"poise train makes about {steps:,} steps in {duration_text(seconds)}; --time or --steps change it"
    return report._replace(notes=[*report.notes, note], estimate=estimate._replace(seconds=seconds))


def _print_report(name: str, report: Report) -> None:
    from rich.table import Table

    from poise.utils.console import TerminalConsole
    from poise.utils.printing import printable

    console = TerminalConsole()
    for level, colour, findings in (
        ("error", "bold red", report.findings.refusals),
        ("warning", "yellow", report.findings.warnings),
    ):
        for finding in findings:
            console.print(_finding_line(level, colour, finding))
    for note in report.notes:
        console.print(printable(f"note     {note}"))
    for line in _bad_file_lines(report.bad_files):
        console.print(printable(line))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    if (warm_up := report.warm_up) is not None:
        table.add_row("warm-up", warm_up.words)
    if (estimate := report.estimate) is not None:
        from poise.engine.initial_weights import NETWORK_NAMES

        sizes = [
            f"{NETWORK_NAMES[name]} {estimate.parameters[name]:,}"
            for name in NETWORK_NAMES
            if name in estimate.parameters
        ]
        table.add_row("players", f"{', '.join(sizes)} parameters")
        duration, milliseconds = _format_duration(estimate.seconds), 1000 * estimate.seconds_per_step
        table.add_row("time", f"{duration} at {milliseconds:,.0f} ms per step, without periodic evaluation")
        peak = "" if estimate.megabytes is None else f"{estimate.megabytes:,.0f} MB at peak, "
        table.add_row("memory", f"{peak}{estimate.save_megabytes:,.1f} MB per checkpoint")
    console.print(table)
    if not report.findings.refusals and not report.findings.warnings:
        console.print(f"{name}: no problems found")


def _finding_line(level: str, colour: str, finding: Finding) -> Text:
    from poise.utils.console import styled_text

    tip = f" ({finding.tip})" if finding.tip else ""
    return styled_text(
        (f"{level:<7}", colour), "  ", (finding.field, "bold"), f": {finding.message}; {finding.cure}{tip}"
    )


def _format_duration(seconds: float) -> str:
    from poise.cli.run_progress import format_duration

    return format_duration(seconds)
