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

    from poise.tips.catalogue import Tip
    from poise.utils.console import TerminalConsole

COLOURS = {"followed": "green", "broken": "yellow", "open": "dim"}


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

    table = _table()
    for tip in selected:
        tricks = ", ".join(part.kind for part in tip.parts if part.at == "tricks")
        table.add_row(styled_text((tip.id, "bold")), tip.name, styled_text((tricks, "dim")))
    console = _console()
    console.print(table)
    one_tip, of_recipe = ("poise tips soft-labels", "bold"), ("poise tips --recipe dcgan", "bold")
    console.print(styled_text("\nDetails of a tip: ", one_tip, ". Tips that a recipe follows: ", of_recipe, "."))


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
    console.print(styled_text(("our verdict", "bold"), f"  {tip.verdict}"))
    console.print(styled_text(("sources", "bold"), f"  {'; '.join(tip.source)}\n"))


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
