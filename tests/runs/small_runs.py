"""Small runs with many tricks, and functions that stop and compare them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from poise.errors import Stopped
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs import checkpoint, checkpoint_folder
from poise.training.listener import NullListener
from poise.training.train import train

STEPS, STOP = 20, 12  # rows every 7 steps: the run is stopped in the middle of an interval

TRICKS = [
    {"kind": "soft_labels"},
    {"kind": "instance_noise", "sigma": {"kind": "linear", "start": 0.3, "end": 0.0, "until": 15, "over": "steps"}},
    {"kind": "r1", "gamma": 0.1, "every": 3},
    {"kind": "averaged_weights", "half_life": 100.0},
]


def ring(steps: int = STEPS) -> Recipe:
    """A recipe for points with small networks, batch norm in both players and several tricks."""
    mlp = {"kind": "mlp", "width": 8, "depth": 2, "norm": "batch"}
    return decode(_table(mlp, steps) | {"data": {"kind": "ring"}})


def digits(steps: int = STEPS, *, mirror: bool = False) -> Recipe:
    """A recipe for images with convolutional networks."""
    data = {"kind": "digits", "size": 16, "mirror": mirror}
    return decode(_table({"kind": "dcgan", "width": 4}, steps) | {"data": data})


def _table(network: dict[str, object], steps: int) -> dict[str, object]:
    return {
        "steps": steps,
        "batch": 16,
        "latent": {"kind": "gaussian", "dim": 5},
        "network": {"g": network, "d": network},
        "objective": {"kind": "non_saturating"},
        "optimizer": {"g": {"kind": "adam"}, "d": {"kind": "adam", "lr": 4e-4}},
        "tempo": {"kind": "ratio", "d": 2},
        "tricks": TRICKS,
        "log": {"rows": 7, "samples": 10, "saves": 6, "sheet": 9},
    }


class StopAt(NullListener):
    """Sends SIGTERM to this process when a step is done."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step: int) -> None:
        if step == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)


def stopped(recipe: Recipe, out: Path, at: int, *, resume: bool = False) -> None:
    """Train until a signal stops the run after step `at`."""
    with pytest.raises(Stopped, match=f"after step {at}"):
        train(recipe, out, resume=resume, listener=StopAt(at))


def traces(out: Path) -> dict[str, object]:
    """What must not differ between two runs: tensors, sample grids, and the rows without their timings."""
    newest, damaged = checkpoint_folder.newest_valid(out / "saves")
    assert newest is not None
    assert damaged == []
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        del row["seconds"]
        row["stats"].pop("time/images_per_second", None)  # none if the steps were made by an earlier process
    return {
        "step": newest.step,
        "tensors": (newest.path / checkpoint.TENSORS).read_bytes(),
        "rows": rows,
        "sheets": {path.name: path.read_bytes() for path in sorted((out / "samples").iterdir())},
        "recipe": (out / "recipe.toml").read_text(),
    }
