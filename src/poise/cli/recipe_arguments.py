"""From the words of a command line to a recipe's table: a name or a file, then the changes."""

from __future__ import annotations

from typing import Any

from poise.recipe.toml import Table, set_value


def apply_changes(
    table: Table,
    data: str | None,
    numbers: dict[str, int | None],
    changes: list[str] | None,
    *,
    moved: bool = False,
) -> dict[str, Any]:
    """`table` with other data, other numbers (those that are given), and each `path=value` set in turn.

    Args:
        table: a recipe's, changed in place.
        data: what `--data` says.
        numbers: by field.
        changes: what each `--set` says.
        moved: whether `data` names the same data at another place, as for a run that is resumed: the rest of its table
            stays.

    Raises:
        RecipeError: a change can't be made.
    """
    if data is not None:
        from poise.cli.data_arguments import data_table, relocate_table

        before = table.get("data")
        table["data"] = relocate_table(data, before) if moved and before else data_table(data, before)
    table |= {key: value for key, value in numbers.items() if value is not None}
    for change in changes or []:
        set_value(table, change)
    return table
