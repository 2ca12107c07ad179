"""A study whose processes are killed at random moments ends like an undisturbed one, and nothing is trained twice."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tiny_studies import (
    DirectExecutor,
    QuietView,
    StudyProcess,
    checkpoints_of,
    effects_of,
    lines_of,
    samples_of,
    values_of,
    write_plan,
)

from poise.study.execute import run_study

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the workers in /proc")

KILLS = 20


def kill(process: int, number: int = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)


def results_written(out: Path) -> dict[str, int]:
    """The time at which each `result.json` was written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("runs/*/result.json")}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_of_workers_and_conductor(tmp_path: Path) -> None:
    plan, streams = write_plan(tmp_path / "plan.toml", seeds=10), random.Random(0)
    whole, out = tmp_path / "whole", tmp_path / "killed"
    assert StudyProcess(plan, whole).end()[0] == 0
    study, seen, killed = StudyProcess(plan, out), dict[str, int](), Counter[str]()
    for number in range(KILLS):
        # most kills are spread over the progress of the study, the others soon follow the one before
        needed = round(0.85 * number) if streams.random() < 0.8 else 0
        assert study.wait_for(lambda needed=needed: len(results_written(out)) >= needed)  # type: ignore[misc]
        time.sleep(streams.random() * streams.choice((0.05, 0.5, 2.0)))
        seen |= results_written(out)
        if streams.random() < 0.5:
            killed["conductor"] += 1
            kill(study.process.pid)
            study.process.communicate()
            study.start()
        else:
            killed["worker"] += 1
            while not (workers := study.workers_alive()):
                assert study.process.poll() is None
            kill(streams.choice(workers))
    code, errors = study.end()
    assert code == 0, errors[-1]
    print(f"killed: {dict(killed)}")
    assert min(killed["conductor"], killed["worker"]) >= 5
    study.assert_gone()
    assert Counter(line["run"] for line in lines_of(out) if line["state"] == "done") == Counter(list(values_of(whole)))
    written = results_written(out)
    assert {run: written[run] for run in seen} == seen
    assert values_of(out) == values_of(whole)
    assert effects_of(out) == effects_of(whole)
    assert samples_of(out) == samples_of(whole)
    assert checkpoints_of(out) == []


@pytest.mark.slow
def test_killed_once_and_resumed(tmp_path: Path) -> None:
    plan, out = write_plan(tmp_path / "plan.toml", seeds=1), tmp_path / "study"
    study = StudyProcess(plan, out, workers=1)
    assert study.wait_for(lambda: bool(checkpoints_of(out)))
    kill(study.process.pid)
    study.process.communicate()
    results = run_study(plan, out, DirectExecutor, resume=True, listener=QuietView())
    study.assert_gone()
    assert [result.state for result in results] == [line["state"] for line in lines_of(out)] == ["done", "done"]
    assert checkpoints_of(out) == []


def stopped_by(study: StudyProcess, number: int, send: Callable[[int, int], None]) -> list[str]:
    """Let the study train, stop it, and return the lines on stderr."""
    assert study.wait_for(lambda: any(study.out.glob("runs/*/rows.jsonl")))
    send(study.process.pid, number)
    code, errors = study.end()
    assert code == 75, errors
    study.assert_gone()
    return errors


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["conductor", "group"])
def test_stopped_and_resumed(tmp_path: Path, number: signal.Signals, send: Callable[[int, int], None]) -> None:
    plan, out = write_plan(tmp_path / "plan.toml", seeds=1, images=400_000), tmp_path / "study"
    study = StudyProcess(plan, out)
    errors = stopped_by(study, number, send)
    said = [line for line in errors if line.startswith("poise: ")]
    assert said == errors[-1:], "\n".join(errors)
    assert f"stopped by {number.name}, results and states saved" in said[0]
    assert f"poise study {plan} --out {out} --resume" in said[0]
    assert "Traceback" not in "".join(errors)
    assert checkpoints_of(out), "a worker has not saved its state"
    assert lines_of(out) == [] if (out / "results.jsonl").is_file() else True
    study.start()
    assert study.end()[0] == 0
    assert [line["state"] for line in lines_of(out)] == ["done", "done"]


@pytest.mark.slow
def test_interrupted_while_the_workers_start(tmp_path: Path) -> None:
    plan, out = write_plan(tmp_path / "plan.toml", seeds=1), tmp_path / "study"
    study = StudyProcess(plan, out)
    for pause in (0.0, 0.3, 1.0):
        assert study.wait_for(lambda: bool(study.workers_alive()))
        time.sleep(pause)
        os.killpg(study.process.pid, signal.SIGINT)
        code, errors = study.end()
        study.assert_gone()
        if code == 0:
            return  # it had ended before
        assert code == 75, errors
        assert "Traceback" not in "\n".join(errors), "\n".join(errors)
        assert sum(line.startswith("poise: ") for line in errors) == 1
        study.start()
    assert study.end()[0] == 0


@pytest.mark.slow
def test_a_second_conductor_is_refused(tmp_path: Path) -> None:
    plan, out = write_plan(tmp_path / "plan.toml", seeds=1, images=400_000), tmp_path / "study"
    first = StudyProcess(plan, out)
    assert first.wait_for(lambda: (out / "study.json").is_file())
    second = StudyProcess(plan, out)
    code, errors = second.end()
    assert code == 2
    assert f"another process is training this study, found process {first.process.pid}" in errors[-1]
    first.process.terminate()
    assert first.end()[0] == 75
    first.assert_gone()
