"""Reading TensorBoard's scalars, including the folders that `SummaryWriter.add_scalars` writes, one for each curve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from poise.errors import DataError
from poise.watch.column_names import quantity_of
from poise.watch.resumed_rows import join_curves
from poise.watch.text_tables import Table

FILES = "*events.out.tfevents*"


def read_events(path: Path) -> Table:
    """Read the scalars of an event file or of a folder and its subfolders, one row per step, see `join_curves`.

    `add_scalars("loss", {"D": d})` writes the tag `loss` into a folder `loss_D`; the column is named `loss_D`. Tags in
    any other subfolder are named by folder and tag.

    Raises:
        DataError: several folders have losses of the same name, so they are several runs.
    """
    points: list[tuple[str, float, float]] = []
    subfolders_of_tag: dict[str, list[str]] = {}
    for folder in _event_folders(path):
        subfolder = "" if folder == path or path.is_file() else folder.relative_to(path).as_posix()
        for tag, step, value in _read_scalars(folder):
            column = _column_name(subfolder, tag)
            if column != folder.name and quantity_of(tag) is not None:
                subfolders = subfolders_of_tag.setdefault(tag, [])
                if subfolder not in subfolders:
                    subfolders.append(subfolder)
            points.append((column, float(step), value))
    runs = next((found for found in subfolders_of_tag.values() if len(found) > 1 and "" not in found), None)
    if runs is not None:
        names = ", ".join(sorted(_run_of(path, run) for run in runs)[:8])
        raise DataError(
            "contains the events of several runs", where=str(path), cure=f"pass one of its folders: {names}"
        )
    return Table([{"step": step} | row for step, row in join_curves(points)])


def _run_of(path: Path, subfolder: str) -> str:
    """The run folder of poise that has these events, which knows more than they do; otherwise their own folder."""
    run = subfolder.rpartition("/")[0]
    return run if run and (path / run / "rows.jsonl").is_file() else subfolder


def _event_folders(path: Path) -> list[Path]:
    """The file or folder itself, and all its subfolders that contain event files."""
    if path.is_file():
        return [path]
    return [path, *sorted({file.parent for file in path.rglob(FILES)} - {path})]


def _column_name(subfolder: str, tag: str) -> str:
    if not subfolder:
        return tag
    name = subfolder.rsplit("/", 1)[-1]
    return name if name.startswith(tag.replace("/", "_") + "_") else f"{subfolder}/{tag}"


def _read_scalars(path: Path) -> Iterator[tuple[str, int, float]]:
    """The tag, step and value of each scalar, of each tag in the order in which they were written, file by file."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, TENSORS, EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(path), size_guidance={SCALARS: 0, TENSORS: 0})
    events.Reload()
    tags: dict[str, Any] = events.Tags()
    for tag in tags[SCALARS]:
        yield from ((tag, event.step, float(event.value)) for event in events.Scalars(tag))
    for tag in tags[TENSORS]:  # TensorFlow 2 writes scalars as tensors
        metadata = events.summary_metadata.get(tag)
        if metadata is not None and metadata.plugin_data.plugin_name == "scalars":
            values = ((event.step, make_ndarray(event.tensor_proto)) for event in events.Tensors(tag))
            yield from ((tag, step, float(value.item())) for step, value in values if value.size == 1)
