"""The card of a run: what the overview shows of it, made from its folder and remembered until a file changes."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from poise.core.metrics_log import decode_number
from poise.errors import CheckpointError
from poise.runs.folder import parse_info
from poise.runs.overview import RunSummary, last_rows, summarise_run
from poise.web.files import is_link, open_below, read_below

Card = dict[str, Any]

WATCHED = ("run.json", "recipe.toml", "rows.jsonl", "measures.jsonl", "alarms.jsonl", "frames.bin", "run.lock")
"""The files of a run that the page reads or that say whether it is running."""

MAX_BYTES = 16 * 1024**2
"""A `run.json`, `measures.jsonl`, `alarms.jsonl` or sample grid that is larger is not read."""

GRID = re.compile(r"step-(\d{1,15})\.png")

Signature = tuple[tuple[int, int, int] | None, ...]


class ImageFile(NamedTuple):
    """An image of a run.

    Attributes:
        name: the name of the file.
        tag: is another one when the file is (`stamp_tag`).
    """

    name: str
    tag: str


class RunEntry(NamedTuple):
    """A run in the index.

    Attributes:
        id: its id.
        parts: the names of the folders from the runs directory to it; none if it is that directory.
        card: what the overview shows.
        grids: the file of each sample grid, by step.
        signature: changes whenever one of its files does.
    """

    id: str
    parts: tuple[str, ...]
    card: Card
    grids: dict[int, ImageFile]
    signature: Signature


def run_signature(path: Path) -> Signature:
    """Modification time, size and inode of each watched file and of the folder of sample grids."""
    return tuple(_stamp(path / name) for name in (*WATCHED, "samples"))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def tag_of(*parts: object) -> str:
    """A short text that is another one whenever one of the parts is: 12 hexadecimal digits."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=6).hexdigest()


def stamp_tag(status: os.stat_result) -> str:
    """The tag of a file, from its modification time and its size.

    The page puts it into the addresses of images: a browser does not ask again for an address that it has shown.
    """
    return tag_of(status.st_mtime_ns, status.st_size)


def make_entry(root: Path, relative: PurePosixPath, name: str, run_id: str, study: str | None) -> RunEntry:
    """Read the run at `relative` below `root`. Damage is a state of the card, never an error.

    Args:
        root: the runs directory.
        relative: its path below it.
        name: its name in the overview.
        run_id: its id.
        study: the id of the study that it belongs to, or None.
    """
    path = root / relative
    signature = run_signature(path)  # before anything is read: what changes meanwhile is read again
    grids = list_grids(path / "samples")
    parts = () if relative == PurePosixPath(".") else relative.parts
    summary = _summarise(path, name)
    reason = None if summary.reason is None else summary.reason.replace(f"{path}{os.sep}", "").replace(str(path), name)
    card = summary.as_json() | {"id": run_id, "reason": reason, "study": study} | _speed(root, parts, summary.state)
    last = max(grids, default=None)
    card |= {"last_grid": last, "last_grid_tag": None if last is None else grids[last].tag}
    card["frames"] = _stamp(path / "frames.bin") is not None
    del card["path"]
    return RunEntry(run_id, parts, card, grids, signature)


def _summarise(path: Path, name: str) -> RunSummary:
    """`summarise_run`, but a run of which a file is a link, a pipe or far too large is damaged."""
    for one in WATCHED:
        file = path / one
        large = one not in ("rows.jsonl", "frames.bin") and (_stamp(file) or (0, 0, 0))[1] > MAX_BYTES
        if large or is_link(file) or file.is_dir():
            wrong = f"has more than {MAX_BYTES:,} bytes" if large else "is not a regular file"
            return RunSummary(name, str(path), "damaged", path.lstat().st_mtime, reason=f"{one} {wrong}")
    try:
        return summarise_run(path, name)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, OSError, RecursionError) as error:
        return RunSummary(name, str(path), "damaged", 0.0, reason=f"can't be read: {type(error).__name__}")


def _speed(root: Path, parts: tuple[str, ...], state: str) -> Card:
    """The seconds of training and the images per second, from the last rows; None where they are not known."""
    try:
        with open_below(root, *parts, "rows.jsonl") as stream:
            rows = last_rows(stream, most=2)
        times = [decode_number(row["seconds"]) for row in rows]
        seconds = times[-1] if rows else None
        if state != "running":
            info = parse_info(read_below(root, *parts, "run.json", limit=MAX_BYTES), "run.json")
            seconds = decode_number(info["seconds"])
        speed = None
        if len(rows) == 2 and times[1] > times[0]:
            speed = (rows[1]["images"] - rows[0]["images"]) / (times[1] - times[0])
        elif rows and times[-1] > 0:
            speed = rows[-1]["images"] / times[-1]
    except (OSError, CheckpointError, ArithmeticError):
        return {"seconds": None, "images_per_second": None}
    return {"seconds": finite(seconds), "images_per_second": finite(speed)}


def finite(value: float | None) -> float | None:
    """The number, or None if it is not finite, as JSON has no such numbers."""
    return value if value is not None and abs(value) < float("inf") else None


def list_grids(folder: Path) -> dict[int, ImageFile]:
    """The file of each sample grid, by step, ascending; links are left out."""
    if not folder.is_dir() or is_link(folder):
        return {}
    found = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                match, status = GRID.fullmatch(entry.name), entry.stat(follow_symlinks=False)
                if match and stat.S_ISREG(status.st_mode):
                    found[int(match[1])] = ImageFile(entry.name, stamp_tag(status))
    except OSError:
        return {}
    return dict(sorted(found.items()))


def is_still(entry: RunEntry, path: Path) -> bool:
    """Whether an entry still describes its run: a running one may end without a change of any file."""
    return entry.card["state"] != "running" and run_signature(path) == entry.signature
