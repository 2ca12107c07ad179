"""Studies of tiny runs in processes of their own, and what can be compared between two of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from poise.study.effects import as_json
from poise.study.expand import Expansion
from poise.study.folder import StudyFolder
from poise.study.records import RunResult
from poise.study.verdicts import analyse
from poise.utils.locks import file_lock

MARK = "POISE_TEST_STUDY"
"""The environment variable by which the processes of a study are found."""


def write_plan(path: Path, *, seeds: int, images: int = 20_000, lines: str = "") -> Path:
    """A plan with a base and one tip: two runs per seed, each of images/256 steps."""
    path.write_text(
        f"""
name = "tiny"
seeds = {seeds}
budget = {{ images = {images} }}
evaluations = 2
{lines}

[base.ring]
recipe = "ring"
set = ["tricks=[]", 'objective={{kind="non_saturating"}}', "network.g.width=16", "network.d.width=16"]
measures = ["modes", {{ name = "high_quality", better = "more" }}]
failure = {{ modes = 3 }}

[[tip]]
id = "T16"
name = "packing"
set = ['tricks+=[{{kind="packing", samples=2}}]']
"""
    )
    return path


class StudyProcess:
    """`poise study` in a process group of its own."""

    def __init__(self, plan: Path, out: Path, *words: str, workers: int = 2, mark: str | None = None) -> None:
        self.plan, self.out, self.workers = plan, out, workers
        self.mark = mark or uuid.uuid4().hex
        self.words = [sys.executable, "-m", "poise", "study", str(plan), "--out", str(out), *words]
        self.start()

    def start(self) -> None:
        """Start it, or start it again; it is resumed if it has been started before."""
        words = [*self.words, "--workers", str(self.workers)]
        if (self.out / "study.json").is_file():
            words.append("--resume")
        self.process = subprocess.Popen(
            words,
            env=os.environ | {MARK: self.mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def workers_alive(self) -> list[int]:
        """The process ids of its workers."""
        return [pid for pid in self.processes() if "multiprocessing.spawn" in command_of(pid)]

    def processes(self) -> list[int]:
        """All its processes, also those whose parent has died."""
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if self._belongs(path)]

    def _belongs(self, path: Path) -> bool:
        try:
            return f"{MARK}={self.mark}".encode() in (path / "environ").read_bytes().split(b"\0")
        except OSError:
            return False

    def wait_for(self, condition: Callable[[], bool], seconds: float = 120) -> bool:
        """Wait until the condition holds; False if the study ends before."""
        end = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None:
                return condition()
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)
        return True

    def end(self, seconds: float = 300) -> tuple[int, list[str]]:
        """Wait for its end: the exit code and the lines on stderr."""
        _, errors = self.process.communicate(timeout=seconds)
        return self.process.returncode, errors.splitlines()

    def assert_gone(self, seconds: float = 20) -> None:
        """Assert that no process of it is left, no lock is held and no temporary file is left."""
        end = time.monotonic() + seconds
        while left := self.processes():
            assert time.monotonic() < end, {pid: command_of(pid) for pid in left}
            time.sleep(0.05)
        for lock in [self.out / "study.lock", *self.out.glob("runs/*/run.lock")]:
            with file_lock(lock, str(lock)) as note:
                assert note == ""
        assert not list(self.out.rglob(".tmp-*"))


def command_of(pid: int) -> str:
    """The command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def lines_of(out: Path) -> list[dict[str, Any]]:
    """The lines of `results.jsonl`."""
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def values_of(out: Path) -> dict[str, dict[str, Any]]:
    """The results by run, without times and dates."""
    results = {line["run"]: line for line in lines_of(out)}
    for line in results.values():
        del line["cpu_seconds"], line["versions"]["date"]
    return results


def effects_of(out: Path) -> list[dict[str, Any]]:
    """The effects and verdicts of a study."""
    folder = StudyFolder(out)
    return [as_json(effect) for effect in analyse(folder.read_study(), folder.read_results())]


def samples_of(out: Path) -> dict[str, bytes]:
    """The sample grids by path."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.glob("runs/*/samples/*.png")}


def checkpoints_of(out: Path) -> list[str]:
    """The checkpoints of all runs."""
    return sorted(str(path.relative_to(out)) for path in out.glob("runs/*/saves/step-*"))


class DirectExecutor:
    """An engine that runs each job at once, in this process."""

    def __init__(self) -> None:
        self.submitted: list[Any] = []
        self.stopped = False

    def submit(self, function: Callable[[Any], Any], job: Any, progress: Callable[[], Any]) -> Future[Any]:
        """Run the job."""
        self.submitted.append(job)
        future: Future[Any] = Future()
        try:
            future.set_result(function(job))
        except BaseException as error:
            future.set_exception(error)
        return future

    def stop(self) -> None:
        """Remember that it was called."""
        self.stopped = True

    def shutdown(self) -> None:
        """Do nothing."""


class QuietView:
    """A listener that keeps the messages and the results."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.results: list[RunResult] = []
        self.done_at_start = 0
        self.ended = False

    def on_message(self, sentence: str) -> None:
        """Keep it."""
        self.messages.append(sentence)

    def on_start(self, expansion: Expansion, results: dict[str, RunResult], folder: StudyFolder) -> None:
        """Keep the number of results."""
        self.done_at_start = len(results)

    def on_update(self, running: list[str]) -> None:
        """Do nothing."""

    def on_result(self, result: RunResult) -> None:
        """Keep it."""
        self.results.append(result)

    def on_end(self) -> None:
        """Remember that it was called."""
        self.ended = True
