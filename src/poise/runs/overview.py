"""An overview of the run folders below a folder: their states, steps and best measures. Imports no torch."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from poise.core.metrics_log import check_row, decode_number
from poise.errors import CheckpointError
from poise.runs.folder import RunFolder, is_run_folder
from poise.utils.locks import is_held
from poise.utils.remote import is_mirrored
from poise.utils.temporary import is_process_alive

MAX_DEPTH = 3
"""How many levels below the folder runs are looked for: `runs/STUDY/runs/RUN` is the third."""

MAX_FOLDERS = 10_000
"""The largest number of folders that are searched."""

QUIET_SECONDS = 900.0
"""A run in an object store that has not changed for so long counts as interrupted."""

FID = "fid"


class BestMeasure(NamedTuple):
    """The best value of a measure, and its step."""

    measure: str
    value: float
    step: int


class RunSummary(NamedTuple):
    """One run folder.

    Attributes:
        name: its path relative to the folder that was searched.
        path: its path.
        state: "running", "done", "failed" or "stopped" as in `run.json`; "interrupted" if it was running and its
            process has ended without saying so (`is_written`); "damaged" if a file can't be read.
        changed: when a file of it last changed, in seconds since 1970.
        recipe: the name of its recipe.
        step: the number of steps done; of a run in progress, those of its last row.
        steps: the number of steps that it is to have.
        data: the kind of its data.
        shape: the shape of one sample.
        parts: the number of channels of each domain in a sample; empty for ordinary data.
        best: the lowest FID, if it is measured; otherwise the best value of the measure that selects its weights.
        alarms: the number of its warnings and failures, notes not counted.
        reason: why it is damaged.
    """

    name: str
    path: str
    state: str
    changed: float
    recipe: str | None = None
    step: int | None = None
    steps: int | None = None
    data: str | None = None
    shape: tuple[int, ...] | None = None
    parts: tuple[int, ...] = ()
    best: BestMeasure | None = None
    alarms: int | None = None
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The object that `poise runs --json` prints; its keys are always the same."""
        best = None if self.best is None else self.best._asdict()
        shape = None if self.shape is None else list(self.shape)
        return self._asdict() | {"best": best, "shape": shape, "parts": list(self.parts)}


def list_runs(root: Path) -> tuple[list[RunSummary], bool]:
    """All runs in `root` and up to three levels below it, the last changed first.

    Returns:
        The runs, and whether all folders were searched; there may be too many.
    """
    found, complete = [], True
    for path in find_runs(root):
        if path is None:
            complete = False
        else:
            name = path.relative_to(root).as_posix()
            found.append(summarise_run(path, path.resolve().name if name == "." else name))
    return sorted(found, key=lambda run: (-run.changed, run.name)), complete


def find_runs(root: Path) -> Iterator[Path | None]:
    """The run folders in and below `root`; None at the end if there were more folders than are searched."""
    for found in search_folders(root):
        if found is None:
            yield None
        elif found.is_run:
            yield found.path


class FoundFolder(NamedTuple):
    """A folder that was searched, and whether it is a run folder."""

    path: Path
    is_run: bool


def search_folders(root: Path, *, follow_links: bool = True) -> Iterator[FoundFolder | None]:
    """The folders in and up to three levels below `root`; None at the end if there were more than are searched.

    Nothing is looked for inside a run. Hidden folders are skipped, and so are symbolic links to folders that were found
    before, such as a link to a folder above.

    Args:
        root: the folder, itself included.
        follow_links: whether folders that are symbolic links are searched.
    """
    pending, searched, seen = deque([(root, 0)]), 0, set[str]()
    while pending:
        folder, depth = pending.popleft()
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        is_run = is_run_folder(folder)
        if not is_run and depth < MAX_DEPTH:
            searched += 1
            if searched > MAX_FOLDERS:
                yield None
                return
            pending.extend((path, depth + 1) for path in _folders(folder, follow_links))
        yield FoundFolder(folder, is_run)


def _folders(folder: Path, follow_links: bool) -> list[Path]:
    """The folders in a folder, symbolic links last; none if it can't be read."""
    try:
        with os.scandir(folder) as entries:
            shown = (entry for entry in entries if not entry.name.startswith("."))
            folders = [entry for entry in shown if entry.is_dir(follow_symlinks=follow_links)]
            return [Path(entry.path) for entry in sorted(folders, key=lambda entry: (entry.is_symlink(), entry.path))]
    except OSError:
        return []


def summarise_run(path: Path, name: str) -> RunSummary:
    """The summary of the run in `path`, whose damage is described instead of raised."""
    folder = RunFolder(path)
    summary = RunSummary(name, str(path), "damaged", _last_change(folder))
    try:
        info = folder.read_info()
        summary = summary._replace(
            recipe=str(info.get("name", info["recipe"])),
            step=info["step"],
            steps=info["steps"],
            data=info["data"]["kind"],
            shape=tuple(info["data"]["shape"]),
            parts=tuple(info["data"].get("parts", ())),
        )
        alarms = folder.read_alarms()
        summary = summary._replace(
            alarms=sum(alarm["level"] != "note" for alarm in alarms),
            best=_lowest_fid(folder.read_measures()) or _selected_best(info),
        )
    except CheckpointError as error:
        return summary._replace(reason=str(error))
    state = info["state"]
    if state == "running" and not is_written(path / "run.lock", summary.changed):
        state = "interrupted"
    step = max(info["step"], _last_step(folder.rows)) if state == "running" else info["step"]
    return summary._replace(state=state, step=step)


def _lowest_fid(lines: list[dict[str, Any]]) -> BestMeasure | None:
    """The lowest FID among the lines with the features and the n of the last one, to which others can't be compared."""
    lines = [line for line in lines if FID in line["measures"]]
    kept = [line for line in lines if all(line.get(key) == lines[-1].get(key) for key in ("features", "n"))]
    values = [BestMeasure(FID, decode_number(line["measures"][FID]), line["step"]) for line in kept]
    finite = [best for best in values if math.isfinite(best.value)]
    return min(finite, key=lambda best: best.value) if finite else None


def _selected_best(info: dict[str, Any]) -> BestMeasure | None:
    """The best value of the measure that selects the weights, as the run has recorded it."""
    try:
        best = BestMeasure(
            str(info["best"]["measure"]), decode_number(info["best"]["value"]), int(info["best"]["step"])
        )
    except (KeyError, TypeError, ValueError, OverflowError):  # JSON has no infinite step, but Python reads one
        return None
    return best if math.isfinite(best.value) else None


def _last_step(rows: Path) -> int:
    """The step of the last row; 0 if there is none."""
    try:
        with rows.open("rb") as stream:
            found = last_rows(stream)
    except OSError:
        return 0
    return int(found[-1]["step"]) if found else 0


def last_rows(stream: BinaryIO, most: int = 1, tail: int = 1 << 16) -> list[dict[str, Any]]:
    """The last rows of a `rows.jsonl`, in the order of the file; those that are damaged are left out.

    Args:
        stream: the file.
        most: the largest number of rows.
        tail: the number of bytes that are read.

    Raises:
        OSError: it can't be read.
    """
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - tail))
    found: list[dict[str, Any]] = []
    for line in reversed(stream.read().split(b"\n")):
        if len(found) == most:
            break
        try:
            row = json.loads(line)
            check_row(row)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        found.insert(0, row)
    return found


def is_written(lock: Path, changed: float) -> bool:
    """Whether a process is writing to a folder.

    Args:
        lock: its lock file, if it is on this machine.
        changed: when it last changed, in seconds since 1970. A folder in an object store has no lock; it counts as
            being written if it has changed within the last quarter of an hour.
    """
    return time.time() - changed < QUIET_SECONDS if is_mirrored(lock) else _is_alive(lock)


def _is_alive(lock: Path) -> bool:
    """Whether a process is writing to the run with this lock file."""
    try:
        holder = lock.read_text("utf-8", errors="replace").split()
    except OSError:
        holder = []
    here = len(holder) == 4 and holder[3] == socket.gethostname()
    if here and holder[1].isdecimal() and not is_process_alive(int(holder[1])):
        return False
    return is_held(lock)


def _last_change(folder: RunFolder) -> float:
    """When a file of the run last changed, in seconds since 1970."""
    times = [0.0]
    for path in (folder.info, folder.recipe, folder.rows, folder.measures, folder.alarms, folder.saves):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(times)
