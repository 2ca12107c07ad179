"""Applies the command line's changes to the table of a recipe."""

from __future__ import annotations

from typing import Any

from poise.recipe.toml import Table, set_value


def apply_changes(
    table: Table,
    data: str | None,
    fields: dict[str, int | None],
    changes: list[str] | None,
    option: str = "--data",
) -> dict[str, Any]:
    """Apply `--data`, options for single fields and `--set`, in this order, to a recipe's table.

    Args:
        table: the recipe's table, changed in place.
        data: the value of `--data`. The other keys of the table `data` are kept where the new data has them.
        fields: top-level fields by name; None leaves a field unchanged.
        changes: the values of `--set`, each `path=value`.
        option: what an error about `data` names.

    Returns:
        `table`.

    Raises:
        RecipeError: a change is invalid.
    """
    if data is not None:
        from poise.data.lookup import data_table

        table["data"] = data_table(data, table.get("data"), option)
    table |= {key: value for key, value in fields.items() if value is not None}
    for change in changes or []:
        set_value(table, change)
    return table
