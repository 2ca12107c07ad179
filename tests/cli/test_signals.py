"""Ctrl-C, SIGTERM and SIGHUP: exit code 75, the state saved, and the message says how to continue."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poise.data.toys import PlaneConfig
from poise.errors import Stopped
from poise.measure import catalogue, evaluator
from poise.recipe.decode import decode
from poise.recipe.shipped import load_table
from poise.runs import checkpoint, checkpoint_folder
from poise.runs.evaluate import MeasuredSamples
from poise.training import recorder, state, trainer
from poise.training.listener import NullListener
from poise.training.signals import Signals, owned_process
from poise.training.state import STEP_FUNCTIONS
from poise.training.train import train

FOREVER = ["--steps", "100000", "--set", "log.rows=5", "--set", "log.samples=100000", "--set", "log.saves=100000"]


ENDING = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
ALL = pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)


def one_in_a_process(quick: signal.Signals) -> pytest.MarkDecorator:
    """This signal, and the others in the slow tests: each takes a process, and those sent within this one are all."""
    numbers = [pytest.param(one, marks=[] if one is quick else pytest.mark.slow) for one in ENDING]
    return pytest.mark.parametrize("number", numbers, ids=lambda number: number.name)


def state_of(run: Path) -> str:
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


@one_in_a_process(signal.SIGTERM)
def test_stopped_in_the_middle_and_resumed(
    poise: Any, small: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    process = start(out, small)
    try:
        until(lambda: (out / "rows.jsonl").is_file() and bool(steps_told(out)), process)
        process.send_signal(number)
        result = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 75
    assert result[0] == ""
    last = result[1].splitlines()[-1]
    newest, damaged = checkpoint_folder.newest_valid(out / "saves")
    assert newest is not None
    assert damaged == []
    assert newest.step >= steps_told(out)[-1]
    for part in (f"stopped by {number.name}", f"step {newest.step},", f"poise train --resume --out {out}"):
        assert part in last
    assert last.startswith("poise: ")
    assert "Traceback" not in result[1]
    assert state_of(out) == "stopped"

    before = steps_told(out)
    end = newest.step + 7
    assert poise("train", "--resume", "--out", out, "--steps", end).code == 0
    assert state_of(out) == "done"
    assert steps_told(out) == [*before, *(s for s in range(newest.step + 1, end) if s % 5 == 0), end]


@one_in_a_process(signal.SIGINT)
def test_stopped_at_start_up(small: list[str], tmp_path: Path, number: signal.Signals) -> None:
    """From the first word on stderr: what is imported after it takes seconds, and a scheduler does not wait."""
    process = start(tmp_path / "out", small)
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(number)
        rest = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert "starting" in first
    assert process.returncode == 75
    assert rest.splitlines()[-1].startswith("poise: stopped")
    assert "Traceback" not in rest


def stopping(number: signal.Signals, then: Callable[..., Any]) -> Callable[..., Any]:
    """`then`, during which a signal arrives."""

    def struck(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), number)
        return then(*arguments, **options)

    return struck


@ALL
def test_stopped_while_data_is_read(
    poise: Any, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    handlers = [signal.getsignal(each) for each in ENDING]
    monkeypatch.setattr(PlaneConfig, "load", stopping(number, PlaneConfig.load))
    output = poise("train", "ring", "--out", tmp_path / "out", *small)
    output.assert_error(75, f"stopped by {number.name}", "before the first step")
    assert not (tmp_path / "out").exists()
    assert [signal.getsignal(each) for each in ENDING] == handlers


@ALL
def test_stopped_while_players_are_built(
    poise: Any, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """The place is claimed by then, but nothing is in it: the same command may be given again."""
    out = tmp_path / "out"
    with monkeypatch.context() as struck:
        struck.setattr(state, "build_game", stopping(number, state.build_game))
        poise("train", "ring", "--out", out, *small).assert_error(
            75, f"stopped by {number.name}", "before the first step"
        )
    assert poise("train", "ring", "--steps", 2, "--out", out, *small).code == 0
    assert state_of(out) == "done"


@ALL
def test_stopped_while_the_folder_is_created(
    poise: Any, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as struck:
        struck.setattr(trainer.Recorder, "open", stopping(number, trainer.Recorder.open))
        poise("train", "ring", "--steps", 3, "--out", out, *small).assert_error(75, f"stopped by {number.name}")
    assert state_of(out) == "stopped"


@ALL
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
            "sheet": (recorder.SampleGrids, "draw"),
            "step": (STEP_FUNCTIONS, "alternate"),
            "save": (checkpoint, "write"),
            "row": (recorder.Recorder, "row"),
        }[during]
        if isinstance(home, dict):
            struck.setitem(home, name, stopping(number, home[name]))
        else:
            struck.setattr(home, name, stopping(number, getattr(home, name)))
        # a signal a step: a second Ctrl-C within five seconds would end the process at once, so only one
        struck.setattr(os, "kill", once(os.kill))
        output = poise("train", ring_run / "recipe.toml", "--out", out)
    output.assert_error(75, f"stopped by {number.name}", f"--resume --out {out}")
    newest, damaged = checkpoint_folder.newest_valid(out / "saves")
    assert newest is not None
    assert damaged == []
    assert state_of(out) == "stopped"
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


@ALL
def test_stopped_during_a_periodic_evaluation(
    poise: Any, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Measuring is broken off, and done first when the run goes on: the lines are those of a run left alone."""
    often = ["--steps", 4, "--set", "measure.every=2", "--set", "measure.n=50", "--set", "log.rows=1"]
    plain, out = tmp_path / "plain", tmp_path / "out"
    assert poise("train", "ring", "--out", plain, *small, *often).code == 0
    for resume, step in (([], 2), (["--resume"], 4)):  # the second time it is the last step
        with monkeypatch.context() as struck:
            struck.setattr(MeasuredSamples, "samples", stopping(number, MeasuredSamples.samples))
            struck.setattr(os, "kill", once(os.kill) if step == 2 else after(1, os.kill))
            output = poise("train", *(resume or ["ring"]), "--out", out, *(() if resume else (*small, *often)))
        output.assert_error(75, f"stopped by {number.name} after step {step},")
        assert state_of(out) == "stopped"
    assert poise("train", "--resume", "--out", out).code == 0
    assert state_of(out) == "done"
    assert (out / "measures.jsonl").read_text() == (plain / "measures.jsonl").read_text()
    assert steps_told(out) == steps_told(plain)


def after(calls: int, kill: Callable[[int, int], None]) -> Callable[[int, int], None]:
    left = [calls]

    def later_only(process: int, number: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            kill(process, number)

    return later_only


@ALL
def test_signal_is_not_mistaken_for_a_damaged_file(
    poise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Readers of files that may raise anything catch all exceptions; a signal is none of these."""
    np.savez(tmp_path / "few.npz", images=np.zeros((9, 8, 8, 1), np.uint8))
    read = np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", stopping(number, read))
    for words, expected in ((["dcgan"], "before the first step"), ([], "there was nothing to save")):
        output = poise("train", *words, "--data", tmp_path / "few.npz", "--out", tmp_path / "out")
        output.assert_error(75, f"stopped by {number.name}")
        assert expected in output.err


@ALL
@pytest.mark.parametrize("command", ["measure", "compare"])
def test_stopped_while_measures_are_computed(
    poise: Any, ring_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: signal.Signals, command: str
) -> None:
    np.savez(tmp_path / "few.npz", images=np.random.default_rng(0).integers(0, 255, (40, 8, 8, 1), np.uint8))
    monkeypatch.setattr(catalogue, "compute_or_reason", stopping(number, catalogue.compute_or_reason))
    monkeypatch.setattr(evaluator, "compute_or_reason", stopping(number, catalogue.compute_or_reason))
    words = [ring_run] if command == "measure" else [tmp_path / "few.npz"] * 2
    poise(command, *words).assert_error(75, f"stopped by {number.name}")


def test_second_ctrl_c_ends_an_owned_process_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within five seconds of the first; later ones, and SIGTERM however often, wait for the save."""
    left: list[int] = []
    now = [100.0]
    monkeypatch.setattr(os, "_exit", left.append)
    monkeypatch.setattr("poise.training.signals.time.monotonic", lambda: now[0])
    presses = ((signal.SIGTERM, 1), (signal.SIGTERM, 9), (signal.SIGINT, 9), (signal.SIGINT, 4))
    with owned_process(), Signals() as signals:
        signals.deferred = True
        for number, wait in presses:
            assert left == []
            now[0] += wait
            with suppress(KeyboardInterrupt):  # here the exit is a pretence, so what comes after it is seen
                os.kill(os.getpid(), number)
            assert signals.requested_by == number.name
    assert left == [130]


def test_second_ctrl_c_never_ends_a_foreign_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook's kernel goes on; handlers are as they were, and the run can be resumed."""
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail("a process that is not ours was ended"))
    before = [signal.getsignal(each) for each in ENDING]

    class Impatient(NullListener):
        def on_step(self, step: int) -> None:
            if step == 3:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)

    recipe = load_table("ring") | {"steps": 9, "batch": 8, "log": {"saves": 2}}
    with pytest.raises(KeyboardInterrupt):
        train(decode(recipe), tmp_path / "out", listener=Impatient())
    assert [signal.getsignal(each) for each in ENDING] == before
    assert state_of(tmp_path / "out") == "stopped"
    assert train(decode(recipe), tmp_path / "out", resume=True).info["state"] == "done"


@ALL
def test_handlers_are_always_restored(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in ENDING]
    with pytest.raises(RuntimeError, match="mine"), Signals():
        raise RuntimeError("mine")
    assert [signal.getsignal(each) for each in ENDING] == before
    with pytest.raises(Stopped), Signals():
        os.kill(os.getpid(), number)
    assert [signal.getsignal(each) for each in ENDING] == before


def turned_into_an_error(number: int) -> None:
    try:
        os.kill(os.getpid(), number)
    except BaseException:
        raise ImportError("cannot import") from None


def fail_after(number: int) -> None:
    os.kill(os.getpid(), number)
    raise ImportError("mine")


def swallowed(number: int) -> None:
    with suppress(BaseException):
        os.kill(os.getpid(), number)
    with Signals(" before it began"):
        pytest.fail("it began all the same")


@ALL
def test_a_signal_that_a_library_turns_into_an_error_still_stops(number: signal.Signals) -> None:
    with pytest.raises(Stopped, match=f"stopped by {number.name}; nothing"), Signals("; nothing"):
        turned_into_an_error(number)


@ALL
def test_a_signal_that_a_library_swallows_stops_before_the_next_work(number: signal.Signals) -> None:
    with pytest.raises(Stopped, match=f"stopped by {number.name} before it began"), Signals():
        swallowed(number)


def test_an_error_once_there_is_a_state_to_save_is_the_error_itself() -> None:
    signals = Signals()
    signals.deferred = True
    with pytest.raises(ImportError, match="mine"), signals:
        fail_after(signal.SIGTERM)


def test_ignored_hangup_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """nohup, disown and setsid leave it so; other signals are heard all the same."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            signals.deferred = True
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.requested_by is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.requested_by == "SIGTERM"
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_system_without_hangups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "SIGHUP")
    with Signals() as signals:
        signals.deferred = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.requested_by == "SIGTERM"


def test_training_in_a_thread(tmp_path: Path) -> None:
    """Python delivers signals to the main thread alone; whoever trains elsewhere keeps their handlers."""
    before = [signal.getsignal(each) for each in ENDING]
    recipe = decode(load_table("ring") | {"steps": 2, "batch": 8})
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(train, recipe, tmp_path / "out").result()
    assert run.info["state"] == "done"
    assert [signal.getsignal(each) for each in ENDING] == before


def test_listener_may_stop_the_run(tmp_path: Path) -> None:
    class Enough(NullListener):
        def on_step(self, step: int) -> None:
            if step == 3:
                raise Stopped("my rule")

    recipe = decode(load_table("ring") | {"steps": 9, "batch": 8})
    with pytest.raises(Stopped, match="stopped by my rule after step 4, state saved"):
        train(recipe, tmp_path / "out", listener=Enough())
    assert state_of(tmp_path / "out") == "stopped"
