"""`poise watch`: what a monitor would have said of a run, ours or another trainer's. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from poise.utils.printing import print_json, print_line

if TYPE_CHECKING:
    from poise.watch.base import Alarm
    from poise.watch.logs import Log

Text = str | None
Families = Literal["logistic", "pairs", "squares", "hinge", "wasserstein", "energy"]
COLOURS = {"note": "dim", "warning": "yellow", "failure": "bold red"}


def watch(
    run: Annotated[
        Path,
        typer.Argument(
            help="A run folder, or a log: .csv, .json, .jsonl, TensorBoard events, text.", metavar="RUN_OR_LOG"
        ),
    ],
    columns: Annotated[
        Text,
        typer.Option(
            help="Which column holds what: step=iter,d=loss_D,g=loss_G,accuracy=...; several by + are averaged, "
            "a % at the end says per cent.",
            metavar="NAME=COLUMN,...",
        ),
    ] = None,
    loss_family: Annotated[
        Families | None, typer.Option(help="The sort of losses.", show_default="the recipe's, or guessed")
    ] = None,
    pattern: Annotated[
        Text, typer.Option(help="For text: a regular expression with groups (?P<d>...), (?P<g>...), (?P<step>...).")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="A .png: the losses, with the alarms.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, on stdout alone.")] = False,
) -> None:
    """Replay the monitor over a run, or over another trainer's log."""
    from poise.cli.files import check_writable
    from poise.watch.logs import parse_columns, read_log
    from poise.watch.replay import replay

    if plot is not None:
        from poise.utils.plotting import import_matplotlib

        check_writable(plot, (".png",), "--plot")
        import_matplotlib()
    log = read_log(run, parse_columns(columns or ""), pattern)
    for note in log.notes:
        print_line(f"{run}: {note}", err=True)
    alarms, deaf = replay(log, loss_family)
    if as_json:
        print_json({"rows": log.count, "alarms": [alarm._asdict() for alarm in alarms]})
    else:
        _tell(run, log, alarms, deaf, loss_family)
    if plot is not None:
        from poise.watch.plot import plot as draw

        draw(log, alarms, plot, loss_family, str(run))
        print_line(f"{plot}: the losses by step, with the alarms", err=True)


def _tell(run: Path, log: Log, alarms: list[Alarm], deaf: list[str], family: Families | None) -> None:
    from rich.table import Table

    from poise.utils.console import TerminalConsole, styled_text
    from poise.utils.printing import count_noun, printable

    console = TerminalConsole()
    sort = family or log.family
    losses = f"losses of the {sort} sort" if sort else "losses of an unknown sort"
    console.print(f"{printable(str(run))}: {count_noun(log.count, 'row')} up to step {log.rows[-1][0]:,}, {losses}")
    if deaf:
        console.print(styled_text((f"no numbers for {', '.join(deaf)}", "dim")))
    if not alarms:
        console.print("no alarm" if log.judged else "nothing alarming in what was read, but D's loss was not found")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("step", "detector", "what was seen"):
        table.add_column(column, justify="right" if column == "step" else "left")
    for alarm in alarms:
        colour = COLOURS[alarm.level]
        told = styled_text(f"{alarm.message}\n", (f"{alarm.advice} ({alarm.tip})", "dim"))
        table.add_row(f"{alarm.step:,}", styled_text((alarm.detector, colour)), told)
    console.print(table)
