"""The run folder: all that training shares with the commands that read a run.

File names are fixed (see docs/run-folder.md), and no file but the checkpoints' tensors needs torch to be read. Files
are replaced atomically by a rename, lines are appended in one write (`poise.utils.files`), and only one process at a
time may write.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, TypeVar

from poise.core.metrics_log import check_alarm, check_count, check_measures, check_row, decode_number, read_jsonl
from poise.errors import CheckpointError, RecipeError
from poise.recipe.toml import NAME, Table, read_file
from poise.runs.changes import changes_from_json
from poise.utils.files import write_text
from poise.utils.launcher import number_of_ranks
from poise.utils.locks import claimed_folder
from poise.utils.paths import refuse_url
from poise.utils.printing import count_noun
from poise.utils.system import disk_errors
from poise.utils.temporary import is_temporary, remove, remove_leftovers

Decoded = TypeVar("Decoded")

RESERVED_NAMES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}

CHECKPOINT = r"step-\d+(/(tensors\.safetensors|state\.json|MANIFEST\.json))?"
EARLY_FILES = re.compile(
    r"recipe\.toml|run\.json|run\.lock|(rows|measures|alarms)\.jsonl|bad_images\.csv|frames\.bin|samples(/step-\d+\.png)?|saves"
    rf"|(code|critics)(/[^/]+)?|(best|kept)(/{CHECKPOINT})?|tensorboard(/events\.out\.tfevents.*)?|trackers\.json|wandb(/.*)?"
)
"""What a run may have written before its first checkpoint, or before it was rolled back to the beginning."""


def no_run_to_resume(path: Path) -> CheckpointError:
    """The error that there is no run in a folder; on several ranks, another machine may have it."""
    shared = ", or choose an --out on a file system that all machines share" if number_of_ranks() > 1 else ""
    return CheckpointError("no run to resume", where=str(path), cure=f"start it without --resume{shared}")


def is_run_folder(path: Path) -> bool:
    """Whether a folder is a run folder, intact or damaged."""
    return (path / "run.json").is_file() or ((path / "recipe.toml").is_file() and (path / "saves").is_dir())


Stamp = tuple[bytes, list[str]]
"""What changes whenever a run makes progress, see `RunFolder.stamp`."""


class RunFolder:
    """One run's folder.

    Args:
        path: the folder, which need not exist yet.

    Attributes:
        start_over: whether the folder has only the beginnings of a run without a checkpoint, which is begun again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe, self.info, self.rows = path / "recipe.toml", path / "run.json", path / "rows.jsonl"
        self.measures, self.best = path / "measures.jsonl", path / "best"
        self.frames, self.critics = path / "frames.bin", path / "critics"
        self.alarms, self.kept, self.code = path / "alarms.jsonl", path / "kept", path / "code"
        self.samples, self.saves, self.tensorboard = path / "samples", path / "saves", path / "tensorboard"
        self.start_over = False

    @property
    def resume_command(self) -> str:
        """The command that continues the run; one without a checkpoint starts from the beginning."""
        return f"poise train --resume --out {shlex.quote(str(self.path))}"

    def sample_grid(self, step: int) -> Path:
        """The file of the sample grid of this step."""
        return self.samples / f"step-{step:08d}.png"

    def check(self, *, resume: bool) -> None:
        """Check that a run can be started or resumed here, before anything is loaded or written; sets `start_over`.

        Raises:
            RecipeError: the name of a new run is not allowed, the path is a file, or there is something in the
                folder already.
            CheckpointError: there is no run to resume.
        """
        refuse_url(self.path)
        name, exists = self.path.name, resume and self.path.is_dir()  # it may have been renamed, or be named by "."
        if not exists and (not re.fullmatch(NAME, name) or name.lower() in RESERVED_NAMES):
            cure = "a run's name is 1 to 64 letters, digits, '.', '_' or '-', and does not start with a dot"
            raise RecipeError("not an allowed name of a run", where="--out", found=ascii(name), cure=cure)
        if self.path.exists() and not self.path.is_dir():
            raise RecipeError(
                "a run is a folder", where=f"--out {self.path}", found="a file", cure="choose another name"
            )
        self.start_over = self._is_abandoned_start()
        if resume:
            if not self.recipe.is_file() and not self.start_over:
                raise no_run_to_resume(self.path)
        elif (
            not self.start_over
            and self.path.is_dir()
            and any(entry.name != "run.lock" for entry in self.path.iterdir())
        ):
            checkpoints = list(self.saves.glob("step-*"))
            cure = "continue it with --resume, or choose another --out"
            found = f"a run with {count_noun(len(checkpoints), 'checkpoint')}" if checkpoints else ""
            raise RecipeError("the folder is not empty", where=f"--out {self.path}", found=found, cure=cure)

    def _is_abandoned_start(self) -> bool:
        """Whether a run was started here that has neither a checkpoint nor an end, and nothing else is here."""
        if not (self.path / "run.lock").is_file() or any(self.saves.glob("step-*")):
            return False
        with suppress(CheckpointError):
            if self.read_info()["state"] == "done":
                return False
        paths = (entry.relative_to(self.path) for entry in self.path.rglob("*"))
        return all(EARLY_FILES.fullmatch(path.as_posix()) or any(map(is_temporary, path.parts)) for path in paths)

    def stamp(self) -> Stamp:
        """A value that changes whenever the run makes progress: `run.json` and the names of the checkpoints."""
        info, checkpoints = b"", list[str]()
        with suppress(OSError):  # an impossible path, among others, which `check` refuses with a reason
            checkpoints = sorted(path.name for path in self.saves.glob("step-*"))
            info = self.info.read_bytes()
        return info, checkpoints

    def claim(self) -> AbstractContextManager[str]:
        """Create the folder and lock it against other writers; see `claimed_folder`."""
        return claimed_folder(self.path, self.path / "run.lock", f"--out {self.path}")

    def clean_up(self, *, start_over: bool) -> None:
        """Delete half-written files; with `start_over`, everything that a run wrote here before its first checkpoint.

        What an alarm has kept stays, as it does when a run is rolled back to the beginning.

        Raises:
            DiskError: the disk refused.
        """
        for folder in (self.path, self.samples, self.saves, self.best, self.kept):
            remove_leftovers(folder)
        if start_over:
            with disk_errors(self.path):
                for entry in sorted(self.path.iterdir()):
                    if entry.name not in ("run.lock", self.kept.name):
                        remove(entry)

    def read_rows(self, until: int | None = None) -> list[dict[str, Any]]:
        """The rows of `rows.jsonl`, up to and including step `until`.

        Raises:
            CheckpointError: a line is damaged; names it.
        """
        return read_jsonl(self.rows, check_row, until=until, increasing=True)

    def read_measures(self, until: int | None = None) -> list[dict[str, Any]]:
        """The lines of `measures.jsonl`; see `read_rows`."""
        return read_jsonl(self.measures, check_measures, until=until, increasing=True)

    def read_alarms(self, until: int | None = None, most: int | None = None) -> list[dict[str, Any]]:
        """The lines of `alarms.jsonl`; see `read_rows`. `most` limits their number."""
        return read_jsonl(self.alarms, check_alarm, until=until, limit=most)

    def drop_after(self, step: int) -> None:
        """Delete the rows and measures after `step`, and a last line that is incomplete."""
        for path, lines in ((self.rows, self.read_rows(step)), (self.measures, self.read_measures(step))):
            self.rewrite(path, lines)

    def rewrite(self, path: Path, lines: list[dict[str, Any]]) -> None:
        """Replace the contents of a JSON Lines file, if it exists."""
        if path.is_file():
            text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
            if path.read_bytes() != text.encode():
                write_text(path, text)

    def read_recipe(self) -> Table:
        """`recipe.toml` as a table.

        Raises:
            CheckpointError: the file is missing or damaged; names the line.
        """
        return self.parse_recipe(lambda table, where: table)

    def parse_recipe(self, decode: Callable[[Table, str], Decoded]) -> Decoded:
        """`recipe.toml`, read and decoded by `decode`, whose RecipeError means that the file is damaged.

        Raises:
            CheckpointError: the file is missing or damaged; names the line or the field.
        """
        try:
            return decode(read_file(self.recipe), str(self.recipe))
        except RecipeError as error:
            cure = "restore it from a copy, or give the recipe: poise train RECIPE --resume --out RUN"
            raise CheckpointError(error.what, where=error.where, found=error.found, cure=cure) from None

    def read_info(self) -> dict[str, Any]:
        """The contents of `run.json`.

        Raises:
            CheckpointError: this is not a run folder, or the file is damaged.
        """
        try:
            content = self.info.read_bytes()
        except FileNotFoundError:
            raise CheckpointError("not a run folder: it has no run.json", where=str(self.path)) from None
        except OSError as error:
            raise CheckpointError(f"can't be read: {error.strerror or error}", where=str(self.info)) from None
        can_resume = self.recipe.is_file() and any(self.saves.glob("step-*"))
        return parse_info(content, str(self.info), REWRITE if can_resume else "")


def parse_info(content: bytes, where: str, cure: str = "") -> dict[str, Any]:
    """The contents of a `run.json`.

    Args:
        content: the bytes of the file.
        where: its name, for errors.
        cure: how another one can be had, for errors.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        info = json.loads(content)
    except (ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise CheckpointError(f"is damaged{line}", where=where, cure=cure) from None
    for name, check in INFO_CHECKS.items():
        try:
            check(info)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CheckpointError(f"is damaged: invalid value of {name}", where=where, cure=cure) from None
    return info


REWRITE = "poise train --resume writes a new one from the last checkpoint"


def _check_list(value: Any, kind: type = str) -> None:
    if not isinstance(value, list) or not all(isinstance(one, kind) and not isinstance(one, bool) for one in value):
        raise ValueError


def _check_shape(value: Any) -> None:
    """The shape of a point, or channels, height and width."""
    _check_list(value, int)
    if len(value) not in (1, 3) or min(value) < 1:
        raise ValueError


def _check_class_counts(data: Mapping[str, Any]) -> None:
    """One count for each class, not all 0; older versions wrote none."""
    counts = data.get("class_counts") or [1] * len(data["classes"])
    if len(counts) != len(data["classes"]) or (counts and not sum(map(check_count, counts))):
        raise ValueError


def _check_text(value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError


INFO_CHECKS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "state": lambda info: _check_text(info["state"]),
    "step": lambda info: check_count(info["step"]),
    "steps": lambda info: check_count(info["steps"]),
    "seconds": lambda info: decode_number(info["seconds"]),
    "recipe": lambda info: _check_text(info["recipe"]),
    "changes": lambda info: changes_from_json(info.get("changes", [])),
    "data.kind": lambda info: _check_text(info["data"]["kind"]),
    "data.fingerprint": lambda info: _check_text(info["data"]["fingerprint"]),
    "data.shape": lambda info: _check_shape(info["data"]["shape"]),
    "data.classes": lambda info: _check_list(info["data"]["classes"]),
    "data.class_counts": lambda info: _check_class_counts(info["data"]),
    "data.parts": lambda info: _check_list(info["data"].get("parts", []), int),
    "data.count": lambda info: info["data"]["count"] is None or check_count(info["data"]["count"]),
    "parameters": lambda info: [check_count(count) for count in dict(info["parameters"]).values()],
}
"""The entries of `run.json` that are read, each with a function that raises if the value is invalid."""


def unused_name(base: Path) -> Path:
    """`base`, or the first of base-2, base-3, ... that does not exist yet."""
    path, n = base, 1
    while path.exists():
        n += 1
        path = base.with_name(f"{base.name}-{n}")
    return path
