"""TensorBoard's scalars as rows, and those of the folders that `SummaryWriter.add_scalars` makes for each curve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from poise.errors import DataError
from poise.watch.columns import quantity_of
from poise.watch.text_tables import Flat, Table

FILES = "*events.out.tfevents*"


def read_events(path: Path) -> Table:
    """The scalars of a folder or file of events, step by step; those of folders within it by the folder's name.

    `add_scalars("loss", {"D": d})` writes the tag `loss` into a folder `loss_D`: that column is called `loss_D`. A tag
    of any other folder is called by folder and tag.

    Raises:
        DataError: several folders hold losses of the same name: they are several runs.
    """
    rows: dict[int, Flat] = {}
    holders: dict[str, list[str]] = {}
    for folder in _folders(path):
        inner = "" if folder == path or path.is_file() else folder.relative_to(path).as_posix()
        for tag, step, value in _scalars(folder):
            column = _column(inner, tag)
            if column != folder.name and quantity_of(tag) is not None and inner not in holders.setdefault(tag, []):
                holders[tag].append(inner)
            rows.setdefault(step, {"step": float(step)})[column] = value
    several = next((found for found in holders.values() if len(found) > 1 and "" not in found), None)
    if several is not None:
        shown = ", ".join(sorted(several)[:8])
        raise DataError("holds the events of several runs", where=str(path), cure=f"name one of its folders: {shown}")
    return Table([rows[step] for step in sorted(rows)])


def _folders(path: Path) -> list[Path]:
    """Where there are events: the file or folder itself, and all folders below it."""
    if path.is_file():
        return [path]
    return [path, *sorted({file.parent for file in path.rglob(FILES)} - {path})]


def _column(inner: str, tag: str) -> str:
    if not inner:
        return tag
    name = inner.rsplit("/", 1)[-1]
    return name if name.startswith(tag.replace("/", "_") + "_") else f"{inner}/{tag}"


def _scalars(path: Path) -> Iterator[tuple[str, int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, TENSORS, EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(path), size_guidance={SCALARS: 0, TENSORS: 0})
    events.Reload()
    tags: dict[str, Any] = events.Tags()
    for tag in tags[SCALARS]:
        yield from ((tag, event.step, float(event.value)) for event in events.Scalars(tag))
    for tag in tags[TENSORS]:  # where TensorFlow 2 puts its scalars
        kind = events.summary_metadata.get(tag)
        if kind is not None and kind.plugin_data.plugin_name == "scalars":
            told = ((event.step, make_ndarray(event.tensor_proto)) for event in events.Tensors(tag))
            yield from ((tag, step, float(value.item())) for step, value in told if value.size == 1)
