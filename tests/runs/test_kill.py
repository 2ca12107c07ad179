"""A run that is repeatedly killed with SIGKILL at random times ends like an uninterrupted one."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from poise.recipe.decode import decode
from poise.recipe.shipped import load_table
from poise.recipe.toml import set_value
from poise.runs import checkpoint, checkpoint_folder
from poise.training.train import train

KILLS = 60
CHANGES = ["steps=400", "log.rows=30", "log.saves=20", "log.samples=200", "log.sheet=16", "batch=32"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_killed_repeatedly(tmp_path: Path) -> None:
    changed = load_table("ring")
    for change in CHANGES:
        set_value(changed, change)
    recipe = decode(changed)
    train(recipe, tmp_path / "whole")
    file, out, streams = tmp_path / "recipe.toml", tmp_path / "run", random.Random(0)
    file.write_text(recipe.to_toml())
    kills = 0
    while kills < KILLS:
        going_on = checkpoint_folder.newest_valid(out / "saves")[0] is not None
        if not going_on:
            shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, "-m", "poise", "train", str(file), "--out", str(out)]
        process = subprocess.Popen([*command, *(["--resume"] if going_on else [])], stderr=subprocess.DEVNULL)
        before = set(out.glob("saves/*"))
        while process.poll() is None and not set(out.glob("saves/*")) - before:
            time.sleep(0.002)  # until it writes: many of the kills shall fall into a save
        time.sleep(streams.random() * streams.choice((0.01, 0.3)))
        if process.poll() is not None:
            break  # it came to its end in spite of everything
        process.kill()
        process.wait()
        kills += 1
        assert len(list((out / "saves").glob(".tmp-*"))) <= 1
    train(recipe, out, resume=True)
    ends = [checkpoint_folder.newest_valid(folder / "saves")[0] for folder in (tmp_path / "whole", out)]
    assert ends[0] is not None
    assert ends[1] is not None
    assert (ends[0].path / checkpoint.TENSORS).read_bytes() == (ends[1].path / checkpoint.TENSORS).read_bytes()
    assert kills >= 5
