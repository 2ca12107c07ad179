"""Tiny runs that are trained once. A test that changes one makes a copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = [
    "--set",
    "network.g.width=8",
    "--set",
    "network.d.width=8",
    "--set",
    "batch=16",
    "--set",
    'latent={kind="gaussian", dim=4}',
]
SMALL += ["--set", "measure.n=50"]
TRICKS = 'tricks=[{kind="r1", gamma=0.1}, {kind="averaged_weights", ramp_up=0.0}]'


@pytest.fixture(scope="session")
def small() -> list[str]:
    """Options that make the ring recipe cheap."""
    return SMALL


@pytest.fixture(scope="session")
def ring_run(poise: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight steps on points: rows every 2, sheets every 3, saves every 3."""
    out = tmp_path_factory.mktemp("ring") / "run"
    often = [
        "--set",
        'objective={kind="non_saturating"}',
        "--set",
        "log.rows=2",
        "--set",
        "log.samples=3",
        "--set",
        "log.saves=3",
        "--set",
        "log.sheet=50",
    ]
    result = poise("train", "ring", "--steps", 8, "--seed", 5, "--out", out, *SMALL, *often, "--set", TRICKS)
    assert result.code == 0, result.err
    return out


@pytest.fixture(scope="session")
def digits_run(poise: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps on the default data, thin, with a high rate: the averaged weights lag behind the live ones.

    A G of linear layers, whose first pictures are already full of greys.
    """
    out = tmp_path_factory.mktemp("digits") / "run"
    thin = ["--set", 'network.g={kind="mlp", width=8}', "--set", "network.d.width=4"]
    thin += ["--set", "batch=8", "--set", "log.sheet=4", "--set", "measure=none"]
    slow = 'tricks=[{kind="averaged_weights", half_life=20.0, ramp_up=0.0}]'
    lag = ["--set", slow, "--set", "optimizer.g.lr=2e-2"]
    result = poise("train", "--steps", 3, "--out", out, *thin, *lag)
    assert result.code == 0, result.err
    return out


@pytest.fixture
def ring_copy(ring_run: Path, tmp_path: Path) -> Path:
    """A run to spoil."""
    return Path(shutil.copytree(ring_run, tmp_path / "copy"))
