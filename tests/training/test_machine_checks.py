"""Ranks that would train something else than rank 0, as on machines that are set up differently, are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poise.engine.compute import choose_compute
from poise.errors import CheckpointError, RecipeError
from poise.recipe.decode import decode
from poise.recipe.shipped import load_table
from poise.training import machine_checks
from poise.training.state import TrainState
from training.test_ranks import POISE, ended, start_each, state_of, write_recipe


def facts(**changes: Any) -> dict[str, Any]:
    recipe = decode(load_table("ring"))
    return machine_checks.start_facts(recipe, choose_compute("cpu", "fp32", recipe), resume=False) | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"versions": {"poise": "0.0.9", "torch": "2", "numpy": "2"}},
            r"has another version of poise, found 0\.0\.9, ",
        ),
        ({"source": "0"}, r"has other source files of poise than rank 0; install"),
        ({"code": ["0123"]}, r"has another version of the custom code than rank 0; copy"),
        ({"precision": "bf16"}, r"has another --precision, found bf16, but fp32 on rank 0; choose"),
        ({"accumulate": 2}, r"has another --accumulate, found 2, but 1 on rank 0; choose one for all: --accumulate 1"),
        ({"resume": True}, r"the ranks don't see the same run folder, found a run to resume, unlike rank 0; choose"),
        ({"recipe": {"steps": 3}}, r"has another recipe than rank 0, found about none instead of .*more fields; give"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_start_is_refused(changes: Mapping[str, Any], message: str) -> None:
    machine_checks.refuse_other_start([facts(), facts(machine="other")])
    with pytest.raises(RecipeError, match=rf"^rank 1 on other: {message}"):
        machine_checks.refuse_other_start([facts(), facts(machine="other", **changes)])


def test_data_may_be_at_another_place_on_each_machine() -> None:
    table = load_table("dcgan")
    table["data"] = {"kind": "folder", "path": "/here"}
    first = decode(table)
    table["data"] = {"kind": "folder", "path": "/there"}
    other = decode(table)
    compute = choose_compute("cpu", "fp32", first)
    machine_checks.refuse_other_start(
        [machine_checks.start_facts(one, compute, resume=False) for one in (first, other)]
    )


def test_ranks_with_other_data_another_recipe_or_another_folder_end_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_checks, "SECONDS_TO_SEE", 0.2)  # the ranks are forks
    for part in range(2):
        np.savez(tmp_path / f"{part}.npz", images=np.full((40, 8, 8), part, np.uint8))
    small = ("steps=2", "network.g.width=4", "network.d.width=4", "log.rows=1", "log.saves=2")
    recipe = str(write_recipe(tmp_path / "recipe.toml", "dcgan", *small))
    run, data = str(tmp_path / "run"), str(tmp_path / "0.npz")
    first = ["--data", data, "--out", run]
    for code, other, found in (
        (3, ["--data", str(tmp_path / "1.npz"), "--out", run], r"has other data, found fingerprint"),
        (2, [*first, "--set", "seed=1"], r"has another recipe than rank 0, found seed 1 instead of 0;"),
        (2, ["--data", data, "--out", str(tmp_path / "other")], r"the ranks don't see the same run folder"),
    ):
        codes, texts = ended(start_each([[*POISE, "train", recipe, *each] for each in (first, other)]))
        assert codes == [code, code], texts
        assert found in "".join(texts)
        assert sum("poise: " in text for text in texts) == 1
        assert not (tmp_path / "run" / "run.json").exists()
        assert not (tmp_path / "other").exists()
    codes, texts = ended(start_each([[*POISE, "train", recipe, *first]] * 2))
    assert codes == [0, 0], texts
    assert state_of(tmp_path / "run") == "done"
    assert not list((tmp_path / "run").glob(".tmp-*"))


def test_ranks_that_have_restored_other_checkpoints_are_refused() -> None:
    class OneBehind:
        size, rank = 2, 1

        def highest(self, number: int) -> int:
            return max(number, 10 if number >= 0 else -10)

    state = object.__new__(TrainState)
    state.ranks, state.steps_done = OneBehind(), 5  # type: ignore[assignment]
    with pytest.raises(CheckpointError, match=r"different checkpoints, found step 5 on rank 1, others from 5 to 10; "):
        state.share()
