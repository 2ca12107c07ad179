"""Studies and ladders as JSON, from their folders."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from poise.errors import PoiseError
from poise.study.folder import StudyFolder
from poise.utils.locks import is_held
from poise.web.cards import MAX_BYTES, RunEntry
from poise.web.files import is_link

FILES = ("study.json", "results.jsonl", "plan.toml", "study.lock")


class StudyEntry(NamedTuple):
    """A study in the index; see `RunEntry`."""

    id: str
    relative: PurePosixPath
    card: dict[str, Any]
    signature: tuple[tuple[int, int] | None, ...]


def study_signature(path: Path) -> tuple[tuple[int, int] | None, ...]:
    """Modification time and size of the files of a study; None for one that is missing."""
    stamps: list[tuple[int, int] | None] = []
    for name in FILES:
        try:
            status = (path / name).lstat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((status.st_mtime_ns, status.st_size))
    return tuple(stamps)


def make_study_entry(root: Path, relative: PurePosixPath, name: str, study_id: str) -> StudyEntry:
    """Read the study at `relative` below `root`. Damage is a state of its card."""
    path = root / relative
    signature = study_signature(path)
    changed = max((stamp[0] for stamp in signature if stamp), default=0) / 1e9
    card: dict[str, Any] = {"id": study_id, "name": name, "state": "damaged", "done": 0, "planned": 0}
    card |= {"changed": changed, "reason": None}
    try:
        check_files(path)
        folder = StudyFolder(path)
        planned = {run for arm in folder.read_study().arms for run in arm.runs.values()}
        done = planned & {result.run for result in folder.read_results()}
    except PoiseError as error:
        return StudyEntry(study_id, relative, card | {"reason": str(error).replace(f"{path}/", "")}, signature)
    finished = len(done) == len(planned)
    state = "done" if finished else "running" if is_held(folder.lock) else "interrupted"
    card |= {"state": state, "done": len(done), "planned": len(planned)}
    return StudyEntry(study_id, relative, card, signature)


def check_files(path: Path) -> None:
    """Check that the files of a study are regular and not huge.

    Raises:
        PoiseError: one is not.
    """
    for name in FILES:
        if is_link(path / name):
            raise PoiseError("is not a regular file", where=name)
        if (path / name).is_file() and (path / name).stat().st_size > 4 * MAX_BYTES:
            raise PoiseError(f"has more than {4 * MAX_BYTES:,} bytes", where=name)


def ladder_card(ladder_id: str, name: str, rungs: list[RunEntry]) -> dict[str, Any]:
    """What the overview shows of a ladder, and the ids of its rungs."""
    ids = [run.id for run in sorted(rungs, key=lambda run: run.card["name"])]
    changed = max(run.card["changed"] for run in rungs)
    return {"id": ladder_id, "name": name, "changed": changed, "reason": None, "rungs": ids}
