"""Commands, their exit codes and their one line on stderr.

A01 to A07 are the numbers of the project's catalogue of bad command lines.
"""

from __future__ import annotations

import errno
import fcntl
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import poise as package
from poise.recipe.decode import decode
from poise.recipe.shipped import DEFAULT, list_recipes
from poise.recipe.toml import read_file
from poise.runs import checkpoint, checkpoint_folder
from poise.training.listener import NullListener, StartInfo
from poise.training.state import STEP_FUNCTIONS
from poise.training.train import train


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def state(run: Path) -> str:
    return json.loads((run / "run.json").read_text())["state"]


def steps_told(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "rows.jsonl").read_text().splitlines()]


# ---- looking around -----------------------------------------------------------------------------------


def test_recipes_lists_every_recipe_with_its_data(poise: Any) -> None:
    result = poise("recipes")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert len(lines) == len(list_recipes())
    for line, recipe in zip(lines, list_recipes(), strict=True):
        assert line.split()[0] == recipe.name
        assert line.split()[-1] == recipe.data
        assert recipe.about in line
        assert ("the default" in line.replace(recipe.about, "")) == (recipe.name == DEFAULT)


def test_version(poise: Any) -> None:
    assert poise("--version") == (0, f"{package.__version__}\n", "")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["sample", "--help"], ["interpolate", "--help"]])
def test_help(poise: Any, words: list[str]) -> None:
    result = poise(*words)
    assert (result.code, result.err) == (0, "")
    assert "Usage" in result.out
    if words == ["--help"]:
        for command in ("recipes", "train", "sample", "interpolate"):
            assert command in result.out


def test_informative_commands_import_nothing_heavy() -> None:
    """Help, recipes and a slip of the finger are answered at once: neither torch nor numpy is there."""
    asked = [["--help"], ["train", "--help"], ["recipes"], ["--version"], [], ["trian"], ["train", "--sed", "3"]]
    script = f"""
import contextlib, io, sys
from poise.cli import main
for words in {asked!r}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(words)
        except SystemExit:
            pass
    heavy = {{"torch", "numpy", "pandas", "PIL", "tensorboard"}} & set(sys.modules)
    assert not heavy, (words, heavy)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_singular_nouns(poise: Any, small: list[str], tmp_path: Path) -> None:
    """No "1 steps", "1 threads", "1 walks", "1 samples", "1 rows"."""
    run = tmp_path / "run"
    result = [
        poise("train", "ring", "--steps", 1, "--out", run, *small, "--set", "measure=none", "--set", "log.rows=1"),
        poise("sample", run, "--n", 1, "--npz", tmp_path / "one.npz", "--out", tmp_path / "one.png"),
        poise("interpolate", run, "--rows", 1, "--steps", 2),
        poise("watch", run),
        poise("check", "ring", "--steps", 1, *small),
        poise("tips", "--recipe", "ring"),
    ]
    assert [one.code for one in result] == [0] * 6
    for item in (text for one in result for text in (one.out, one.err)):
        assert re.findall(r"(?<![\d.,])1 (?!is\b|as\b)[a-z]+s\b", item) == []
    assert "1 step," in result[0].err
    assert "1 thread" in result[0].err
    assert "1 sample" in result[1].err
    assert "1 slerp interpolation " in result[2].err


# ---- slips of the finger ------------------------------------------------------------------------------


def test_no_arguments_show_the_help(poise: Any) -> None:
    """A01."""
    result = poise()
    assert result.code == 2
    assert "Usage" in result.out + result.err
    assert "train" in result.out + result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["trian"], ["'trian'", "'train'"]),
        (["--nonsense"], ["--nonsense"]),
        (["train", "--sed", "3"], ["--sed", "--seed"]),
        (["train", "ring", "grid"], ["grid"]),
        (["train", "ring", "--steps"], ["--steps"]),
        (["train", "ring", "--steps", "abc"], ["--steps", "integer"]),
        (["train", "ring", "--steps", "1.5"], ["--steps", "integer"]),
        (["train", "ring", "--steps", "0"], ["steps", "found 0"]),
        (["train", "ring", "--steps", "-3"], ["steps", "found -3"]),
        (["train", "ring", "--steps", "99999999999"], ["steps", "1000000000"]),
        (["train", "ring", "--seed", "-1"], ["seed", "found -1"]),
        (["train", "ring", "--seed", "x"], ["--seed", "integer"]),
        (["train", "ring", "--set"], ["--set"]),
        (["train", "", "--device", "abacus"], ["RECIPE"]),  # an empty variable must not train the default
        (["train", "ring", "--resume"], ["--resume", "--out"]),
        (["recipes", "ring"], ["ring"]),
        (["sample"], ["run"]),
        (["interpolate"], ["run"]),
        # A06
        (["train", "ring", "--device", "nonsense"], ["--device", "'nonsense'", "available devices: cpu"]),
        (["train", "ring", "--device", ""], ["--device", "available devices: cpu"]),
        (["train", "ring", "--device", "cpu:1"], ["--device", "'cpu:1'", "available devices: cpu"]),
        (["train", "ring", "--device", "cuda:9"], ["--device", "'cuda:9'", "available devices: cpu"]),
        (["train", "ring", "--device", "cuda:-1"], ["--device", "'cuda:-1'", "available devices: cpu"]),
        (["train", "ring", "--precision", "fp64"], ["--precision", "'fp64'", "auto, fp32 or bf16"]),
        (["train", "ring", "--precision", ""], ["--precision", "auto, fp32 or bf16"]),
    ],
    ids=str,
)
def test_typing_errors(
    poise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    poise(*words).assert_error(2, *parts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_missing_cuda(poise: Any, tmp_path: Path) -> None:
    """A06."""
    result = poise("train", "ring", "--device", "cuda", "--out", tmp_path / "out")
    result.assert_error(2, "--device", "'cuda'", "no CUDA device")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "",
        "<script>",
        "a\nb",
        "a" * 65,
        "a" * 300,
        "CON",
        "nul",
        "\U0001f600",
        ".hidden",
        "a b",
        "x/..",
    ],
)
def test_run_name_refused(poise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A07."""
    monkeypatch.chdir(tmp_path)
    result = poise("train", "ring", "--steps", 1, "--out", name)
    result.assert_error(2, "--out", "not an allowed name of a run", "letters, digits")
    assert result.last.isascii()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "a" * 64, "deep/er/run"])
def test_run_name_accepted(poise: Any, small: list[str], tmp_path: Path, name: str) -> None:
    assert poise("train", "ring", "--steps", 1, "--out", tmp_path / name, *small).code == 0
    assert state(tmp_path / name) == "done"


# ---- data ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("no/such/folder", ["no/such/folder"]),
        ("rnig", ["'rnig'", "did you mean 'ring'?"]),
        ("FashionMINST", ["'FashionMINST'", "did you mean 'fashionmnist'?"]),
        ("notes.txt", ["notes.txt", "a file, not a folder"]),
        ("empty", ["data.path", "no images"]),
        ("broken.npz", ["broken.npz", "not an npz archive"]),
        ("broken.zip", ["broken.zip", "not a zip archive"]),
    ],
)
def test_data_refused(
    poise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, parts: list[str]
) -> None:
    """A02: each has a message of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("notes.txt", "broken.npz", "broken.zip"):
        (tmp_path / name).write_text("words")
    poise("train", "dcgan", "--data", source, "--out", "out").assert_error(3, *parts)
    assert not (tmp_path / "out").exists()


def test_missing_data_set(poise: Any, tmp_path: Path) -> None:
    """A name is looked for below --data-root, and the message says so (nothing is downloaded here)."""
    words = ["--data", "mnist", "--data-root", tmp_path / "root", "--set", "data.download=false"]
    result = poise("train", "dcgan", "--out", tmp_path / "out", *words)
    result.assert_error(3, "MNIST", "root", "--data-root")
    assert not (tmp_path / "out").exists()


def test_data_option_replaces_the_data_of_the_recipe(poise: Any, small: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert poise("train", "ring", "--data", "grid", "--steps", 1, "--out", out, *small).code == 0
    assert decode(read_file(out / "recipe.toml")).data.tag() == "grid"


def test_pictures_keep_the_recipes_size(poise: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", images=np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8))
    thin = ["--set", "network.g.width=4", "--set", "network.d.width=4", "--set", "batch=4"]
    out = tmp_path / "out"
    result = poise("train", "dcgan", "--data", tmp_path / "p.npz", "--steps", 1, "--out", out, *thin)
    assert result.code == 0, result.err
    data = read_file(out / "recipe.toml")["data"]
    assert (data["kind"], data["size"]) == ("npz", 32)
    assert Path(data["path"]) == tmp_path / "p.npz"
    assert json.loads((out / "run.json").read_text())["data"]["shape"] == [3, 32, 32]


# ---- the place of the run -----------------------------------------------------------------------------


def test_default_run_folders_are_numbered(
    poise: Any, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for expected in ("ring", "ring-2", "ring-3"):
        result = poise("train", "ring", "--steps", 1, *small)
        assert (result.code, result.out) == (0, "")
        assert f"poise sample {Path('runs') / expected}" in result.err
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["ring", "ring-2", "ring-3"]


def test_out_with_other_files(poise: Any, tmp_path: Path) -> None:
    """A03."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("dear")
    poise("train", "ring", "--out", out).assert_error(2, "out", "not empty", "--resume")
    assert contents(tmp_path) == {"out/thesis.txt": b"dear"}


def test_out_is_a_run(poise: Any, ring_copy: Path) -> None:
    """A03."""
    before = contents(ring_copy)
    poise("train", "ring", "--out", ring_copy).assert_error(2, "not empty", "--resume")
    assert contents(ring_copy) == before


def test_out_is_a_file(poise: Any, tmp_path: Path) -> None:
    """A03."""
    (tmp_path / "out").write_text("dear")
    poise("train", "ring", "--out", tmp_path / "out").assert_error(2, "out", "a run is a folder", "found a file")
    assert contents(tmp_path) == {"out": b"dear"}


def test_out_is_an_empty_folder(poise: Any, small: list[str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert poise("train", "ring", "--steps", 1, "--out", tmp_path / "out", *small).code == 0


def test_out_below_a_file(poise: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("dear")
    poise("train", "ring", "--out", tmp_path / "file" / "out").assert_error(6, "file", "Not a directory")
    assert contents(tmp_path) == {"file": b"dear"}


@pytest.fixture
def held(ring_copy: Path) -> Any:
    """A run that another process is writing to."""
    with (ring_copy / "run.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write("process 4711 on elsewhere")
        lock.flush()
        yield ring_copy


def test_two_runs_in_one_folder(poise: Any, held: Path) -> None:
    """A05: the second is told who has it, and changes nothing; looking is allowed."""
    before = contents(held)
    result = poise("train", "--resume", "--out", held, "--steps", 20)
    result.assert_error(2, "another run is writing to this folder", "process 4711 on elsewhere")
    poise("train", "ring", "--out", held).assert_error(2, "not empty")
    assert contents(held) == before
    assert poise("sample", held).code == 0


def test_two_runs_in_one_empty_folder(poise: Any, tmp_path: Path) -> None:
    """A05: between the first one's lock and its first file."""
    out = tmp_path / "out"
    out.mkdir()
    with (out / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        poise("train", "ring", "--out", out).assert_error(2, "out")
    assert contents(out) == {"run.lock": b""}


# ---- resuming -----------------------------------------------------------------------------------------


def spoil(path: Path) -> None:
    """Flip one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("place", ["nowhere", "empty", "file", "foreign"])
@pytest.mark.parametrize("recipe", [[], ["ring"]], ids=["recipe-of-the-run", "recipe-told"])
def test_nothing_to_resume(poise: Any, tmp_path: Path, place: str, recipe: list[str]) -> None:
    """A04. (A file where the run should be is a mistake in the command line, whatever is asked.)"""
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("dear")
    (tmp_path / "file").write_text("dear")
    before = contents(tmp_path)
    result = poise("train", *recipe, "--resume", "--out", tmp_path / place)
    result.assert_error(2 if place == "file" and recipe else 4, place)
    assert contents(tmp_path) == before
    assert not (tmp_path / "nowhere").exists()


def test_only_damaged_checkpoints_to_resume(poise: Any, ring_copy: Path) -> None:
    """A04: beginning anew in silence would throw the run away; each save is listed with what is wrong."""
    spoil(ring_copy / "saves" / "step-00000006" / "tensors.safetensors")
    (ring_copy / "saves" / "step-00000008" / "MANIFEST.json").write_text("{")
    before = contents(ring_copy)
    result = poise("train", "--resume", "--out", ring_copy, "--steps", 12)
    result.assert_error(4, "step-00000006: tensors.safetensors", "step-00000008: MANIFEST.json")
    assert contents(ring_copy) == before


def test_killed_before_the_first_checkpoint(poise: Any, ring_copy: Path) -> None:
    """A04."""
    shutil.rmtree(ring_copy / "saves")
    before = contents(ring_copy)
    poise("train", "--resume", "--out", ring_copy).assert_error(4, "saves", "no valid checkpoint", "none at all")
    assert contents(ring_copy) == before


def test_resume_from_an_older_checkpoint(poise: Any, ring_run: Path, ring_copy: Path) -> None:
    """It says which save was passed over, does the lost steps again, and ends like the undisturbed run."""
    spoil(ring_copy / "saves" / "step-00000008" / "tensors.safetensors")
    result = poise("train", "--resume", "--out", ring_copy)
    assert result.code == 0
    assert "step-00000008: tensors.safetensors is damaged" in result.err
    assert steps_told(ring_copy) == [2, 4, 6, 8]
    last = [run / "saves" / "step-00000008" / "tensors.safetensors" for run in (ring_run, ring_copy)]
    assert last[0].read_bytes() == last[1].read_bytes()


def test_damaged_checkpoint_never_displaces_a_valid_one(poise: Any, small: list[str], tmp_path: Path) -> None:
    """Two damaged newer saves and `keep = 2`: the one the run stands on must outlive the start."""
    out = tmp_path / "run"
    often = ["--set", "log.saves=1", "--set", "log.keep=3"]
    assert poise("train", "ring", "--steps", 3, "--out", out, *small, *often).code == 0
    for step in (2, 3):
        spoil(out / "saves" / f"step-0000000{step}" / "tensors.safetensors")
    recipe = read_file(out / "recipe.toml")
    recipe["log"]["keep"] = 2
    standing: list[int | None] = []

    class Looker(NullListener):
        def on_start(self, start: StartInfo) -> None:
            self.look()

        def on_step(self, step: int) -> None:
            self.look()

        def look(self) -> None:
            newest = checkpoint_folder.newest_valid(out / "saves")[0]
            standing.append(None if newest is None else newest.step)

    train(decode(recipe), out, resume=True, listener=Looker())
    assert standing == [1, 2, 3]


def test_resume_with_more_steps_and_other_logging(poise: Any, ring_copy: Path) -> None:
    """C16: what no earlier step depended on may change."""
    words = ["--steps", 11, "--set", "log.rows=1", "--set", 'about="longer"']
    assert poise("train", "--resume", "--out", ring_copy, *words).code == 0
    assert steps_told(ring_copy) == [2, 4, 6, 8, 9, 10, 11]
    recipe = decode(read_file(ring_copy / "recipe.toml"))
    assert (recipe.steps, recipe.log.rows, recipe.about) == (11, 1, "longer")
    assert state(ring_copy) == "done"


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["--seed", "6"], "seed"),
        (["--set", "optimizer.d.lr=1e-9"], "optimizer.d.lr"),
        (["--set", "tricks.r1.gamma=3"], "tricks.0.gamma"),
        (["--set", 'objective.kind="minimax"'], "objective.kind"),
        (["--set", "network.g.width=9"], "network.g.width"),
    ],
)
def test_resume_keeps_the_recipe(poise: Any, ring_copy: Path, words: list[str], path: str) -> None:
    """C16: the rest may not, and is named."""
    before = contents(ring_copy)
    poise("train", "--resume", "--out", ring_copy, "--steps", 12, *words).assert_error(2, "--resume", path, "new run")
    assert contents(ring_copy) == before


def test_resume_with_another_recipe(poise: Any, ring_copy: Path) -> None:
    before = contents(ring_copy)
    poise("train", "dcgan", "--resume", "--out", ring_copy).assert_error(2, "--resume", "data.modes")
    assert contents(ring_copy) == before


def test_resume_a_finished_run(poise: Any, ring_copy: Path) -> None:
    before = contents(ring_copy / "saves") | contents(ring_copy / "samples")
    assert poise("train", "--resume", "--out", ring_copy).code == 0
    assert contents(ring_copy / "saves") | contents(ring_copy / "samples") == before
    assert steps_told(ring_copy) == [2, 4, 6, 8]
    assert state(ring_copy) == "done"


def test_resume_with_fewer_steps(poise: Any, ring_copy: Path) -> None:
    before = contents(ring_copy)
    poise("train", "--resume", "--out", ring_copy, "--steps", 5).assert_error(2, "steps", "5", "8")
    assert contents(ring_copy) == before


# ---- what the machine refuses -------------------------------------------------------------------------


def refusing(times: int) -> Callable[..., Path]:
    """`save.write` on a disk that is full for so many saves."""
    write, left = checkpoint.write, [times]

    def full(*arguments: Any) -> Path:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments)

    return full


def test_checkpoint_written_at_the_third_attempt(
    poise: Any, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "write", refusing(2))
    result = poise("train", "ring", "--steps", 4, "--out", tmp_path / "out", *small, "--set", "log.saves=1")
    assert result.code == 0
    assert result.err.count("could not save at step") == 2
    assert state(tmp_path / "out") == "done"


@pytest.mark.parametrize(("steps", "last"), [(9, 3), (1, 1)], ids=["three-in-a-row", "the-last-one"])
def test_checkpoints_that_cannot_be_written(
    poise: Any, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, last: int
) -> None:
    monkeypatch.setattr(checkpoint, "write", refusing(100))
    words = ["--set", "log.saves=1", "--set", "log.rows=1"]
    result = poise("train", "ring", "--steps", steps, "--out", tmp_path / "out", *small, *words)
    out = tmp_path / "out"
    cure = f"step {last} could not be saved: when the disk can be written again, continue with: poise train --resume"
    result.assert_error(6, f"{out / 'saves'}: can't be written: No space left on device; {cure} --out {out}")
    assert steps_told(tmp_path / "out")[-1] == last
    assert state(tmp_path / "out") == "failed"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_row_that_cannot_be_written(poise: Any, ring_copy: Path) -> None:
    (ring_copy / "rows.jsonl").unlink()
    (ring_copy / "rows.jsonl").symlink_to("/dev/full")
    result = poise("train", "--resume", "--out", ring_copy, "--steps", 12)
    result.assert_error(6, "rows.jsonl", "No space left on device")
    assert state(ring_copy) == "failed"
    assert poise("sample", ring_copy).code == 0  # the saves are as they were


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12"),
    ],
    ids=["device", "python", "host"],
)
def test_out_of_memory_in_training(
    poise: Any, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def hungry(*_: Any) -> None:
        raise error

    monkeypatch.setitem(STEP_FUNCTIONS, "alternate", hungry)
    result = poise("train", "ring", "--out", tmp_path / "out", *small)
    result.assert_error(7, "too little memory", "batch 16", "--set batch=8")
    assert state(tmp_path / "out") == "failed"


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")], ids=["host", "device"]
)
def test_out_of_memory_in_sampling(
    poise: Any, ring_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def hungry(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("poise.runs.run.Run.sample", hungry)
    poise("sample", ring_run, "--n", 1000, "--out", tmp_path / "x.png").assert_error(7, "memory")


def test_internal_error(poise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(recipe: str) -> None:
        raise ZeroDivisionError("by\nnought")

    monkeypatch.setattr("poise.recipe.shipped.load_recipe", broken)
    poise("train", "ring").assert_error(1, "internal error", "ZeroDivisionError: by", "--debug")


def test_debug_prints_a_traceback_and_keeps_the_exit_code(poise: Callable) -> None:
    result = poise("train", "rnig", "--debug")
    assert result.code == 2
    assert "Traceback" in result.err
    assert result.last.startswith("poise: RECIPE: no shipped recipe")
