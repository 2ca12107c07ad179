"""`poise ladder`: the report, and errors before anything is written."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poise.ladder.plan import RUNGS
from poise.recipe.toml import read_file
from poise.training.trainer import Trainer

WORDS = ["--steps", 2, "--batch", 4, "--size", 8]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures of noise, 10 x 10."""
    path = tmp_path_factory.mktemp("data") / "pictures.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 256, (60, 10, 10, 1), np.uint8))
    return path


@pytest.fixture(scope="module")
def climbed(poise: Any, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A ladder of two steps, and what was said on stderr."""
    out = tmp_path_factory.mktemp("runs") / "deep" / "ladder"
    result = poise("ladder", "--data", pictures, "--out", out, "--seed", 3, *WORDS)
    assert (result.code, result.out) == (0, ""), result.err
    return out, result.err


def test_path_of_the_report_is_printed(climbed: tuple[Path, str]) -> None:
    out, result = climbed
    last = result.splitlines()[-1]
    assert last == f"report: {out / 'report.html'} and report.md"
    assert (out / "report.html").is_file()
    assert (out / "report.md").is_file()


def test_options_apply_to_every_rung(climbed: tuple[Path, str], pictures: Path) -> None:
    out, result = climbed
    for rung in RUNGS:
        recipe = read_file(out / rung / "recipe.toml")
        assert (recipe["steps"], recipe["batch"], recipe["seed"]) == (2, 4, 3)
        assert (recipe["data"]["kind"], recipe["data"]["size"]) == ("npz", 8)
        assert Path(recipe["data"]["path"]) == pictures
        assert json.loads((out / rung / "run.json").read_text())["state"] == "done"
        assert f"{rung}, 2 steps, run folder {out / rung}" in result


def test_complete_ladder_only_rewrites_the_report(poise: Any, climbed: tuple[Path, str], pictures: Path) -> None:
    out, _ = climbed
    before = contents(out)
    (out / "report.html").unlink()
    result = poise("ladder", "--data", pictures, "--out", out, "--seed", 3, *WORDS)
    assert (result.code, result.out) == (0, "")
    assert "steps, into" not in result.err
    assert contents(out) == before


@pytest.mark.parametrize(
    "words",
    [["--steps", 3], ["--batch", 5], ["--size", 16], ["--seed", 4]],
    ids=["steps", "batch", "size", "seed"],
)
def test_folder_with_another_ladder(poise: Any, climbed: tuple[Path, str], pictures: Path, words: list[object]) -> None:
    out, _ = climbed
    before = contents(out)
    result = poise("ladder", "--data", pictures, "--out", out, "--seed", 3, *WORDS, *words)
    result.assert_error(2, f"--out {out}", "contains a ladder with other options")
    assert contents(out) == before


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (["--data", "ring"], 2, ["network.g", "points"]),
        (["--data", "ring", "--size", "8"], 2, ["size"]),
        (["--data", "rnig"], 3, ["--data", "'rnig'", "did you mean 'ring'?"]),
        (["--data", "no/such/folder"], 3, ["--data", "no/such/folder"]),
        (["--data", "broken.npz"], 3, ["broken.npz", "not an npz archive"]),
        (["--steps", "0"], 2, ["--steps", "1"]),
        (["--batch", "1"], 2, ["--batch", "2"]),
        (["--size", "7"], 2, ["--size", "8"]),
        (["--seed", "-1"], 2, ["--seed", "0"]),
        (["--device", "abacus"], 2, ["--device", "'abacus'"]),
        (["--rungs", "3"], 2, ["--rungs"]),
    ],
    ids=str,
)
def test_refused(
    poise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.npz").write_text("words")
    poise("ladder", "--out", "out", *words).assert_error(code, *parts)
    assert [path.name for path in tmp_path.rglob("*")] == ["broken.npz"]


def test_other_files_in_place_of_a_rung_are_kept(poise: Any, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "autoencoder").mkdir()
    (tmp_path / "autoencoder" / "thesis.txt").write_text("dear")
    result = poise("ladder", "--data", pictures, "--out", tmp_path, *WORDS)
    result.assert_error(2, "autoencoder", "not empty")
    assert contents(tmp_path) == {"autoencoder/thesis.txt": b"dear"}


def test_a_signal_during_the_last_step_of_a_rung_stops_the_ladder(
    poise: Any, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rung is done all the same, and the next one must not begin as if nobody had asked."""
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_finish", struck(Trainer._finish))
        result = poise("ladder", "--data", pictures, "--out", tmp_path / "out", *WORDS)
    same = ["--batch", 4, "--size", 8, "--steps", 2]
    command = shlex.join(map(str, ["poise", "ladder", "--data", pictures, "--out", tmp_path / "out", *same]))
    result.assert_error(75, f"stopped by SIGINT; continue with the same command: {command}")
    first, second, *_ = RUNGS
    assert json.loads((tmp_path / "out" / first / "run.json").read_text())["state"] == "done"
    assert not (tmp_path / "out" / second).exists()


def struck(then: Any) -> Any:
    """`then`, during which Ctrl-C is pressed."""

    def wrapped(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        then(*arguments)

    return wrapped


def test_help_lists_it(poise: Any) -> None:
    result = poise("--help")
    assert (result.code, result.err) == (0, "")
    (line,) = [line for line in result.out.splitlines() if " ladder " in line]
    assert "Start simple" in line
    result = poise("ladder", "--help")
    assert result.code == 0
    for option in ("--data", "--out", "--steps", "--batch", "--size", "--seed"):
        assert option in result.out


def test_help_imports_nothing_heavy() -> None:
    script = """
import contextlib, io, sys
from poise.cli import main
for words in (["--help"], ["ladder", "--help"], ["ladder", "--stps", "3"], ["ladder", "--steps", "0"]):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        main(words)
    assert "--help" not in words or "ladder" in out.getvalue(), words
    heavy = {"torch", "numpy", "matplotlib", "PIL"} & set(sys.modules)
    assert not heavy, (words, heavy)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
