"""The check before training: its findings, the estimated cost of a run, and the warm-up."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contracts.tiny import CPU, recipe, source
from poise.core.metrics_log import Stat
from poise.core.random_streams import RandomStreams
from poise.core.types import Side
from poise.data.source import DataSplits
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.errors import DataError, RecipeError
from poise.objectives.base import Objective
from poise.recipe.checks.compatibility import check_compatibility
from poise.recipe.checks.findings import Findings
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table, recipe_names
from poise.runs import checkpoint, checkpoint_folder, state_tensors
from poise.training import precheck as checking
from poise.training import run_info, step_time
from poise.training.precheck import BLOCK, WARM_UP_MOVES, Report, WarmUp, _compare_sizes, check, warm_up_discriminator
from poise.training.state import TrainState
from poise.training.train import train
from poise.watch.base import EQUILIBRIUM_LOSS, FAMILIES

RELATIVISTIC = {"objective": {"kind": "relativistic"}}
DEAF: dict[str, Any] = {"kind": "adam", "lr": 1e-12}


def checked(config: Recipe, **how: Any) -> Report:
    return check(config, device="cpu", precision="fp32", **how)


def initial_state(config: Recipe) -> TrainState:
    return TrainState(config, ComputeSettings(CPU, "fp32"), DataSplits(source("points")))


# ---- shipped recipes -------------------------------------------------------------------------------------


def text(name: str) -> str:
    return (files("poise.recipes") / f"{name}.toml").read_text("utf-8")


def apart(config: Recipe) -> Report:
    """The numbers of weights of both players, without data."""
    channels = {"digits": 1, "stacked_digits": 3, "digit_pairs": 2, "digit_domains": 2}.get(str(config.data.tag()))
    size = getattr(config.data, "size", 0)
    shape, classes = ((2,), 0) if channels is None else ((channels, size, size), 10)
    parts = (1, 1) if config.network.direction in ("a_to_b", "both_ways") else ()
    findings = check_compatibility(config, shape, classes, parts)
    return Report(findings, [], None, None)


def test_shipped_recipes_have_no_findings() -> None:
    """Neither for their settings nor for their data nor for the sizes of their players."""
    for name in recipe_names():
        config = decode(load_table(name))
        assert apart(config).findings == Findings(), name
        loaded = config.data.load()
        findings = check_compatibility(config, loaded.train.shape, len(loaded.train.classes))
        game = build_game(config, loaded.train.spec(), ComputeSettings(CPU, "fp32"), RandomStreams(0))
        if config.network.d is None or not config.network.d.small_on_purpose:
            _compare_sizes(run_info.parameter_counts(game), findings)
        assert findings == Findings(), name


def test_a_d_that_is_published_as_a_small_one_is_not_compared_with_g() -> None:
    """It has a five hundredth of G's weights, which the check reports of any other D."""
    table = load_table("stacked-digits-small")
    assert check(decode(table)).findings.warnings == []
    other = table["network"] | {"d": {"kind": "dcgan", "width": 1}}
    (warning,) = check(decode(table | {"network": other})).findings.warnings
    assert "times as many weights as D" in warning.message


# ---- the order of the checks ---------------------------------------------------------------


def missing(**changes: Any) -> Recipe:
    """A recipe with missing data."""
    return recipe("pictures", data={"kind": "npz", "path": "/nowhere/at-all.npz", "size": 8}, **changes)


def test_without_data_only_the_recipe_is_checked() -> None:
    report = checked(missing(), with_data=False)
    assert report == Report(check_compatibility(missing()), [], None, None)
    with pytest.raises(DataError):
        checked(missing())


def test_the_recipe_is_refused_before_the_data_is_loaded() -> None:
    report = checked(missing(objective={"kind": "energy"}))
    assert [finding.field for finding in report.findings.refusals] == ["objective"]
    assert report.estimate is None


def test_the_size_in_the_recipe_is_enough_to_refuse_a_network() -> None:
    """The network is refused before the missing data is loaded."""
    config = recipe("pictures", data={"kind": "npz", "path": "/nowhere.npz", "size": 13})
    report = checked(config)
    assert [finding.field for finding in report.findings.refusals] == ["network.g", "network.d"]
    assert report.findings.refusals[0].tip == "T08a"


def npz(file: Path, n: int = 40, channels: int = 1, **more: Any) -> dict[str, Any]:
    images = np.random.default_rng(0).integers(0, 256, (n, 8, 8, channels), np.uint8)
    np.savez(file, images=images, **more)
    return {"kind": "npz", "path": str(file), "size": 8}


def test_the_data_may_refuse_what_the_recipe_does_not(tmp_path: Path) -> None:
    """The recipe uses labels, but the data has none."""
    config = recipe("labelled", data=npz(tmp_path / "p.npz"))
    assert check_compatibility(config, (1, 8, 8)).refusals == []
    report = checked(config)
    assert [finding.field for finding in report.findings.refusals] == ["conditioning"]
    assert (report.estimate, report.warm_up) == (None, None)


def test_notes_of_the_data(tmp_path: Path) -> None:
    notes = checked(recipe("pictures", data=npz(tmp_path / "p.npz", n=4))).notes
    assert notes == recipe("pictures", data=npz(tmp_path / "p.npz", n=4)).data.load().notes
    assert notes


def test_a_component_that_cannot_be_built_is_a_refusal(tmp_path: Path) -> None:
    """A user-defined D without features, which a trick needs."""
    (tmp_path / "own.py").write_text(
        "import torch\n\n\nclass D(torch.nn.Module):\n"
        "    def __init__(self, shape):\n        super().__init__()\n        self.line = torch.nn.Linear(2, 1)\n\n"
        "    def forward(self, x):\n        return self.line(x)\n"
    )
    d = {"kind": "python", "file": str(tmp_path / "own.py"), "name": "D"}
    network = {"g": {"kind": "mlp", "width": 4}, "d": d}
    config = recipe("points", {"kind": "feature_matching"}, network=network)
    with pytest.raises(RecipeError, match="--trust-code"):
        checked(config)
    with pytest.raises(RecipeError, match="--trust-code"):
        checked(config, with_data=False)
    report = checked(config, trust_code=True)
    (one,) = report.findings.refusals
    assert one.field == "network.d"
    assert "no features" in one.message
    assert one.cure
    assert report.estimate is None


def test_the_check_does_not_write_and_does_not_change_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = recipe("points", steps=4)
    train(config, tmp_path / "alone")
    before = sorted(tmp_path.rglob("*"))
    checked(config, warm_up=True)
    assert sorted(tmp_path.rglob("*")) == before
    train(config, tmp_path / "after")
    both = [(checkpoint_folder.newest_valid(tmp_path / name / "saves")[0]) for name in ("alone", "after")]
    assert both[0] is not None
    assert both[1] is not None
    assert all(torch.equal(tensor, both[1].tensors[name]) for name, tensor in both[0].tensors.items())


# ---- the estimate ---------------------------------------------------------------------------------------


def test_the_estimate(tmp_path: Path) -> None:
    config = recipe("points", steps=1000)
    estimate = checked(config).estimate
    assert estimate is not None
    assert estimate.seconds_per_step > 0
    assert estimate.seconds > 1000 * estimate.seconds_per_step
    assert 50 < estimate.megabytes < 1e5  # of a process with torch in it
    train_state = initial_state(config)
    assert estimate.parameters == {
        side.value: sum(weight.numel() for weight in train_state.game.players[side].weights) for side in Side
    }
    run = train(recipe("points", steps=3), tmp_path / "run")
    (file,) = [path / checkpoint.TENSORS for path in (run.path / "saves").iterdir()]
    held = sum(tensor.numel() * tensor.element_size() for tensor in checkpoint.read(file.parent).tensors.values())
    assert estimate.save_megabytes == pytest.approx(held / 1e6, rel=0.1)
    assert estimate.save_megabytes > 0


def test_time_is_the_median_of_steps_after_a_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow first step and a single slow one among the five have no effect."""
    clock, took = [0.0], iter([5.0, 1.0, 2.0, 7.0, 1.0, 2.0])
    train_state = initial_state(recipe("points", steps=100))
    stepped = train_state.step

    def step() -> None:
        stepped()
        clock[0] += next(took)

    train_state.step = step  # type: ignore[method-assign]
    monkeypatch.setattr(step_time.time, "perf_counter", lambda: clock[0])
    estimate = checking._estimate(train_state)
    assert (estimate.seconds_per_step, estimate.seconds) == (2.0, 200.0)
    assert train_state.steps_done == 6
    tensors = state_tensors.collect_tensors(train_state.game, train_state.step_metrics).values()
    assert estimate.save_megabytes == pytest.approx(sum(t.numel() * t.element_size() for t in tensors) / 1e6)


def test_few_slow_steps_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    train_state = initial_state(recipe("points", steps=100))
    stepped = train_state.step

    def step() -> None:
        stepped()
        clock[0] += 15.0

    train_state.step = step  # type: ignore[method-assign]
    monkeypatch.setattr(step_time.time, "perf_counter", lambda: clock[0])
    assert checking._estimate(train_state).seconds_per_step == 15.0
    assert train_state.steps_done == 2
    monkeypatch.setattr(step_time, "MAX_SECONDS", 15.0)
    train_state.initialize()
    assert checking._estimate(train_state).seconds_per_step == 15.0
    assert train_state.steps_done == 1


def test_the_diagnostics_of_each_row_take_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    train_state = initial_state(recipe("points", steps=100, log={"rows": 30}))
    stepped, computed = train_state.step, train_state.diagnostics.compute

    def step() -> None:
        stepped()
        clock[0] += 1.0

    def compute() -> dict[str, Stat]:
        clock[0] += 3.0
        return computed()

    train_state.step = step  # type: ignore[method-assign]
    monkeypatch.setattr(train_state.diagnostics, "compute", compute)
    monkeypatch.setattr(step_time.time, "perf_counter", lambda: clock[0])
    estimate = checking._estimate(train_state)
    assert (estimate.seconds_per_step, estimate.seconds) == (1.0, 100 + 4 * 3.0)


# ---- the warm-up ---------------------------------------------------------------------------------------------


def far(**changes: Any) -> Recipe:
    """A ring so wide that D discriminates it from G's samples at once."""
    d = {"kind": "adam", "lr": 5e-2}
    return recipe(
        "points", **{"data": {"kind": "ring", "radius": 5.0}, "optimizer": {"g": d, "d": d}, "batch": 32, **changes}
    )


@pytest.mark.parametrize("objective", ["non_saturating", "least_squares", "hinge", "relativistic"])
def test_a_good_d_passes_the_warm_up(objective: str) -> None:
    result = far(objective={"kind": objective})
    report = checked(result, warm_up=True)
    warm = report.warm_up
    assert warm is not None
    assert warm.passed
    assert warm.moves < WARM_UP_MOVES
    assert warm.moves == BLOCK * len(warm.losses)
    assert f"learned to discriminate within {warm.moves} moves" in warm.words
    assert f"(equilibrium: {EQUILIBRIUM_LOSS[FAMILIES[objective]]:.3g})" in warm.words
    assert report.findings.warnings == []


def test_a_d_that_does_not_learn_gives_a_warning_with_tip_24() -> None:
    report = checked(far(optimizer={"g": DEAF, "d": DEAF}, **RELATIVISTIC), warm_up=True)
    warm = report.warm_up
    assert warm is not None
    assert (warm.passed, warm.moves, len(warm.losses)) == (False, WARM_UP_MOVES, WARM_UP_MOVES // BLOCK)
    (one,) = report.findings.warnings
    assert (one.field, one.tip, one.message) == ("network.d", "T24", warm.words)
    assert "can't discriminate" in one.message
    assert "rate" in one.cure
    assert report.estimate is not None


def test_without_the_warm_up_there_is_no_result() -> None:
    report = checked(far(optimizer={"g": DEAF, "d": DEAF}, **RELATIVISTIC))
    assert (report.warm_up, report.findings.warnings) == (None, [])


@pytest.mark.parametrize("objective", ["energy", "began"])
def test_a_loss_that_falls_within_the_first_block_has_fallen(objective: str) -> None:
    """How far it falls there is no measure of its noise."""
    d, result = {"kind": "adam", "lr": 2e-2}, {"kind": objective}
    networks = {"g": {"kind": "mlp", "width": 32}, "d": {"kind": "flat_autoencoder", "width": 32}}
    state = initial_state(far(objective=result, network=networks, optimizer={"g": d, "d": d}, data={"kind": "ring"}))
    warm = warm_up_discriminator(state)
    assert warm.losses[-1] < 0.5 * warm.losses[0]
    assert warm.passed, warm.words


@pytest.mark.parametrize(("rate", "passed"), [(5e-2, True), (1e-12, False)])
def test_the_loss_of_a_critic_has_to_fall(rate: float, passed: bool) -> None:
    """A loss without an equilibrium value is compared with its own start."""
    d = {"kind": "rmsprop", "lr": rate}
    result = far(objective={"kind": "wasserstein"}, optimizer={"g": d, "d": d})
    warm = warm_up_discriminator(initial_state(result), 200)
    assert warm.passed == passed
    assert warm.moves == 200
    assert len(warm.losses) == 4
    assert f"from {warm.losses[0]:.3g} to {warm.losses[-1]:.3g}" in warm.words
    assert ("D learned nothing" in warm.words) != passed


def test_only_d_changes_in_the_warm_up() -> None:
    train_state = initial_state(far())
    before = {side: [w.detach().clone() for w in train_state.game.players[side].weights] for side in Side}
    warm_up_discriminator(train_state, BLOCK)
    now = {side: train_state.game.players[side].weights for side in Side}
    assert all(torch.equal(a, b) for a, b in zip(before[Side.G], now[Side.G], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(before[Side.D], now[Side.D], strict=True))


def test_the_warm_up_does_not_affect_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timed steps are the first ones of the run."""
    seen: list[tuple[int, list[torch.Tensor]]] = []
    estimated = checking._estimate

    def looking(train_state: TrainState) -> Any:
        weights = [weight.detach().clone() for weight in train_state.game.d.weights]
        seen.append((train_state.steps_done, weights))
        return estimated(train_state)

    monkeypatch.setattr(checking, "_estimate", looking)
    result = far(**RELATIVISTIC)
    checked(result, warm_up=True)
    ((done, weights),) = seen
    fresh = initial_state(result).game.d.weights
    assert done == 0
    assert all(torch.equal(a, b) for a, b in zip(weights, fresh, strict=True))


def planted(monkeypatch: pytest.MonkeyPatch, *losses: float, accuracy: float = 0.5) -> None:
    """Moves that only log the given losses of D."""
    left = iter(losses)

    def moved(game: Any, batches: Any, context: Any, metrics: Any) -> None:
        if context.step % BLOCK == 0:
            metrics.add("d/adversarial", torch.tensor(next(left)))
            metrics.add("d/accuracy", torch.tensor(accuracy))

    monkeypatch.setattr(checking, "make_move", moved)


@pytest.mark.parametrize(
    ("objective", "losses", "accuracy", "passed", "moves"),
    [
        ("non_saturating", [0.5, 0.13], 0.5, True, 100),
        ("non_saturating", [0.5, 0.15, 0.15, 0.15], 0.5, False, 200),
        ("non_saturating", [0.5], 0.96, True, 50),
        ("non_saturating", [0.5, 0.5, 0.5, 0.5], 0.94, False, 200),
        ("hinge", [0.21, 0.19], 0.5, True, 100),
        ("least_squares", [0.026, 0.024], 0.5, True, 100),
        ("wasserstein", [-1.0, -5.0, -1.0, -1.06], 1.0, True, 200),
        ("wasserstein", [-1.0, -5.0, -1.0, -1.04], 1.0, False, 200),
        ("wasserstein", [1.0, 0.5, 0.5, 0.96], 1.0, False, 200),
        ("wasserstein", [1.0, 0.5, 0.5, 0.94], 1.0, True, 200),
    ],
)
def test_when_the_warm_up_is_passed(
    objective: str, losses: list[float], accuracy: float, passed: bool, moves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, *losses, accuracy=accuracy)
    warm: WarmUp = warm_up_discriminator(initial_state(recipe("points", objective={"kind": objective})), 200)
    assert (warm.passed, warm.moves) == (passed, moves)
    assert warm.losses == pytest.approx(losses)
    assert f"{losses[-1]:.3g}" in warm.words


def test_every_objective_has_a_family() -> None:
    from poise.core.config import find_components

    shipped = {kind for kind in find_components(Objective, "poise.objectives") if kind != "python"}
    assert shipped <= set(FAMILIES)


# ---- the report ------------------------------------------------------------------------------------------


def test_the_report_as_json() -> None:
    report = checked(far(optimizer={"g": DEAF, "d": DEAF}, **RELATIVISTIC), warm_up=True)
    result = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert list(result) == ["refusals", "warnings", "notes", "bad_files", "estimate", "warm_up"]
    assert result["refusals"] == []
    assert [list(one) for one in result["warnings"]] == [["field", "message", "tip", "cure"]]
    assert set(result["estimate"]) == {"seconds_per_step", "seconds", "megabytes", "save_megabytes", "parameters"}
    assert set(result["warm_up"]) == {"moves", "losses", "passed", "words"}
    assert list(checked(missing(), with_data=False).as_json()) == ["refusals", "warnings", "notes", "bad_files"]
