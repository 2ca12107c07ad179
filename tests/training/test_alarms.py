"""Alarms of a run: non-finite gradients are skipped, policies are applied, and a run is rolled back and continues."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import context
from poise.core.metrics_log import Row, Stat, row_to_json
from poise.core.move import MoveData
from poise.core.player import Player
from poise.core.types import Side
from poise.engine import step
from poise.engine.game import Game
from poise.engine.step_metrics import StepMetrics
from poise.errors import Diverged, RecipeError, Stopped
from poise.optimizers import RMSprop
from poise.recipe.decode import decode
from poise.recipe.model import FREE_TO_CHANGE, Recipe, differences
from poise.recipe.toml import parse_toml
from poise.runs import checkpoint, checkpoint_folder
from poise.runs.folder import RunFolder
from poise.training import due
from poise.training.alarms import AlarmHandler, AlarmTriggered
from poise.training.evaluation import PeriodicEvaluator
from poise.training.listener import NullListener
from poise.training.state import TrainState
from poise.training.train import train
from poise.utils.files import append_line
from poise.watch.base import Alarm
from poise.watch.logs import read_log
from poise.watch.losses import DETECTORS as LOSSES
from poise.watch.monitor import DETECTORS
from poise.watch.replay import replay
from runs.small_runs import ring, stopped, traces

BAD = [math.nan, math.inf, -math.inf]
KEYS = ["step", "detector", "level", "message", "advice", "tip", "since"]

# ---- players: a gradient that is not finite --------------------------------------------------------------

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {"kind": "adam", "lr": 0.1},
    "adamw": {"kind": "adamw", "lr": 0.1, "weight_decay": 0.1},
    "sgd": {"kind": "sgd", "lr": 0.1, "momentum": 0.9},
    "sgd without momentum": {"kind": "sgd", "lr": 0.1},
    "rmsprop": {"kind": "rmsprop", "lr": 0.1},
    "rmsprop with momentum": {"kind": "rmsprop", "lr": 0.1, "momentum": 0.9},
}


def player(kind: str) -> Player:
    """A player with two weights and an optimiser of a recipe."""
    entry = decode({**ring().canonical(), "optimizer": {"g": OPTIMIZERS[kind], "d": OPTIMIZERS[kind]}}).optimizer.d
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Linear(3, 2)
    return Player(Side.D, net, entry.build(net.parameters()), entry.group_options)


def push(one: Player, first: float = 1.0) -> None:
    """One update with gradients of 1, the first of which is replaced by `first`."""
    for weight in one.weights:
        weight.grad = torch.ones_like(weight)
    grads = [weight.grad for weight in one.weights]
    grads[0].view(-1)[0] = first  # type: ignore[union-attr]
    one.set_found_inf(StepMetrics().add_norms("d/grad_norm", grads))  # type: ignore[arg-type]
    one.apply_gradients(context())


def remembered(one: Player) -> list[Tensor]:
    """Copies of the optimiser's state, without RMSProp's number of steps, on which nothing depends."""
    kept = [one.optimizer.state[weight] for weight in one.weights]
    averages = [(name, held) for state in kept for name, held in sorted(state.items()) if isinstance(held, Tensor)]
    counts = isinstance(one.optimizer, RMSprop)
    return [held.clone() for name, held in averages if not (counts and name == "step")]


def weights(one: Player) -> list[Tensor]:
    return [weight.detach().clone() for weight in one.weights]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", list(OPTIMIZERS))
def test_a_non_finite_gradient_changes_neither_weights_nor_optimizer_state(kind: str, bad: float) -> None:
    """The next update equals that of a player that has never had this gradient."""
    one, other = player(kind), player(kind)
    for each in (one, other):
        push(each)
        push(each, 2.0)
    before, memory = weights(one), remembered(one)
    assert bool(memory) == (kind != "sgd without momentum")
    push(one, bad)
    assert same(weights(one), before)
    assert same(remembered(one), memory)
    for each in (one, other):
        push(each, 3.0)
    assert not same(weights(one), before)
    assert same(weights(one), weights(other))
    assert same(remembered(one), remembered(other))


def test_the_counter_of_an_optimiser_of_the_user_s_stays_too() -> None:
    """PyTorch's plain Adam corrects its moments by the number of updates."""
    nets = [nn.Linear(3, 2) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    one, other = (
        Player(Side.D, net, torch.optim.Adam(net.parameters(), 0.1, fused=False), lambda context: {"lr": 0.1})
        for net in nets
    )
    for bad in (1.0, 2.0, math.nan, math.inf, 0.3):
        push(one, bad)
        if math.isfinite(bad):
            push(other, bad)
    assert same(weights(one), weights(other))
    assert same(remembered(one), remembered(other))


@pytest.fixture
def _stained() -> Iterator[None]:
    """Uninitialised memory is filled with NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.usefixtures("_stained")
@pytest.mark.parametrize("kind", list(OPTIMIZERS))
def test_the_first_gradient_of_all_may_be_non_finite(kind: str) -> None:
    """The optimiser's state is then not taken from uninitialised memory."""
    one, other = player(kind), player(kind)
    before = weights(one)
    push(one, math.nan)
    assert same(weights(one), before)
    for each in (one, other):
        push(each)
    assert not same(weights(one), before)
    assert same(weights(one), weights(other))


@pytest.mark.parametrize("kind", ["sgd without momentum", "adam"])
@pytest.mark.parametrize("pace", [0.5, 0.125, 1.0])
def test_lr_scale_multiplies_the_learning_rate(kind: str, pace: float) -> None:
    """It is applied once, regardless of the number of updates."""
    one = player(kind)
    one.lr_scale = pace
    for _ in range(3):
        before = weights(one)
        push(one)
        assert [group["lr"] for group in one.optimizer.param_groups] == [0.1 * pace]
        wanted = [old - 0.1 * pace for old in before]
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(weights(one), wanted, strict=True))


# ---- step metrics: the first non-finite ---------------------------------------------------------------------


def lengths(metrics: StepMetrics, *rows: list[float]) -> None:
    for row in rows:
        metrics.add_norms("d/grad_norm", [torch.tensor([number, 0.0]) for number in row])


def test_add_norms_returns_the_norm_of_each_tensor() -> None:
    tensors = [torch.tensor([3.0, 4.0]), torch.full((2, 2), 6.0), torch.zeros(3)]
    assert StepMetrics().add_norms("x", tensors).tolist() == [5.0, 12.0, 0.0]
    assert StepMetrics().add_norms("x", []).tolist() == [0.0]
    assert StepMetrics().state_dict() == {}


NAN, INF = math.nan, math.inf
FINE = [1.0, 2.0, 3.0]


def place_of(metrics: StepMetrics, name: str) -> int | None:
    found = metrics.first_non_finite(name)
    return None if found is None else found.index


@pytest.mark.parametrize(
    ("rows", "place"),
    [
        ([FINE, FINE], None),
        ([FINE, [1, NAN, NAN]], 1),
        ([[NAN, 1, 1]], 0),
        ([FINE, [1, 1, INF], [NAN, 1, 1]], 2),
        ([*[FINE] * 70, [1, NAN, 1], *[FINE] * 70, [NAN, 1, 1]], 1),
        ([*[FINE] * 200, [1, 1, -INF]], 2),
        ([[1.0], [1, 1, 1, 1], [1, 1, 1, NAN], [NAN]], 3),
        ([[1.0, 1.0, 1.0], [NAN]], 0),
        ([[1.0, 1.0], [1, 1, 1, 1], [1, NAN], [NAN, 1, 1, 1]], 1),
    ],
    ids=[
        "none",
        "two in one step",
        "at once",
        "the first step counts",
        "far back",
        "the last of many",
        "more tensors later",
        "fewer tensors later",
        "now more now fewer",
    ],
)
def test_the_first_non_finite_tensor_of_the_first_such_step(rows: list[list[float]], place: int | None) -> None:
    metrics = StepMetrics()
    for row in rows:
        lengths(metrics, row)
        metrics.add_scores(torch.zeros(2), torch.zeros(2))  # so that it condenses every 64 steps
    assert place_of(metrics, "d/grad_norm") == place
    assert place_of(metrics, "d/grad_norm") == place  # asking changes nothing
    assert metrics.first_non_finite("g/grad_norm") is None
    assert len(metrics.state_dict()["d/grad_norm"]) == len(rows)
    metrics.reduce()
    assert metrics.first_non_finite("d/grad_norm") is None
    lengths(metrics, [NAN])
    assert place_of(metrics, "d/grad_norm") == 0


@pytest.mark.parametrize("bad", BAD)
def test_all_finite(bad: float) -> None:
    metrics = StepMetrics()
    assert metrics.all_finite()
    for at in range(150):
        metrics.add("d/adversarial", torch.tensor(bad if at == 10 else 1.0))
        metrics.add_scores(torch.zeros(2), torch.zeros(2))
        assert metrics.all_finite() == (at < 10)
    metrics.reduce()
    metrics.add("d/adversarial", torch.tensor(1.0))
    assert metrics.all_finite()
    lengths(metrics, [1.0, bad])
    assert not metrics.all_finite()


# ---- planted faults --------------------------------------------------------------------------------------


def guarded(steps: int = 20, **monitor: Any) -> Recipe:
    """The ring, with rows after 7, 14, 20 steps and checkpoints after 6, 12, 18, 20."""
    table = ring(steps).canonical()
    return decode(table | ({"monitor": monitor} if monitor else {}))


class Listener(NullListener):
    """Records all calls; stops the run by a signal when step `at` is done for the `time`-th time."""

    def __init__(self, at: int = -1, time: int = 1) -> None:
        self.alarms: list[Alarm] = []
        self.output: list[str] = []
        self.ticks: list[int] = []
        self.at, self.time = at, time

    def on_alarm(self, alarm: Alarm) -> None:
        self.alarms.append(alarm)

    def on_message(self, sentence: str) -> None:
        self.output.append(sentence)

    def on_step(self, step: int) -> None:
        self.ticks.append(step)
        if step == self.at - 1 and self.ticks.count(step) == self.time:
            os.kill(os.getpid(), signal.SIGTERM)


Fault = Callable[[Game, Tensor], Tensor]


def of_all(_: Game, cost: Tensor) -> Tensor:
    return cost * math.nan


def of_d(name: str) -> Fault:
    """Makes one gradient of D non-finite."""

    def fault(game: Game, cost: Tensor) -> Tensor:
        return cost + (dict(game.d.net.named_parameters())[name] * math.nan).sum()

    return fault


def spoil(
    monkeypatch: pytest.MonkeyPatch, faults: dict[int, Fault], side: Side = Side.D, times: int | None = 1
) -> list[int]:
    """Plant faults at steps (counted from 0), each `times` often or always; returns the steps where they struck."""
    charge, struck = step.compute_loss, list[int]()

    def charged(game: Game, move: MoveData) -> Tensor:
        cost, now = charge(game, move), move.context
        again = times is None or struck.count(now.step) < times
        if now.side is side and now.turn == 0 and now.step in faults and again:
            struck.append(now.step)
            return faults[now.step](game, cost)
        return cost

    monkeypatch.setattr(step, "compute_loss", charged)
    return struck


def lines(out: Path, name: str) -> list[dict[str, Any]]:
    path = out / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def info(out: Path) -> dict[str, Any]:
    return json.loads((out / "run.json").read_text())


def saves(out: Path, place: str = "saves") -> list[str]:
    return sorted(path.name for path in (out / place).iterdir()) if (out / place).is_dir() else []


def finite(out: Path) -> bool:
    """Every tensor of every checkpoint, in any folder."""
    places = [path for name in ("saves", "best", "kept") for path in (out / name).glob("step-*")]
    tensors = [
        tensor for place in places for name, tensor in checkpoint.read(place).tensors.items() if "ledger/" not in name
    ]
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors if tensor.is_floating_point())


def rates(out: Path) -> list[float]:
    """How far D's weights moved in the step, which shows its learning rate."""
    return [line["stats"]["d/update"]["mean"] for line in lines(out, "rows")]


def test_a_fault_that_occurs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It occurs at step 9 and is found by the checkpoint after step 12, before the row of step 14."""
    out, listener = tmp_path / "run", Listener()
    struck = spoil(monkeypatch, {8: of_d("score.bias"), 9: of_all})
    train(guarded(), out, listener=listener)
    assert struck == [8, 9]
    (alarm,) = lines(out, "alarms")
    assert list(alarm) == KEYS
    detector = DETECTORS["not_finite"]
    assert alarm == {
        "step": 12,
        "detector": "not_finite",
        "level": "failure",
        "message": "D's gradient of score.bias is not finite",
        "advice": "lower both learning rates: --set optimizer.g.lr=5e-5 --set optimizer.d.lr=5e-5; or raise the "
        "weight of R1: --set tricks.r1.gamma=5.0",
        "tip": detector.tip,
        "since": 7,  # the row before
    }
    assert [one._asdict() for one in listener.alarms] == [alarm]
    assert listener.output[:-3] == ["back to step 6 (roll-back 1 of 3); learning rates are multiplied by 0.5"]
    assert listener.output[-1].startswith("done, with 1 alarm: not_finite; see poise watch ")
    assert listener.ticks == [*range(1, 12), *range(7, 21)]
    assert [row["step"] for row in lines(out, "rows")] == [7, 14, 20]
    result = info(out)
    assert (result["state"], result["step"], result["setbacks"]) == ("done", 20, 1)
    assert saves(out) == ["step-00000006", "step-00000018", "step-00000020"]  # the oldest for `collapse`
    assert finite(out)


def test_the_alarm_names_the_first_non_finite_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row of step 14 contains it at step 13; rows after the restored checkpoint are deleted."""
    out, listener = tmp_path / "run", Listener()
    spoil(monkeypatch, {12: of_d("trunk.2.weight"), 13: of_all})
    train(guarded(), out, listener=listener)
    (alarm,) = lines(out, "alarms")
    assert alarm["step"] == 14
    assert alarm["message"].startswith("d/grad_norm is not finite, first in D's gradient of trunk.2.weight")
    assert listener.ticks == [*range(1, 14), *range(13, 21)]
    found = lines(out, "rows")
    assert [row["step"] for row in found] == [7, 14, 20]
    assert all(isinstance(row["stats"]["d/grad_norm"]["mean"], float) for row in found)


def test_later_steps_with_fewer_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a head that is used in some steps only: the index is not that among the gradients of the last step."""

    def of_one_alone(game: Game, cost: Tensor) -> Tensor:
        return dict(game.d.net.named_parameters())["trunk.0.weight"].sum()

    def last_of_turn(move: MoveData) -> bool:
        return move.context.side is Side.D and move.context.step == 13

    charge = step.compute_loss
    monkeypatch.setattr(
        step,
        "compute_loss",
        lambda game, move: of_one_alone(game, charge(game, move)) if last_of_turn(move) else charge(game, move),
    )
    spoil(monkeypatch, {12: of_d("score.bias")})
    train(guarded(), tmp_path / "run")
    (alarm,) = lines(tmp_path / "run", "alarms")
    assert "first in D's gradient" in alarm["message"]
    assert "trunk" not in alarm["message"]
    assert info(tmp_path / "run")["state"] == "done"


def test_a_gradient_of_g_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, {3: of_all}, side=Side.G)
    train(guarded(), tmp_path / "run")
    (alarm,) = lines(tmp_path / "run", "alarms")
    assert alarm["message"] == "G's gradient of layers.0.weight is not finite"


def test_rows_after_the_checkpoint_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of steps 7 and 8 are written before the fault is found at 9; they are written again, with lower rates."""
    often = {"log": {"rows": 1, "samples": 100, "saves": 6, "sheet": 4}}
    spoil(monkeypatch, {8: of_all})
    config = decode(guarded(10).canonical() | often)
    train(config, tmp_path / "run")
    monkeypatch.undo()
    train(config, tmp_path / "sound")
    assert [row["step"] for row in lines(tmp_path / "run", "rows")] == [*range(1, 11)]
    before, after = rates(tmp_path / "sound"), rates(tmp_path / "run")
    assert before[:6] == after[:6]
    assert after[6] == pytest.approx(before[6] / 2, rel=0.01)


@pytest.mark.parametrize("back_off", [0.5, 0.25, 1.0])
def test_every_roll_back_lowers_the_learning_rates(
    back_off: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, float] = {}
    stepped = TrainState.step

    def looking(here: TrainState) -> None:
        stepped(here)
        groups = [player.optimizer.param_groups[0]["lr"] for player in here.game.players.values()]
        seen[here.num_rollbacks] = groups[0]
        assert groups[0] == pytest.approx(2 * groups[1])  # both players

    monkeypatch.setattr(TrainState, "step", looking)
    spoil(monkeypatch, {8: of_all}, times=3)
    train(guarded(back_off=back_off), tmp_path / "run")
    assert seen == {n: pytest.approx(4e-4 * back_off**n) for n in range(4)}
    assert info(tmp_path / "run")["setbacks"] == 3


def test_without_a_checkpoint_the_run_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, listener = tmp_path / "run", Listener()
    spoil(monkeypatch, {1: of_all})
    train(guarded(), out, listener=listener)
    assert listener.output[:-3] == [
        "back to step 0, as there is no checkpoint (roll-back 1 of 3); learning rates are multiplied by 0.5"
    ]
    assert listener.output[-1].startswith("done, with 1 alarm: not_finite; see poise watch ")
    assert listener.ticks == [*range(1, 6), *range(1, 21)]
    monkeypatch.undo()
    half = guarded().canonical()
    half["optimizer"] = {"g": {"kind": "adam", "lr": 1e-4}, "d": {"kind": "adam", "lr": 2e-4}}
    train(decode(half), tmp_path / "half")  # the very run that has these rates from the start
    assert traces(out)["tensors"] == traces(tmp_path / "half")["tensors"]
    assert traces(out)["rows"] == traces(tmp_path / "half")["rows"]


def test_a_fault_in_the_last_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, {19: of_all})
    train(guarded(), tmp_path / "run")
    assert [alarm["step"] for alarm in lines(tmp_path / "run", "alarms")] == [20]
    assert info(tmp_path / "run")["state"] == "done"
    assert saves(tmp_path / "run")[-1] == "step-00000020"


# ---- repeated faults ---------------------------------------------------------------------------------


@pytest.mark.parametrize("roll_backs", [3, 1, 0])
def test_a_permanent_fault_stops_the_run(roll_backs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    struck = spoil(monkeypatch, {8: of_all}, times=None)
    with pytest.raises(Diverged, match=f"after {roll_backs} roll-back") as caught:
        train(guarded(roll_backs=roll_backs), out)
    assert caught.value.where == "not_finite at step 12"
    assert "lower both learning rates" in caught.value.cure
    assert "earlier checkpoints are kept" in caught.value.cure
    assert len(struck) == len(lines(out, "alarms")) == roll_backs + 1
    assert info(out)["state"] == "failed"
    assert info(out).get("setbacks", 0) == roll_backs
    assert saves(out) == ["step-00000006"]
    assert finite(out)


@pytest.mark.parametrize("roll_backs", [0, 1])
def test_checkpoints_are_said_to_be_kept_only_if_there_are_any(
    roll_backs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault comes before the first checkpoint, at once or again after a return to step 0."""
    spoil(monkeypatch, {3: of_all}, times=None)
    with pytest.raises(Diverged, match="not_finite") as caught:
        train(guarded(roll_backs=roll_backs), tmp_path / "run")
    assert saves(tmp_path / "run") == []
    assert caught.value.cure
    assert "checkpoint" not in caught.value.cure


def test_the_command_line_exits_with_code_5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poise: Callable[..., Any]
) -> None:
    file = tmp_path / "told.toml"
    file.write_text(guarded().to_toml())
    spoil(monkeypatch, {8: of_all}, times=None)
    output = poise("train", file, "--out", tmp_path / "run")
    assert output.code == 5
    assert "not_finite at step 12" in output.last
    assert "after 3 roll-backs" in output.last
    assert "Traceback" not in output.err


# ---- policies --------------------------------------------------------------------------------------------


def test_policy_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    spoil(monkeypatch, {8: of_all})
    with pytest.raises(Diverged) as caught:
        train(guarded(policy={"not_finite": "stop"}), out)
    assert "returns" not in str(caught.value)
    (alarm,) = lines(out, "alarms")
    assert alarm["level"] == "failure"
    assert "setbacks" not in info(out)
    assert (info(out)["state"], info(out)["step"]) == ("failed", 12)
    assert saves(out) == ["step-00000006"]


@pytest.mark.parametrize(("policy", "level"), [("note", "note"), ("warn", "warning")])
def test_policies_note_and_warn(policy: str, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The update with the non-finite gradient is skipped, so the checkpoint is finite."""
    out, listener = tmp_path / "run", Listener()
    spoil(monkeypatch, {8: of_all})
    train(guarded(policy={"not_finite": policy}), out, listener=listener)
    found = lines(out, "alarms")
    assert {(alarm["detector"], alarm["level"]) for alarm in found} == {("not_finite", level)}
    assert {alarm["step"] for alarm in found} == {12, 14}  # at the save, and in the row
    assert listener.ticks == [*range(1, 21)]
    assert info(out)["state"] == "done"
    assert "setbacks" not in info(out)
    assert lines(out, "rows")[1]["stats"]["d/grad_norm"]["mean"] == "nan"
    assert finite(out)


def test_policy_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, {12: of_all})
    train(guarded(policy={"not_finite": "off"}), tmp_path / "run")
    assert lines(tmp_path / "run", "alarms") == []
    assert info(tmp_path / "run")["state"] == "done"


LOUD: dict[str, Any] = {"threshold": {"gradient_long": 0.0}, "window": {"gradient_long": 8}}  # any gradient is


def loud(steps: int = 20, rows: int = 2, policy: str = "note", **more: Any) -> Recipe:
    """An alarm in the fourth row."""
    table = guarded(steps).canonical() | {"monitor": LOUD | {"policy": {"gradient_long": policy}}} | more
    table["log"] = {"rows": rows, "samples": 100, "saves": 3, "sheet": 4}
    return decode(table)


def test_all_alarms_are_reported_at_the_end(tmp_path: Path, poise: Callable[..., Any]) -> None:
    """The last message and `run.json` have the number of alarms."""
    out, listener = tmp_path / "a place" / "run", Listener()
    train(loud(), out, listener=listener)
    raised = [line["detector"] for line in lines(out, "alarms")]
    assert info(out)["alarms"] == dict(Counter(raised))
    name, n = Counter(raised).most_common(1)[0]
    message = listener.output[-1]
    assert message.startswith(f"done, with {len(raised)} note{'s' if len(raised) > 1 else ''}: ")
    assert (f"{name} ({n})" if n > 1 else name) in message
    assert message.endswith(f"; see poise watch '{out}'")
    recipe = tmp_path / "loud.toml"
    recipe.write_text(loud().to_toml())
    output = poise("train", recipe, "--out", tmp_path / "other", "--steps", 4, "--set", "monitor=none")
    assert output.code == 0, output.err
    assert output.err.endswith(f"to generate more samples: poise sample {tmp_path / 'other'}\ndone\n")


@pytest.mark.parametrize(("policy", "is_named"), [("warn", True), ("note", False), ("keep", True)])
def test_the_last_message_names_the_alarms_whose_condition_held_to_the_end(
    policy: str, is_named: bool, tmp_path: Path
) -> None:
    """A gradient norm above 0 is an alarm from step 8 on, and stays one."""
    out, listener = tmp_path / "run", Listener()
    train(loud(policy=policy), out, listener=listener)
    (alarm,) = lines(out, "alarms")
    total = f"1 {'note' if policy == 'note' else 'alarm'}: gradient_long; see poise watch {out}"
    problem = f"done, but {alarm['message']} (gradient_long, step 8); {total}"
    assert listener.output[-1] == (problem if is_named else f"done, with {total}")


@pytest.mark.parametrize("at", [9, 19])
def test_a_resumed_run_names_the_open_alarms_from_before(at: int, tmp_path: Path) -> None:
    out, listener = tmp_path / "run", Listener()
    stopped(loud(policy="warn"), out, at)
    train(loud(policy="warn"), out, resume=True, listener=listener)
    assert listener.alarms == []
    assert "(gradient_long, step 8); 1 alarm: gradient_long" in listener.output[-1]


def test_rows_that_wait_for_a_batch_are_examined_after_the_last_step(tmp_path: Path) -> None:
    """Single values are examined in batches after 500 rows, and a detector may find its sign in the last ones only."""
    handler = AlarmHandler(guarded(504, policy={"gradient_burst": "warn"}), RunFolder(tmp_path), 0, Listener())
    for number in range(1, 505):
        handler.process(number, {"g/grad_norm": Stat.of(1.0 if number < 504 else 1e4)})
    assert handler.counts == {"gradient_burst": 1}
    assert handler.summary().startswith("done, but ")


def test_policy_keep_copies_the_checkpoint_from_before_the_alarm(tmp_path: Path) -> None:
    """The alarm is of step 8, the sign from the first row on, and checkpoints are of 3, 6, 9, ...

    The newest two stay in saves/, and the oldest for the window of `collapse`, which has the same policy.
    """
    out, listener = tmp_path / "run", Listener()
    train(loud(policy="keep"), out, listener=listener)
    (alarm,) = lines(out, "alarms")
    assert (alarm["step"], alarm["detector"], alarm["level"]) == (8, "gradient_long", "warning")
    assert saves(out, "kept") == ["step-00000003"]
    assert saves(out) == ["step-00000003", "step-00000018", "step-00000020"]
    assert checkpoint.verify(out / "kept" / "step-00000003")["step"] == 3
    (message,) = (output for output in listener.output if "kept" in output)
    assert message.startswith(f"the checkpoint of step 3 is kept in {out / 'kept'}; it is the oldest one, but later")
    assert info(out)["state"] == "done"


def test_policy_keep_does_nothing_if_the_best_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "run"
    measure = {"every": 5, "measures": ["fid"], "n": 50}
    train(loud(policy="keep", measure=measure), out)
    assert [alarm["detector"] for alarm in lines(out, "alarms")] == ["gradient_long"]
    assert saves(out, "best")
    assert saves(out, "kept") == []


@pytest.mark.parametrize(
    ("there", "since", "kept"),
    [
        ([6, 12, 24], 16, 12),
        ([6, 12, 18], 18, 18),
        ([102, 24], 100, 24),
        ([18, 24], 16, 18),
        ([18, 24], 0, 18),
        ([6, 9, 12], 10, 6),
        ([4, 9], 10, 9),
        ([], 8, None),
    ],
    ids=["older", "of that very step", "by number", "all later", "from the first row on", "due", "none due", "none"],
)
@pytest.mark.parametrize("detector", ["collapse", "not_finite"])
def test_which_checkpoint_is_kept(
    there: list[int], since: int, kept: int | None, detector: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that a roll-back would return to (of those due every six steps); after `not_finite` the newest."""
    monkeypatch.setattr(checkpoint_folder, "verify", lambda path: {"step": checkpoint.step_of(path)})
    folder, listener = RunFolder(tmp_path / "run"), Listener()
    for number in there:
        place = folder.saves / f"step-{number:08d}"
        place.mkdir(parents=True)
        (place / "what").write_text(str(number))
    folder.path.mkdir(exist_ok=True)
    (folder.saves / ".tmp-1").mkdir(parents=True)
    handler = AlarmHandler(guarded(200, policy={detector: "keep"}), folder, 0, listener)
    if kept is not None and detector == "not_finite":
        kept = max([number for number in there if number % 6 == 0] or there)
    for _ in range(2):  # a second alarm finds it there already
        handler.handle(Alarm(150, detector, "warning", "", "", "", since))
    names = [] if kept is None else [f"step-{kept:08d}"]
    assert saves(folder.path, "kept") == names
    assert all((folder.kept / name / "what").read_text() == str(kept) for name in names)
    later = f"; it is the oldest one, but later than the first sign of {detector}, which began after step {since:,}"
    end = later if kept is not None and detector == "collapse" and kept > since else ""
    assert listener.output == [f"the checkpoint of step {kept:,} is kept in {folder.kept}{end}" for _ in names] * 2


@pytest.mark.parametrize(("policy", "stops"), [("roll_back", False), ("stop", True), ("note", None), ("keep", None)])
def test_a_policy_of_any_detector(policy: str, stops: bool | None, tmp_path: Path) -> None:
    folder, listener = RunFolder(tmp_path), Listener()
    handler = AlarmHandler(guarded(policy={"collapse": policy}), folder, 0, listener)
    alarm = Alarm(8, "collapse", "warning", "they are alike", "look", "T16")
    if stops is None:
        handler.handle(alarm)
    else:
        with pytest.raises(AlarmTriggered, match="they are alike") as caught:
            handler.handle(alarm)
        assert (caught.value.stops, caught.value.alarm) == (stops, alarm)
    assert listener.alarms == [alarm]
    assert lines(tmp_path, "alarms") == [alarm._asdict()]


@pytest.mark.parametrize(
    ("policies", "since", "decisive"),
    [
        (("warn", "keep", "note"), (10, 20, 30), None),
        (("warn", "keep", "roll_back"), (10, 20, 30), 2),
        (("roll_back", "warn", "stop"), (10, 20, 30), 2),
        (("advise", "stop", "keep"), (10, 20, 30), 1),
        (("stop", "roll_back", "advise"), (30, 20, 10), 0),
        (("roll_back", "roll_back", "roll_back"), (20, 10, 30), 1),
        (("keep", "advise", "roll_back"), (10, 20, 20), 1),
        (("roll_back", "advise", "off"), (30, 20, 10), 1),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else str(value),
)
def test_all_alarms_of_a_row_are_logged_and_the_strictest_policy_is_applied(
    policies: tuple[str, ...], since: tuple[int, ...], decisive: int | None, tmp_path: Path
) -> None:
    """Of equal policies it is that of the alarm that leads furthest back; `keep` is applied in any case."""
    listener, names = Listener(), ("collapse", "gradient_burst", "d_at_zero")
    recipe = guarded(policy=dict(zip(names, policies, strict=True)))
    handler = AlarmHandler(recipe, RunFolder(tmp_path), 0, listener)
    kept: list[Alarm] = []
    handler._keep_checkpoint = kept.append  # type: ignore[method-assign]
    alarms = [Alarm(50, name, "warning", name, "look", "T16", at) for name, at in zip(names, since, strict=True)]
    with nullcontext() if decisive is None else pytest.raises(AlarmTriggered) as caught:
        handler.handle(*alarms)
    if decisive is not None:
        triggered = caught.value
        policy = policies[decisive]
        assert triggered.alarm == alarms[decisive]
        assert (triggered.stops, triggered.advises) == (policy == "stop", policy == "advise")
    logged = [alarm for alarm, policy in zip(alarms, policies, strict=True) if policy != "off"]
    assert listener.alarms == logged
    assert lines(tmp_path, "alarms") == [alarm._asdict() for alarm in logged]
    assert (handler.num_written, handler.counts.total()) == (len(logged), len(logged))
    assert kept == [alarm for alarm, policy in zip(alarms, policies, strict=True) if policy == "keep"]


def test_a_run_that_is_stopped_has_the_alarms_of_its_replay(tmp_path: Path) -> None:
    """Two detectors find their signs in the row of step 8, and the first one rolls back."""
    out, norm = tmp_path / "run", Stat.of(1e4)
    policy = {"gradient_long": "roll_back", "gradient_burst": "off", "d_fooled": "stop", "d_never_wrong": "warn"}
    recipe = guarded(policy=policy, window={"gradient_long": 8, "d_fooled": 8}, threshold={"gradient_long": 10.0})
    folder = RunFolder(out)
    out.mkdir()
    handler, rows = AlarmHandler(recipe, folder, 0, Listener()), range(2, 10, 2)
    stats = {"d/grad_norm": norm, "d/accuracy": Stat(0.1, 0.1, 0.0, 0.3)}
    for number in rows:
        append_line(folder.rows, row_to_json(Row(number, 0, 0.0, stats)))
    for number in rows[:-1]:
        handler.process(number, stats)
    with pytest.raises(AlarmTriggered) as caught:
        handler.process(rows[-1], stats)
    assert (caught.value.alarm.detector, caught.value.stops) == ("d_fooled", True)
    (out / "recipe.toml").write_text(recipe.to_toml())
    (out / "run.json").write_text("{}")
    found = [(alarm.step, alarm.detector) for alarm in replay(read_log(out)).alarms]
    assert found == [(line["step"], line["detector"]) for line in lines(out, "alarms")]
    assert {name for _, name in found} == {"gradient_long", "d_fooled"}


@pytest.mark.parametrize("policy", ["warn", "stop", "advise"])
def test_advice_is_fitted_to_the_recipe_of_the_run(policy: str, tmp_path: Path) -> None:
    """Where it is written and shown; `advise` gets what the detector said, as it takes back its own change first."""
    listener = Listener()
    handler = AlarmHandler(guarded(policy={"past_its_best": policy}), RunFolder(tmp_path), 0, listener)
    alarm = Alarm(8, "past_its_best", "warning", "", DETECTORS["past_its_best"].advice, "T16")
    if policy == "warn":
        handler.handle(alarm)
    else:
        with pytest.raises(AlarmTriggered) as caught:
            handler.handle(alarm)
        assert (caught.value.alarm, caught.value.advice) == (alarm, listener.alarms[0].advice)
    assert listener.alarms[0].advice.endswith("keep the quality longer (the recipe has averaged_weights already)")
    assert lines(tmp_path, "alarms") == [listener.alarms[0]._asdict()]


# ---- non-finite weights are not saved ---------------------------------------------------------------------


def poison(monkeypatch: pytest.MonkeyPatch, at: int, what: Callable[[Game], Tensor]) -> None:
    """After step `at`, once, make a number of the game NaN."""
    stepped, struck = TrainState.step, list[int]()

    def poisoned(here: TrainState) -> None:
        stepped(here)
        if here.steps_done == at and not struck:
            struck.append(at)
            what(here.game).data.view(-1)[0] = math.nan

    monkeypatch.setattr(TrainState, "step", poisoned)


def _weight(game: Game) -> Tensor:
    return game.g.weights[0]


def _average(game: Game) -> Tensor:
    (kept,) = [trick for name, trick in game.tricks.items() if name == "averaged_weights"]
    return next(tensor for tensor in kept.state_dict().values() if tensor.is_floating_point() and tensor.dim())


@pytest.mark.parametrize("what", [_weight, _average], ids=["weight", "average"])
@pytest.mark.parametrize("policy", ["roll_back", "warn"])
def test_non_finite_weights_are_not_saved(
    what: Callable[[Game], Tensor], policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weight becomes NaN after the step, without any metric that shows it; the checkpoint finds it."""
    out, written = tmp_path / "run", list[bool]()
    writing = checkpoint.write

    def watched(*args: Any) -> Path:
        place = writing(*args)
        written.append(finite(out))
        return place

    monkeypatch.setattr(checkpoint, "write", watched)
    poison(monkeypatch, 12, what)
    config = guarded(policy={"not_finite": policy})
    if policy == "roll_back":
        train(config, out)
    else:
        with pytest.raises(Diverged):  # nothing after it is worth to end with
            train(config, out)
        assert info(out)["state"] == "failed"
        assert saves(out) == ["step-00000006"]
    first = lines(out, "alarms")[0]
    assert (first["step"], first["detector"]) == (12, "not_finite")
    assert first["message"].startswith("game/")
    assert "step-00000012" not in saves(out)
    assert written
    assert all(written)
    if policy == "roll_back":
        assert (info(out)["state"], info(out)["setbacks"]) == ("done", 1)
        assert len(written) == 4  # 6, then 12, 18 and 20


@pytest.mark.parametrize(("policy", "told"), [("off", 1), ("note", 0)])
def test_checkpoints_that_are_left_out_without_an_alarm_are_named_once(
    policy: str, told: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy is to continue, until there is no state to end with."""
    out, listener = tmp_path / "run", Listener()
    poison(monkeypatch, 8, _weight)
    with pytest.raises(Diverged):
        train(guarded(policy={"not_finite": policy}), out, listener=listener)
    assert saves(out) == ["step-00000006"]
    found = [message for message in listener.output if message.startswith("no checkpoint of step 12, nor of later")]
    assert len(found) == told
    assert bool(lines(out, "alarms")) != bool(told)


@pytest.mark.parametrize("what", [_weight, _average], ids=["weight", "average"])
def test_non_finite_weights_are_never_the_best(
    what: Callable[[Game], Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weight becomes NaN after a step with an evaluation and neither row nor checkpoint."""
    out = tmp_path / "run"
    poison(monkeypatch, 10, what)
    table = guarded().canonical() | {"measure": {"every": 5, "measures": ["fid", "modes"], "n": 50}}
    train(decode(table), out)
    assert (info(out)["state"], info(out)["setbacks"]) == ("done", 1)
    assert {alarm["detector"] for alarm in lines(out, "alarms")} == {"not_finite"}
    assert finite(out)
    (best,) = saves(out, "best")
    result = {line["step"]: line["measures"]["fid"] for line in lines(out, "measures")}
    assert sorted(result) == [5, 10, 15, 20]
    assert best == f"step-{min(result, key=result.__getitem__):08d}"
    assert all(math.isfinite(value) for value in result.values())


def test_the_best_checkpoint_of_deleted_steps_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best, of step 10, has replaced that of step 6; after a roll-back to 6 there is none."""
    out, outcome, seen = tmp_path / "run", PeriodicEvaluator.to_json, set[int]()

    def planted(evaluator: PeriodicEvaluator, result: Any, step: int) -> dict[str, Any]:
        line = outcome(evaluator, result, step)
        value = 0.01 if step == 10 and 10 not in seen else 100.0 - step if step <= 6 else 1000.0 + step
        seen.add(step)
        return line | {"measures": {"fid": value}}

    monkeypatch.setattr(PeriodicEvaluator, "to_json", planted)
    spoil(monkeypatch, {11: of_all})
    monkeypatch.setattr(due, "evaluates", lambda _, step: step % 2 == 0 or step > 12)
    table = guarded(14).canonical() | {"measure": {"every": 2, "measures": ["fid"], "n": 50}}
    train(decode(table), out)
    assert info(out)["setbacks"] == 1
    assert [line["step"] for line in lines(out, "measures")] == [2, 4, 6, 8, 10, 12, 13, 14]
    assert info(out)["best"] == {"measure": "fid", "step": 8, "value": 1008.0, "last": 1014.0}
    assert saves(out, "best") == ["step-00000008"]
    assert checkpoint.read(out / "best" / "step-00000008").state["setbacks"] == 1


# ---- resumed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at", "time"), [(13, 1), (17, 1), (8, 2)], ids=["soon", "late", "on the way back up"])
def test_resuming_after_a_roll_back_is_exact(
    at: int, time: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lower learning rate is part of the checkpoint, and the alarm is kept."""
    spoil(monkeypatch, {8: of_all})
    train(guarded(), tmp_path / "whole")
    monkeypatch.undo()
    spoil(monkeypatch, {8: of_all})
    out, listener = tmp_path / "run", Listener(at, time)
    with pytest.raises(Stopped, match=f"after step {at}"):
        train(guarded(), out, listener=listener)
    assert info(out)["setbacks"] == 1
    train(guarded(), out, resume=True)
    assert traces(out) == traces(tmp_path / "whole")
    assert info(out)["setbacks"] == info(tmp_path / "whole")["setbacks"] == 1
    assert len(lines(tmp_path / "whole", "alarms")) == 1
    assert lines(out, "alarms") == lines(tmp_path / "whole", "alarms")


def test_the_number_of_roll_backs_survives_resuming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, {8: of_all, 15: of_all}, times=1)
    out = tmp_path / "run"
    with pytest.raises(Stopped, match="after step 13"):
        train(guarded(roll_backs=1), out, listener=Listener(13))
    with pytest.raises(Diverged, match="after 1 roll-back"):
        train(guarded(roll_backs=1), out, resume=True)


NOTED = {"gradient_long": "note", "past_its_best": "note"}


def noted() -> Recipe:
    """A run with two alarms that end nothing, one of them about a measure."""
    monitor = LOUD | {"threshold": LOUD["threshold"] | {"past_its_best": 1e-6}, "policy": NOTED}
    config = loud(measure={"every": 2, "measures": ["fid"], "n": 50})
    return decode(config.canonical() | {"monitor": monitor})


@pytest.fixture(scope="module")
def noted_alarms(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The alarms of such a run that is not stopped."""
    out = tmp_path_factory.mktemp("noted") / "whole"
    train(noted(), out)
    return lines(out, "alarms")


@pytest.mark.parametrize("at", [3, 5, 8, 9, 11, 15])
def test_a_resumed_monitor_has_the_same_history(at: int, noted_alarms: list[Any], tmp_path: Path) -> None:
    """The alarms are those of a run that was never stopped."""
    assert {alarm["detector"] for alarm in noted_alarms} == set(NOTED)
    assert [alarm["step"] for alarm in noted_alarms if alarm["detector"] == "gradient_long"] == [8]
    stopped(noted(), tmp_path / "run", at)
    train(noted(), tmp_path / "run", resume=True)
    assert lines(tmp_path / "run", "alarms") == noted_alarms


def test_the_history_consists_of_rows_and_measures_up_to_the_checkpoint(tmp_path: Path) -> None:
    """In the order of their steps, and without raising alarms."""
    folder, listener = RunFolder(tmp_path), Listener()
    for number in (2, 4, 6, 8):
        append_line(folder.rows, row_to_json(Row(number, 0, 0.0, {"d/grad_norm": Stat.of(math.nan)})))
    for number in (3, 6, 9):
        result = {"measures": {"fid": 1.0}, "floor": {"fid": 0.5}, "n": 10, "features": "points"}
        append_line(folder.measures, {"step": number} | result)
    handler = AlarmHandler(guarded(), folder, 6, listener)
    series = handler.monitor.history.series
    assert {name: one.steps for name, one in series.items() if "floor" not in name} == {
        "d/grad_norm": [2, 4, 6],
        "measure/fid": [3, 6],
    }
    assert handler.monitor.history.step == 6
    assert listener.alarms == []
    assert lines(tmp_path, "alarms") == []


def heard(out: Path, steps: int, first: int, until: int, curve: Callable[[int], float]) -> AlarmHandler:
    """The handler of a run of this length that has been resumed at `first` and has made its rows up to `until`."""
    handler = AlarmHandler(guarded(steps), RunFolder(out), first, Listener())
    handler.resume_at(None, first)
    for number in range(first + 10, until + 1, 10):
        stats = {"d/adversarial": Stat(curve(number), 0.01, 0.0, 1.0), "d/grad_norm": Stat.of(1.0)}
        append_line(handler.folder.rows, row_to_json(Row(number, 0, 0.0, stats)))
        handler.process(number, stats)
    return handler


@pytest.mark.parametrize("sign_at", [200, 380, 410])
@pytest.mark.parametrize(("before", "after"), [(400, 4000), (400, 800), (4000, 480)])
def test_a_run_that_gets_another_length_keeps_its_alarms(before: int, after: int, sign_at: int, tmp_path: Path) -> None:
    """D's loss is at zero to the end: one alarm, which the last line names, however often the run is resumed."""

    def curve(step: int) -> float:
        return 0.5 if step <= sign_at else 0.001

    heard(tmp_path, before, 0, 400, curve)
    found = lines(tmp_path, "alarms")
    heard(tmp_path, after, 400, 440, curve)
    handler = heard(tmp_path, after, 440, after, curve)
    again = lines(tmp_path, "alarms")
    assert again[: len(found)] == found
    (alarm,) = (line for line in again if line["detector"] == "d_at_zero")
    assert f"(d_at_zero, step {alarm['step']})" in handler.summary()
    assert len({line["detector"] for line in again}) == len(again)


def test_a_sign_that_returns_after_the_run_has_got_another_length_is_reported_again(tmp_path: Path) -> None:
    """After it has been absent for a window; the run is more than twice as long as at the alarm."""

    def curve(step: int) -> float:
        return 0.001 if step <= 150 or step > 700 else 0.5

    heard(tmp_path, 400, 0, 400, curve)
    heard(tmp_path, 2000, 400, 2000, curve)
    found = [line["step"] for line in lines(tmp_path, "alarms") if line["detector"] == "d_at_zero"]
    assert len(found) == 2
    assert found[0] <= 150 < 700 < found[1]


@pytest.mark.parametrize(("returns", "is_recalled"), [((), True), ((100,), False), ((100, 395), False)])
def test_an_alarm_of_discarded_rows_is_not_recalled(
    returns: tuple[int, ...], is_recalled: bool, tmp_path: Path
) -> None:
    """The one of step 390 may be; then its sign is not reported again."""
    for number in range(10, 401, 10):
        append_line(tmp_path / "rows.jsonl", row_to_json(Row(number, 0, 0.0, {"d/adversarial": Stat.of(0.5)})))
    append_line(tmp_path / "alarms.jsonl", Alarm(390, "d_at_zero", "warning", "", "", "T11", 200)._asdict())
    handler = AlarmHandler(guarded(4000), RunFolder(tmp_path), 400, Listener(), returns)
    handler.resume_at(None, 400)
    for number in range(410, 900, 10):
        handler.process(number, {"d/adversarial": Stat.of(0.001)})
    assert [one.detector for one in handler.logged].count("d_at_zero") == (1 if is_recalled else 2)


def test_alarms_after_the_checkpoint_are_raised_again(tmp_path: Path) -> None:
    """The run was killed; its last checkpoint is of step 6, its alarm of step 8."""
    train(loud(), tmp_path / "whole")
    out = tmp_path / "run"
    stopped(loud(), out, 9)
    shutil.rmtree(out / "saves" / "step-00000009")
    assert [alarm["step"] for alarm in lines(out, "alarms")] == [8]
    train(loud(), out, resume=True)
    assert lines(out, "alarms") == lines(tmp_path / "whole", "alarms")


def test_a_roll_back_truncates_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The alarm of step 8 is raised again once a window has passed since the return to step 6."""
    spoil(monkeypatch, {8: of_all})
    train(loud(), tmp_path / "run")
    found = [(alarm["step"], alarm["detector"]) for alarm in lines(tmp_path / "run", "alarms")]
    assert found == [(8, "gradient_long"), (9, "not_finite"), (14, "gradient_long")]


# ---- in the recipe ---------------------------------------------------------------------------------------


def test_the_monitor_table_survives_a_round_trip_through_toml() -> None:
    monitor = {
        "policy": {"collapse": "stop", "d_at_zero": "off"},
        "threshold": {"gradient_long": 7.5},
        "window": {"collapse": 40},
        "roll_backs": 5,
        "back_off": 0.25,
    }
    config = guarded(**monitor)
    assert config.monitor is not None
    again = decode(parse_toml(config.to_toml(), "told.toml"))
    assert again == config
    assert again.monitor is not None
    assert again.monitor.model_dump() == monitor
    assert "monitor" not in guarded().canonical()


@pytest.mark.parametrize("table", ["policy", "threshold", "window"])
@pytest.mark.parametrize(("name", "near"), [("colapse", "collapse"), ("not_finit", "not_finite")])
def test_an_unknown_detector_is_refused(table: str, name: str, near: str) -> None:
    result = {"policy": "stop", "threshold": 1.0, "window": 3}[table]
    with pytest.raises(RecipeError, match=f"no such detector '{name}'.*did you mean '{near}'") as caught:
        guarded(**{table: {name: result}})
    assert caught.value.where.startswith("monitor")


def test_an_invalid_monitor_table_exits_with_code_2(poise: Callable[..., Any], tmp_path: Path) -> None:
    output = poise("train", "ring", "--out", tmp_path / "run", "--set", 'monitor.policy.colapse="off"')
    output.assert_error(2, "monitor", "no such detector 'colapse'", "did you mean 'collapse'?")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "bad",
    [{"policy": {"collapse": "explode"}}, {"window": {"collapse": 0}}, {"roll_backs": -1}, {"back_off": 0.0}],
    ids=["policy", "window", "roll_backs", "back_off"],
)
def test_invalid_monitor_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="monitor"):
        guarded(**bad)


def test_monitor_settings_may_change_when_a_run_is_resumed(tmp_path: Path) -> None:
    assert "monitor" in FREE_TO_CHANGE
    out = tmp_path / "run"
    assert differences(guarded(), loud()) == []
    stopped(loud(), out, 9)
    train(loud(policy="off"), out, resume=True)
    assert [alarm["step"] for alarm in lines(out, "alarms")] == [8]
    assert decode(parse_toml((out / "recipe.toml").read_text(), "")).monitor == loud(policy="off").monitor


def test_the_monitor_gets_the_loss_family_and_the_number_of_steps(tmp_path: Path) -> None:
    """For a short run a minimum is used, so that windows are not too short."""
    handler = AlarmHandler(guarded(4000), RunFolder(tmp_path), 0, NullListener())
    assert (handler.monitor.family, handler.monitor.history.length) == ("logistic", 4000)
    assert {detector.name for detector in LOSSES} - {one.name for one in handler.monitor._detectors} == {
        "wasserstein_stuck"
    }
