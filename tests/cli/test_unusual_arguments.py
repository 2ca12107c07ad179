"""Unusual arguments in every position of a command line: none is an "internal error", none prints a traceback."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WORDS = [
    "",
    " ",
    "nan",
    "-1",
    "1e400",
    "9" * 25,
    "dir",
    "empty",
    "/dev/null",
    "bytes.csv",
    "dir.toml",
    "dir.png",
    "a\nb",
]
WORDS += ["none", "[]", "=", ".", "/dev/null/x", "points.npz", "x" * 5000, "\udcff"]
VALUES = [
    "nan",
    "inf",
    "-1",
    "1e308",
    "true",
    '"x"',
    "[]",
    "{}",
    "[nan]",
    '{kind="r1"}',
    "2024-01-01",
    "{kind=1}",
    "'a",
]
PATHS = [
    "steps",
    "name",
    "data.kind",
    "latent",
    "network.g.width",
    "network.d",
    "objective",
    "optimizer.d.betas",
    "tempo.d",
]
PATHS += ["tricks", "tricks.5", "tricks+", "log.rows", "measure", "monitor.policy", "a.b.c", '""', "conditioning.g"]

Poise = Callable[..., Any]


@pytest.fixture
def place(tmp_path: Path, ring_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders where files are expected, files that hold nothing or anything, and a run to stand on."""
    monkeypatch.chdir(tmp_path)
    for name in ("dir", "dir.toml", "dir.png"):
        (tmp_path / name).mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "bytes.csv").write_bytes(bytes(range(256)) * 9)
    np.savez(tmp_path / "points.npz", x=np.zeros(3))
    shutil.copytree(ring_run, tmp_path / "run")
    return tmp_path


def answers(result: Any) -> None:
    """It worked, or it was refused in one line."""
    assert isinstance(result.code, int)
    assert result.code != 1, result.last
    assert "Traceback" not in result.err
    if result.code:
        assert result.last.startswith("poise: ")


@pytest.mark.parametrize(
    "words",
    [
        *(["train", "{}"], ["check", "{}", "--no-data"], ["tips", "{}"], ["tips", "--recipe", "{}"], ["{}"]),
        *(["sample", "{}"], ["measure", "{}"], ["interpolate", "{}"], ["watch", "{}"], ["compare", "{}", "{}"]),
        *(["project", "{}", "a.png"], ["project", "run", "{}"]),
        *(["check", "ring", "--no-data", f"--{option}", "{}"] for option in ("data", "steps", "device", "set")),
        *(
            ["train", "ring", f"--{option}", "{}", "--steps", "0"]
            for option in ("out", "seed", "precision", "data-root")
        ),
        *(["interpolate", "run", f"--{option}", "{}"] for option in ("between", "towards", "label", "rows", "path")),
        *(["sample", "run", f"--{option}", "{}", "--label", "x"] for option in ("n", "seed", "out", "npz")),
        *(["watch", "run", f"--{option}", "{}"] for option in ("columns", "loss-family", "pattern")),
        *(["measure", "run", "--measures", "none", f"--{option}", "{}"] for option in ("n", "features", "neighbours")),
        *(["compare", "run", "run", f"--{option}", "{}", "--measures", "none"] for option in ("n", "size")),
        *(["ladder", "--steps", "0", f"--{option}", "{}"] for option in ("data", "out", "batch", "size", "device")),
    ],
    ids=" ".join,
)
def test_unusual_arguments(poise: Poise, place: Path, words: list[str]) -> None:
    for odd in WORDS:
        answers(poise(*(word.format(odd) if word == "{}" else word for word in words)))


@pytest.mark.parametrize("path", PATHS)
def test_unusual_values(poise: Poise, path: str) -> None:
    for value in VALUES:
        answers(poise("check", "ring", "--no-data", "--set", f"{path}={value}"))


def test_numbers_beyond_any_memory(poise: Poise, place: Path) -> None:
    for words in (["measure", "run"], ["compare", "run", "run"], ["sample", "run"]):
        result = poise(*words, "--n", "9" * 25)
        assert result.code == 2
        assert "--n" in result.last


def test_log_with_enormous_steps(poise: Poise, place: Path) -> None:
    Path("log.csv").write_text("step,d,g\n1e300,1,1\n")
    result = poise("watch", "log.csv", "--plot", "log.png")
    assert result.code == 0, result.err


def test_finished_run_without_grids(poise: Poise, place: Path) -> None:
    shutil.rmtree("run/samples")
    result = poise("train", "--resume", "--out", "run")
    assert result.code == 0, result.err
