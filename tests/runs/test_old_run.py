"""A run that version 0.1 stopped after three steps is resumed: its checkpoint names the tensors of every trick."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from poise.core.metrics_log import Stat, stats_from_json
from poise.runs.run import Run
from poise.training.train import train

OLD = Path(__file__).parents[1] / "golden" / "run-0.1"


def stats(path: Path) -> list[dict[str, Stat]]:
    return [stats_from_json(json.loads(line)) for line in path.read_text().splitlines()]


def test_a_run_of_version_0_1_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(OLD, path)
    before = Run(path).recipe
    run = train(before, path, resume=True, precision="fp32")
    assert run.info["step"] == 6
    assert not run.skipped_checkpoints
    assert Run(path).recipe == before
    rows, expected = stats(path / "rows.jsonl"), stats(OLD / "expected.jsonl")
    assert [row.keys() for row in rows] == [row.keys() for row in expected]
    for row, other in zip(rows, expected, strict=True):
        for name in ("d/adversarial", "g/adversarial", "d/real_score", "d/fake_score", "g/posterior_kl"):
            assert row[name].mean == pytest.approx(other[name].mean, rel=0.01, abs=1e-3), name


def test_its_tensors_have_the_names_of_today(tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(OLD, path)
    old = set(Run(path).checkpoint.tensors)
    tensors: dict[str, Any] = train(Run(path).recipe, path, resume=True, precision="fp32").checkpoint.tensors
    assert old - {name for name in old if name.startswith("ledger/")} == {
        name for name in tensors if not name.startswith("ledger/")
    }
