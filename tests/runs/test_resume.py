"""Exact resuming: a run that was stopped, killed or damaged ends like an uninterrupted one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from poise.core.random_streams import RandomStreams
from poise.core.types import DataSpec
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.engine.step_metrics import StepMetrics
from poise.errors import CheckpointError, RecipeError, Stopped
from poise.recipe.decode import decode
from poise.runs import checkpoint, checkpoint_folder
from poise.runs.frames import read_frames
from poise.runs.state_tensors import collect_tensors, load_tensors
from poise.training.listener import NullListener, StartInfo
from poise.training.train import train
from runs.small_runs import STEPS, STOP, StopAt, digits, ring, stopped, traces


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(ring(), out)
    return out


def test_a_stopped_and_resumed_run_is_exact(undisturbed: Path, tmp_path: Path) -> None:
    stopped(ring(), tmp_path / "run", STOP)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "stopped"
    train(ring(), tmp_path / "run", resume=True)
    assert traces(tmp_path / "run") == traces(undisturbed)


def test_a_run_on_images_resumes_exactly(tmp_path: Path) -> None:
    train(digits(), tmp_path / "a")
    stopped(digits(), tmp_path / "b", STOP)
    train(digits(), tmp_path / "b", resume=True)
    assert traces(tmp_path / "b") == traces(tmp_path / "a")


def test_a_run_on_flipped_images_resumes_exactly(tmp_path: Path) -> None:
    mirrored = digits(mirror=True)
    train(mirrored, tmp_path / "a")
    stopped(mirrored, tmp_path / "b", STOP)
    with pytest.raises(RecipeError, match="must keep its recipe") as refused:
        train(digits(), tmp_path / "b", resume=True)
    assert "data.mirror" in refused.value.found
    train(mirrored, tmp_path / "b", resume=True)
    assert traces(tmp_path / "b") == traces(tmp_path / "a")
    train(digits(), tmp_path / "c")
    assert traces(tmp_path / "c") != traces(tmp_path / "a")


def test_a_chain_of_stops_is_exact(undisturbed: Path, tmp_path: Path) -> None:
    for number, at in enumerate((2, 6, 8, 13, 19)):
        stopped(ring(), tmp_path / "run", at, resume=number > 0)
    train(ring(), tmp_path / "run", resume=True)
    assert traces(tmp_path / "run") == traces(undisturbed)


def test_a_finished_run_can_be_extended(undisturbed: Path, tmp_path: Path) -> None:
    train(ring(STOP), tmp_path / "run")
    train(ring(STEPS), tmp_path / "run", resume=True)
    long, whole = traces(tmp_path / "run"), traces(undisturbed)
    # it wrote a row and a sheet more, where it first ended; the row after that is shorter by as much
    assert long["tensors"] == whole["tensors"]
    assert long["sheets"]["step-00000020.png"] == whole["sheets"]["step-00000020.png"]


def test_sigkill_at_any_time_loses_at_most_one_interval(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(ring().to_toml())
    for wait in (0.0, 0.02, 0.1):
        more = ["--resume"] if (out / "saves").is_dir() and checkpoint_folder.newest_valid(out / "saves")[0] else []
        if not more:
            shutil.rmtree(out, ignore_errors=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "poise", "train", str(recipe), "--out", str(out), "--steps", "20", *more],
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        )
        while process.poll() is None and not list(out.glob("saves/step-*")):
            time.sleep(0.002)
        time.sleep(wait)
        process.kill()
        process.wait()
    train(ring(), out, resume=True)
    assert traces(out) == traces(undisturbed)
    assert not list((out / "saves").glob(".tmp-*"))


def _state_keys() -> list[str]:
    compute = ComputeSettings(torch.device("cpu"), "fp32")
    game = build_game(ring(), DataSpec((2,)), compute, RandomStreams(0))
    keys = [key for key in collect_tensors(game, StepMetrics()) if key.startswith("game/")]
    contexts = ("exp_avg", "exp_avg_sq", "step")
    for side, player in game.players.items():
        keys += [f"optimizer/{side}/{name}/{key}" for name, _ in player.net.named_parameters() for key in contexts]
    return keys


KEYS = _state_keys()


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "half"
    stopped(ring(), out, STOP)
    return out


def _tampered(half: Path, out: Path, change: dict[str, torch.Tensor | None]) -> None:
    """A copy of the unfinished run with changed or (None) missing tensors and a correct manifest."""
    shutil.copytree(half, out)
    newest, _ = checkpoint_folder.newest_valid(out / "saves")
    assert newest is not None
    assert newest.step == STOP
    tensors = {name: change.get(name, tensor) for name, tensor in newest.tensors.items()}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    facts = {key: value for key, value in newest.manifest.items() if key not in ("format", "step", "files")}
    checkpoint.write(out / "saves", STOP, kept, {"seconds": newest.state["seconds"]}, facts)


def test_every_saved_tensor_is_known(half: Path) -> None:
    newest, _ = checkpoint_folder.newest_valid(half / "saves")
    assert newest is not None
    saved = {name for name in newest.tensors if not name.startswith("ledger/")}
    assert saved == set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_tensor_is_refused(key: str, half: Path) -> None:
    newest, _ = checkpoint_folder.newest_valid(half / "saves")
    assert newest is not None
    game = build_game(ring(), DataSpec((2,)), ComputeSettings(torch.device("cpu"), "fp32"), RandomStreams(0))
    with pytest.raises(CheckpointError, match="is missing"):
        load_tensors(game, StepMetrics(), {name: tensor for name, tensor in newest.tensors.items() if name != key})


def test_weights_without_a_gradient_yet_are_marked() -> None:
    """Before the first step these are all weights; a missing mark is refused like any missing tensor."""
    game, fresh = (
        build_game(ring(), DataSpec((2,)), ComputeSettings(torch.device("cpu"), "fp32"), RandomStreams(0))
        for _ in range(2)
    )
    tensors = collect_tensors(game, StepMetrics())
    marks = {name for name in tensors if name.startswith("optimizer/")}
    weights = [(side, name) for side, player in game.players.items() for name, _ in player.net.named_parameters()]
    assert marks == {f"optimizer/{side}/{name}/untouched" for side, name in weights}
    load_tensors(fresh, StepMetrics(), tensors)
    assert not any(player.optimizer.state for player in fresh.players.values())
    for mark in marks:
        with pytest.raises(CheckpointError, match=re.escape(mark.removesuffix("/untouched")) + ".* is missing"):
            load_tensors(fresh, StepMetrics(), {name: tensor for name, tensor in tensors.items() if name != mark})


# the average copies the live counter at every step, so a lost one is found again; nothing else is
FOUND_AGAIN = [key for key in KEYS if "averaged_weights" in key and key.endswith("num_batches_tracked")]


# the last tensor of those whose names differ only in the number of a layer, which are saved by the same code
QUICK = {re.sub(r"\d+", "", key): key for key in KEYS if key not in FOUND_AGAIN}.values()
SLOW = [key for key in KEYS if key not in (*FOUND_AGAIN, *QUICK)]


@pytest.mark.parametrize("key", [*QUICK, *(pytest.param(key, marks=pytest.mark.slow) for key in SLOW)])
def test_a_reset_tensor_changes_the_run(key: str, half: Path, undisturbed: Path, tmp_path: Path) -> None:
    if key.startswith("optimizer/"):
        newest, _ = checkpoint_folder.newest_valid(half / "saves")
        assert newest is not None
        fresh = torch.zeros_like(newest.tensors[key])
    else:
        game = build_game(ring(), DataSpec((2,)), ComputeSettings(torch.device("cpu"), "fp32"), RandomStreams(0))
        fresh = collect_tensors(game, StepMetrics())[key]
    _tampered(half, tmp_path / "run", {key: fresh})
    train(ring(), tmp_path / "run", resume=True)
    assert traces(tmp_path / "run") != traces(undisturbed)


def test_a_lost_pending_value_changes_the_rows(half: Path, undisturbed: Path, tmp_path: Path) -> None:
    newest, _ = checkpoint_folder.newest_valid(half / "saves")
    assert newest is not None
    pending = {name: series for name, series in newest.tensors.items() if name.startswith("ledger/")}
    assert "ledger/d/adversarial" in pending
    assert "ledger/g/grad_norm" in pending
    varied = [name for name, series in pending.items() if len(series.unique()) == len(series)]
    assert len(varied) >= 6  # a reading that stood still may be lost unseen
    for number, name in enumerate(varied):
        out = tmp_path / f"run{number}"
        _tampered(half, out, {name: None})
        train(ring(), out, resume=True)
        assert traces(out)["rows"] != traces(undisturbed)["rows"], name


@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "swap"])
def test_a_damaged_checkpoint_is_skipped_with_a_note(damage: str, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped(ring(), out, STOP + 1)
    place = out / "saves" / f"step-{STOP + 1:08d}"
    file = place / checkpoint.TENSORS
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif damage == "cut":
        file.write_bytes(data[:-1])
    elif damage == "delete":
        (place / checkpoint.MANIFEST).unlink()
    else:
        shutil.copy(out / "saves" / f"step-{STOP:08d}" / checkpoint.TENSORS, file)

    messages: list[str] = []

    class Listener(NullListener):
        def on_start(self, start) -> None:  # type: ignore[no-untyped-def]
            messages.extend(start.lines)

    train(ring(), out, resume=True, listener=Listener())
    assert any(place.name in line and "damaged checkpoint" in line for line in messages)
    shutil.rmtree(place, ignore_errors=True)
    assert traces(out) == traces(undisturbed)


def test_every_flipped_byte_is_found(half: Path, tmp_path: Path) -> None:
    place = next(half.glob(f"saves/step-{STOP:08d}"))
    copied = tmp_path / place.name
    shutil.copytree(place, copied)
    for name in (checkpoint.TENSORS, checkpoint.STATE):
        whole = (copied / name).read_bytes()
        for at in range(0, len(whole), max(1, len(whole) // 50)):
            flipped = bytearray(whole)
            flipped[at] ^= 1 << at % 8
            (copied / name).write_bytes(flipped)
            with pytest.raises(CheckpointError, match=name):
                checkpoint.verify(copied)
        (copied / name).write_bytes(whole)
    checkpoint.verify(copied)


def test_another_recipe_is_refused(half: Path) -> None:
    other = decode({**ring().canonical(), "batch": 8})
    from poise.errors import RecipeError

    with pytest.raises(RecipeError, match="batch"):
        train(other, half, resume=True)


def test_another_length_with_a_schedule_over_progress_gives_a_note(tmp_path: Path) -> None:
    fading = [{"kind": "instance_noise"}]  # from 0.1 to 0 over the run's progress
    messages: list[str] = []

    class Listener(NullListener):
        def on_start(self, start) -> None:  # type: ignore[no-untyped-def]
            messages.extend(start.lines)

    train(decode({**ring(4).canonical(), "tricks": fading}), tmp_path / "run")
    train(decode({**ring(6).canonical(), "tricks": fading}), tmp_path / "run", resume=True, listener=Listener())
    assert any("4 steps before, 6 now" in line for line in messages)


def test_another_number_of_threads_gives_a_note(half: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(half, out)
    newest, _ = checkpoint_folder.newest_valid(out / "saves")
    assert newest is not None
    facts = {key: value for key, value in newest.manifest.items() if key not in ("format", "step", "files")}
    checkpoint.write(out / "saves", STOP, newest.tensors, newest.state, {**facts, "threads": 97})
    messages: list[str] = []

    class Listener(NullListener):
        def on_start(self, start) -> None:  # type: ignore[no-untyped-def]
            messages.extend(start.lines)

    train(ring(), out, resume=True, listener=Listener())
    assert any("threads 97" in line and "not be exactly reproducible" in line for line in messages)


class Notes(NullListener):
    """Keeps the lines that are given before the first step."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_start(self, start: StartInfo) -> None:
        self.notes += start.lines


def settings(out: Path) -> tuple[str, str, int]:
    """The device, the precision and the number of parts in `run.json`."""
    info = json.loads((out / "run.json").read_text())
    return info["device"], info["precision"], info.get("accumulate", 1)


@pytest.fixture(scope="module")
def unusual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has stopped, with settings that "auto" does not choose."""
    out = tmp_path_factory.mktemp("runs") / "unusual"
    with pytest.raises(Stopped):
        train(ring(), out, device="cpu", precision="bf16", accumulate=2, listener=StopAt(STOP))
    return out


@pytest.mark.parametrize("info", ["{", None], ids=["damaged", "intact"])
def test_a_resumed_run_computes_as_before(info: str | None, unusual: Path, tmp_path: Path) -> None:
    out = shutil.copytree(unusual, tmp_path / "run")
    if info is not None:
        (out / "run.json").write_text(info)
    listener = Notes()
    train(ring(), out, resume=True, listener=listener)
    assert settings(out) == ("cpu", "bf16", 2)
    assert "reproducible" not in "".join(listener.notes)


def test_options_take_the_place_of_what_a_run_computed_with(unusual: Path, tmp_path: Path) -> None:
    out, listener = shutil.copytree(unusual, tmp_path / "run"), Notes()
    train(ring(), out, resume=True, precision="fp32", accumulate=1, listener=listener)
    assert settings(out) == ("cpu", "fp32", 1)
    assert "accumulate 2 -> 1, precision bf16 -> fp32" in "".join(listener.notes)
    train(ring(), out, resume=True, precision="bf16", accumulate=4)
    assert settings(out) == ("cpu", "fp32", 1), "no step was made"


def test_a_device_that_is_gone_is_chosen_anew(unusual: Path, tmp_path: Path) -> None:
    out = shutil.copytree(unusual, tmp_path / "run")
    text = (out / "run.json").read_text()
    (out / "run.json").write_text(text.replace('"device": "cpu"', '"device": "cuda:99"'))
    train(ring(), out, resume=True)
    assert settings(out) == ("cpu", "bf16", 2)


@pytest.mark.parametrize("at", [STOP, 14, 10], ids=["neither is due", "a row was due", "a grid was due"])
def test_a_run_that_is_shortened_to_where_it_stands_ends_like_one_of_that_length(at: int, tmp_path: Path) -> None:
    short, long = tmp_path / "short", tmp_path / "long"
    train(ring(at), short)
    stopped(ring(), long, at)
    train(ring(at), long, resume=True)
    same, ended = traces(long), traces(short)
    for trace in (same, ended):
        for row in trace["rows"]:  # type: ignore[attr-defined]
            for side in "gd":  # how far the last step has moved the weights is not known any more
                row["stats"].pop(f"{side}/update", None)
    assert same == ended
    assert read_frames(long / "frames.bin").records["step"].max() == at
    before = (long / "rows.jsonl").read_bytes()
    train(ring(at), long, resume=True)
    assert (long / "rows.jsonl").read_bytes() == before, "the end is written once"
    assert json.loads((long / "run.json").read_text())["state"] == "done"


@pytest.mark.parametrize("name", ["a copy", ".hidden", ".", "../run"])
def test_a_run_is_resumed_by_any_name_of_its_folder(
    name: str, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been renamed by a file manager, or be the current folder."""
    folder = tmp_path / ("run" if "." in name and name != ".hidden" else name)
    shutil.copytree(half, folder)
    monkeypatch.chdir(folder if folder.name == "run" else tmp_path)
    assert train(ring(), name, resume=True).info["state"] == "done"
    assert json.loads((folder / "run.json").read_text())["step"] == STEPS
