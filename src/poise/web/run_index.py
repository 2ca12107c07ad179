"""The index: the runs, studies and ladders below one directory, each with an id.

An id is the beginning of the SHA-256 of the path relative to that directory. A request names an id, is looked up here
and never becomes part of a path.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from poise.runs.overview import search_folders
from poise.web.cards import RunEntry, is_still, make_entry
from poise.web.files import is_link
from poise.web.studies import FIGURES, StudyEntry, ladder_card, make_study_entry, study_signature

FRESH_SECONDS = 1.0
"""An index that is not older is not made anew for another request."""

ID_LENGTH = 16


class Found(NamedTuple):
    """What is below the directory at one time.

    Attributes:
        runs: the runs by id.
        studies: the studies by id.
        ladders: the cards of the ladders by id, with the ids of their rungs.
        complete: whether all folders were searched; there may be too many.
    """

    runs: dict[str, RunEntry]
    studies: dict[str, StudyEntry]
    ladders: dict[str, dict[str, Any]]
    complete: bool

    def changes_since(self, before: Found) -> dict[str, Any]:
        """The event `overview`: changed and new cards, and the ids of what is gone; empty lists if nothing is."""
        now, then = ({"runs": cards(one.runs), "studies": cards(one.studies)} for one in (self, before))
        now["ladders"], then["ladders"] = ({id: public(c) for id, c in one.ladders.items()} for one in (self, before))
        changed = {kind: [card for id, card in now[kind].items() if then[kind].get(id) != card] for kind in now}
        return changed | {"removed": [id for kind in now for id in then[kind] if id not in now[kind]]}


def cards(entries: Mapping[str, RunEntry | StudyEntry]) -> dict[str, dict[str, Any]]:
    """The cards of runs or studies, by id."""
    return {id: entry.card for id, entry in entries.items()}


class RunIndex:
    """The index of a directory. Its methods may be called from several threads.

    Args:
        root: the directory, which need not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._searching, self._replacing = threading.Lock(), threading.Lock()
        self._found = Found({}, {}, {}, True)
        self._made = float("-inf")

    def found(self, fresh: float = FRESH_SECONDS) -> Found:
        """What is below the directory.

        Args:
            fresh: the age in seconds up to which the last answer is given again.
        """
        with self._searching:
            if time.monotonic() - self._made > fresh:
                found = self._search(self._found)
                with self._replacing:
                    self._found, self._made = found, time.monotonic()
            return self._found

    def run(self, run_id: str) -> RunEntry:
        """The run with an id, as it is now.

        Raises:
            KeyError: there is none.
        """
        entry = self._found.runs.get(run_id)
        if entry is not None and self._is_there(entry):
            if not is_still(entry, self.root.joinpath(*entry.parts)):
                relative = PurePosixPath(*entry.parts)
                entry = make_entry(self.root, relative, entry.card["name"], run_id, entry.card["study"])
                with self._replacing:  # by a copy: whoever compares with what was found before must see the difference
                    self._found = self._found._replace(runs=self._found.runs | {run_id: entry})
            return entry
        if self._made == float("-inf"):  # the page of one run must not wait for all others
            return self._look_for(run_id)
        return self.found(0 if entry else FRESH_SECONDS).runs[run_id]

    def _look_for(self, run_id: str) -> RunEntry:
        for folder in search_folders(self.root, follow_links=False):
            if folder is not None and folder.is_run:
                relative = self._relative(folder.path)
                if id_of(relative) == run_id:
                    return self._make_entry(relative, run_id)
        raise KeyError(run_id)

    def _is_there(self, entry: RunEntry) -> bool:
        return self.root.joinpath(*entry.parts).is_dir()

    def _search(self, before: Found) -> Found:
        runs: dict[str, RunEntry] = {}
        studies: dict[str, StudyEntry] = {}
        complete = True
        for folder in search_folders(self.root, follow_links=False):
            if folder is None:
                complete = False
                continue
            relative = self._relative(folder.path)
            if folder.is_run:
                entry = self._run_entry(relative, before)
                runs[entry.id] = entry
            elif is_study(folder.path):
                study = self._study_entry(relative, before)
                studies[study.id] = study
        shown = sorted(runs.values(), key=lambda run: (-run.card["changed"], run.card["name"]))
        return Found({run.id: run for run in shown}, studies, self._ladders(shown), complete)

    def _run_entry(self, relative: PurePosixPath, before: Found) -> RunEntry:
        run_id = id_of(relative)
        known = before.runs.get(run_id)
        if known is not None and is_still(known, self.root / relative):
            return known
        return self._make_entry(relative, run_id)

    def _make_entry(self, relative: PurePosixPath, run_id: str) -> RunEntry:
        holder = relative.parent.parent
        inside = len(relative.parts) >= 2 and relative.parent.name == "runs" and is_study(self.root / holder)
        return make_entry(self.root, relative, self._name(relative), run_id, id_of(holder) if inside else None)

    def _study_entry(self, relative: PurePosixPath, before: Found) -> StudyEntry:
        study_id = id_of(relative)
        known = before.studies.get(study_id)
        still = known is not None and known.card["state"] != "running"
        if known is not None and still and study_signature(self.root / relative) == known.signature:
            return known
        return make_study_entry(self.root, relative, self._name(relative), study_id)

    def _ladders(self, runs: list[RunEntry]) -> dict[str, dict[str, Any]]:
        """The folders of which a run has been evaluated as a rung, with the ids of those runs, by name."""
        rungs: dict[PurePosixPath, list[RunEntry]] = {}
        for run in runs:
            path = self.root.joinpath(*run.parts) / "ladder"
            if run.parts and not is_link(path) and (path / FIGURES).is_file():
                rungs.setdefault(PurePosixPath(*run.parts).parent, []).append(run)
        cards = [ladder_card(self.root, id_of(path), self._name(path), found) for path, found in rungs.items()]
        return {card["id"]: card for card in cards}

    def _relative(self, path: Path) -> PurePosixPath:
        return PurePosixPath(path.relative_to(self.root).as_posix())

    def _name(self, relative: PurePosixPath) -> str:
        return self.root.name if relative == PurePosixPath(".") else str(relative)


def public(ladder: dict[str, Any]) -> dict[str, Any]:
    """A ladder as the overview shows it, without its rungs."""
    return {key: value for key, value in ladder.items() if key != "rungs"}


def is_study(path: Path) -> bool:
    """Whether a folder is that of a study."""
    return (path / "study.json").is_file() and not is_link(path / "study.json")


def id_of(relative: PurePosixPath) -> str:
    """The id of what is at a path relative to the directory: 16 hexadecimal digits."""
    return hashlib.sha256(str(relative).encode("utf-8", "surrogateescape")).hexdigest()[:ID_LENGTH]
