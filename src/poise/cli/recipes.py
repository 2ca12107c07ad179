"""`poise recipes`: what can be trained by name."""

from __future__ import annotations


def recipes() -> None:
    """List the shipped recipes: name, what it is, default data."""
    from rich.table import Table

    from poise.console import Terminal, styled
    from poise.recipe.shipped import DEFAULT, shelf

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for recipe in shelf():
        about = styled(recipe.about, (" (the default)" if recipe.name == DEFAULT else "", "bold"))
        table.add_row(styled((recipe.name, "bold")), about, styled((recipe.data, "dim")))
    Terminal(piped=160).print(table)
