"""Studies and ladders as JSON, from their folders."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from poise.core.metrics_log import decode_number
from poise.errors import PoiseError
from poise.ladder.findings import MODEL_NAMES
from poise.runs.overview import is_written
from poise.study.folder import StudyFolder
from poise.utils.locks import is_held
from poise.utils.remote import is_mirrored
from poise.web.answers import Refused, check_png
from poise.web.cards import MAX_BYTES, RunEntry, finite, stamp_tag, tag_of
from poise.web.files import is_link, read_below

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
    state = "done" if finished else "running" if _is_written(folder.lock, changed) else "interrupted"
    card |= {"state": state, "done": len(done), "planned": len(planned)}
    return StudyEntry(study_id, relative, card, signature)


def _is_written(lock: Path, changed: float) -> bool:
    return is_written(lock, changed) if is_mirrored(lock) else is_held(lock)


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


def ladder_card(root: Path, ladder_id: str, name: str, rungs: list[RunEntry]) -> dict[str, Any]:
    """What the overview shows of a ladder, and the ids of its rungs from the simplest model on.

    Its `tag` is another one whenever the answer to `/api/ladders/{id}` is.
    """
    order = {model: place for place, model in enumerate(MODEL_NAMES)}
    rungs = sorted(rungs, key=lambda run: (order.get(rung_name(run), len(order)), run.card["name"]))
    files = [_rung_files(root, run) for run in rungs]
    evaluated = [found[FIGURES].st_mtime for found in files if FIGURES in found]
    tags = [{name: stamp_tag(status) for name, status in found.items()} for found in files]
    tag = tag_of([(run.id, run.card["recipe"]) for run in rungs], tags)
    changed = max([run.card["changed"] for run in rungs] + evaluated)
    about = {"id": ladder_id, "name": name, "changed": changed, "reason": None, "tag": tag}
    return about | {"rungs": [run.id for run in rungs]}


def study_json(
    root: Path, entry: StudyEntry, runs: Mapping[str, RunEntry], id_of: Callable[[PurePosixPath], str]
) -> dict[str, Any]:
    """The answer to `/api/studies/{id}`.

    Args:
        root: the runs directory.
        entry: the study.
        runs: the runs of the index, by id.
        id_of: the id of a path.

    Raises:
        PoiseError: the study is damaged.
    """
    from poise.study.summary import StudyResults
    from poise.study.verdicts import analyse

    check_files(root / entry.relative)
    folder = StudyFolder(root / entry.relative)
    study, found = folder.read_study(), folder.read_results()
    results = StudyResults(study, found, analyse(study, found))
    cells = []
    for arm in study.arms:
        for seed, run in sorted(arm.runs.items(), key=lambda item: int(item[0])):
            result, known = results.results.get(run), runs.get(id_of(entry.relative / "runs" / run))
            state = result.state if result else known.card["state"] if known else "missing"
            name = None if arm.name == "base" else arm.name
            cell = {"run": known.id if known else None, "base": arm.base, "arm": name, "seed": int(seed)}
            cells.append(cell | {"state": state, "values": result.values if result else {}})
    bases = [base.model_dump(mode="json", include={"name", "summary", "measures"}) for base in study.bases]
    about = {key: entry.card[key] for key in ("id", "name", "state", "done", "planned")}
    arms = list(dict.fromkeys(arm.name for arm in study.arms if arm.name != "base"))
    return about | {"report": results.as_json(), "bases": bases, "arms": arms, "runs": cells}


FIGURES = "figures.json"
"""The measures of a rung, in its folder `ladder`."""

IMAGES = ("samples", "fitted", "rebuilt", "lerp", "slerp")
"""The image grids that a ladder makes of each rung."""


def ladder_json(root: Path, ladder: Mapping[str, Any], runs: Mapping[str, RunEntry]) -> dict[str, Any]:
    """The answer to `/api/ladders/{id}`. A rung whose results are damaged has no values.

    Args:
        root: the runs directory.
        ladder: the ladder in the index.
        runs: the runs of the index, by id.
    """
    rungs = []
    for run in (runs[run_id] for run_id in ladder["rungs"] if run_id in runs):
        shown = {"run": run.id, "name": rung_name(run), "recipe": run.card["recipe"], "values": _values(root, run)}
        files = _rung_files(root, run)
        tags = {name: stamp_tag(files[f"{name}.png"]) for name in IMAGES if f"{name}.png" in files}
        rungs.append(shown | {"images": list(tags), "image_tags": list(tags.values())})
    return {"id": ladder["id"], "name": ladder["name"], "tag": ladder["tag"], "rungs": rungs}


def _rung_files(root: Path, run: RunEntry) -> dict[str, os.stat_result]:
    """The status of the files of a rung that the page shows, by name, as far as they are regular files."""
    found = {}
    for name in (FIGURES, *(f"{image}.png" for image in IMAGES)):
        with suppress(OSError):
            status = (root.joinpath(*run.parts) / "ladder" / name).lstat()
            if stat.S_ISREG(status.st_mode):
                found[name] = status
    return found


def rung_name(run: RunEntry) -> str:
    """The name of a rung: that of its folder."""
    return run.parts[-1]


def _values(root: Path, run: RunEntry) -> dict[str, float | None]:
    try:
        results = json.loads(read_below(root, *run.parts, "ladder", FIGURES, limit=MAX_BYTES))
        return {name: finite(decode_number(result["value"])) for name, result in results["measures"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def ladder_image(root: Path, ladder: Mapping[str, Any], runs: Mapping[str, RunEntry], rung: str, name: str) -> bytes:
    """An image grid of a rung, which is named by the id of its run, as PNG.

    Raises:
        Refused: there is none.
    """
    if rung not in ladder["rungs"] or rung not in runs or name not in IMAGES:
        raise Refused(404, "there is no such image")
    try:
        return check_png(read_below(root, *runs[rung].parts, "ladder", f"{name}.png", limit=MAX_BYTES))
    except OSError:
        raise Refused(404, "there is no such image") from None
