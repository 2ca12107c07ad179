"""The folder of a study: its files, as written by `poise study` and read by `poise report`. Does not import torch."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from poise.core.metrics_log import read_jsonl
from poise.core.validation import explain
from poise.errors import CheckpointError, RecipeError
from poise.study.records import FORMAT, RunResult, Study
from poise.utils.files import append_line, sync_file, write_json
from poise.utils.locks import claimed_folder
from poise.utils.paths import folder_around
from poise.utils.printing import agree, count_noun
from poise.utils.system import disk_errors
from poise.utils.temporary import is_temporary

if TYPE_CHECKING:
    from poise.recipe.model import Recipe


class StudyFolder:
    """One study's folder.

    Args:
        path: the folder, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan, self.study, self.results = path / "plan.toml", path / "study.json", path / "results.jsonl"
        self.timing, self.runs, self.lock = path / "timing.json", path / "runs", path / "study.lock"

    def check(self, *, resume: bool) -> None:
        """Check that a study can be started or resumed here, before anything is written.

        Raises:
            RecipeError: there is something in the folder already, and it is not to be resumed.
            CheckpointError: there is no study to resume.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RecipeError("a study is a folder", where=f"--out {self.path}", found="a file")
        started = self.study.is_file()
        abandoned = not started and self._is_abandoned_start()
        if resume and not started and not abandoned:
            raise CheckpointError("no study to resume", where=str(self.path), cure="start it without --resume")
        others = [entry for entry in self.path.iterdir() if entry != self.lock] if self.path.is_dir() else []
        if not resume and others and not abandoned:
            cure = "continue it with --resume, or choose another --out" if started else "choose another --out"
            found = "a study" if started else "other files"
            raise RecipeError("the folder is not empty", where=f"--out {self.path}", found=found, cure=cure)

    def check_outside(self, recipes: Iterable[Recipe]) -> None:
        """Check that the folder is not inside that of training images, where its sample grids would become images.

        Args:
            recipes: the recipes of the runs.

        Raises:
            RecipeError: it is; names the folder of the images.
        """
        data = folder_around(dict.fromkeys(path for recipe in recipes for path in recipe.data.paths), self.path)
        if data is not None:
            what, cure = "a study can't be inside the folder of its training images", "choose another --out"
            raise RecipeError(what, where=f"--out {self.path}", found=str(data), cure=cure)

    def _is_abandoned_start(self) -> bool:
        """Whether a study was started here and killed before it wrote `study.json`, and nothing else is here."""
        if not self.lock.is_file() or (self.runs.is_dir() and any(self.runs.iterdir())):
            return False
        early = {path.name for path in (self.lock, self.plan, self.timing, self.runs)}
        return all(entry.name in early or is_temporary(entry.name) for entry in self.path.iterdir())

    def claim(self) -> AbstractContextManager[str]:
        """Create the folder and lock it against other writers; see `claimed_folder`."""
        what, cure = "another process is training this study", "wait until it has ended, or stop it first"
        return claimed_folder(self.runs, self.lock, f"--out {self.path}", what, cure)

    def write_study(self, study: Study) -> None:
        """Write `study.json`.

        Raises:
            DiskError: the file can't be written.
        """
        write_json(self.study, study.model_dump(mode="json"))

    def read_study(self) -> Study:
        """The content of `study.json`.

        Raises:
            RecipeError: this is not the folder of a study.
            CheckpointError: the file is damaged.
        """
        try:
            table = json.loads(self.study.read_bytes())
            self._check_format(table)
            return Study.model_validate(table)
        except (FileNotFoundError, NotADirectoryError):
            cure = "give the folder that poise study has written, its --out"
            raise RecipeError("not a study: it has no study.json", where=str(self.path), cure=cure) from None
        except OSError as error:
            raise CheckpointError(f"can't be read: {error.strerror or error}", where=str(self.study)) from None
        except (ValueError, RecursionError) as error:
            key = explain(error).where if isinstance(error, ValidationError) else ""
            cure = "poise study PLAN --resume writes a new one"
            raise CheckpointError(f"is damaged{key and f': {key}'}", where=str(self.study), cure=cure) from None

    def last_started(self, name: str) -> Study | None:
        """The study of this name as it was last started; None if there is none, or it can't be read."""
        with suppress(CheckpointError, RecipeError):
            return study if (study := self.read_study()).name == name else None
        return None

    def _check_format(self, table: Any) -> None:
        """Refuse a file that a later version of poise has written.

        Raises:
            CheckpointError: it is such a file.
        """
        number = table.get("format") if isinstance(table, dict) else None
        if isinstance(number, int) and number > FORMAT:
            what = "was written by a newer version of poise"
            raise CheckpointError(what, where=str(self.study), found=f"format {number}", cure="update poise")

    def check_same_study(self, name: str) -> None:
        """Check that a plan may be written over the one that is here; it may have been changed or extended.

        A damaged `study.json` may be replaced.

        Args:
            name: the name of the plan.

        Raises:
            RecipeError: it is that of another study.
            CheckpointError: a newer version of poise has written it.
        """
        try:
            table = json.loads(self.study.read_bytes())
        except (OSError, ValueError, RecursionError):
            return
        self._check_format(table)
        found = table.get("name") if isinstance(table, dict) else None
        if isinstance(found, str) and found != name:
            cure = "choose another --out"
            raise RecipeError(
                f"this is not the folder of '{name}'", where=f"--out {self.path}", found=f"'{found}'", cure=cure
            )

    def read_results(self) -> list[RunResult]:
        """The lines of `results.jsonl`: the newest result of each run, in the order of the file.

        Raises:
            CheckpointError: a line is damaged; names it.
        """
        lines = read_jsonl(self.results, RunResult.model_validate)
        results = {line["run"]: RunResult.model_validate(line) for line in lines}
        return list(results.values())

    def results_of(self, runs: Container[str]) -> tuple[dict[str, RunResult], int]:
        """The newest results of some runs, and the number of results of other ones; none of runs that crashed.

        Raises:
            CheckpointError: see `read_results`.
        """
        ended = [one for one in self.read_results() if one.state != "crashed"]
        results = {one.run: one for one in ended if one.run in runs}
        return results, len(ended) - len(results)

    def append_result(self, result: RunResult) -> None:
        """Append a result, which is on the disk when this returns.

        Raises:
            DiskError: the file can't be written.
        """
        append_line(self.results, result.model_dump(mode="json"))
        with disk_errors(self.results):
            sync_file(self.results)


def unused_results(number: int) -> str:
    """A sentence on the results of a folder that are of other runs than those of the plan; empty if there are none."""
    belong, are = agree(number, "belongs", "belong"), agree(number, "it is", "they are")
    what = f"{count_noun(number, 'result')} in this folder {belong} to no run of this plan; {are} kept and not used"
    return what if number else ""
