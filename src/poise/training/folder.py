"""The run folder: the only bus between training and everything that looks at it.

Names are fixed (see docs/run-folder.md); every file is readable without torch. Whole files are replaced
by rename, lines are appended whole, and one process at a time may write.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from poise.errors import DiskError, PoiseError, RecipeError, SaveError
from poise.recipe.text import NAME
from poise.rows import read_lines

RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


class RunFolder:
    """One run's folder.

    Args:
        path: where it is, or shall be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe, self.info, self.rows = path / "recipe.toml", path / "run.json", path / "rows.jsonl"
        self.measures, self.best = path / "measures.jsonl", path / "best"
        self.alarms, self.kept = path / "alarms.jsonl", path / "kept"
        self.samples, self.saves, self.tensorboard = path / "samples", path / "saves", path / "tensorboard"
        self._lock: IO[str] | None = None

    def inspect(self, *, resume: bool) -> None:
        """Refuse what can be refused before anything is loaded or written.

        Raises:
            RecipeError: a bad name, a file in its place, a folder that is not empty (or no run to resume).
            SaveError: nothing to resume from.
        """
        name = self.path.name
        if not re.fullmatch(NAME, name) or name.lower() in RESERVED:
            cure = "a run's name is 1 to 64 letters, digits, '.', '_' or '-', and starts with no dot"
            raise RecipeError("not a name for a run", where="--out", found=ascii(name), cure=cure)
        if self.path.exists() and not self.path.is_dir():
            raise RecipeError(
                "a run is a folder", where=f"--out {self.path}", found="a file", cure="choose another name"
            )
        if resume:
            if not self.recipe.is_file():
                raise SaveError("no run to resume", where=str(self.path), cure="start it without --resume")
        elif self.path.is_dir() and any(entry.name != "run.lock" for entry in self.path.iterdir()):
            cure = "go on with --resume, or choose another --out"
            raise RecipeError("there is something here already", where=f"--out {self.path}", cure=cure)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Make the folder and keep other processes from writing to it.

        Raises:
            DiskError: it can't be made.
            RecipeError: another process is writing; says which.
        """
        with on_disk(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "run.lock").open("a+")
        try:
            self._take(lock)
            yield
        finally:
            lock.close()

    def _take(self, lock: IO[str]) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read(200).strip() or "another process"
            raise RecipeError("another run is writing here", where=f"--out {self.path}", found=holder) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()

    def write_json(self, path: Path, value: Any) -> None:
        """Replace a JSON file in one go."""
        self.write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")

    def write_text(self, path: Path, text: str) -> None:
        """Replace a text file in one go."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with on_disk(path):
            temporary.write_text(text, "utf-8")
            temporary.replace(path)

    def append(self, path: Path, value: Any) -> None:
        """Add one line of JSON."""
        with on_disk(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(value, allow_nan=False) + "\n")

    def cut(self, path: Path, step: int) -> None:
        """Drop the lines after `step`, and a line that a killed run left half written."""
        if path.is_file():
            kept = [line for line in read_lines(path) if line["step"] <= step]
            self.write_text(path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in kept))

    def head(self, path: Path, count: int) -> None:
        """Keep the first lines of a file of lines."""
        if path.is_file():
            kept = list(read_lines(path))[:count]
            self.write_text(path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in kept))

    def read_info(self) -> dict[str, Any]:
        """`run.json`.

        Raises:
            SaveError: this is not a run folder.
        """
        try:
            return json.loads(self.info.read_text("utf-8"))
        except (OSError, ValueError):
            raise SaveError("not a run folder: it has no readable run.json", where=str(self.path)) from None


@contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Turn the system's refusal into an error that names the file."""
    try:
        yield
    except PoiseError:
        raise
    except OSError as error:
        raise DiskError(f"can't be written: {error.strerror or error}", where=str(path)) from None


def free_name(base: Path) -> Path:
    """`base`, or the first of base-2, base-3, ... that is not there yet."""
    taken, n = base, 1
    while taken.exists():
        n += 1
        taken = base.with_name(f"{base.name}-{n}")
    return taken
