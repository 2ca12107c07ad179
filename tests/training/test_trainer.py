"""A trainer whose steps are made from outside: one by one, single moves, two runs in turns, and a stop in between."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from poise.core.types import Side
from poise.errors import Diverged, RankLost, Stopped
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs.folder import RunFolder
from poise.runs.run import Run
from poise.training.state import TrainState
from poise.training.train import open_trainer, train
from poise.training.trainer import Trainer
from runs.small_runs import ring


def recipe(steps: int = 6, **changes: Any) -> Recipe:
    network = {"kind": "mlp", "width": 8, "depth": 1}
    table = {
        "steps": steps,
        "batch": 8,
        "data": {"kind": "ring"},
        "latent": {"kind": "gaussian", "dim": 2},
        "network": {"g": network, "d": network},
        "objective": {"kind": "non_saturating"},
        "optimizer": {"g": {"kind": "adam"}, "d": {"kind": "adam"}},
        "tempo": {"kind": "ratio"},
        "log": {"rows": 3, "samples": 100, "saves": 100, "to": []},
    }
    return decode(table | changes)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows without what depends on the clock."""
    found = RunFolder(folder).read_rows()
    for row in found:
        del row["seconds"], row["stats"]["time/images_per_second"]
    return found


def weights(trainer: Trainer) -> dict[Side, torch.Tensor]:
    return {
        side: torch.cat([weight.detach().flatten() for weight in player.weights])
        for side, player in trainer.state.game.players.items()
    }


def test_two_runs_in_turns_are_the_runs_that_train_makes(tmp_path: Path) -> None:
    train(recipe(), tmp_path / "alone")
    with ExitStack() as opened:
        trainers = [opened.enter_context(open_trainer(recipe(), tmp_path / name)) for name in "ab"]
        for trainer in trainers:
            opened.enter_context(trainer.session())
        for _ in range(6):
            for trainer in trainers:
                trainer.step()
    assert rows(tmp_path / "a") == rows(tmp_path / "b") == rows(tmp_path / "alone")
    assert RunFolder(tmp_path / "b").read_info()["state"] == "done"


def drive(recipe: Recipe, folder: Path, act: Callable[[Trainer], None]) -> None:
    """Open a run, let `act` make some of its steps, and stop it."""
    with open_trainer(recipe, folder) as trainer, trainer.session():
        act(trainer)
        trainer.stop("the test")


@pytest.mark.parametrize("mover", list(Side))
def test_a_single_move_is_a_step_of_one_player_and_is_logged_if_asked(tmp_path: Path, mover: Side) -> None:
    def move(trainer: Trainer) -> None:
        before = weights(trainer)
        trainer.step(mover, log_now=True)
        after = weights(trainer)
        assert {side for side in Side if not torch.equal(before[side], after[side])} == {mover}
        assert trainer.done == 1

    with pytest.raises(Stopped):
        drive(recipe(), tmp_path / "run", move)
    (row,) = rows(tmp_path / "run")
    assert row["step"] == 1
    assert {name for name in row["stats"] if name.endswith("/adversarial")} == {f"{mover}/adversarial"}


def test_a_stop_between_two_steps_leaves_a_run_that_is_readable_and_goes_on(tmp_path: Path) -> None:
    def four_steps(trainer: Trainer) -> None:
        for _ in range(4):
            trainer.step()

    with pytest.raises(Stopped, match="stopped by the test after step 4, state saved"):
        drive(recipe(), tmp_path / "run", four_steps)
    assert RunFolder(tmp_path / "run").read_info()["state"] == "stopped"
    assert Run(tmp_path / "run").sample(3).shape == (3, 2)
    train(recipe(), tmp_path / "run", resume=True)
    train(recipe(), tmp_path / "whole")
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


def test_a_stop_before_the_first_step_leaves_a_run_that_is_readable(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        drive(recipe(), tmp_path / "run", lambda _: None)
    assert RunFolder(tmp_path / "run").read_info()["state"] == "stopped"
    assert Run(tmp_path / "run").sample(3).shape == (3, 2)


def test_a_stop_with_weights_that_are_not_finite_is_a_divergence(tmp_path: Path) -> None:
    @torch.no_grad()
    def spoil(trainer: Trainer) -> None:
        trainer.state.game.players[Side.G].weights[0].fill_(float("nan"))

    with pytest.raises(Diverged):
        drive(recipe(monitor={"roll_backs": 0}), tmp_path / "run", spoil)
    assert RunFolder(tmp_path / "run").read_info()["state"] == "failed"


@pytest.mark.parametrize(("at", "saved"), [(3, 0), (9, 6), (12, 6), (16, 12)])
@pytest.mark.parametrize("error", [RankLost("a rank is lost", cure="repeat it"), KeyboardInterrupt()], ids=repr)
def test_run_json_of_a_run_that_ends_without_saving_has_the_step_that_it_continues_from(
    error: BaseException, at: int, saved: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints are of steps 6, 12 and 18; the error comes in a step, the number of which is `at`."""
    out, step = tmp_path / "run", TrainState.step

    def lost(state: TrainState) -> None:
        if state.steps_done == at - 1:
            raise error
        step(state)

    monkeypatch.setattr(TrainState, "step", lost)
    with pytest.raises(type(error)) as caught:
        train(ring(), out)
    if isinstance(caught.value, RankLost):
        text = "continue from the last checkpoint" if saved else "there is no checkpoint yet, start again"
        assert str(caught.value) == f"a rank is lost; {text} with: poise train --resume --out {out}"
    info = RunFolder(out).read_info()
    assert (info["state"], info["step"]) == ("stopped", saved)
    with open_trainer(ring(), out, resume=True) as trainer:
        assert trainer.first == saved
