"""Reading JSON logs: documents, or lines with an object each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from poise.core.metrics_log import decode_number
from poise.watch.text_tables import MIN_ROWS, SNAPSHOT, Table


def parse_json(text: str) -> Table | None:
    """The rows of a JSON log, named by path; None if there are none, or if they are nested hundreds of levels deep."""
    try:
        rows = [dict(flatten(row, "")) | _snapshot(row) for row in parse_json_objects(text)]
    except RecursionError:
        return None
    return Table(rows) if any(rows) else None


def _snapshot(row: Mapping[str, Any]) -> dict[str, float]:
    match = SNAPSHOT.search(str(row.get("snapshot_pkl", "")))
    return {"kimg": float(match[1])} if match else {}


def parse_json_objects(text: str) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSON document, or of lines with one object each; an array may be unterminated.

    A document may also be an object of columns, `{"d_loss": [...], "g_loss": [...]}`, or contain such rows or columns
    in one of its entries.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        for line in text.splitlines():
            try:
                row = json.loads(line.strip().removeprefix("[").rstrip(","))
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                yield row
        return
    yield from _rows_of(document)


def _rows_of(document: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(document, list):
        yield from (row for row in document if isinstance(row, dict))
    elif isinstance(document, dict):
        columns = {name: cells for name, cells in document.items() if isinstance(cells, list)}
        rows = next((cells for cells in columns.values() if cells and isinstance(cells[0], dict)), None)
        inner = next((value for value in document.values() if isinstance(value, dict) and _has_columns(value)), None)
        if rows is not None:
            yield from _rows_of(rows)
        elif _has_columns(document):
            for index in range(max(map(len, columns.values()))):
                yield {name: cells[index] for name, cells in columns.items() if index < len(cells)}
        elif inner is not None:
            yield from _rows_of(inner)
        else:
            yield document


def _has_columns(document: Mapping[str, Any]) -> bool:
    """Whether some entry is a list of numbers that is long enough to be a curve."""
    lists = (cells for cells in document.values() if isinstance(cells, list))
    return any(len(cells) >= MIN_ROWS and not isinstance(cells[0], list | dict) for cells in lists)


def flatten(row: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    """The numbers of a nested object, named by path; an object with a `mean` counts as this number."""
    for name, value in row.items():
        if isinstance(value, dict):
            inner = {"": value["mean"]} if "mean" in value else value
            yield from flatten(inner, f"{prefix}{name}/" if "mean" not in value else f"{prefix}{name}")
        else:
            try:
                yield f"{prefix}{name}", decode_number(value)
            except ValueError:
                continue
