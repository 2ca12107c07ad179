"""Frames of GANs on 2-D points: what they show, and that training is the same with and without them."""

from __future__ import annotations

import errno
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from poise.core.random_streams import RandomStreams
from poise.core.types import Side
from poise.data.toys import PlaneConfig
from poise.engine.compute import choose_compute
from poise.engine.game import Game
from poise.errors import DiskError, Stopped
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.recipe.shipped import load_table, recipe_names
from poise.runs.frames import GRID, POINTS, RECORD, Frames, Records, read_frames, restore_points
from poise.study.overridden import OVERRIDDEN
from poise.training import frames
from poise.training.frames import FrameClock, FrameDrawer, has_frames
from poise.training.listener import NullListener
from poise.training.state import TrainState
from poise.training.train import open_trainer, train
from poise.utils.system import system
from runs.small_runs import STEPS, digits, ring, stopped, traces

MLP = {"kind": "mlp", "width": 8, "depth": 2}


def plane(**changes: Any) -> Recipe:
    """A small game on the ring, with changes."""
    networks = {"g": MLP, "d": MLP}
    log = {"rows": 4, "samples": 100, "saves": 100, "sheet": 4, "to": []}
    table = load_table("ring") | {"steps": 8, "batch": 8, "network": networks, "log": log}
    table |= {"latent": {"kind": "gaussian", "dim": 16}, "objective": {"kind": "non_saturating"}}
    table["tricks"] = [{"kind": "r1"}, {"kind": "averaged_weights"}]
    table.pop("measure", None)
    return decode(table | changes)


def with_d(**changes: Any) -> dict[str, Any]:
    return {"network": {"g": MLP, "d": {**MLP, **changes}}}


def codes(objective: dict[str, Any]) -> dict[str, Any]:
    return {
        "network": {"g": MLP, "e": MLP},
        "objective": objective,
        "optimizer": {"g": {"kind": "adam"}},
        "tempo": {"kind": "alone"},
        "tricks": [],
    }


RISING = {"kind": "linear", "start": 0.0, "end": 0.5, "until": 6, "over": "steps"}
AUTOENCODER = {"network": {"g": MLP, "d": {"kind": "flat_autoencoder"}}, "tricks": []}
GAMES: dict[str, dict[str, Any]] = {
    "batch norm": {"network": {"g": {**MLP, "norm": "batch"}, "d": {**MLP, "norm": "batch"}}},
    "virtual batch norm": with_d(norm="virtual"),
    "spectral norm": with_d(norm="spectral"),
    "dropout": {"tricks": [{"kind": "standing_dropout", "rate": 0.5}]},
    "layer noise": {"tricks": [{"kind": "layer_noise", "sigma": RISING}]},
    "minibatch discrimination": {"tricks": [{"kind": "minibatch_discrimination"}]},
    "minibatch stddev": {"tricks": [{"kind": "minibatch_stddev"}]},
    "packing": {"batch": 9, "tricks": [{"kind": "packing", "samples": 3}]},
    "averages": {"tricks": [{"kind": "averaged_weights", "half_life": 20.0}]},
    "past selves": {"tricks": [{"kind": "past_selves", "every": 3, "duration": 1}]},
    "noise and labels": {"tricks": [{"kind": "instance_noise"}, {"kind": "noisy_labels", "probability": 0.2}]},
    "relativistic": {"objective": {"kind": "relativistic"}},
    "relativistic average": {"objective": {"kind": "relativistic_average"}},
    "wasserstein": {"objective": {"kind": "wasserstein"}, "tricks": [{"kind": "wgan_gp"}]},
    "energy": {"objective": {"kind": "energy", "margin": RISING}, **AUTOENCODER},
    "began": {"objective": {"kind": "began"}, **AUTOENCODER},
    "no discriminator": codes({"kind": "reconstruction"}),
    "elbo": codes({"kind": "elbo"}),
}


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame is drawn after each step."""
    monkeypatch.setattr(FrameClock, "is_due", lambda clock: True)


class Notes(NullListener):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def on_message(self, text: str) -> None:
        self.messages.append(text)


def frames_of(run: Path) -> Frames:
    found = read_frames(run / "frames.bin")
    assert found is not None
    return found


def steps(run: Path) -> list[int]:
    return [int(step) for step in frames_of(run).records["step"]]


def without(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"log": recipe.log.model_copy(update={"frames": 0.0})})


def assert_unchanged_by_frames(recipe: Recipe, place: Path) -> None:
    """Rows, weights, averages and sample grids are equal to the bit, and there is a frame of each step."""
    notes = Notes()
    train(recipe, place / "with", listener=notes)
    train(without(recipe), place / "without")
    assert not [message for message in notes.messages if message.startswith("frames")]
    assert not (place / "without" / "frames.bin").exists()
    assert steps(place / "with") == list(range(recipe.steps + 1))
    shown, plain = traces(place / "with"), traces(place / "without")
    del shown["recipe"], plain["recipe"]
    assert shown == plain


# ---- training is the same ----------------------------------------------------------------------------------


@pytest.mark.parametrize("game", GAMES)
def test_run_with_frames_is_bit_identical(every_step: None, tmp_path: Path, game: str) -> None:
    assert_unchanged_by_frames(plane(**GAMES[game]), tmp_path)


@pytest.mark.parametrize("name", [n for n in recipe_names() if isinstance(decode(load_table(n)).data, PlaneConfig)])
def test_shipped_recipe_with_frames_is_bit_identical(every_step: None, tmp_path: Path, name: str) -> None:
    table = load_table(name) | {"steps": 4, "batch": 16}
    table.pop("measure", None)
    table["log"] = {"rows": 2, "to": []}
    assert_unchanged_by_frames(decode(table), tmp_path)


def test_bit_identical_with_many_tricks_stopped_and_resumed(every_step: None, tmp_path: Path) -> None:
    train(without(ring()), tmp_path / "whole")
    stopped(ring(), tmp_path / "run", 12)
    assert steps(tmp_path / "run") == list(range(13))
    train(ring(), tmp_path / "run", resume=True)
    assert steps(tmp_path / "run") == list(range(STEPS + 1))
    shown, plain = traces(tmp_path / "run"), traces(tmp_path / "whole")
    del shown["recipe"], plain["recipe"]
    assert shown == plain


# ---- what a frame shows ------------------------------------------------------------------------------------


def drawn(recipe: Recipe) -> tuple[Game, FrameDrawer, Records]:
    """The game after three steps, and its frame."""
    state = TrainState(recipe, choose_compute("cpu", "fp32", recipe), recipe.data.load())
    for _ in range(3):
        state.step()
    drawer = FrameDrawer(recipe, state.source, state.sampling_latent, state.streams)
    return state.game, drawer, drawer.draw(state.game, 3)


def test_points_and_scores_are_those_of_the_networks() -> None:
    game, drawer, record = drawn(plane())
    with torch.no_grad():
        points = game.g.net(drawer.latents).numpy()
        scores = game.d.net(drawer.cells).score.numpy()
    assert len(points) == POINTS
    width = drawer.region.right - drawer.region.left
    np.testing.assert_allclose(restore_points(record["points"], drawer.region.spread()), points, atol=3 * width / 65535)
    low, high = float(record["score_min"]), float(record["score_max"])
    assert (low, high) == (scores.min(), scores.max())
    shown = low + record["scores"].ravel() / 255 * (high - low)
    np.testing.assert_allclose(shown, scores, atol=0.6 * (high - low) / 255)
    assert record["threshold"] == 0


@pytest.mark.parametrize("objective", ["non_saturating", "hinge", "relativistic"])
def test_arrows_point_where_the_loss_falls(objective: str) -> None:
    """The loss of each sample, by central differences in float64; what is shown is the gradient of their sum."""
    game, drawer, record = drawn(plane(objective={"kind": objective}))
    d = game.d.net.double()
    points = game.g.net(drawer.latents).detach().double()
    real = d(drawer.real[:POINTS].double()).score.detach()

    def losses(at: torch.Tensor) -> torch.Tensor:
        (loss,) = game.objective.g_losses(d(at).score, real, None)
        return loss.detach()

    step = 1e-5 * torch.eye(2, dtype=torch.float64)
    slopes = [(losses(points + axis) - losses(points - axis)) / 2e-5 for axis in step]
    expected = -torch.stack(slopes, 1).numpy()
    largest = float(record["gradient_max"])
    assert largest == pytest.approx(np.abs(expected).max(), rel=1e-3)
    np.testing.assert_allclose(record["gradients"] / 127 * largest, expected, atol=0.006 * largest)


def test_gradient_of_packs_and_of_a_padded_number_of_points() -> None:
    game, drawer, record = drawn(plane(batch=9, tricks=[{"kind": "packing", "samples": 3}]))
    assert len(drawer.latents) == 258
    assert record["gradient_max"] > 0
    cell, *others = torch.cat((drawer.cells[5:6], drawer.real[:2]))
    score = float(game.d.net(torch.stack((cell, *others))).score.detach())
    low, high = float(record["score_min"]), float(record["score_max"])
    assert low + float(record["scores"][0, 5]) / 255 * (high - low) == pytest.approx(score, abs=(high - low) / 255)


def test_d_that_compares_samples_gets_batches_that_cover_the_region() -> None:
    game, drawer, record = drawn(plane(tricks=[{"kind": "minibatch_stddev"}]))
    scores = torch.empty(GRID * GRID)
    for first in range(4):
        scores[first::4] = game.d.net(drawer.cells[first::4]).score.detach()
    low, high = float(record["score_min"]), float(record["score_max"])
    np.testing.assert_allclose(low + record["scores"].ravel() / 255 * (high - low), scores, atol=0.01 * (high - low))


def test_without_a_discriminator_there_are_points_alone() -> None:
    _, _, record = drawn(plane(**GAMES["no discriminator"]))
    assert len(np.unique(record["points"])) > 100
    assert math.isnan(record["threshold"])
    assert not any(record[name].any() for name in ("scores", "gradients", "score_min", "score_max", "gradient_max"))


def test_frame_shows_the_current_g_and_not_the_average() -> None:
    game, drawer, record = drawn(plane(tricks=[{"kind": "averaged_weights", "half_life": 1000.0}]))
    assert game.sampling_network() is not game.g.net
    points = game.g.net(drawer.latents).detach().numpy()
    restored = restore_points(record["points"], drawer.region.spread())
    np.testing.assert_allclose(restored, points, atol=1e-3)


def test_networks_keep_their_modes_and_gradients() -> None:
    game, drawer, _ = drawn(plane(**GAMES["batch norm"]))
    before = [weight.grad.clone() for player in (game.d, game.g) for weight in player.weights]
    drawer.draw(game, 4)
    after = [weight.grad for player in (game.d, game.g) for weight in player.weights]
    assert all(map(torch.equal, before, after))
    assert all(module.training for player in (game.d, game.g) for module in player.net.modules())


def test_same_frame_again() -> None:
    game, drawer, record = drawn(plane(**GAMES["dropout"]))
    assert drawer.draw(game, 3).tobytes() == record.tobytes()


def test_diverged_networks_have_a_frame() -> None:
    game, drawer, _ = drawn(plane())
    with torch.no_grad():
        for player in (game.d, game.g):
            player.weights[0].fill_(torch.nan)
    record = drawer.draw(game, 3)
    assert not record["points"].any()
    assert not record["scores"].any()


# ---- when -----------------------------------------------------------------------------------------------------


def clock(rate: float, cost: float, seconds: float) -> list[float]:
    """When frames are drawn if steps take 1 ms and a frame takes `cost` seconds."""
    now = [0.0]
    timer, times = FrameClock(rate, lambda: now[0]), list[float]()
    while now[0] < seconds:
        now[0] += 0.001
        if timer.is_due():
            times.append(now[0])
            with timer.running():
                now[0] += cost
    return times


def test_clock_keeps_the_rate() -> None:
    times = clock(10, 0.001, 20)
    assert len(times) == pytest.approx(200, abs=4)
    assert min(b - a for a, b in itertools.pairwise(times)) >= 0.1


def test_clock_keeps_the_share() -> None:
    cost, seconds = 0.02, 20
    times = clock(10, cost, seconds)
    assert len(times) * cost == pytest.approx(frames.MAX_SHARE * seconds, rel=0.05)


def test_only_games_in_the_plane_have_frames() -> None:
    points, images = plane(), digits()
    assert has_frames(points, points.data.load().train)
    assert not has_frames(without(points), points.data.load().train)
    assert not has_frames(images, images.data.load().train)


def test_first_and_last_step_have_a_frame(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(FrameClock, "is_due", lambda clock: False)
    train(plane(), tmp_path / "run")
    assert steps(tmp_path / "run") == [0, 8]


def test_step_that_is_logged_at_once_has_a_frame(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(FrameClock, "is_due", lambda clock: False)
    with open_trainer(plane(), tmp_path / "run") as trainer, trainer.session():
        for log_now in (False, True, False, True):
            trainer.step(Side.D, log_now=log_now)
        with pytest.raises(Stopped):
            trainer.stop("the test")
        assert steps(tmp_path / "run") == [0, 2, 4]
        while trainer.done < trainer.recipe.steps:
            trainer.step()


def test_rate_may_change_when_resuming_and_later_frames_are_erased(every_step: None, tmp_path: Path) -> None:
    stopped(ring(), tmp_path / "run", 12)
    train(without(ring()), tmp_path / "run", resume=True)
    assert steps(tmp_path / "run") == list(range(13))


def test_frames_after_the_checkpoint_are_erased(every_step: None, tmp_path: Path) -> None:
    stopped(ring(), tmp_path / "run", 12)
    last = sorted((tmp_path / "run" / "saves").iterdir())[-1]
    (last / "tensors.safetensors").write_bytes(b"damaged")
    train(without(ring(13)), tmp_path / "run", resume=True)
    assert steps(tmp_path / "run") == list(range(7))


def test_hash_of_a_recipe_does_not_depend_on_frames() -> None:
    assert without(plane()).hash == plane().hash
    assert decode(load_table("autoencoder")).hash == "f1d9720f57fa1801", "as before there were frames"


def test_studies_have_none() -> None:
    assert "log.frames" in OVERRIDDEN


# ---- disk errors ------------------------------------------------------------------------------------------------


def test_disk_error_is_reported_once_and_training_goes_on(
    every_step: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., int] = system.open

    def full(path: Path, flags: int) -> int:
        if "frames" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, flags)

    monkeypatch.setattr(system, "open", full)
    notes = Notes()
    assert train(plane(), tmp_path / "run", listener=notes).info["state"] == "done"
    assert [message for message in notes.messages if message.startswith("frames")] == [
        "frames can't be written, training continues without them: "
        f"{tmp_path / 'run' / 'frames.bin'}: can't be written: No space left on device"
    ]
    assert not (tmp_path / "run" / "frames.bin").exists()


def test_frames_go_on_after_a_disk_error(every_step: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count, real = itertools.count(), frames.FrameDrawer.draw

    def failing(drawer: FrameDrawer, game: Game, step: int) -> Records:
        if next(count) in (2, 3):
            raise DiskError("can't be written")
        return real(drawer, game, step)

    monkeypatch.setattr(FrameDrawer, "draw", failing)
    train(plane(), tmp_path / "run")
    assert steps(tmp_path / "run") == [0, 1, 4, 5, 6, 7, 8]


def test_size_in_the_run_folder(every_step: None, tmp_path: Path) -> None:
    train(plane(steps=20), tmp_path / "run")
    assert (tmp_path / "run" / "frames.bin").stat().st_size < 1024 * RECORD.itemsize + 2092 + 1


def test_stream_of_its_own() -> None:
    """The latents are those of the stream `frames`, which no other part draws from."""
    recipe = plane()
    drawer = FrameDrawer(recipe, recipe.data.load().train, recipe.latent, RandomStreams(recipe.seed))
    assert drawer.latents.equal(recipe.latent.sample(POINTS, RandomStreams(recipe.seed)("frames")))
