"""`poise tips`: the catalogue, one tip of it, or how a recipe stands to all of them. No torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from poise.tips.catalogue import Tip

Text = str | None
COLOURS = {"followed": "green", "broken": "yellow", "open": "dim"}


def tips(
    tip: Annotated[Text, typer.Argument(help="An id (T07a), a name (soft-labels) or a kind (soft_labels).")] = None,
    recipe: Annotated[
        Text, typer.Option(help="Which tips this recipe follows, breaks and leaves open.", metavar="RECIPE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, on stdout alone.")] = False,
) -> None:
    """The lists' tips: what each is, how to switch it on, where it comes from, what is known of it."""
    from poise.tips import catalogue

    chosen = catalogue.find(tip) if tip is not None else catalogue.tips()
    if recipe is not None:
        _stands(recipe, {one.id for one in chosen}, as_json=as_json)
    elif as_json:
        typer.echo(json.dumps([one.as_json() for one in chosen], indent=1, ensure_ascii=False))
    elif tip is None:
        _list(chosen)
    else:
        for one in chosen:
            _tell(one)


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if Console().is_terminal else 120, highlight=False)


def _list(chosen: tuple[Tip, ...]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for one in chosen:
        tricks = ", ".join(part.kind for part in one.parts if part.at == "tricks")
        table.add_row(f"[bold]{one.id}[/]", one.name, f"[dim]{tricks}[/]")
    console = _console()
    console.print(table)
    console.print("\nOne of them: [bold]poise tips soft-labels[/]. A recipe's: [bold]poise tips --recipe dcgan[/].")


def _tell(tip: Tip) -> None:
    from rich.markup import escape

    console = _console()
    console.print(f"[bold]{tip.id} {tip.name}[/]\n\n{escape(tip.summary.strip())}\n")
    console.print(f"[bold]switch[/]  poise train {escape(tip.switch)}\n", soft_wrap=True)
    for part in tip.parts:
        console.print(f"[bold]{part.kind}[/] ({part.at}): {escape(part.note)}")
        for name, default in part.fields.items():
            console.print(f"    {name} = {escape(json.dumps(default, ensure_ascii=False))}")
        if part.switch != tip.switch:
            console.print(f"    [dim]{escape(part.switch)}[/]", soft_wrap=True)
    console.print("\n[bold]known[/]" if tip.parts else "[bold]known[/]")
    for one in tip.evidence:
        console.print(f"  {one.says}: {escape(one.words)}")
    if tip.disagree:
        console.print(f"  [bold]sources disagree[/]: {escape(tip.disagree)}")
    console.print(f"[bold]our verdict[/]  {tip.verdict}")
    console.print(f"[bold]sources[/]  {escape('; '.join(tip.source))}\n")


def _stands(name: str, chosen: set[str], *, as_json: bool) -> None:
    from poise.recipe.shipped import find
    from poise.tips.rules import standings

    told = [(tip, standing) for tip, standing in standings(find(name)) if tip.id in chosen]
    if as_json:
        lines = [{"id": t.id, "name": t.name, "stands": s.stands, "reason": s.reason} for t, s in told]
        typer.echo(json.dumps(lines, indent=1, ensure_ascii=False))
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for stands, colour in COLOURS.items():
        for tip, standing in told:
            if standing.stands == stands:
                table.add_row(f"[{colour}]{stands}[/]", f"[bold]{tip.id}[/]", tip.name, escape(standing.reason))
    _console().print(table)
