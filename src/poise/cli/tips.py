"""`poise tips`: the catalogue, one tip of it, or how a recipe stands to all of them. No torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from poise.cli import completion
from poise.utils.printing import print_json

if TYPE_CHECKING:
    from poise.tips.catalogue import Tip
    from poise.utils.console import TerminalConsole

Text = str | None
COLOURS = {"followed": "green", "broken": "yellow", "open": "dim"}


def tips(
    tip: Annotated[
        Text,
        typer.Argument(
            help="An id (T07a), a name (soft-labels) or a kind (soft_labels).", autocompletion=completion.tips
        ),
    ] = None,
    recipe: Annotated[
        Text,
        typer.Option(
            help="Which tips this recipe follows, breaks and leaves open.",
            metavar="RECIPE",
            autocompletion=completion.recipes,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, on stdout alone.")] = False,
) -> None:
    """The lists' tips: what each is, how to switch it on, where it comes from, what is known of it."""
    from poise.tips import catalogue

    chosen = catalogue.find(tip) if tip is not None else catalogue.tips()
    if recipe is not None:
        _stands(recipe, {one.id for one in chosen}, as_json=as_json)
    elif as_json:
        print_json([one.as_json() for one in chosen])
    elif tip is None:
        _list(chosen)
    else:
        for one in chosen:
            _tell(one)


def _console() -> TerminalConsole:
    from poise.utils.console import TerminalConsole

    return TerminalConsole()


def _list(chosen: tuple[Tip, ...]) -> None:
    from rich.table import Table

    from poise.utils.console import styled_text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for one in chosen:
        tricks = ", ".join(part.kind for part in one.parts if part.at == "tricks")
        table.add_row(styled_text((one.id, "bold")), one.name, styled_text((tricks, "dim")))
    console = _console()
    console.print(table)
    one, all_of_them = ("poise tips soft-labels", "bold"), ("poise tips --recipe dcgan", "bold")
    console.print(styled_text("\nOne of them: ", one, ". A recipe's: ", all_of_them, "."))


def _tell(tip: Tip) -> None:
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
    console.print(styled_text(("\nknown" if tip.parts else "known", "bold")))
    for one in tip.evidence:
        console.print(f"  {one.says}: {one.words}")
    if tip.disagree:
        console.print(styled_text("  ", ("sources disagree", "bold"), f": {tip.disagree}"))
    console.print(styled_text(("our verdict", "bold"), f"  {tip.verdict}"))
    console.print(styled_text(("sources", "bold"), f"  {'; '.join(tip.source)}\n"))


def _stands(name: str, chosen: set[str], *, as_json: bool) -> None:
    from poise.recipe.shipped import load_recipe
    from poise.tips.rules import tip_statuses

    told = [(tip, standing) for tip, standing in tip_statuses(load_recipe(name)) if tip.id in chosen]
    if as_json:
        lines = [{"id": t.id, "name": t.name, "stands": s.status, "reason": s.reason} for t, s in told]
        print_json(lines)
        return
    from rich.table import Table

    from poise.utils.console import styled_text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for stands, colour in COLOURS.items():
        for tip, standing in told:
            if standing.status == stands:
                table.add_row(styled_text((stands, colour)), styled_text((tip.id, "bold")), tip.name, standing.reason)
    _console().print(table)
