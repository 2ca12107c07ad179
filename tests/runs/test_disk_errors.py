"""Disk errors: what a run needs is tried three times, and grids and events are given up."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from contracts.tiny import unequal
from poise.core.metrics_log import Row
from poise.errors import DiskError, Stopped
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table
from poise.runs import checkpoint
from poise.runs.folder import RunFolder
from poise.runs.jsonl import JsonLinesFile
from poise.runs.run import Run
from poise.training import run_info
from poise.training.listener import NullListener
from poise.training.trackers import tensorboard
from poise.training.trackers.base import TrackedRun
from poise.training.trackers.tensorboard import TensorBoardTracker
from poise.training.train import train
from poise.utils import system as systems

FULL = OSError(errno.ENOSPC, "No space left on device")


def small(**more: Any) -> Recipe:
    thin = {side: {"kind": "mlp", "width": 8} for side in ("g", "d")}
    log = {"rows": 1, "samples": 2, "saves": 4, "sheet": 4}
    recipe = load_table("ring") | {"batch": 8, "steps": 8, "network": thin, "log": log}
    recipe.pop("measure", None)
    return decode(recipe | more)


class Notes(NullListener):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def on_message(self, sentence: str) -> None:
        self.messages.append(sentence)


Refusing = Callable[[str, Callable[[int], bool]], None]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Iterator[Refusing]:
    """`refuse("rows", lambda n: n < 2)`: the n-th opening of a path with this word in it fails, from 0, if so."""

    def begin(word: str, fails: Callable[[int], bool]) -> None:
        opened, calls = systems.System.open, [0]

        def opening(self: Any, path: Path, flags: int) -> int:
            if word in str(path):
                calls[0] += 1
                if fails(calls[0] - 1):
                    raise FULL
            return opened(self, path, flags)

        monkeypatch.setattr(systems.System, "open", opening)

    return begin  # type: ignore[return-value]


def values(folder: Path) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                number = value.tensor.float_val[0] if value.tensor.float_val else 0.0
                found.setdefault(value.tag, {})[event.step] = number
    return found


@pytest.mark.parametrize("word", ["tfevents", "samples", "tensorboard"])
@pytest.mark.parametrize("fails", [lambda n: True, lambda n: 1 <= n < 3], ids=["always", "for a while"])
def test_grids_and_events_may_fail(refuse: Refusing, tmp_path: Path, word: str, fails: Callable[[int], bool]) -> None:
    """One message, the same run, and no partial files."""
    whole = train(small(), tmp_path / "whole")
    refuse(word, fails)
    notes = Notes()
    run = train(small(), tmp_path / "run", listener=notes)
    assert run.info["state"] == "done"
    assert unequal(run.checkpoint.tensors, whole.checkpoint.tensors) == []
    assert len(run.rows) == 8
    result = [line for line in notes.messages if "can't be written, training continues without them" in line]
    assert len(result) == 1
    assert "No space left on device" in result[0]
    assert not [path for path in (tmp_path / "run").rglob("*") if "tmp" in path.name]


def test_events_are_written_by_the_training_thread(tmp_path: Path) -> None:
    """No other thread can print a traceback or hang, and all numbers are written."""
    before = threading.active_count()
    alive: list[int] = []

    class Looks(NullListener):
        def on_step(self, step: int) -> None:
            alive.append(threading.active_count())

    run = train(small(), tmp_path / "run", listener=Looks())
    assert set(alive) == {before}
    found = values(run.path / "tensorboard")
    for row in run.rows:
        for name, stat in row["stats"].items():
            assert found[name][row["step"]] == pytest.approx(float(stat["mean"]), rel=1e-6, nan_ok=True)
    assert set(found["samples"]) == {0, 2, 4, 6, 8}


def test_an_event_is_written_completely_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails halfway is undone, and later events are appended."""
    written = TensorBoardTracker()
    written.open(TrackedRun(tmp_path, {}), 0)
    written.add_scalars(1, {"a": 1.0})
    before = written.path.read_bytes()
    with monkeypatch.context() as broken:
        write, calls = systems.System.write, [0]

        def half(self: Any, handle: int, data: memoryview) -> int:
            calls[0] += 1
            if calls[0] > 1:
                raise FULL
            return write(self, handle, data[: len(data) // 2])

        broken.setattr(systems.System, "write", half)
        with pytest.raises(DiskError):
            written.add_scalars(2, {"a": 2.0})
    assert written.path.read_bytes() == before
    written.add_scalars(3, {"a": 3.0})
    assert values(tmp_path / "tensorboard")["a"] == {1: 1.0, 3: 3.0}


def test_tensorboard_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_: object) -> None:
        raise ImportError("no module named tensorboard")

    monkeypatch.setattr(tensorboard, "_event", missing)
    notes = Notes()
    assert train(small(), tmp_path / "run", listener=notes).info["state"] == "done"
    assert sum("TensorBoard events can't be written" in line for line in notes.messages) == 1


@pytest.mark.parametrize("word", ["rows.jsonl", "measures.jsonl"])
def test_lines_are_tried_three_times(refuse: Refusing, tmp_path: Path, word: str) -> None:
    """After two failures there is a message, and each line is written once and in order."""
    measure = {"every": 1, "measures": ["fid"], "n": 20}
    config = small(measure=measure, log={"rows": 1, "samples": 100, "saves": 100, "sheet": 4})
    refuse(word, lambda n: 2 <= n < 4)
    notes = Notes()
    run = train(config, tmp_path / "run", listener=notes)
    lines = run.rows if word.startswith("rows") else run.measures
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert sum(f"could not write to {word}" in line for line in notes.messages) == 1


@pytest.mark.parametrize("word", ["rows.jsonl", "measures.jsonl"])
def test_three_failures_in_succession_stop_the_run(refuse: Refusing, tmp_path: Path, word: str) -> None:
    """It can be resumed; steps without a line are repeated."""
    measure = {"every": 1, "measures": ["fid"], "n": 20}
    config = small(measure=measure)
    whole = train(config, tmp_path / "whole")
    refuse(word, lambda n: 5 <= n < 8)
    with pytest.raises(DiskError, match=word):
        train(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "failed"
    run = train(config, tmp_path / "run", resume=True)
    assert [line["step"] for line in run.rows] == list(range(1, 9))
    assert run.measures == whole.measures
    assert unequal(run.checkpoint.tensors, whole.checkpoint.tensors) == []


@pytest.mark.parametrize("failures", [2, 3, 99])
def test_run_json_beside_a_checkpoint_is_tried_three_times(refuse: Refusing, tmp_path: Path, failures: int) -> None:
    """The checkpoint is written all the same, and no message says that it could not be saved."""
    config, out = small(log={"rows": 1, "samples": 100, "saves": 1, "sheet": 4, "keep": 9}), tmp_path / "run"
    refuse("run.json", lambda n: 1 <= n <= failures)
    notes = Notes()
    if failures == 2:
        train(config, out, listener=notes)
        assert json.loads((out / "run.json").read_text())["state"] == "done"
    else:
        with pytest.raises(DiskError, match=r"run\.json: .*No space left on device"):
            train(config, out, listener=notes)
    saved = [path.name for path in sorted((out / "saves").iterdir())]
    assert saved == [f"step-{step:08d}" for step in range(1, 9 if failures == 2 else 4)]
    told = [message for message in notes.messages if "but run.json could not be updated" in message]
    assert [message.split(" is saved")[0] for message in told] == [f"the checkpoint of step {n}" for n in (1, 2)]
    assert not any("could not save" in message for message in notes.messages)
    if failures == 3:
        assert train(config, out, resume=True).info["state"] == "done"


def test_no_checkpoint_without_its_rows(refuse: Refusing, tmp_path: Path) -> None:
    """The monitor of a resumed run needs the rows, so there is no checkpoint without them."""
    config = small(steps=4, log={"rows": 4, "samples": 100, "saves": 4, "sheet": 4})
    refuse("rows.jsonl", lambda n: True)
    with pytest.raises(DiskError, match=r"rows\.jsonl: .*step 4 could not be saved"):
        train(config, tmp_path / "run")
    assert not any((tmp_path / "run" / "saves").glob("step-*"))


class StopAt(Notes):
    """Stops the run by a signal in a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def on_row(self, row: Row) -> None:
        if row.step == self.step:
            raise Stopped("a test")


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
@pytest.mark.parametrize("stopped", [False, True], ids=["last", "signal"])
def test_a_checkpoint_that_the_run_ends_with_is_tried_three_times(
    stopped: bool, failures: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the last step, or of a signal in another one."""
    step, out, write, calls = 3 if stopped else 4, tmp_path / "run", checkpoint.write, [0]

    def refusing(saves: Path, *rest: Any) -> Path:
        calls[0] += 1
        if calls[0] <= failures:
            raise FULL
        return write(saves, *rest)

    monkeypatch.setattr(checkpoint, "write", refusing)
    config = small(steps=4)
    expected: Any = nullcontext() if failures < 3 else pytest.raises(DiskError, match="could not be saved")
    if stopped and failures < 3:
        expected = pytest.raises(Stopped, match=f"after step {step}, state saved")
    with expected as caught:
        train(config, out, listener=StopAt(step if stopped else 0))
    assert calls[0] == min(failures + 1, 3)
    assert [path.name for path in (out / "saves").glob("step-*")] == [f"step-{step:08d}"] * (failures < 3)
    if failures == 3:
        assert f"continue with: poise train --resume --out {out}" in str(caught.value)
        assert "[Errno" not in str(caught.value)
        assert train(config, out, resume=True).info["state"] == "done"


def test_a_roll_back_deletes_pending_lines(tmp_path: Path) -> None:
    lines = JsonLinesFile(tmp_path / "nowhere" / "rows.jsonl", lambda sentence: None)
    lines.append({"step": 1})
    lines.append({"step": 2})
    lines.drop_after(1)
    (tmp_path / "nowhere").mkdir()
    lines.append({"step": 3})
    assert [json.loads(line)["step"] for line in lines.path.read_text().splitlines()] == [1, 3]


def test_the_list_of_bad_images_may_fail(refuse: Refusing, tmp_path: Path) -> None:
    from poise.data.source import BadFile

    refuse("bad_images", lambda n: True)
    notes = run_info.write_bad_images([BadFile(f"{n}.png", "not an image") for n in range(12)], RunFolder(tmp_path))
    assert notes[-1].startswith("and 2 more; the list of bad images can't be written")
    assert not list(tmp_path.iterdir())


def test_a_resumed_run_purges_the_events_after_its_checkpoint(tmp_path: Path) -> None:
    train(small(), tmp_path / "run")
    Run(tmp_path / "run")
    train(small(steps=12), tmp_path / "run", resume=True)
    newest = max((tmp_path / "run" / "tensorboard").iterdir(), key=lambda path: (path.stat().st_mtime_ns, path.name))
    purged = [event.step for event in EventFileLoader(str(newest)).Load() if event.HasField("session_log")]
    assert purged == [9]


@pytest.mark.parametrize("since", [0, 20, 60])
def test_tensorboard_forgets_what_a_roll_back_has_discarded(since: int, tmp_path: Path) -> None:
    """Returns to the first step included, several times and within a second; the grid of step 0 stays."""
    tracker = TensorBoardTracker()
    for time in range(3):
        tracker.open(TrackedRun(tmp_path, {}), since if time else 0)
        if not time:
            tracker.add_image(0, "samples", b"png", (1, 1, 3))
        for step in range(20 + (since if time else 0), 80, 20):
            tracker.add_scalars(step, {"d/adversarial": float(time)})
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    found = {event.step: event.value for event in shown.Scalars("d/adversarial")}
    assert [event.step for event in shown.Scalars("d/adversarial")] == [20, 40, 60]
    assert found == {step: 2.0 if step > since else 0.0 for step in (20, 40, 60)}
    assert [event.step for event in shown.Images("samples")] == [0]


def test_the_first_events_of_a_run_purge_nothing(tmp_path: Path) -> None:
    tracker = TensorBoardTracker()
    tracker.open(TrackedRun(tmp_path, {}), 0)
    tracker.add_scalars(1, {"d/adversarial": 1.0})
    assert not any(event.HasField("session_log") for event in EventFileLoader(str(tracker.path)).Load())
