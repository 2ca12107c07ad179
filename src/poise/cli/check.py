"""`poise check`: a recipe before it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poise.cli import completion
from poise.utils.printing import print_json

if TYPE_CHECKING:
    from rich.text import Text

    from poise.recipe.checks.findings import Finding
    from poise.training.precheck import Report

Words = str | None


def check(
    recipe: Annotated[
        Words,
        typer.Argument(
            help="A shipped recipe or a .toml file.", show_default="dcgan", autocompletion=completion.recipes
        ),
    ] = None,
    data: Annotated[
        Words,
        typer.Option(help="A folder, .zip or .npz of pictures, or a data set's name.", autocompletion=completion.data),
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Where data sets by name are looked for.")] = None,
    no_data: Annotated[bool, typer.Option("--no-data", help="Look at the recipe alone.")] = False,
    steps: Annotated[int | None, typer.Option(help="Steps in the whole run.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change the recipe: optimizer.d.lr=1e-4")
    ] = None,
    warm_up: Annotated[
        bool, typer.Option("--warm-up", help="Train D alone for some hundred moves: its loss must go to 0.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, on stdout alone.")] = False,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:N, mps.", autocompletion=completion.devices)
    ] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.", autocompletion=completion.precisions)] = "auto",
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Let the recipe's own Python files run.")] = False,
) -> None:
    """Inspect a recipe before training: what does not fit, what is doubtful, what it will cost. Writes nothing."""
    from poise.cli.recipe_arguments import apply_changes
    from poise.errors import RecipeError
    from poise.recipe.checks.findings import Findings
    from poise.recipe.decode import decode
    from poise.recipe.shipped import DEFAULT, load_recipe

    try:
        table = apply_changes(load_recipe(DEFAULT if recipe is None else recipe), data, {"steps": steps}, changes)
        decoded = decode(table, recipe if recipe and recipe.endswith(".toml") else "")
    except RecipeError as error:
        if as_json:
            refused = Findings()
            refused.refuse(error)
            print_json({"refusals": [refusal._asdict() for refusal in refused.refusals], "warnings": []})
        raise
    from poise.cli.results import progress_bar
    from poise.training.precheck import check as look

    with progress_bar("looking"):
        report = look(
            decoded,
            data_root=data_root,
            with_data=not no_data,
            warm_up=warm_up,
            device=device,
            precision=precision,
            trust_code=trust_code,
        )
    if as_json:
        print_json(report.as_json())
    else:
        _tell(decoded.name, report)
    report.findings.raise_first()


def _tell(name: str, report: Report) -> None:
    from rich.table import Table

    from poise.utils.console import TerminalConsole
    from poise.utils.printing import printable

    console = TerminalConsole()
    for sort, colour, findings in (
        ("refused", "bold red", report.findings.refusals),
        ("warning", "yellow", report.findings.warnings),
    ):
        for finding in findings:
            console.print(_finding(sort, colour, finding))
    for note in report.notes:
        console.print(printable(f"note     {note}"))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    if (told := report.warm_up) is not None:
        table.add_row("warm-up", told.words)
    if (cost := report.estimate) is not None:
        from poise.training.run_info import NETWORK_NAMES

        sizes = ", ".join(
            f"{NETWORK_NAMES[name]} {cost.parameters[name]:,}" for name in NETWORK_NAMES if name in cost.parameters
        )
        table.add_row("players", f"{sizes} weights")
        table.add_row(
            "time", f"{_clock(cost.seconds)} at {1000 * cost.seconds_per_step:,.0f} ms a step, without measuring"
        )
        held = "" if cost.megabytes is None else f"{cost.megabytes:,.0f} MB held, "
        table.add_row("memory", f"{held}{cost.save_megabytes:,.1f} MB a save")
    console.print(table)
    if not report.findings.refusals and not report.findings.warnings:
        console.print(f"{name}: nothing speaks against it")


def _finding(sort: str, colour: str, finding: Finding) -> Text:
    from poise.utils.console import styled_text

    tip = f" ({finding.tip})" if finding.tip else ""
    return styled_text((sort, colour), "  ", (finding.field, "bold"), f": {finding.message}; {finding.cure}{tip}")


def _clock(seconds: float) -> str:
    from poise.cli.progress_view import format_duration

    return format_duration(seconds)
