"""From the words of a command line to a recipe's table: a name or a file, then the changes."""

from __future__ import annotations

from typing import Any

from poise.recipe.text import Table, set_value


def changed(
    table: Table, data: str | None, numbers: dict[str, int | None], changes: list[str] | None
) -> dict[str, Any]:
    """`table` with other data, other numbers (those that are given), and each `path=value` set in turn.

    Raises:
        RecipeError: a change can't be made.
    """
    if data is not None:
        from poise.cli.data_words import data_table

        table["data"] = data_table(data, table.get("data"))
    table |= {key: value for key, value in numbers.items() if value is not None}
    for change in changes or []:
        set_value(table, change)
    return table
