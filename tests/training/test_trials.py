"""The policy `advise`: a run tries the changes that the advice of its alarms names, and crashes don't change that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from poise.core.metrics_log import Stat
from poise.core.ranks import ALONE, Ranks
from poise.errors import Diverged, RecipeError, Stopped
from poise.ladder.run import _resume
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.toml import parse_toml, set_value
from poise.runs import checkpoint, checkpoint_folder
from poise.runs.changes import Change, changed_table, in_force
from poise.runs.run import Run
from poise.training.alarms import AlarmHandler
from poise.training.rank_checks import check_advise
from poise.training.state import TrainState
from poise.training.train import train
from poise.training.trainer import Trainer
from poise.utils.system import system
from runs.small_runs import ring, traces
from training.test_alarms import Listener, info, lines, saves
from training.test_roll_back import said, same_run, watched

LOWER, CLIP = "optimizer.d.lr=5e-5", 'tricks+=[{kind="gradient_clipping"}]'
PACK = 'tricks+=[{kind="packing", samples=2}]'
SIGNS = {"gradient_long": ("d/grad_norm", 1000.0, 1.0), "collapse": ("g/diversity", 0.01, 1.0)}


def advised(steps: int = 20, every: int = 3, policies: tuple[str, ...] = ("gradient_long",), **monitor: Any) -> Recipe:
    """The ring, whose alarms about D's gradient norm and G's diversity lead to trials; see `watched`."""
    table = watched(steps, every, "off", **monitor).canonical()
    table["monitor"]["policy"] = {"gradient_burst": "off"} | dict.fromkeys(policies, "advise")
    table["monitor"]["window"]["collapse"] = 8
    return decode(table)


def plant(monkeypatch: pytest.MonkeyPatch, when: dict[str, Callable[[TrainState], bool]]) -> None:
    """Let the rows show the sign of a detector where a condition holds."""
    log_row = Trainer._row

    def planted(trainer: Trainer) -> None:
        diagnostics, state = trainer.state.diagnostics, trainer.state
        stats = diagnostics.compute()
        for name, (metric, bad, good) in SIGNS.items():
            value = bad if name in when and when[name](state) else good
            stats[metric] = Stat(value, 0.001, value, value)
        stats["g/feature_diversity"] = stats["g/diversity"]
        with monkeypatch.context() as within:
            within.setattr(diagnostics, "compute", lambda: stats)
            log_row(trainer)

    monkeypatch.setattr(Trainer, "_row", planted)


def without(*options: str, since: int = 9) -> Callable[[TrainState], bool]:
    """The sign is there as long as none of these changes is in force."""

    def is_bad(state: TrainState) -> bool:
        made = {option for one in in_force(state.changes) for option in one.options}
        return state.steps_done >= since and not made & set(options)

    return is_bad


def recipe_of(out: Path) -> Recipe:
    return decode(parse_toml((out / "recipe.toml").read_text(), ""))


def with_options(recipe: Recipe, *options: str) -> Recipe:
    table = recipe.canonical()
    for option in options:
        set_value(table, option)
    return decode(table)


# ---- the rules -------------------------------------------------------------------------------------------

BACK = "back to step 6, as gradient_long began after step 8"


def test_the_first_change_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, listener = tmp_path / "run", Listener()
    plant(monkeypatch, {"gradient_long": without(LOWER)})
    train(advised(), out, listener=listener)
    assert said(listener) == [f"{BACK} (roll-back 1 of 3); trying the advice of gradient_long: {LOWER} (change 1 of 2)"]
    assert not any("not taken" in message for message in listener.output)
    assert f"the recipe was changed on the advice of alarms: {LOWER} (gradient_long, step 6)" in listener.output
    assert recipe_of(out) == with_options(advised(), LOWER)
    result = info(out)
    assert result["changes"] == [{"step": 6, "detector": "gradient_long", "set": [LOWER]}]
    assert (result["original"], result["recipe"]) == (advised().hash, recipe_of(out).hash)
    assert (result["state"], result["setbacks"]) == ("done", 1)
    run = Run(out)
    assert run.checkpoint.step == 20
    assert _resume(advised(), out) is None  # a ladder knows this run as one of the original recipe
    assert run.sample(4).shape == (4, 2)


def test_only_the_change_affects_what_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the beginning, the run is the one that has the change from the start: no other rate is lowered."""
    plant(monkeypatch, {"gradient_long": without(LOWER, since=0)})
    train(advised(12, 9), tmp_path / "run")
    monkeypatch.undo()
    plant(monkeypatch, {})
    train(with_options(advised(12, 9), LOWER), tmp_path / "changed")
    found, expected = traces(tmp_path / "run"), traces(tmp_path / "changed")
    assert found == expected


def test_the_next_change_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, listener = tmp_path / "run", Listener()
    plant(monkeypatch, {"gradient_long": without(CLIP)})
    train(advised(), out, listener=listener)
    assert [message.partition("; ")[2] for message in said(listener)] == [
        f"trying the advice of gradient_long: {LOWER} (change 1 of 2)",
        f"taking back {LOWER}; trying the advice of gradient_long: {CLIP} (change 2 of 2)",
    ]
    assert recipe_of(out) == with_options(advised(), CLIP)
    assert [tuple(one["set"]) for one in info(out)["changes"]] == [(LOWER,), (CLIP,)]


def test_when_no_change_is_left_learning_rates_are_lowered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last change is taken back as well. All roll-backs count."""
    out, listener = tmp_path / "run", Listener()
    plant(monkeypatch, {"gradient_long": without("nothing")})
    with pytest.raises(Diverged, match="after 4 roll-backs"):
        train(advised(roll_backs=4), out, listener=listener)
    assert [message.partition("; ")[2] for message in said(listener)][2:] == [
        f"taking back {CLIP}; no change that gradient_long advises is left; learning rates are multiplied by 0.5",
        "no change that gradient_long advises is left; learning rates are multiplied by 0.25",
    ]
    assert [one["set"] for one in info(out)["changes"]] == [[LOWER], [CLIP], []]
    assert recipe_of(out) == advised(roll_backs=4)


def test_changes_of_different_detectors_stay_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D reads packs from the second trial on: its first layer is new, all else is taken from the checkpoint."""
    out, listener = tmp_path / "run", Listener()
    later = without(PACK, since=9)
    plant(
        monkeypatch,
        {"gradient_long": without(CLIP), "collapse": lambda state: len(state.changes) >= 2 and later(state)},
    )
    config = with_options(advised(20, 3, ("gradient_long", "collapse")), "log.keep=9")
    before: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(checkpoint_folder, "return_to", returning_to(checkpoint_folder.return_to, before))
    taken: list[dict[str, torch.Tensor]] = []
    roll_back = TrainState.roll_back

    def rolled(state: TrainState, *args: Path) -> list[str]:
        left = roll_back(state, *args)
        taken.append({f"game/{name}": tensor.clone() for name, tensor in state.game.state_dict().items()})
        return left

    monkeypatch.setattr(TrainState, "roll_back", rolled)
    train(config, out, listener=listener)
    assert recipe_of(out) == with_options(config, CLIP, PACK)
    assert [message for message in listener.output if message.startswith("not taken")] == [
        "not taken from the checkpoint: D: net.trunk.0.weight keeps its initial values: "
        "its shape is [8, 4], in the checkpoint [8, 2]"
    ]
    saved, now = before[-1], taken[-1]
    named = {name: name.replace("game/d.net.net.", "game/d.net.") for name in now}
    assert {name for name in now if not same(now[name], saved[named[name]])} == {"game/d.net.net.trunk.0.weight"}
    assert Run(out).sample(4).shape == (4, 2)
    (out / "saves" / "step-00000003").rename(make(out / "best") / "step-00000003")
    assert Run(out, best=True).sample(4).shape == (4, 2)  # with a D that reads single samples
    sentence = next(message for message in listener.output if message.startswith("the recipe was changed"))
    assert sentence.endswith(f"{CLIP} (gradient_long, step 6); {PACK} (collapse, step 6)")


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def returning_to(return_to: Callable[..., int], before: list[dict[str, torch.Tensor]]) -> Callable[..., int]:
    """`return_to`, which also appends the tensors of the checkpoint."""

    def returned(place: Path, *args: Any, **options: Any) -> int:
        step = return_to(place, *args, **options)
        before.append(dict(checkpoint.read(place / f"step-{step:08d}").tensors))
        return step

    return returned


def test_a_change_that_the_recipe_refuses_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs of two don't divide a batch of nine; D's rate is below that of the advice already."""
    out, listener = tmp_path / "run", Listener()
    plant(
        monkeypatch,
        {
            "gradient_long": lambda state: state.num_rollbacks == 1,
            "collapse": lambda state: state.num_rollbacks == 0 and state.steps_done > 3,
        },
    )
    config = with_options(advised(20, 3, ("gradient_long", "collapse")), "optimizer.d.lr=1e-5", "batch=9")
    train(config, out, listener=listener)
    assert [message for message in listener.output if "is not tried" in message] == [
        f"{PACK}, which collapse advises, is not tried: tricks.4: D scores packs of 2 samples, but a batch of 9 "
        "is not a multiple of that; set batch to 8",
        f"{LOWER}, which gradient_long advises, is not tried: the recipe has this already, or more of it",
    ]


def test_a_change_is_tried_only_if_it_makes_a_difference_and_its_warnings_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe has this tempo, in which the advice leaves out defaults; R1 warns of batch norm in D."""
    listener = Listener()
    plant(monkeypatch, {"gradient_long": lambda state: state.num_rollbacks == 0 and state.steps_done > 3})
    same, penalty = 'tempo={kind="ratio", d=2}', 'tricks+=[{kind="r1", gamma=1.0}]'
    monkeypatch.setattr("poise.training.trials.changes_in", lambda _: [(same,), (penalty,)])
    train(with_options(advised(), "tricks=[]"), tmp_path / "run", listener=listener)
    assert [message for message in listener.output if "is not tried" in message] == [
        f"{same}, which gradient_long advises, is not tried: the recipe has this already, or more of it"
    ]
    assert sum(message.startswith("tricks.0: 'r1' penalises") for message in listener.output) == 1


def test_new_averages_start_from_the_weights_of_the_checkpoint(tmp_path: Path) -> None:
    """Not from the initial ones of the game that is built anew."""
    config = with_options(ring(12), "tricks.averaged_weights=none", "log.saves=6")
    out = tmp_path / "run"
    train(config, out)
    checkpoint_folder.delete_after(out / "saves", 6)
    state = Run(out)
    trainer = TrainState(config, *prepared(config))
    trainer.change((Change(6, "past_its_best", ('tricks+=[{kind="averaged_weights"}]',)),))
    left = trainer.roll_back(out / "saves")
    assert left == ["not taken from the checkpoint: averaged_weights starts anew"]
    saved = state.checkpoint.tensors
    for name, tensor in trainer.game.sampling_network().state_dict().items():
        assert torch.equal(tensor, saved[f"game/g.net.{name}"])
    for side, player in trainer.game.players.items():
        for name, weight in player.trainable_weights.items():
            for key, tensor in player.optimizer.state[weight].items():
                assert torch.equal(tensor, saved[f"optimizer/{side}/{name}/{key}"])
    assert (trainer.steps_done, trainer.lr_scale) == (6, 1.0)


def test_a_changed_recipe_starts_from_the_initial_weights_that_fit(tmp_path: Path) -> None:
    """D, which is wrapped to read packs, takes all but its first layer from the network that `[init]` names."""
    config = ring(2)
    train(config, tmp_path / "run")
    source = {"d": Run(tmp_path / "run").game.d.net.state_dict()}
    trainer = TrainState(config, *prepared(config), initial=source)
    trainer.change((Change(0, "collapse", (PACK,)),))
    assert trainer.roll_back(tmp_path / "saves") == [
        "not taken from the initial weights: D: net.trunk.0.weight keeps its initial values: its shape is [8, 4], "
        "in the initial weights [8, 2]"
    ]
    found = trainer.game.d.net.state_dict()
    assert {name for name in found if not same(found[name], source["d"][name.removeprefix("net.")])} == {
        "net.trunk.0.weight"
    }


def prepared(config: Recipe) -> tuple[Any, Any]:
    from poise.engine.compute import ComputeSettings

    return ComputeSettings(torch.device("cpu"), "fp32"), config.data.load(None)


def test_several_ranks_refuse_the_policy() -> None:
    class Two(Ranks):
        size = 2

    check_advise(advised(), ALONE)
    check_advise(watched(), Two())
    with pytest.raises(
        RecipeError, match=r"monitor.policy.gradient_long: the recipe of a run on 2 ranks can't be changed"
    ):
        check_advise(advised(), Two())


def test_the_changes_in_force() -> None:
    changes = (Change(1, "a", ("x=1",)), Change(2, "b", ("y=2",)), Change(3, "a", ("x=3",)), Change(4, "c", ("z=4",)))
    assert in_force(changes) == (changes[1], changes[2], changes[3])
    table = {"x": 0}
    assert changed_table(table, (*changes, Change(5, "c", ()))) == {"x": 3, "y": 2}
    assert table == {"x": 0}


# ---- resumed ---------------------------------------------------------------------------------------------

BOTH = {"gradient_long": without(CLIP)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that tries two changes and is never interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        plant(monkeypatch, BOTH)
        train(advised(), out)
    return out


@pytest.mark.parametrize(
    ("given", "at", "time"),
    [("original", 11, 2), ("changed", 11, 2), ("original", 8, 3)],
    ids=["in the first trial", "with recipe.toml", "in the second trial"],
)
def test_a_run_that_is_stopped_and_resumed_is_the_same(
    given: str, at: int, time: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the recipe that it was started with, as `poise study --resume` gives it, and with `recipe.toml`."""
    plant(monkeypatch, BOTH)
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train(advised(), out, listener=Listener(at, time))
    train(advised() if given == "original" else recipe_of(out), out, resume=True)
    assert same_run(out, whole)
    assert info(out)["changes"] == info(whole)["changes"]
    assert info(out)["original"] == info(whole)["original"] == advised().hash


def test_another_recipe_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is an edited `recipe.toml`."""
    plant(monkeypatch, BOTH)
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train(advised(), out, listener=Listener(19))
    for recipe in (advised(), recipe_of(out)):
        with pytest.raises(RecipeError, match=r"a resumed run must keep its recipe, found different values of batch;"):
            train(with_options(recipe, "batch=8"), out, resume=True)
    (out / "recipe.toml").write_text(with_options(recipe_of(out), "seed=8").to_toml())
    for recipe in (advised(), recipe_of(out)):
        with pytest.raises(RecipeError, match=r"found different values of .*seed"):
            train(recipe, out, resume=True)


def test_free_fields_may_be_changed_with_the_original_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, BOTH)
    out = tmp_path / "run"
    train(advised(), out)
    train(with_options(advised(), "steps=22", 'monitor.policy={gradient_long="warn"}'), out, resume=True)
    assert recipe_of(out).tricks == with_options(advised(), CLIP).tricks
    assert (info(out)["step"], recipe_of(out).steps) == (22, 22)


CALLS = ("rename", "replace", "mkdir", "unlink", "rmdir")


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.slow
@pytest.mark.parametrize("place", range(72))
def test_a_kill_at_any_call(place: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system is as it was at the k-th call after the first alarm: the run goes on, and is the same."""
    killed_at(place, whole, tmp_path, monkeypatch)


@pytest.mark.parametrize("place", [4, 13, 22])
def test_a_kill_at_some_calls(place: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_at(place, whole, tmp_path, monkeypatch)


def killed_at(place: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, BOTH)
    out, count, handle = tmp_path / "run", list[int](), AlarmHandler.handle
    with monkeypatch.context() as within:

        def begin(handler: AlarmHandler, *alarms: Any) -> None:
            if not count:
                count.append(0)
            handle(handler, *alarms)

        within.setattr(AlarmHandler, "handle", begin)
        for name in CALLS:
            within.setattr(system, name, counted(getattr(system, name), count, place))
        with pytest.raises(Killed):
            train(advised(), out)
    assert Run(out).sample(2).shape == (2, 2)  # as a reader may at any time
    train(recipe_of(out) if place % 2 else advised(), out, resume=True)
    assert same_run(out, whole)
    assert info(out)["changes"] == info(whole)["changes"]


def counted(call: Callable[..., Any], count: list[int], place: int) -> Callable[..., Any]:
    """A system call that is not made, like all later ones, from the k-th on."""

    def made(*args: Any) -> Any:
        if count:
            count[0] += 1
            if count[0] > place:
                raise Killed
        return call(*args)

    return made


def test_a_damaged_newest_checkpoint(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on from one of an earlier stage, with the recipe of that stage."""
    plant(monkeypatch, BOTH)
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train(advised(), out, listener=Listener(11, 3))
    assert recipe_of(out) == with_options(advised(), CLIP)
    for name in saves(out)[1:]:
        (out / "saves" / name / checkpoint.TENSORS).write_bytes(b"")
    listener = Listener()
    train(recipe_of(out), out, resume=True, listener=listener)
    assert said(listener)[0].endswith(f"trying the advice of gradient_long: {LOWER} (change 1 of 2)")
    assert [line["step"] for line in lines(out, "alarms")] == [line["step"] for line in lines(whole, "alarms")]
    assert recipe_of(out) == recipe_of(whole)
