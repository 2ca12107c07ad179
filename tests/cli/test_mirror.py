"""`poise train --mirror`."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

SMALL = ["--set", 'network.g={kind="mlp", width=4}', "--set", 'network.d={kind="mlp", width=4}', "--set", "batch=4"]
FEW = ["--set", "log.sheet=4", "--set", "measure=none", "--set", "data.size=8"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "images.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8))
    return path


def mirror_of(run: Path) -> bool:
    return bool(tomllib.loads((run / "recipe.toml").read_text())["data"]["mirror"])


def test_mirror_applies_to_the_data_of_the_command_and_to_the_resumed_run(
    poise: Callable, tmp_path: Path, images: Path
) -> None:
    """Then the recipe has it, also for other data of the same kind."""
    out = tmp_path / "run"
    start = ["train", "gan", "--data", images, *SMALL, *FEW]
    assert poise(*start, "--mirror", "--steps", 1, "--out", out).code == 0
    assert mirror_of(out)
    assert poise("train", "--resume", "--out", out, "--steps", 2).code == 0
    assert mirror_of(out)
    again = tmp_path / "again"
    words = ["train", out / "recipe.toml", "--data", images, "--steps", 1]
    assert poise(*words, "--out", again).code == 0
    assert mirror_of(again)
    poise(*start, "--steps", 3, "--out", out, "--resume").assert_error(2, "--resume", "data.mirror")


def test_set_takes_precedence(poise: Callable, tmp_path: Path, images: Path) -> None:
    words = ["train", "gan", "--data", images, *SMALL, *FEW, "--steps", 1, "--out", tmp_path / "run"]
    assert poise(*words, "--mirror", "--set", "data.mirror=false").code == 0
    assert not mirror_of(tmp_path / "run")


def test_points_have_no_flips(poise: Callable, tmp_path: Path) -> None:
    poise("train", "ring", "--mirror", "--out", tmp_path / "run").assert_error(2, "data", "unknown key 'mirror'")
    assert not (tmp_path / "run").exists()


def test_check_warns_about_flipped_digits(poise: Callable) -> None:
    result = poise("check", "dcgan", "--set", "data.mirror=true")
    assert result.code == 0, result.err
    assert "data.mirror" in result.out + result.err
