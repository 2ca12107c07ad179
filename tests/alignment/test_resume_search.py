"""An alignment that was interrupted anywhere ends, when it is resumed, with the result of one that was not."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from alignment.test_search import tiny
from poise.alignment import align as aligning
from poise.alignment import record as recording
from poise.alignment.align import LOCK, align
from poise.alignment.record import FILE, Evaluation, SearchRecord
from poise.errors import CheckpointError, RecipeError, Stopped
from poise.training.checkpoint_writer import CheckpointWriter
from poise.utils.files import write_json
from poise.utils.locks import claimed_folder

STEPS = 4
SAVES = {"rows": 2, "samples": 4, "saves": 2, "sheet": 4, "to": []}


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture(autouse=True)
def no_map_is_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that both starts are made."""
    monkeypatch.setattr(recording, "AGREEMENT", 1.1)


def run(out: Path, **options: Any) -> aligning.Alignment:
    """Two starts of four steps, with an evaluation after every second one."""
    return align(tiny(steps=STEPS, log=SAVES), out, starts=2, **options)


def results(out: Path) -> dict[str, bytes]:
    """All files of the results, without run folders and lock; the folder's own name is left out of `align.json`."""
    found = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.name != LOCK}
    found["align.json"] = found["align.json"].replace(json.dumps(str(out)).encode(), b"")
    return found


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results without an interruption."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "AGREEMENT", 1.1)
        out = tmp_path_factory.mktemp("whole") / "out"
        run(out)
        return results(out)


def at_evaluation(number: int, act: Callable[[], None]) -> Callable[[Evaluation], None]:
    """A `notify` that acts at one evaluation."""
    calls = count(1)

    def notify(_: Evaluation) -> None:
        if next(calls) == number:
            act()

    return notify


def interrupt() -> None:
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", [1, 2, 3, 4], ids=["in start 1", "after it", "in start 2", "at the end"])
def test_a_signal_is_heard_and_the_search_goes_on_from_there(
    tmp_path: Path, number: int, uninterrupted: dict[str, bytes]
) -> None:
    with pytest.raises(Stopped, match=r"stopped by SIGINT.*; continue with: poise align --resume --out ") as error:
        run(tmp_path, notify=at_evaluation(number, interrupt))
    assert str(error.value).endswith(" --starts 2")
    assert not (tmp_path / "align.json").exists()
    told: list[Evaluation] = []
    run(tmp_path, resume=True, notify=told.append)
    assert len(told) == 4 - number, "what has been evaluated is not evaluated again"
    assert results(tmp_path) == uninterrupted


def dies(*_: object, **__: object) -> None:
    """The process is killed."""
    raise Killed


def dies_after(then: Callable[..., Any], number: int) -> Callable[..., Any]:
    """`then`, after the call of this number of which the process is killed."""
    calls = count(1)

    def wrapped(*arguments: Any, **options: Any) -> None:
        then(*arguments, **options)
        if next(calls) == number:
            raise Killed

    return wrapped


@pytest.mark.parametrize(
    ("owner", "name", "replacement"),
    [
        (CheckpointWriter, "save", dies),
        (CheckpointWriter, "save", dies_after(CheckpointWriter.save, 1)),
        (SearchRecord, "add", dies_after(SearchRecord.add, 1)),
        (SearchRecord, "add", dies_after(SearchRecord.add, 2)),
        (CheckpointWriter, "save", dies_after(CheckpointWriter.save, 3)),
        (aligning, "write_word_vectors", dies),
    ],
    ids=["before a checkpoint", "before an evaluation", "after one", "after a start", "in start 2", "while writing"],
)
def test_killed_anywhere_it_ends_with_the_same_result(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uninterrupted: dict[str, bytes],
    owner: Any,
    name: str,
    replacement: Any,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, replacement)
        with pytest.raises(Killed):
            run(tmp_path)
    with pytest.raises(RecipeError, match="continue it with --resume"):
        run(tmp_path)
    run(tmp_path, resume=True)
    assert results(tmp_path) == uninterrupted


def test_a_start_whose_evaluation_is_ahead_of_its_checkpoint_is_not_counted_twice(
    tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, notify=at_evaluation(1, interrupt))
    shutil.rmtree(tmp_path / "start-1" / "saves")
    run(tmp_path, resume=True)
    assert results(tmp_path) == uninterrupted


def test_a_finished_alignment_gets_more_starts(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    align(tiny(steps=STEPS, log=SAVES), tmp_path, starts=1)
    told: list[Evaluation] = []
    run(tmp_path, resume=True, notify=told.append)
    assert [found.start for found in told] == [2, 2]
    assert results(tmp_path) == uninterrupted


def test_another_alignment_is_not_continued(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no alignment to resume; start it without --resume"):
        run(tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        run(out, notify=at_evaluation(1, interrupt))
    before = (out / FILE).read_bytes()
    recipe = tiny(steps=STEPS, log=SAVES)
    for changes, named in (({"seed": 1}, "seed"), ({"steps": 6, "batch": 4}, "batch, steps")):
        other = recipe.model_copy(update=changes)
        with pytest.raises(
            RecipeError, match=f"must keep its recipe, found different values of {named}; give the same"
        ):
            align(other, out, starts=2, resume=True)
    (out / FILE).write_bytes(before[: len(before) // 2])
    with pytest.raises(CheckpointError, match="is damaged, found BadZipFile; start again with another --out"):
        run(out, resume=True)
    flipped = bytearray(before)
    flipped[200] ^= 1
    (out / FILE).write_bytes(flipped)
    with pytest.raises(CheckpointError, match="is damaged"):
        run(out, resume=True)


def test_one_of_before_there_were_records_is_not_written_over(tmp_path: Path) -> None:
    write_json(tmp_path / "align.json", {})
    with pytest.raises(RecipeError, match="has an alignment already; choose another folder"):
        run(tmp_path)


@pytest.mark.parametrize("resume", [False, True])
def test_two_alignments_never_write_to_the_same_folder(tmp_path: Path, *, resume: bool) -> None:
    if resume:
        with pytest.raises(Stopped):
            run(tmp_path, notify=at_evaluation(1, interrupt))
    with (
        claimed_folder(tmp_path, tmp_path / LOCK, ""),
        pytest.raises(RecipeError, match=f"another alignment is writing to this folder, found process {os.getpid()}"),
    ):
        run(tmp_path, resume=resume)
    run(tmp_path, resume=resume)


@pytest.mark.parametrize("finished", [False, True])
def test_two_alignments_that_start_together_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, finished: bool
) -> None:
    """The other one takes the default folder while the vectors are read; it may even have finished by then."""
    monkeypatch.chdir(tmp_path)
    recipe = tiny(steps=STEPS, log=SAVES)
    first = Path("runs") / recipe.name
    read = type(recipe.data).read
    with ExitStack() as other:

        def read_slowly(data: Any) -> Any:
            monkeypatch.setattr(type(recipe.data), "read", read)
            other.enter_context(claimed_folder(first, first / LOCK, ""))
            if finished:
                write_json(first / "align.json", {})
                other.close()
            return read(data)

        monkeypatch.setattr(type(recipe.data), "read", read_slowly)
        assert align(recipe, starts=1).folder == Path(f"{first}-2")
