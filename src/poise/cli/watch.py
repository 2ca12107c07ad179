"""`poise watch`: replays the monitor over a run, or over the log of another trainer. It imports no torch."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from poise.cli.options import AsJson, Text
from poise.utils.printing import print_json, print_line
from poise.utils.remote import with_urls

if TYPE_CHECKING:
    from poise.watch.base import Alarm, Family
    from poise.watch.logs import Log

METRIC_TITLES = {"d/adversarial": "D's loss", "g/adversarial": "G's loss", "measure/fid": "FID", "measure/kid": "KID"}
COLOURS = {"note": "dim", "warning": "yellow", "failure": "bold red"}


def watch(
    run: Annotated[
        Path,
        typer.Argument(
            help="A run folder, or a log: .csv, .json, .jsonl, TensorBoard events or text.", metavar="RUN_OR_LOG"
        ),
    ],
    columns: Annotated[
        Text,
        typer.Option(
            help="The columns of a log by quantity: step=iter,d=loss_D,g=loss_G,accuracy=...; columns joined by + are "
            "averaged, a % at the end means per cent. Poise's g/diversity is relative to real samples (1 = as "
            "diverse); of a diversity of another name only the fall counts.",
            metavar="NAME=COLUMN,...",
        ),
    ] = None,
    loss_family: Annotated[
        Text,
        typer.Option(
            help="The family of the losses: logistic, relativistic, least_squares, hinge, wasserstein, energy, "
            "divergence, reconstruction; or the name of an objective, such as non_saturating (bce).",
            metavar="FAMILY",
            show_default="the recipe's, or guessed",
        ),
    ] = None,
    pattern: Annotated[
        Text,
        typer.Option(help="For text: a regular expression with the groups (?P<d>...), (?P<g>...) and (?P<step>...)."),
    ] = None,
    is_sum: Annotated[
        bool | None,
        typer.Option(
            "--sum/--no-sum",
            help="D's loss in the log is the sum of its losses on real and on fake samples: halve it. With --no-sum "
            "it is their mean already.",
            show_default="guessed",
        ),
    ] = None,
    thresholds: Annotated[
        list[str] | None, typer.Option("--threshold", metavar="DETECTOR=V", help="The threshold of a detector.")
    ] = None,
    windows: Annotated[
        list[str] | None, typer.Option("--window", metavar="DETECTOR=N", help="The window of a detector, in steps.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="A .png file for a plot of the losses and alarms.")] = None,
    as_json: AsJson = False,
) -> None:
    """Replay the monitor over a run or over another trainer's log, and list the alarms."""
    from poise.cli.files import check_writable
    from poise.recipe.advice import fit_advice
    from poise.runs.remote_runs import local_run
    from poise.watch.columns import parse_columns
    from poise.watch.logs import read_log
    from poise.watch.monitor import family_of, idle_settings, monitor_config
    from poise.watch.replay import change_settings, parse_settings, replay

    if plot is not None:
        from poise.utils.plotting import import_matplotlib

        check_writable(plot, (".png",), "--plot")
        import_matplotlib()
    family = family_of(loss_family, "--loss-family")
    run = local_run(run)
    settings = {
        "threshold": parse_settings(thresholds or [], "--threshold", float),
        "window": parse_settings(windows or [], "--window", int),
    }
    log = change_settings(read_log(run, parse_columns(columns or ""), pattern, is_sum), settings)
    for note in log.notes:
        print_line(f"{with_urls(str(run))}: {note}", err=True)
    for table, name, reason in idle_settings(monitor_config(settings), family or log.family):
        print_line(f"--{table} {name} has no effect: {reason}", err=True)
    alarms, inactive = replay(log, family)
    if log.recipe:
        alarms = [alarm._replace(advice=fit_advice(alarm.advice, dict(log.recipe))) for alarm in alarms]
    if as_json:
        found = {"rows": log.count, "alarms": [alarm._asdict() for alarm in alarms]}
        understood = {"columns": dict(log.columns), "family": family or log.family, "notes": list(log.notes)}
        reliability = {
            "family_source": _family_source(log, family),
            "steps": _steps(log)._asdict(),
            "inactive_detectors": inactive,
            "has_d_loss": log.has_d_loss,
        }
        print_json(found | understood | reliability)
    else:
        _print_alarms(run, log, alarms, inactive, family)
    if plot is not None:
        from poise.watch.plot import plot as draw_plot

        draw_plot(log, alarms, plot, family, with_urls(str(run)))
        print_line(f"{plot}: plot of the losses and alarms", err=True)


FEW_ROWS = 8
"""With fewer rows the absence of alarms means little: most detectors compare windows of at least four."""


class Steps(NamedTuple):
    """The first and the last step of a log's rows, and the median distance of two rows; None if there is one row."""

    first: int
    last: int
    every: int | None


def _steps(log: Log) -> Steps:
    steps = log.row_steps
    gaps = sorted(b - a for a, b in pairwise(steps))
    return Steps(steps[0], steps[-1], gaps[len(gaps) // 2] if gaps else None)


def _describe_steps(log: Log) -> str:
    """The last step, the first one and the usual distance of two rows."""
    steps = _steps(log)
    start = "" if steps.every is None else f" (from {steps.first:,}, every {steps.every:,})"
    return f"up to step {steps.last:,}{start}"


def _family_source(log: Log, given: Family | None) -> str:
    """How the family of the losses is known."""
    return "given" if given else log.family_source


def _print_alarms(run: Path, log: Log, alarms: list[Alarm], inactive: list[str], given: Family | None) -> None:
    from rich.table import Table

    from poise.utils.console import TerminalConsole, styled_text
    from poise.utils.printing import count_noun, printable

    console = TerminalConsole()
    family, source = given or log.family or "unknown", _family_source(log, given)
    rows = f"{count_noun(log.count, 'row')} {_describe_steps(log)}"
    console.print(f"{printable(with_urls(str(run)))}: {rows}, loss family: {family}{f' ({source})' if source else ''}")
    for name, column in log.columns.items():
        console.print(f"  {METRIC_TITLES.get(name, name)}: {printable(column)}")
    if inactive:
        console.print(styled_text((f"detectors without data: {', '.join(inactive)}", "dim")))
    if not alarms:
        few = f"; most detectors need more than {count_noun(log.count, 'row')}" if log.count < FEW_ROWS else ""
        console.print(
            f"no alarm{few}"
            if log.has_d_loss
            else "nothing was detected in the columns that were read, but D's loss was not found"
        )
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("step", "since", "detector", "finding and advice"):
        justify = "right" if column in ("step", "since") else "left"
        table.add_column(column, justify=justify, overflow="fold")  # a long option stays whole on a narrow terminal
    for alarm in alarms:
        colour = COLOURS[alarm.level]
        finding = styled_text(f"{alarm.message}\n", (f"{alarm.advice} ({alarm.tip})", "dim"))
        table.add_row(f"{alarm.step:,}", f"{alarm.since:,}", styled_text((alarm.detector, colour)), finding)
    console.print(table)
    if log.columns and any("--set" in alarm.advice for alarm in alarms):
        tip = f"poise tips {alarms[0].tip} explains {alarms[0].tip}"
        console.print(
            styled_text((f"--set is an option of poise train; make the same change in your trainer. {tip}", "dim"))
        )
