"""Fault injection: a run is killed before and after every call that changes the disk, and every call fails once.

Each case is a forked process with torch in it already, so that it costs a fraction of a second. What must hold: after
the same command again (or `--resume`) everything is equal to what an undisturbed run leaves, to the bit; no traceback,
no temporary file, at most one interval of work lost.
"""

from __future__ import annotations

import errno
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from poise.recipe.decode import decode
from poise.runs import checkpoint, checkpoint_folder

CALLS = ("open", "write", "truncate", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir")
KILLS = ("before", "after")
FAILURES = ("EIO", "ENOSPC", "EINTR", "short", "full")
FULL = ("open", "write", "mkdir")
"""The calls that fail on a full disk."""

HIDDEN = (".tmp-", ".samples.lock")
"""What a killed command may leave behind until it is repeated."""

STEPS, SAVES = 6, 2


class Fault(NamedTuple):
    """The fault at the k-th call, counted from 1."""

    kind: str
    at: int


class Ended(NamedTuple):
    """The end of a process: its exit code (minus the number of the signal), number of calls and output."""

    code: int
    calls: int
    output: str


def install(fault: Fault, count: list[int]) -> None:
    """In a forked process: inject the fault at the k-th call."""
    from poise.utils.system import system

    def struck(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            count[0] += 1
            now = count[0] == fault.at
            if now and fault.kind == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            if now and fault.kind in ("EIO", "ENOSPC", "EINTR"):
                number = getattr(errno, fault.kind)
                raise OSError(number, os.strerror(number))
            if fault.kind == "full" and count[0] >= fault.at and name in FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if now and fault.kind == "short" and name == "write":
                handle, data = arguments
                return real(handle, bytes(data)[: max(1, len(data) // 2)])
            result = real(*arguments)
            if now and fault.kind == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for name in CALLS:
        setattr(system, name, struck(name, getattr(system, name)))


def command(words: list[str], fault: Fault, log: Path) -> Ended:
    """Run `poise WORDS` in another process with a fault."""
    result, tell = os.pipe()
    process = os.fork()
    if process == 0:
        code = 99
        try:
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
            from poise.cli import main

            count = [0]
            install(fault, count)
            try:
                main(words)
            except SystemExit as left:
                code = left.code if isinstance(left.code, int) else 0
            sys.stderr.flush()
            os.write(tell, str(count[0]).encode())
        finally:
            os._exit(code)
    os.close(tell)
    messages = os.read(result, 99)
    os.close(result)
    _, status = os.waitpid(process, 0)
    return Ended(os.waitstatus_to_exitcode(status), int(messages or 0), log.read_text(errors="replace"))


NOTHING = Fault("nothing", 0)


# ---- comparison -------------------------------------------------------------------------------------


def lines(path: Path) -> list[Any]:
    result = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    for line in result:
        line.pop("seconds", None)
        line.get("stats", {}).pop("time/images_per_second", None)
    return result


def traces(run: Path, *, sheets: bool = True) -> dict[str, Any]:
    """What must not differ between two runs."""
    info = json.loads((run / "run.json").read_text())
    newest, damaged = checkpoint_folder.newest_valid(run / "saves")
    best, bad = checkpoint_folder.newest_valid(run / "best")
    assert newest is not None
    assert damaged == bad == []
    found: dict[str, Any] = {name: lines(run / f"{name}.jsonl") for name in ("rows", "measures", "alarms")}
    found |= {"state": info["state"], "best": info.get("best"), "recipe": (run / "recipe.toml").read_text()}
    found["saves"] = {place.name: (place / checkpoint.TENSORS).read_bytes() for place in (run / "saves").iterdir()}
    found["best weights"] = None if best is None else (best.path / checkpoint.TENSORS).read_bytes()
    if sheets:
        found["samples"] = {place.name: place.read_bytes() for place in (run / "samples").iterdir()}
    return found


def left_over(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.name.startswith(".tmp-")]


def sound(ended: Ended, fault: Fault) -> None:
    """It ended without a traceback and with a suitable exit code."""
    assert "Traceback" not in ended.output, ended.output
    assert "fault in poise itself" not in ended.output, ended.output
    allowed = (0, -signal.SIGKILL) if fault.kind in KILLS else (0,) if fault.kind in ("EINTR", "short") else (0, 6)
    assert ended.code in allowed, (fault, ended)


# ---- training ------------------------------------------------------------------------------------------


def recipe() -> dict[str, Any]:
    """Points and tiny players, with evaluations, alarms and averaged weights."""
    mlp = {"kind": "mlp", "width": 4, "depth": 2}
    return {
        "name": "faults",
        "steps": STEPS,
        "batch": 8,
        "data": {"kind": "ring"},
        "latent": {"kind": "gaussian", "dim": 2},
        "network": {"g": mlp, "d": mlp},
        "objective": {"kind": "non_saturating"},
        "optimizer": {"g": {"kind": "adam"}, "d": {"kind": "adam"}},
        "tempo": {"kind": "ratio"},
        "tricks": [{"kind": "averaged_weights", "half_life": 20.0}],
        "log": {"rows": 1, "samples": 3, "saves": SAVES, "sheet": 4},
        "measure": {"every": 2, "measures": ["coverage"], "n": 10},
        "monitor": {"threshold": {"past_its_best": 0.1}},  # the third measurement is as good as the first
    }


class Baseline(NamedTuple):
    """A recipe, the files of an uninterrupted run of it, and the number of its calls."""

    file: Path
    whole: dict[str, Any]
    calls: int


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    for module in ("poise.cli.progress_view", "poise.training.train", "torch.utils.tensorboard"):
        importlib.import_module(module)  # once, for all that are forked
    place = tmp_path_factory.mktemp("faults")
    file = place / "recipe.toml"
    file.write_text(decode(recipe()).to_toml())
    ended = command(["train", str(file), "--out", str(place / "whole")], NOTHING, place / "log")
    assert ended.code == 0, ended.output
    return Baseline(file, traces(place / "whole"), ended.calls)


def words(baseline: Baseline, out: Path, *, stubborn: bool) -> list[str]:
    """The same command again, with `--resume` if there is something to resume or if it is always given."""
    saved = any((out / "saves").glob("step-*"))
    done = (out / "run.json").is_file() and json.loads((out / "run.json").read_text())["state"] == "done"
    more = saved or done or (stubborn and (out / "run.lock").is_file())
    return ["train", str(baseline.file), "--out", str(out), *(["--resume"] if more else [])]


def lost(out: Path) -> int:
    """The number of logged steps after the last checkpoint."""
    newest, _ = checkpoint_folder.newest_valid(out / "saves")
    rows = (out / "rows.jsonl").read_text().count("\n") if (out / "rows.jsonl").is_file() else 0
    return rows - (0 if newest is None else newest.step)


def chain(baseline: Baseline, place: Path, faults: list[Fault]) -> Counter[str]:
    """Continue one run through several faults until it finishes; returns the number of faults by kind."""
    out, struck, damp = place / "run", Counter[str](), False
    ended = None
    for number, fault in enumerate([*faults, NOTHING]):
        if ended is not None and ended.code == 0:
            break
        ended = command(words(baseline, out, stubborn=number % 2 == 1), fault, place / "log")
        sound(ended, fault)
        if ended.code == -signal.SIGKILL or fault.at <= ended.calls:
            struck[fault.kind] += fault is not NOTHING
        damp = damp or (ended.code == 0 and fault.kind in ("EIO", "ENOSPC", "full"))
        assert lost(out) <= SAVES + (fault.kind in ("EIO", "ENOSPC", "full")) * SAVES, (fault, lost(out))
    assert ended is not None
    assert ended.code == 0, ended.output
    found, whole = traces(out, sheets=not damp), dict(baseline.whole)
    if damp:  # sheets and best weights are aids: a disk that refused one of them did not end the run
        for name in ("samples", "best", "best weights"):
            whole.pop(name, None)
            found.pop(name, None)
        for item in (whole, found):  # nor did a save that came to nothing, but the last
            item["saves"] = max(item["saves"].items())
    assert {name for name in whole if whole[name] != found[name]} == set(), faults
    assert left_over(out) == []
    shutil.rmtree(place)
    return struck


def walk(cases: list[list[Fault]], run: Callable[[Path, list[Fault]], Counter[str]], place: Path) -> Counter[str]:
    """All cases, in two processes."""

    _walked[:] = [(run, place / f"case{number}", faults) for number, faults in enumerate(cases)]
    with multiprocessing.get_context("fork").Pool(2) as pool:  # forked now, so that they know what is walked
        return sum(pool.imap_unordered(_one, range(len(cases))), Counter[str]())


_walked: list[tuple[Callable[[Path, list[Fault]], Counter[str]], Path, list[Fault]]] = []


def _one(number: int) -> Counter[str]:
    run, place, faults = _walked[number]
    place.mkdir()
    return run(place, faults)


def chains(calls: int, kinds: tuple[str, ...], length: int = 3) -> Iterator[list[Fault]]:
    """Every call with every kind of fault, each followed by more faults at other calls of the remaining work."""
    later = cycle((3, 31, 8, 22, 14, 45, 1, 18, 27, 11, 38, 5))
    for at in range(1, calls + 1):
        for number, kind in enumerate(kinds):
            more = [Fault(kinds[(number + k) % len(kinds)], next(later)) for k in range(1, length)]
            yield [Fault(kind, at), *more]


def test_a_sample_of_all_training_faults(baseline: Baseline, tmp_path: Path) -> None:
    """A fault of each kind at a random call from a fixed seed, and then another one."""
    streams, kinds = random.Random(0), (*KILLS, *FAILURES)
    every = [*chains(baseline.calls, kinds, 2)]
    drawn = [one for kind in kinds for one in streams.sample([chain for chain in every if chain[0].kind == kind], 1)]
    struck = walk(drawn, lambda place, faults: chain(baseline, place, faults), tmp_path)
    assert len(struck) >= 3


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kinds", [KILLS, FAILURES], ids=["kills", "failures"])
def test_every_call_of_a_training(baseline: Baseline, tmp_path: Path, kinds: tuple[str, ...]) -> None:
    length = 6 if kinds is KILLS else 2
    struck = walk(
        [*chains(baseline.calls, kinds, length)], lambda place, faults: chain(baseline, place, faults), tmp_path
    )
    print(f"{baseline.calls} calls, struck: {dict(struck)}")
    assert struck.total() >= (1000 if kinds is KILLS else 500)


# ---- other commands ---------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and a run on them."""
    place = tmp_path_factory.mktemp("pictures")
    images = np.random.Generator(np.random.Philox(4)).integers(0, 256, (40, 8, 8, 1)).astype(np.uint8)
    np.savez(place / "few.npz", images=images)
    dcgan = {"kind": "dcgan", "width": 2}
    config = recipe() | {
        "data": {"kind": "npz", "path": str(place / "few.npz"), "size": 8},
        "network": {"g": dcgan, "d": dcgan},
    }
    config["measure"] = {"every": 99, "measures": ["fid"], "features": "pixels", "n": 10}
    (place / "recipe.toml").write_text(decode(config | {"steps": 2}).to_toml())
    ended = command(["train", str(place / "recipe.toml"), "--out", str(place / "run")], NOTHING, place / "log")
    assert ended.code == 0, ended.output
    return place


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def writing(
    command_line: Callable[[Path], list[str]], place: Path, faults: list[Fault], whole: dict[str, bytes]
) -> Counter[str]:
    """A command that fails and is repeated writes the same files, and there are no partial files."""
    out = place / "out"
    out.mkdir()
    struck = Counter[str]()
    for fault in [*faults, NOTHING]:
        ended = command(command_line(out), fault, place / "log")
        sound(ended, fault)
        struck[fault.kind] += fault is not NOTHING
        for name, content in files(out).items():
            assert name.rpartition("/")[2].startswith(HIDDEN) or content == whole[name], (fault, name)
    assert files(out) == whole
    shutil.rmtree(place)
    return struck


def sampling(pictures: Path) -> Callable[[Path], list[str]]:
    run = str(pictures / "run")
    return lambda out: ["sample", run, "--n", "4", "--out", str(out / "a.png"), "--npz", str(out / "a.npz")]


def sampling_to_folder(pictures: Path) -> Callable[[Path], list[str]]:
    run = str(pictures / "run")
    return lambda out: ["sample", run, "--n", "3", "--dir", str(out / "samples")]


def measuring(pictures: Path) -> Callable[[Path], list[str]]:
    words = ["measure", str(pictures / "run"), "--measures", "fid", "--features", "pixels", "--n", "10"]
    return lambda out: [*words, "--neighbours", str(out / "a.png")]


def strike_writers(pictures: Path, tmp_path: Path, every: int) -> Counter[str]:
    struck = Counter[str]()
    for name, make in (("sample", sampling), ("folder", sampling_to_folder), ("measure", measuring)):
        line, place = make(pictures), tmp_path / name
        (place / "whole").mkdir(parents=True)
        undisturbed = command(line(place / "whole"), NOTHING, place / "log")
        assert undisturbed.code == 0, undisturbed.output
        whole = files(place / "whole")
        cases = [*chains(undisturbed.calls, (*KILLS, *FAILURES), 1)][::every]
        struck += walk(cases, lambda here, faults, line=line, whole=whole: writing(line, here, faults, whole), place)
    return struck


def test_a_sample_of_faults_of_the_other_commands(pictures: Path, tmp_path: Path) -> None:
    assert strike_writers(pictures, tmp_path, 29).total() >= 4


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_call_of_the_other_commands(pictures: Path, tmp_path: Path) -> None:
    struck = strike_writers(pictures, tmp_path, 1)
    print(f"struck: {dict(struck)}")
    assert struck.total() >= 100


# ---- a ladder ------------------------------------------------------------------------------------------


def ladder_of(folder: Path) -> dict[str, Any]:
    runs = sorted(path.parent for path in folder.glob("*/run.json"))
    found: dict[str, Any] = {run.name: traces(run) for run in runs}
    found["reports"] = sorted(path.name for path in folder.iterdir() if path.is_file())
    found |= {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("*/ladder/*"))}
    return found


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_calls_of_a_ladder(pictures: Path, tmp_path: Path) -> None:
    """Each case runs all rungs, so only a sample of the calls is tested."""

    def line(out: Path) -> list[str]:
        sizes = ["--steps", "2", "--batch", "4", "--size", "8"]
        return ["ladder", "--data", str(pictures / "few.npz"), *sizes, "--out", str(out)]

    undisturbed = command(line(tmp_path / "whole"), NOTHING, tmp_path / "log")
    assert undisturbed.code == 0, undisturbed.output
    whole = ladder_of(tmp_path / "whole")

    def climb(place: Path, faults: list[Fault]) -> Counter[str]:
        struck = Counter[str]()
        for fault in [*faults, NOTHING]:
            ended = command(line(place / "run"), fault, place / "log")
            sound(ended, fault)
            struck[fault.kind] += fault is not NOTHING
        found = ladder_of(place / "run")
        assert {name for name in whole if whole[name] != found[name]} == set(), faults
        assert left_over(place / "run") == []
        shutil.rmtree(place)
        return struck

    calls = range(1, undisturbed.calls, max(1, undisturbed.calls // 12))
    cases = [[Fault(kind, at), Fault("before", at)] for at, kind in zip(calls, cycle((*KILLS, "EIO")), strict=False)]
    struck = walk(cases, climb, tmp_path)
    print(f"{undisturbed.calls} calls, struck: {dict(struck)}")
    assert struck.total() >= 20
