"""A roll-back returns to the newest checkpoint from before the sign of failure began, and crashes don't change that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poise.core.metrics_log import Row, Stat, row_to_json
from poise.errors import DiskError, Diverged, Stopped
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs import checkpoint, checkpoint_folder
from poise.runs.folder import RunFolder
from poise.runs.run import Run
from poise.training.alarms import AlarmHandler
from poise.training.evaluation import PeriodicEvaluator
from poise.training.state import TrainState
from poise.training.train import train
from poise.training.trainer import Trainer
from poise.utils.files import make_folder, write_text
from poise.utils.system import system
from poise.watch.logs import read_log
from poise.watch.replay import replay
from runs.small_runs import ring, stopped, traces
from training.test_alarms import Listener, info, lines, saves

WINDOW, ROWS = 8, 2  # so that a sign is seen in four rows


def watched(
    steps: int = 24, every: int = 3, policy: str = "roll_back", keep: int = 2, *, measured: bool = False, **monitor: Any
) -> Recipe:
    """The ring, which is rolled back if D's gradient norm has been above 500 for eight steps."""
    table = ring(steps).canonical()
    table["log"] = {"rows": ROWS, "samples": 100, "saves": every, "sheet": 4, "keep": keep}
    name = "gradient_long"
    table["monitor"] = {
        "policy": {name: policy, "gradient_burst": "off"},
        "threshold": {name: 500.0},
        "window": {name: WINDOW},
    } | monitor
    return decode(table | ({"measure": {"every": 2, "measures": ["fid"], "n": 50}} if measured else {}))


def plant(monkeypatch: pytest.MonkeyPatch, is_bad: Callable[[TrainState], bool]) -> None:
    """Let the rows say that D's gradient norm is 1,000 where `is_bad` holds, and otherwise 1."""
    log_row = Trainer._row

    def planted(trainer: Trainer) -> None:
        diagnostics = trainer.state.diagnostics
        norm = 1000.0 if is_bad(trainer.state) else 1.0
        stats = diagnostics.compute() | {"d/grad_norm": Stat(norm, 0.1, norm, norm)}
        with monkeypatch.context() as within:
            within.setattr(diagnostics, "compute", lambda: stats)
            log_row(trainer)

    monkeypatch.setattr(Trainer, "_row", planted)


def from_step(first: int, rollbacks: int) -> Callable[[TrainState], bool]:
    """The sign appears at a step, until the run has been rolled back so often."""
    return lambda state: state.steps_done >= first and state.num_rollbacks < rollbacks


def said(listener: Listener) -> list[str]:
    return [message for message in listener.output if message.startswith("back to")]


BEGAN = "as gradient_long began after step 12"


def test_the_run_returns_to_the_last_checkpoint_from_before_the_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins after step 12 and is seen at 20, when the newest checkpoints are of 15 and 18."""
    out, listener = tmp_path / "run", Listener()
    plant(monkeypatch, from_step(13, 1))
    train(watched(), out, listener=listener)
    (alarm,) = lines(out, "alarms")
    assert (alarm["step"], alarm["since"]) == (20, 12)
    assert said(listener) == [f"back to step 12, {BEGAN} (roll-back 1 of 3); learning rates are multiplied by 0.5"]
    assert listener.ticks == [*range(1, 20), *range(13, 25)]
    assert [row["step"] for row in lines(out, "rows")] == [*range(2, 25, 2)]
    assert info(out)["setbacks"] == 1


@pytest.mark.parametrize(
    ("start", "every", "back", "reason"),
    [
        (3, 6, 6, ", the oldest checkpoint; gradient_long began after step 2, and there is no earlier one"),
        (3, 12, 0, ", as there is no checkpoint"),
        (0, 6, 0, ""),
    ],
    ids=["none is old enough", "none at all", "the sign was there from the first row on"],
)
def test_without_a_checkpoint_from_before(
    start: int, every: int, back: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sign is seen after four rows, at step 8 or 10."""
    listener, seen = Listener(), 10 if start else 8
    plant(monkeypatch, from_step(start, 1))
    train(watched(12, every), tmp_path / "run", listener=listener)
    assert said(listener) == [f"back to step {back}{reason} (roll-back 1 of 3); learning rates are multiplied by 0.5"]
    assert listener.ticks == [*range(1, seen), *range(back + 1, 13)]


@pytest.mark.parametrize("returns", [(), (550,), (300, 550), (550, 800)], ids=str)
def test_a_replay_raises_the_alarms_of_a_run_that_was_rolled_back(returns: tuple[int, ...], tmp_path: Path) -> None:
    """D's loss falls at 500, so that windows reach back to before a roll-back."""
    config, folder, listener = watched(4000, policy="off"), RunFolder(tmp_path / "run"), Listener()
    make_folder(folder.path)
    rows = [Row(t, t, 1.0, {"d/adversarial": Stat.of(0.6 if t <= 500 else 0.005)}) for t in range(10, 1200, 10)]
    handler = AlarmHandler(config, folder, 0, listener)
    for until, row in enumerate(rows, 1):
        handler.process(row.step, row.stats)
        if row.step in returns:  # here later rows have been discarded
            write_text(folder.rows, "".join(json.dumps(row_to_json(one)) + "\n" for one in rows[:until]))
            handler.roll_back(row.step)
    listener.alarms += handler.monitor.flush()
    write_text(folder.rows, "".join(json.dumps(row_to_json(row)) + "\n" for row in rows))
    write_text(folder.recipe, config.to_toml())
    write_text(folder.info, json.dumps({"returned_to": list(returns)} if returns else {}))
    found = [(alarm.step, alarm.detector) for alarm in replay(read_log(folder.path)).alarms]
    assert found == [(alarm.step, alarm.detector) for alarm in listener.alarms] != []


def test_run_json_names_the_steps_that_a_run_returned_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after it has been resumed."""

    def is_bad(state: TrainState) -> bool:
        return (state.num_rollbacks == 0 and state.steps_done > 6) or (
            state.num_rollbacks == 1 and state.steps_done > 15
        )

    out = tmp_path / "run"
    plant(monkeypatch, is_bad)
    stopped(watched(30, keep=9), out, 28)
    assert info(out)["returned_to"] == [6, 12]
    train(watched(30, keep=9), out, resume=True)
    assert info(out)["returned_to"] == [6, 12] == list(read_log(out).returns)
    assert info(out)["setbacks"] == 2


@pytest.mark.parametrize(("stored", "returns"), [({}, ()), ({"returned_to": 0}, ()), ({"returned_to": 9}, (9,))])
def test_checkpoints_of_earlier_versions_name_the_last_return(stored: dict[str, int], returns: tuple[int, ...]) -> None:
    assert checkpoint.returns_in(stored) == returns


def test_several_roll_backs_lead_to_the_same_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener()
    plant(monkeypatch, from_step(13, 9))
    with pytest.raises(Diverged, match="after 2 roll-backs"):
        train(watched(roll_backs=2), tmp_path / "run", listener=listener)
    assert [message.partition(" (")[0] for message in said(listener)] == [f"back to step 12, {BEGAN}"] * 2
    assert listener.ticks == [*range(1, 20), *range(13, 20), *range(13, 20)]
    assert "step-00000012" in saves(tmp_path / "run")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is rolled back twice and never interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        plant(monkeypatch, from_step(13, 2))
        train(watched(), out)
    return out


def same_run(out: Path, whole: Path) -> bool:
    return traces(out) == traces(whole) and lines(out, "alarms") == lines(whole, "alarms")


@pytest.mark.parametrize(("at", "time"), [(5, 1), (17, 2), (14, 3)])
def test_a_run_that_is_stopped_and_resumed_is_the_same(
    at: int, time: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, between and after the roll-backs."""
    plant(monkeypatch, from_step(13, 2))
    with pytest.raises(Stopped, match=f"after step {at}"):
        train(watched(), tmp_path / "run", listener=Listener(at, time))
    train(watched(), tmp_path / "run", resume=True)
    assert same_run(tmp_path / "run", whole)


@pytest.mark.parametrize("moment", ["before it deletes", "while it deletes", "after it has deleted"])
def test_a_run_that_dies_in_a_roll_back_is_the_same(
    moment: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second one. It is resumed where it was to return to, or comes to the same alarm again."""
    plant(monkeypatch, from_step(13, 2))
    returning, deleting, calls = checkpoint_folder.return_to, checkpoint_folder._delete, list[str]()

    def dying(place: Path, *args: Any, **options: Any) -> None:
        calls.append(moment)
        if len(calls) < 2 or moment == "after it has deleted":
            returning(place, *args, **options)
        elif moment == "while it deletes":
            with monkeypatch.context() as within:
                within.setattr(checkpoint_folder, "_delete", lambda path: (deleting(path), interrupt()))
                returning(place, *args, **options)
        if len(calls) == 2:
            interrupt()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as within:
        within.setattr(checkpoint_folder, "return_to", dying)
        with pytest.raises(KeyboardInterrupt):
            train(watched(), tmp_path / "run")
    train(watched(), tmp_path / "run", resume=True)
    assert same_run(tmp_path / "run", whole)


def test_the_best_checkpoint_is_returned_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best, of step 4, is the last sound step of `past_its_best`, and older than any checkpoint in saves/."""
    out, outcome, listener = tmp_path / "run", PeriodicEvaluator.to_json, Listener()

    def planted(evaluator: PeriodicEvaluator, result: Any, step: int) -> dict[str, Any]:
        return outcome(evaluator, result, step) | {"measures": {"fid": 10.0 - step if step <= 4 else 900.0}}

    monkeypatch.setattr(PeriodicEvaluator, "to_json", planted)
    config = watched(20, 6, measured=True, policy="off", roll_backs=1).canonical()
    config["monitor"]["policy"] = {"past_its_best": "roll_back"}
    with pytest.raises(Diverged):
        train(decode(config), out, listener=listener)
    assert [message.partition(" (")[0] for message in said(listener)] == [
        "back to step 4, as past_its_best began after step 4"
    ]
    assert saves(out, "best") == ["step-00000004"]
    assert "step-00000004" in saves(out)
    assert Run(out, best=True).checkpoint.step == 4


def test_a_checkpoint_that_cannot_be_deleted_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To return to it would be to return to the sign."""
    plant(monkeypatch, from_step(13, 1))
    rename, out = system.rename, tmp_path / "run"

    def refused(source: Path, target: Path) -> None:
        if "step-00000018" in str(source) and ".old" in str(target):
            raise PermissionError(1, "not permitted")
        rename(source, target)

    with monkeypatch.context() as within:
        within.setattr(system, "rename", refused)
        with pytest.raises(DiskError, match=r"step-00000018: a checkpoint .* can't be deleted"):
            train(watched(), out)
    assert saves(out)[-2:] == ["step-00000012", "step-00000018"]
    checkpoint_folder.delete_after(out / "saves", 12)
    train(watched(), out, resume=True)
    assert info(out)["state"] == "done"


@pytest.mark.parametrize(("window", "every", "keep"), [(10, 1, 2), (10, 4, 2), (3, 5, 2), (10, 3, 5), (40, 1, 2)])
def test_pruning_leaves_a_checkpoint_from_before_the_window(
    window: int, every: int, keep: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its age is at most twice the window, and there are at most two checkpoints more than `keep`."""
    monkeypatch.setattr(checkpoint_folder, "verify", lambda path: {"step": checkpoint.step_of(path)})
    for step in range(every, 101, every):
        (tmp_path / f"step-{step:08d}").mkdir()
        checkpoint_folder.prune(tmp_path, keep, step - window)
        left = sorted(checkpoint_folder.valid_steps(tmp_path))
        assert left[-keep:] == list(range(every, step + 1, every))[-keep:]
        assert len(left) <= keep + 2
        before = [one for one in left if one <= step - window]
        assert bool(before) == (step - window >= every)
        assert not before or step - before[-1] <= 2 * (window + every)


def alone(recipe: Recipe) -> Recipe:
    """The recipe without the default policy `keep` of a detector with a longer window."""
    table = recipe.canonical()
    table["monitor"]["policy"]["collapse"] = "warn"
    return decode(table)


@pytest.mark.parametrize(
    ("policy", "measured", "number"),
    [("roll_back", False, 4), ("roll_back", True, 4), ("keep", False, 4), ("keep", True, 2), ("warn", False, 2)],
)
def test_policies_that_need_an_older_checkpoint_keep_one(
    policy: str, measured: bool, number: int, tmp_path: Path
) -> None:
    """At most two more than `log.keep`; `keep` needs none beside the best weights."""
    train(alone(watched(24, 2, policy, measured=measured)), tmp_path / policy)
    assert len(saves(tmp_path / policy)) == number


def test_a_window_of_the_policy_keep_does_not_change_where_a_roll_back_leads(tmp_path: Path) -> None:
    """That of `collapse` is longer."""
    for name, recipe in (("alone", alone(watched(24, 2))), ("both", watched(24, 2))):
        train(recipe, tmp_path / name)
    assert saves(tmp_path / "both") == saves(tmp_path / "alone")


def test_the_policy_keep_keeps_a_checkpoint_from_before_the_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a checkpoint after each step and two of them in `saves/`, those from before would be gone."""
    plant(monkeypatch, from_step(15, 99))
    out, listener = tmp_path / "run", Listener()
    train(alone(watched(24, 1, "keep")), out, listener=listener)
    (alarm,) = lines(out, "alarms")
    (name,) = saves(out, "kept")
    assert 0 < int(name.removeprefix("step-")) <= alarm["since"] < 15
    step = int(name.removeprefix("step-"))
    assert f"the checkpoint of step {step} is kept in {out / 'kept'}" in listener.output


def test_what_follows_is_not_judged_by_rows_from_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run returns to step 6, in the middle of the sign; the next alarm comes when a window has passed since."""
    plant(monkeypatch, from_step(3, 9))
    with pytest.raises(Diverged):
        train(watched(24, 6, roll_backs=1), tmp_path / "run")
    assert [(line["step"], line["since"]) for line in lines(tmp_path / "run", "alarms")] == [(10, 2), (14, 6)]
