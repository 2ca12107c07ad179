"""Applies the command line's changes to the table of a recipe."""

from __future__ import annotations

from typing import Any

from poise.recipe.toml import Table, set_value


def apply_changes(
    table: Table,
    data: str | None,
    fields: dict[str, int | None],
    changes: list[str] | None,
    *,
    moved: bool = False,
) -> dict[str, Any]:
    """Apply `--data`, options for single fields and `--set`, in this order, to a recipe's table.

    Args:
        table: the recipe's table, changed in place.
        data: the value of `--data`.
        fields: top-level fields by name; None leaves a field unchanged.
        changes: the values of `--set`, each `path=value`.
        moved: whether `data` is a new location of the same data, as when a run is resumed. If so, the other keys of
            the table `data` are kept.

    Returns:
        `table`.

    Raises:
        RecipeError: a change is invalid.
    """
    if data is not None:
        from poise.cli.data_arguments import data_table, relocate_table

        previous = table.get("data")
        table["data"] = relocate_table(data, previous) if moved and previous else data_table(data, previous)
    table |= {key: value for key, value in fields.items() if value is not None}
    for change in changes or []:
        set_value(table, change)
    return table
