"""The run folder: the only bus between training and everything that looks at it.

Names are fixed (see docs/run-folder.md); every file is readable without torch. Whole files are replaced
by rename, lines are appended whole (`poise.utils.files`), and one process at a time may write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from poise.core.metrics_log import check_alarm, check_count, check_measures, check_row, decode_number, read_jsonl
from poise.errors import CheckpointError, RecipeError
from poise.recipe.toml import NAME, Table, read_file
from poise.utils.files import make_folder, write_text
from poise.utils.locks import file_lock
from poise.utils.system import disk_errors
from poise.utils.temporary import is_temporary, remove, remove_leftovers

Told = TypeVar("Told")

RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}

SAVE = r"step-\d+(/(tensors\.safetensors|state\.json|MANIFEST\.json))?"
BEGUN = re.compile(
    r"recipe\.toml|run\.json|run\.lock|(rows|measures|alarms)\.jsonl|bad_images\.csv|samples(/step-\d+\.png)?|saves"
    rf"|code(/[^/]+)?|best(/{SAVE})?|tensorboard(/events\.out\.tfevents.*)?"
)
"""What a run may have written before its first save."""


class RunFolder:
    """One run's folder.

    Args:
        path: where it is, or shall be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe, self.info, self.rows = path / "recipe.toml", path / "run.json", path / "rows.jsonl"
        self.measures, self.best = path / "measures.jsonl", path / "best"
        self.alarms, self.kept, self.code = path / "alarms.jsonl", path / "kept", path / "code"
        self.samples, self.saves, self.tensorboard = path / "samples", path / "saves", path / "tensorboard"
        self.anew = False

    def check(self, *, resume: bool) -> None:
        """Refuse what can be refused before anything is loaded or written; `anew` says whether to begin from nothing.

        Raises:
            RecipeError: a bad name, a file in its place, a folder that is not empty (or no run to resume).
            CheckpointError: nothing to resume from.
        """
        name = self.path.name
        if not re.fullmatch(NAME, name) or name.lower() in RESERVED:
            cure = "a run's name is 1 to 64 letters, digits, '.', '_' or '-', and starts with no dot"
            raise RecipeError("not a name for a run", where="--out", found=ascii(name), cure=cure)
        if self.path.exists() and not self.path.is_dir():
            raise RecipeError(
                "a run is a folder", where=f"--out {self.path}", found="a file", cure="choose another name"
            )
        self.anew = self._begun_in_vain()
        if resume:
            if not self.recipe.is_file() and not self.anew:
                raise CheckpointError("no run to resume", where=str(self.path), cure="start it without --resume")
        elif not self.anew and self.path.is_dir() and any(entry.name != "run.lock" for entry in self.path.iterdir()):
            damaged = sorted(place.name for place in self.saves.glob("step-*"))
            cure = "go on with --resume, or choose another --out"
            found = f"a run with {len(damaged)} saves" if damaged else ""
            raise RecipeError("there is something here already", where=f"--out {self.path}", found=found, cure=cure)

    def _begun_in_vain(self) -> bool:
        """Whether a run was begun here that came neither to a save nor to its end, and nothing else is here."""
        if not (self.path / "run.lock").is_file() or any(self.saves.glob("step-*")):
            return False
        with suppress(CheckpointError):
            if self.read_info()["state"] == "done":
                return False
        found = (entry.relative_to(self.path) for entry in self.path.rglob("*"))
        return all(BEGUN.fullmatch(one.as_posix()) or any(map(is_temporary, one.parts)) for one in found)

    def stamp(self) -> tuple[bytes, list[str]]:
        """What changes whenever a run goes on here."""
        told, saves = b"", list[str]()
        with suppress(OSError):  # a name that can't be, among others: `inspect` says what is wrong with it
            saves = sorted(place.name for place in self.saves.glob("step-*"))
            told = self.info.read_bytes()
        return told, saves

    @contextmanager
    def claim(self) -> Iterator[str]:
        """Make the folder and keep other processes from writing to it; yields a note on that, if there is one.

        Raises:
            DiskError: it can't be made.
            RecipeError: another process is writing; says which.
        """
        with disk_errors(self.path):
            make_folder(self.path)
        with file_lock(self.path / "run.lock", f"--out {self.path}") as note:
            yield note

    def clean_up(self, *, anew: bool) -> None:
        """Remove what was left half written; with `anew`, all that a run wrote here before it had a save.

        Raises:
            DiskError: the disk refused.
        """
        for place in (self.path, self.samples, self.saves, self.best, self.kept):
            remove_leftovers(place)
        if anew:
            with disk_errors(self.path):
                for entry in sorted(self.path.iterdir()):
                    if entry.name != "run.lock":
                        remove(entry)

    def read_rows(self, until: int | None = None) -> list[dict[str, Any]]:
        """The lines of `rows.jsonl`, up to a step if one is given.

        Raises:
            CheckpointError: one of them is damaged; names it.
        """
        return read_jsonl(self.rows, check_row, until=until, rising=True)

    def read_measures(self, until: int | None = None) -> list[dict[str, Any]]:
        """The same of `measures.jsonl`."""
        return read_jsonl(self.measures, check_measures, until=until, rising=True)

    def read_alarms(self, until: int | None = None, most: int | None = None) -> list[dict[str, Any]]:
        """The same of `alarms.jsonl`; or its first lines."""
        return read_jsonl(self.alarms, check_alarm, until=until, most=most)

    def drop_after(self, step: int) -> None:
        """Drop the rows and measures after `step`, and a line that a killed run left half written."""
        for path, lines in ((self.rows, self.read_rows(step)), (self.measures, self.read_measures(step))):
            self.rewrite(path, lines)

    def rewrite(self, path: Path, lines: list[dict[str, Any]]) -> None:
        """Let a file of lines, if it is there, hold these alone."""
        if path.is_file():
            text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
            if path.read_bytes() != text.encode():
                write_text(path, text)

    def read_recipe(self) -> Table:
        """`recipe.toml` as a table.

        Raises:
            CheckpointError: it is missing or damaged; names the line.
        """
        return self.parse_recipe(lambda table, where: table)

    def parse_recipe(self, decode: Callable[[Table, str], Told]) -> Told:
        """What `decode` makes of `recipe.toml`; where that raises RecipeError, the file is damaged.

        Raises:
            CheckpointError: it is missing or damaged; names the line or the field.
        """
        try:
            return decode(read_file(self.recipe), str(self.recipe))
        except RecipeError as error:
            cure = "put it back from a copy, or name the recipe: poise train RECIPE --resume --out RUN"
            raise CheckpointError(error.what, where=error.where, found=error.found, cure=cure) from None

    def read_info(self) -> dict[str, Any]:
        """`run.json`.

        Raises:
            CheckpointError: this is not a run folder, or the file is damaged.
        """
        try:
            info = json.loads(self.info.read_bytes())
        except FileNotFoundError:
            raise CheckpointError("not a run folder: it has no run.json", where=str(self.path)) from None
        except OSError as error:
            raise CheckpointError(f"can't be read: {error.strerror or error}", where=str(self.info)) from None
        except (ValueError, RecursionError) as error:
            line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
            raise CheckpointError(f"is damaged{line}", where=str(self.info), cure=ANEW) from None
        for name, sound in INFO.items():
            try:
                sound(info)
            except (ValueError, KeyError, TypeError, AttributeError):
                raise CheckpointError(
                    f"is damaged: {name} is not what it should be", where=str(self.info), cure=ANEW
                ) from None
        return info


ANEW = "poise train --resume writes it anew"


def _texts(told: Any, kind: type = str) -> None:
    if not isinstance(told, list) or not all(isinstance(one, kind) and not isinstance(one, bool) for one in told):
        raise ValueError


def _text(told: Any) -> None:
    if not isinstance(told, str):
        raise ValueError


INFO: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "state": lambda info: _text(info["state"]),
    "step": lambda info: check_count(info["step"]),
    "steps": lambda info: check_count(info["steps"]),
    "seconds": lambda info: decode_number(info["seconds"]),
    "recipe": lambda info: _text(info["recipe"]),
    "data.kind": lambda info: _text(info["data"]["kind"]),
    "data.fingerprint": lambda info: _text(info["data"]["fingerprint"]),
    "data.shape": lambda info: _texts(info["data"]["shape"], int),
    "data.classes": lambda info: _texts(info["data"]["classes"]),
    "data.count": lambda info: info["data"]["count"] is None or check_count(info["data"]["count"]),
    "parameters": lambda info: [check_count(count) for count in dict(info["parameters"]).values()],
}
"""What is read of `run.json`, with what raises unless it is as it should be."""


def unused_name(base: Path) -> Path:
    """`base`, or the first of base-2, base-3, ... that is not there yet."""
    taken, n = base, 1
    while taken.exists():
        n += 1
        taken = base.with_name(f"{base.name}-{n}")
    return taken
