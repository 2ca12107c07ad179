"""The conductor of a study: what is trained, what is recorded, and what stops it. The runs themselves are stand-ins."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_studies import DirectExecutor, QuietView, lines_of, write_plan

from poise.errors import CheckpointError, DiskError, RecipeError, Stopped
from poise.recipe.shipped import load_table
from poise.recipe.toml import to_toml
from poise.study import execute, prepare
from poise.study.execute import run_study
from poise.study.executor import WorkerDied
from poise.study.job import Job, crashed
from poise.study.records import RunResult
from poise.study.timing import Timing
from poise.utils.locks import file_lock

Answer = Callable[[Job], dict[str, Any]]


def done(job: Job) -> dict[str, Any]:
    values = {"modes": float(job.table["seed"]), "high_quality": 0.5}
    return RunResult(run=job.folder.name, state="done", step=1, images=256, values=values).model_dump(mode="json")


class Study:
    """A study of two seeds in a folder, whose runs give an answer at once."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.plan, self.out, self.patch = folder / "plan.toml", folder / "study", patch
        write_plan(self.plan, seeds=2)

    def run(self, answer: Answer = done, *, resume: bool = False, view: QuietView | None = None) -> list[str]:
        """The runs that were trained."""
        self.view, self.engine = view or QuietView(), DirectExecutor()
        self.patch.setattr(execute, "run_job", answer)
        run_study(self.plan, self.out, lambda: self.engine, resume=resume, listener=self.view)
        return [job.folder.name for job in self.engine.submitted]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    return Study(tmp_path, monkeypatch)


def test_recipe_files_lie_beside_the_copy_of_the_plan(study: Study) -> None:
    """So that the study can be repeated from its folder."""
    text = study.plan.read_text()
    study.plan.write_text(text.replace('recipe = "ring"', 'recipe = "recipes/mine.toml"'))
    (study.plan.parent / "recipes").mkdir()
    (study.plan.parent / "recipes" / "mine.toml").write_text(to_toml(load_table("ring")))
    runs, plan = study.run(), (study.out / "plan.toml").read_text()
    assert 'recipe = "recipes/mine.toml"' in plan
    copy = Study(study.out, study.patch)
    copy.plan.write_text(plan)
    assert sorted(copy.run()) == sorted(runs)


def test_every_run_is_trained_once_and_recorded_once(study: Study) -> None:
    runs = study.run()
    assert len(runs) == len(set(runs)) == 4
    assert sorted(line["run"] for line in lines_of(study.out)) == sorted(runs)
    assert (study.out / "plan.toml").read_text() == study.plan.read_text()
    assert study.view.ended
    assert study.run(resume=True) == []
    assert len(lines_of(study.out)) == 4


def test_an_extended_plan_trains_only_what_is_new(study: Study) -> None:
    first = study.run()
    write_plan(study.plan, seeds=3)
    second = study.run(resume=True)
    assert len(second) == 2
    assert set(first).isdisjoint(second)
    assert study.view.done_at_start == 4


def test_a_torn_last_line_is_trained_again(study: Study) -> None:
    runs = study.run()
    results = study.out / "results.jsonl"
    last = lines_of(study.out)[-1]["run"]
    results.write_bytes(results.read_bytes()[:-20])
    assert study.run(resume=True) == [last]
    assert sorted(line["run"] for line in lines_of(study.out)) == sorted(runs)


def test_a_failure_is_a_result_but_a_crash_is_tried_again(study: Study) -> None:
    def fails(job: Job) -> dict[str, Any]:
        state = "diverged" if job.table["seed"] else "out of memory"
        return RunResult(run=job.folder.name, state=state, step=1, images=0).model_dump(mode="json")

    def crashes(job: Job) -> dict[str, Any]:
        return crashed(job.folder.name, "no\nreason").model_dump(mode="json") if job.table["seed"] else fails(job)

    runs = study.run(crashes)
    assert len(runs) == 4
    assert study.run(fails, resume=True) == runs[2:]
    assert study.view.done_at_start == 2
    states = [line["state"] for line in lines_of(study.out)]
    assert sorted(states) == ["crashed"] * 2 + ["diverged"] * 2 + ["out of memory"] * 2
    assert study.run(resume=True) == []


@pytest.mark.parametrize("error", [WorkerDied("it died"), ValueError("one\ntwo"), MemoryError()])
def test_what_an_engine_could_not_run_has_crashed(study: Study, error: Exception) -> None:
    def answer(job: Job) -> dict[str, Any]:
        raise error

    study.run(answer)
    assert {line["state"] for line in lines_of(study.out)} == {"crashed"}
    assert all(line["reason"] and "\n" not in line["reason"] for line in lines_of(study.out))


def test_a_full_disk_stops_the_study_and_loses_nothing(study: Study) -> None:
    seen: list[str] = []

    def answer(job: Job) -> dict[str, Any]:
        seen.append(job.folder.name)
        if len(seen) == 2:
            raise DiskError("could not save", where=str(job.folder))
        return done(job)

    with pytest.raises(DiskError, match="could not save"):
        study.run(answer)
    assert study.engine.stopped
    assert study.view.ended
    assert sorted(line["run"] for line in lines_of(study.out)) == sorted([seen[0], *seen[2:]])
    assert study.run(resume=True) == [seen[1]]


def test_a_worker_that_was_stopped_alone_goes_on(study: Study) -> None:
    seen: list[str] = []

    def answer(job: Job) -> dict[str, Any]:
        seen.append(job.folder.name)
        if len(seen) == 1:
            raise Stopped("stopped by SIGTERM")
        return done(job)

    study.run(answer)
    assert sorted(seen) == sorted([*{line["run"] for line in lines_of(study.out)}, seen[0]])


class Interrupting(QuietView):
    """Sends a signal to this process at the first result."""

    def on_result(self, result: RunResult) -> None:
        super().on_result(result)
        if len(self.results) == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_stops_the_study(study: Study) -> None:
    seen: list[str] = []

    def answer(job: Job) -> dict[str, Any]:
        seen.append(job.folder.name)
        if len(seen) > 2:
            raise Stopped("stopped by SIGTERM")
        return done(job)

    again = f"poise study {study.plan} --out {study.out} --resume"
    with pytest.raises(Stopped, match=rf"^stopped by SIGTERM, results and states saved; continue with: {again}$"):
        study.run(answer, view=Interrupting())
    assert sorted(line["run"] for line in lines_of(study.out)) == sorted(seen[:2])
    assert sorted(study.run(resume=True)) == sorted(seen[2:4])


def test_a_signal_after_the_last_run_is_too_late(study: Study) -> None:
    study.run(view=Interrupting())
    assert len(lines_of(study.out)) == 4


def test_a_study_that_another_process_trains(study: Study) -> None:
    study.run()
    with (
        file_lock(study.out / "study.lock", "test"),
        pytest.raises(RecipeError, match=r"another process is training this study, found process .* on .*; wait until"),
    ):
        study.run(resume=True)


def test_neither_a_study_nor_empty(study: Study) -> None:
    with pytest.raises(CheckpointError, match="no study to resume"):
        study.run(resume=True)
    assert not study.out.exists()
    study.out.mkdir()
    (study.out / "plan.toml").write_text("mine")
    with pytest.raises(RecipeError, match="the folder is not empty, found other files"):
        study.run()
    assert [path.name for path in study.out.iterdir()] == ["plan.toml"]


@pytest.mark.parametrize("resume", [False, True])
def test_killed_before_the_first_run(study: Study, resume: bool) -> None:
    (study.out / "runs").mkdir(parents=True)
    (study.out / "study.lock").touch()
    (study.out / "plan.toml").write_text("")
    assert len(study.run(resume=resume)) == 4
    with pytest.raises(RecipeError, match="the folder is not empty, found a study"):
        study.run()


def test_a_budget_in_seconds_is_measured_once(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    study.plan.write_text(study.plan.read_text().replace("images = 20000", "seconds = 3"))
    durations = iter([0.25, 0.5])
    monkeypatch.setattr("poise.study.prepare.measure_timing", lambda *_, **__: Timing(1.0, next(durations), 1.0))
    runs = study.run()
    arms = json.loads((study.out / "study.json").read_text())["arms"]
    assert [arm["steps"] for arm in arms] == [12, 6]
    assert study.run(resume=True) == []
    assert len(runs) == 4


def test_an_arm_that_cant_be_trained_is_named(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(recipe: Any, *_: object) -> Any:
        raise RecipeError("is not allowed", where="tricks")

    monkeypatch.setattr(prepare, "check_compatibility", refuse)
    with pytest.raises(RecipeError, match=r"plan.toml: ring, arm 'base': tricks: is not allowed"):
        study.run()
    assert not study.out.exists()
