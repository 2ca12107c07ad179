"""Ctrl-C and SIGTERM: exit code 75, the state saved, and the message says how to go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poise.data.toys import PlaneEntry
from poise.training import loop, record, save, standing
from poise.training.signals import Signals
from poise.training.standing import STEPS

FOREVER = ["--steps", "100000", "--set", "log.rows=5", "--set", "log.samples=100000", "--set", "log.saves=100000"]


def state(run: Path) -> str:
    return json.loads((run / "run.json").read_text())["state"]


def steps_told(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "rows.jsonl").read_text().splitlines()]


def start(out: Path, small: list[str]) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "poise", "train", "ring", "--out", str(out), *small, *FOREVER]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(there: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 90) -> None:
    """Wait for something that the process does."""
    end = time.monotonic() + seconds
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_stopped_in_the_middle_and_resumed(
    poise: Any, small: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    process = start(out, small)
    try:
        until(lambda: (out / "rows.jsonl").is_file() and bool(steps_told(out)), process)
        process.send_signal(number)
        told = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 75
    assert told[0] == ""
    last = told[1].splitlines()[-1]
    newest, damaged = save.newest(out / "saves")
    assert newest is not None
    assert damaged == []
    assert newest.step >= steps_told(out)[-1]
    for part in (f"stopped by {number.name}", f"step {newest.step},", f"poise train --resume --out {out}"):
        assert part in last
    assert last.startswith("poise: ")
    assert "Traceback" not in told[1]
    assert state(out) == "stopped"

    before = steps_told(out)
    end = newest.step + 7
    assert poise("train", "--resume", "--out", out, "--steps", end).code == 0
    assert state(out) == "done"
    assert steps_told(out) == [*before, *(s for s in range(newest.step + 1, end) if s % 5 == 0), end]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_stopped_while_it_gets_ready(small: list[str], tmp_path: Path, number: signal.Signals) -> None:
    """From the first word on stderr: what is imported after it takes seconds, and a scheduler does not wait."""
    process = start(tmp_path / "out", small)
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(number)
        rest = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert "getting ready" in first
    assert process.returncode == 75
    assert rest.splitlines()[-1].startswith("poise: stopped")
    assert "Traceback" not in rest


def stopping(number: signal.Signals, then: Callable[..., Any]) -> Callable[..., Any]:
    """`then`, during which a signal arrives."""

    def struck(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), number)
        return then(*arguments, **options)

    return struck


BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)


@BOTH
def test_stopped_while_data_is_read(
    poise: Any, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    monkeypatch.setattr(PlaneEntry, "load", stopping(number, PlaneEntry.load))
    said = poise("train", "ring", "--out", tmp_path / "out", *small)
    said.complains(75, f"stopped by {number.name}", "before the first step")
    assert not (tmp_path / "out").exists()
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers


@BOTH
def test_stopped_while_players_are_built(
    poise: Any, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """The place is claimed by then, but nothing is in it: the same command may be given again."""
    out = tmp_path / "out"
    with monkeypatch.context() as struck:
        struck.setattr(standing, "build", stopping(number, standing.build))
        poise("train", "ring", "--out", out, *small).complains(75, f"stopped by {number.name}", "before the first step")
    assert poise("train", "ring", "--steps", 2, "--out", out, *small).code == 0
    assert state(out) == "done"


@BOTH
def test_stopped_while_the_folder_is_begun(
    poise: Any, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as struck:
        struck.setattr(loop.Recorder, "begin", stopping(number, loop.Recorder.begin))
        poise("train", "ring", "--steps", 3, "--out", out, *small).complains(75, f"stopped by {number.name}")
    assert state(out) == "stopped"


@BOTH
@pytest.mark.parametrize("during", ["sheet", "step", "save", "row"])
def test_stopped_in_every_part_of_a_step(
    poise: Any,
    small: list[str],
    ring_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    during: str,
) -> None:
    """Wherever it arrives, the step is finished and saved; resumed, the run ends like one that was left alone."""
    out = tmp_path / "out"
    with monkeypatch.context() as struck:
        home, name = {
            "sheet": (record.Sheets, "draw"),
            "step": (STEPS, "alternate"),
            "save": (save, "write"),
            "row": (record.Recorder, "row"),
        }[during]
        if isinstance(home, dict):
            struck.setitem(home, name, stopping(number, home[name]))
        else:
            struck.setattr(home, name, stopping(number, getattr(home, name)))
        # a signal a step: a second Ctrl-C within five seconds would end the process at once, so only one
        struck.setattr(os, "kill", once(os.kill))
        said = poise("train", ring_run / "recipe.toml", "--out", out)
    said.complains(75, f"stopped by {number.name}", f"--resume --out {out}")
    newest, damaged = save.newest(out / "saves")
    assert newest is not None
    assert damaged == []
    assert state(out) == "stopped"
    assert poise("train", "--resume", "--out", out).code == 0
    last = [run / "saves" / "step-00000008" / "tensors.safetensors" for run in (ring_run, out)]
    assert last[0].read_bytes() == last[1].read_bytes()
    assert steps_told(out) == steps_told(ring_run)


def once(kill: Callable[[int, int], None]) -> Callable[[int, int], None]:
    left = [1]

    def first_only(process: int, number: int) -> None:
        left[0] -= 1
        if left[0] >= 0:
            kill(process, number)

    return first_only


def test_a_second_ctrl_c_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within five seconds of the first; later ones, and SIGTERM however often, wait for the save."""
    left: list[int] = []
    now = [100.0]
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.setattr("poise.training.signals.time.monotonic", lambda: now[0])
    with Signals() as signals:
        signals.patient = True
        for number, wait in ((signal.SIGTERM, 1), (signal.SIGTERM, 9), (signal.SIGINT, 9), (signal.SIGINT, 4)):
            assert left == []
            now[0] += wait
            os.kill(os.getpid(), number)
            assert signals.asked == number.name
    assert left == [130]
