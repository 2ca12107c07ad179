"""`poise recipes`: lists the shipped recipes."""

from __future__ import annotations


def recipes() -> None:
    """List the shipped recipes: name, description, default data."""
    from rich.table import Table

    from poise.recipe.shipped import DEFAULT, list_recipes
    from poise.utils.console import TerminalConsole, styled_text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for recipe in list_recipes():
        about = styled_text(recipe.about, (" (the default)" if recipe.name == DEFAULT else "", "bold"))
        table.add_row(styled_text((recipe.name, "bold")), about, styled_text((recipe.data, "dim")))
    TerminalConsole(piped_width=160).print(table)
