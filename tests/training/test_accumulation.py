"""`--accumulate N`: what a run keeps and says about it, what is refused, and the memory that it saves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

import poise
from poise.cli import main
from poise.core.move import MoveData, join_parts
from poise.core.ranks import Ranks
from poise.core.types import DiscriminatorOutput
from poise.engine.compute import ComputeSettings
from poise.errors import OutOfMemory, RecipeError
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_recipe
from poise.training.precheck import check
from poise.training.rank_checks import check_division
from poise.training.state import TrainState
from poise.training.train import train as start_training
from training.test_ranks import write_recipe


def shipped(name: str) -> Recipe:
    """A shipped recipe."""
    return decode(load_recipe(name))


def train(*arguments: str | Path) -> int:
    """The exit code of `poise train`."""
    with pytest.raises(SystemExit) as ended:
        main(["train", *map(str, arguments)])
    return int(ended.value.code or 0)


def test_a_resumed_run_keeps_the_number_of_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, out = write_recipe(tmp_path / "recipe.toml", "ring", "steps=4", "log.saves=2"), tmp_path / "run"
    assert train(recipe, "--out", out, "--accumulate", 4) == 0
    said = "a batch is divided among 4 parts one after another, 8 samples each; statistics such as those of batch norm"
    assert said in capsys.readouterr().err
    assert json.loads((out / "run.json").read_bytes())["accumulate"] == 4
    assert train("--resume", "--out", out, "--steps", 6) == 0
    told = capsys.readouterr().err
    assert said in told
    assert "reproducible" not in told
    assert train("--resume", "--out", out, "--steps", 8, "--accumulate", 1) == 0
    told = capsys.readouterr().err
    assert "divided" not in told
    assert "may not be exactly reproducible: accumulate 4 -> 1" in told


def test_a_batch_that_cannot_be_divided_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", "ring", "steps=4")
    assert train(recipe, "--out", tmp_path / "run", "--accumulate", 5) == 2
    told = capsys.readouterr().err
    assert (
        "batch: must be a multiple of 5 with --accumulate 5, found 32; choose --accumulate 4, or set it to 30" in told
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("ranks", "accumulate", "fresh", "resumed"),
    [
        (1, 5, "choose --accumulate 4, or set it to 30", "choose --accumulate 4"),
        (3, 1, "set it to 33", "a resumed run keeps its batch: start it on 2 ranks"),
        (2, 3, "choose --accumulate 2, or set it to 30", "choose --accumulate 2"),
        (3, 2, "set it to 30", "a resumed run keeps its batch: start it on 2 ranks"),
        (64, 1, "set it to 64", "a resumed run keeps its batch: start it on 32 ranks"),
    ],
)
def test_a_resumed_run_is_not_told_to_change_its_batch(ranks: int, accumulate: int, fresh: str, resumed: str) -> None:
    """A cure that it names makes the batch of 32 divisible, or leads to one that does."""
    several = Ranks()
    several.size = ranks
    recipe = decode(load_recipe("ring") | {"batch": 32})
    for resume, cure in ((False, fresh), (True, resumed)):
        with pytest.raises(RecipeError) as caught:
            check_division(recipe, several, accumulate, resume=resume)
        assert caught.value.cure == cure


def test_the_command_line_tells_a_resumed_run_what_it_may_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = write_recipe(tmp_path / "recipe.toml", "ring", "steps=2"), tmp_path / "run"
    assert train(recipe, "--out", out) == 0
    assert train("--resume", "--out", out, "--steps", 4, "--accumulate", 5) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("found 32; choose --accumulate 4")


def test_a_check_takes_the_number_of_parts(tmp_path: Path) -> None:
    recipe = decode(load_recipe(str(write_recipe(tmp_path / "recipe.toml", "ring", "steps=4"))))
    assert check(recipe, accumulate=4).estimate is not None
    (refusal,) = check(recipe, accumulate=5).findings.refusals
    assert refusal.field == "batch"


@pytest.mark.parametrize("accumulate", [0, -2])
def test_less_than_one_part_is_refused(accumulate: int, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--accumulate: must be 1 or more, found"):
        poise.train(
            str(write_recipe(tmp_path / "recipe.toml")), tmp_path / "run", accumulate=accumulate, progress=False
        )
    assert not (tmp_path / "run").exists()


def test_a_part_may_be_a_single_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path / "recipe.toml", "ring", "steps=2", "batch=4")
    assert train(recipe, "--out", tmp_path / "run", "--accumulate", 4) == 0
    assert "4 parts one after another, 1 sample each" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "advised"), [(None, 4), (2, 4), (8, 16)])
def test_too_little_memory_advises_more_parts(
    given: int | None, advised: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(TrainState, "step", no_memory)
    recipe = decode(load_recipe(str(write_recipe(tmp_path / "recipe.toml", "ring", "steps=2"))))
    with pytest.raises(OutOfMemory, match=f"so does a batch in parts: --accumulate {advised}$"):
        start_training(recipe, tmp_path / "run", accumulate=given)


@pytest.mark.parametrize(
    ("batch", "given", "cure"),
    [
        (32, None, "less is needed for a batch in parts: --accumulate 8"),
        (32, 16, "less is needed for a batch in parts: --accumulate 32"),
        (20, None, "continue it on a device with more memory"),
    ],
)
def test_too_little_memory_for_a_resumed_run_advises_what_it_may_change(
    batch: int, given: int | None, cure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has four parts already, and must keep its batch."""

    def no_memory(*_: object) -> None:
        raise MemoryError

    steps = (f"batch={batch}", "steps=1")
    recipe = decode(load_recipe(str(write_recipe(tmp_path / "recipe.toml", "ring", *steps))))
    start_training(recipe, tmp_path / "run", accumulate=4)
    monkeypatch.setattr(TrainState, "step", no_memory)
    with pytest.raises(OutOfMemory, match=f"found batch {batch}; {cure}$"):
        start_training(recipe.model_copy(update={"steps": 2}), tmp_path / "run", accumulate=given, resume=True)


class Saved:
    """A tensor that a graph keeps for its backward pass; `now` are the bytes of all of them, `most` their maximum."""

    now = most = 0

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        Saved.now += tensor.nbytes
        Saved.most = max(Saved.most, Saved.now)

    def __del__(self) -> None:
        Saved.now -= self.tensor.nbytes


@pytest.mark.parametrize("recipe", ["ring", "vae"])
def test_the_graph_of_a_part_is_freed_before_the_next(recipe: str) -> None:
    changed = shipped(recipe).model_copy(update={"batch": 256})
    data, most = changed.data.load(), {}
    for accumulate in (1, 4):
        state = TrainState(changed, ComputeSettings(torch.device("cpu"), "fp32", accumulate), data)
        Saved.most = 0
        with saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            state.step()
        most[accumulate] = Saved.most
        assert Saved.now == 0
    assert most[4] < 0.5 * most[1], most


def test_parts_are_joined_in_their_order() -> None:
    state = TrainState(shipped("ring"), ComputeSettings(torch.device("cpu"), "fp32"), shipped("ring").data.load())
    context = state._begin_step()
    moves = [
        MoveData(
            context,
            torch.full((2, 3), float(k)),
            torch.full((2, 2), float(k)),
            outputs={"fake": DiscriminatorOutput(torch.full((2,), float(k)), features=torch.full((2, 4), float(k)))},
            logged={"adversarial": torch.tensor(float(k))},
        )
        for k in range(3)
    ]
    whole = join_parts(moves, context)
    assert whole.score("fake").tolist() == [0, 0, 1, 1, 2, 2]
    assert whole.extra_output("fake", "features").shape == (6, 4)
    assert whole.latents[:, 0].tolist() == whole.generated[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert whole.real is whole.labels is None
    assert float(whole.logged["adversarial"]) == 1
    assert join_parts(moves[:1], context) is moves[0]
