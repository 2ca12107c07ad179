"""`poise tips`: the catalogue of tips, one tip, or the status of all tips in a recipe. It imports no torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from poise.cli import completion
from poise.cli.options import AsJson, Text
from poise.utils.printing import print_json

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text as StyledText

    from poise.tips.catalogue import Tip
    from poise.tips.verdicts import Verdict
    from poise.utils.console import TerminalConsole

COLOURS = {"followed": "green", "not followed": "yellow", "open": "dim"}
VERDICT_COLOURS = {"helps": "green", "harms": "red", "unstable": "yellow"}
HEAD = ("    data", "measure", "effect", "verdict", "seeds", "failures")


def tips(
    tip: Annotated[
        Text,
        typer.Argument(
            help="A tip by id (T07a), name (soft-labels) or kind (soft_labels).", autocompletion=completion.tips
        ),
    ] = None,
    recipe: Annotated[
        Text,
        typer.Option(
            help="Show which tips this recipe follows, breaks or leaves open.",
            metavar="RECIPE",
            autocompletion=completion.recipes,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the catalogue of tips: what each one does, how to switch it on, its sources and the evidence for it."""
    from poise.tips import catalogue

    selected = catalogue.find(tip) if tip is not None else catalogue.tips()
    if recipe is not None:
        _print_statuses(recipe, {one.id for one in selected}, as_json=as_json)
    elif as_json:
        print_json([one.as_json() for one in selected])
    elif tip is None:
        _print_list(selected)
    else:
        for one in selected:
            _print_tip(one)


def _console() -> TerminalConsole:
    from poise.utils.console import TerminalConsole

    return TerminalConsole()


def _table() -> Table:
    from rich.table import Table

    return Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))


def _print_list(selected: tuple[Tip, ...]) -> None:
    from poise.utils.console import styled_text

    console, table = _console(), _table()
    width = console.width - max(len(tip.id) for tip in selected) - max(len(tip.name) for tip in selected) - 4
    for tip in selected:
        kinds = [part.kind for part in tip.parts if part.at == "tricks"]
        cell = _verdict_cell(tip, width)
        if kinds not in ([], [tip.name.replace("-", "_")]):
            cell.append_text(styled_text((f"\n{', '.join(kinds)}", "dim")))
        table.add_row(styled_text((tip.id, "bold")), tip.name, cell)
    console.print(table)
    console.print(f"\n{_explanation(selected)}\n" if any(tip.verdicts for tip in selected) else "")
    console.print(styled_text("Details of a tip: ", ("poise tips soft-labels", "bold")))
    console.print(styled_text("Tips that a recipe follows: ", ("poise tips --recipe dcgan", "bold")))


def _explanation(selected: tuple[Tip, ...]) -> str:
    """The measures that the verdicts in the list are about."""
    from poise.tips.verdicts import leading

    data: dict[str, list[str]] = {}
    for verdict in (verdict for tip in selected for verdict in leading(tip.verdicts)):
        names = data.setdefault(verdict.measure, [])
        names += [verdict.data] if verdict.data not in names else []
    measures = ", ".join(f"{measure} on {' and '.join(names)}" for measure, names in data.items())
    return f"Verdicts are about {measures}. The number is its change by the tip, with a 95 % interval."


def _verdict_cell(tip: Tip, width: int) -> StyledText:
    """The arm and its verdicts on several data sets, with line breaks between data sets where possible."""
    from poise.tips.verdicts import NOT_MEASURED, leading, leading_arm, short_text
    from poise.utils.console import styled_text

    if not tip.verdicts:
        return styled_text((NOT_MEASURED, "dim"))
    arm = leading_arm(tip.verdicts) + ":"
    parts, used, separator = [(arm, "")], len(arm), " "
    for verdict in leading(tip.verdicts):
        text = short_text(verdict)
        fits = used + len(separator) + len(text) <= width
        used = len(text) + (used + len(separator) if fits else 0)
        parts += [(separator if fits else "\n", "dim"), (text, VERDICT_COLOURS.get(verdict.verdict, ""))]
        separator = " · "
    return styled_text(*parts)


def _print_tip(tip: Tip) -> None:
    from poise.utils.console import styled_text

    console = _console()
    console.print(styled_text((f"{tip.id} {tip.name}", "bold"), f"\n\n{tip.summary.strip()}\n"))
    console.print(styled_text(("switch", "bold"), f"  poise train {tip.switch}\n"), soft_wrap=True)
    for part in tip.parts:
        console.print(styled_text((part.kind, "bold"), f" ({part.at}): {part.note}"))
        for name, default in part.fields.items():
            console.print(f"    {name} = {json.dumps(default, ensure_ascii=False)}")
        if part.switch != tip.switch:
            console.print(styled_text((f"    {part.switch}", "dim")), soft_wrap=True)
    console.print(styled_text(("\nevidence" if tip.parts else "evidence", "bold")))
    for one in tip.evidence:
        console.print(f"  {one.says}: {one.cited_text}")
    if tip.disagree:
        console.print(styled_text("  ", ("sources disagree", "bold"), f": {tip.disagree}"))
    _print_verdicts(tip, console)
    console.print(styled_text(("sources", "bold"), f"  {'; '.join(tip.source)}\n"))


def _print_verdicts(tip: Tip, console: TerminalConsole) -> None:
    """A table of the verdicts on each arm, and the commands that repeat their studies."""
    from poise.tips.verdicts import NOT_MEASURED, by_arm, data_names
    from poise.utils.console import styled_text

    if not tip.verdicts:
        console.print(styled_text(("our verdict", "bold"), f"  {NOT_MEASURED}"))
        return
    console.print(styled_text(("our verdicts", "bold")))
    names = data_names(tip.verdicts)
    widths = [max(map(len, cells)) for cells in zip(HEAD, *(_cells(v, names) for v in tip.verdicts), strict=True)]
    if sum(widths) + 2 * len(widths) > console.width:
        widths = [0] * len(widths)  # each table is as narrow as it can be, with line breaks in its cells
    console.print(_aligned([[styled_text((name, "dim")) for name in HEAD]], widths))
    for arm in by_arm(tip.verdicts):
        console.print(f"  {arm[0].name}, {max(verdict.date for verdict in arm)}")
        for note in dict.fromkeys(verdict.stale_note for verdict in arm if verdict.stale_note):
            console.print(styled_text((f"  ({note})", "yellow")))
        styles = [VERDICT_COLOURS.get(verdict.verdict, "") for verdict in arm]
        rows = [[styled_text((cell, style)) for cell in _cells(v, names)] for v, style in zip(arm, styles, strict=True)]
        console.print(_aligned(rows, widths))
    for (_, summary), name in names.items():
        console.print(styled_text((f"  {name}: {summary}", "dim")))
    for plan, name in dict.fromkeys((verdict.study.plan, verdict.study.name) for verdict in tip.verdicts):
        console.print(styled_text(("measured by", "bold"), f"  poise study {plan} --out runs/{name}"), soft_wrap=True)


def _cells(verdict: Verdict, names: dict[tuple[str, str], str]) -> tuple[str, ...]:
    """The cells of a verdict below `HEAD`; `names` are those of `data_names`."""
    from poise.tips.verdicts import format_effect

    failures = f"{verdict.failures}, {verdict.control_failures} without"
    data = f"    {names[verdict.data, verdict.summary]}"
    return data, verdict.measure, format_effect(verdict), verdict.verdict, str(verdict.seeds), failures


def _aligned(rows: list[list[StyledText]], widths: list[int]) -> Table:
    """A table whose columns have at least these widths, so that those of several tables are aligned."""
    table = _table()
    for width in widths:
        table.add_column(min_width=width, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _print_statuses(recipe: str, ids: set[str], *, as_json: bool) -> None:
    from poise.recipe.shipped import load_recipe
    from poise.tips.rules import tip_statuses

    statuses = [(tip, status) for tip, status in tip_statuses(load_recipe(recipe)) if tip.id in ids]
    if as_json:
        print_json([{"id": t.id, "name": t.name, "stands": s.status, "reason": s.reason} for t, s in statuses])
        return
    from poise.utils.console import styled_text

    table = _table()
    for name, colour in COLOURS.items():
        for tip, status in statuses:
            if status.status == name:
                table.add_row(styled_text((name, colour)), styled_text((tip.id, "bold")), tip.name, status.reason)
    _console().print(table)
