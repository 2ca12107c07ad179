"""`poise recipes`: what can be trained by name."""

from __future__ import annotations


def recipes() -> None:
    """List the shipped recipes: name, what it is, default data."""
    from rich.console import Console
    from rich.table import Table

    from poise.recipe.shipped import DEFAULT, shelf

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for recipe in shelf():
        about = recipe.about + (" [bold](the default)[/]" if recipe.name == DEFAULT else "")
        table.add_row(f"[bold]{recipe.name}[/]", about, f"[dim]{recipe.data}[/]")
    Console(width=None if Console().is_terminal else 160).print(table)
