"""The average: its closed form, its half-life in images, its buffers, and that it never affects training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from contracts.tiny import BATCH, Session, by_hand, context, recipe, ring_batches, session, source, unequal
from poise.core.types import Side
from poise.engine.step import alternate
from poise.engine.step_metrics import StepMetrics
from poise.tempo import Ratio
from poise.tricks.averaged_weights import AveragedWeights, AveragedWeightsConfig, decay, ema_update_


@pytest.mark.parametrize("beta", [0.9, 0.999, 0.0, 0.5])
def test_a_thousand_steps_equal_the_closed_form(beta: float) -> None:
    """theta_n = b^n theta_0 + (1 - b) sum_k b^(n-k) theta_k, in float64 to 1e-12."""
    n, generator = 1000, torch.Generator().manual_seed(0)
    path = torch.randn(n + 1, 6, dtype=torch.float64, generator=generator).cumsum(0) / 10
    live, mean = nn.Linear(2, 3, bias=False).double(), nn.Linear(2, 3, bias=False).double()
    with torch.no_grad():
        mean.weight.copy_(path[0].view(3, 2))
        for k in range(1, n + 1):
            live.weight.copy_(path[k].view(3, 2))
            ema_update_(mean, live, beta)
    weights = torch.tensor([beta ** (n - k) for k in range(1, n + 1)], dtype=torch.float64)
    expected = beta**n * path[0] + (1 - beta) * (weights[:, None] * path[1:]).sum(0)
    assert torch.allclose(mean.weight.flatten(), expected, rtol=0, atol=1e-12)
    assert torch.equal(live.weight.flatten(), path[n]), "the live weights are not changed"


def test_after_a_half_life_the_past_has_weight_one_half() -> None:
    for batch, half_life in ((64, 6400.0), (8, 1000.0), (100, 50.0)):
        steps = half_life / batch
        assert decay(12345, batch, half_life, 0.0) ** steps == pytest.approx(0.5, rel=1e-12)


def test_ramp_up_shortens_the_first_half_lives() -> None:
    assert decay(1000, 64, 10_000, 0.05) == pytest.approx(0.5 ** (64 / 50))
    assert decay(199_999, 64, 10_000, 0.05) == pytest.approx(0.5 ** (64 / 9999.95))
    full = 0.5 ** (64 / 10_000)
    assert decay(200_000, 64, 10_000, 0.05) == decay(10**9, 64, 10_000, 0.05) == full
    assert decay(64, 64, 10_000, 0.0) == full
    rising = [decay(images, 64, 10_000, 0.05) for images in range(64, 250_000, 640)]
    assert rising == sorted(rising)


def test_a_half_life_of_0_keeps_no_average() -> None:
    assert decay(64, 64, 0.0, 0.05) == decay(64, 64, 0.0, 0.0) == 0.0
    assert decay(0, 64, 10_000.0, 0.05) == 0.0


def test_the_first_step_of_a_ramp_counts_its_own_images() -> None:
    """After one step of 8 images with ramp_up 1, the half-life is 8 images, so the initial weights count one half."""
    game = by_hand()
    trick = AveragedWeights("mean", game.g.net, 1e9, 1.0)
    game = by_hand(trick, g=game.g.net)
    before = game.g.net.by.detach().clone()
    alternate(game, ring_batches(), context(), StepMetrics())
    assert torch.allclose(trick.mean.by, (before + game.g.net.by.detach()) / 2, atol=1e-7)


@pytest.mark.parametrize("moves", [1, 2, 5])
def test_the_half_life_does_not_depend_on_gs_moves_per_step(moves: int) -> None:
    """The half-life is in real images, and a step uses one batch of them."""
    game = by_hand()
    trick = AveragedWeights("mean", game.g.net, 4.0 * BATCH, 0.0)  # four steps
    game = by_hand(trick, g=game.g.net, tempo=Ratio(1, moves), lr=0.0)
    trick.mean.by.copy_(game.g.net.by.detach() + 1)
    for at in range(4):
        alternate(game, ring_batches(moves), context(at), StepMetrics())
    assert torch.allclose(trick.mean.by - game.g.net.by.detach(), torch.tensor(0.5), atol=1e-6)


def test_g_is_averaged_once_per_step() -> None:
    """After its first move; D's moves do not count."""
    game = by_hand()
    trick = AveragedWeights("mean", game.g.net, float(BATCH), 0.0)  # beta = 1/2
    game = by_hand(trick, g=game.g.net, tempo=Ratio(3, 2))
    live: list[torch.Tensor] = [game.g.net.by.detach().clone()]
    step = game.g.optimizer.step

    def spied() -> None:
        step()
        live.append(game.g.net.by.detach().clone())

    game.g.optimizer.step = spied  # type: ignore[method-assign]
    alternate(game, ring_batches(3), context(), StepMetrics())
    assert len(live) == 3
    assert torch.allclose(trick.mean.by, live[0] / 2 + live[1] / 2, atol=1e-7)


def test_training_is_bitwise_unchanged() -> None:
    trick = {"kind": "averaged_weights", "half_life": 20.0}
    for world in ("points", "pictures"):
        without, averaged = session(world).play(5), session(world, trick).play(5)
        shared = {n: t for n, t in averaged.saved().items() if "averaged_weights" not in n}
        assert unequal(shared, without.saved()) == []
        assert unequal(
            dict(averaged.game.sampling_network().named_parameters()), dict(averaged.game.g.net.named_parameters())
        ), "the average differs from the live G"


def test_statistics_are_averaged_and_counters_copied() -> None:
    live, mean = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    live.running_mean.copy_(torch.tensor([4.0, -8.0]))
    live.running_var.copy_(torch.tensor([3.0, 5.0]))
    live.num_batches_tracked.fill_(17)
    ema_update_(mean, live, 0.75)
    assert mean.running_mean.tolist() == [1.0, -2.0]
    assert mean.running_var.tolist() == [1.5, 2.0]
    assert int(mean.num_batches_tracked) == 17
    assert mean.num_batches_tracked.dtype == torch.int64


def test_samples_come_from_the_average_unless_raw_is_set() -> None:
    run = session("pictures", {"kind": "averaged_weights", "half_life": 50.0}).play(2)
    game = run.game
    trick = game.tricks["averaged_weights"]
    assert game.sampling_network() is trick.mean
    assert game.sampling_network(raw=True) is game.g.net
    assert trick.sampling_network(Side.D) is None
    assert session("pictures").game.sampling_network() is not None


def test_the_average_is_not_trained() -> None:
    """It has no gradient, stays in evaluation mode if the game is set to training, and is not in any optimiser."""
    game = session("pictures", {"kind": "averaged_weights"}).game
    mean = game.sampling_network()
    game.train()
    assert game.g.net.training
    assert not any(module.training for module in mean.modules())
    assert not any(weight.requires_grad for weight in mean.parameters())
    optimised = {id(w) for p in game.players.values() for group in p.optimizer.param_groups for w in group["params"]}
    assert not optimised & {id(w) for w in mean.parameters()}
    assert not {w.data_ptr() for w in mean.parameters()} & {w.data_ptr() for w in game.g.net.parameters()}


def test_the_average_has_the_memory_format_of_g() -> None:
    """Otherwise equal weights would give samples that differ in the last bits, and more slowly."""
    network = {"g": {"kind": "dcgan", "width": 8}, "d": {"kind": "dcgan", "width": 2}}
    game = session("pictures", {"kind": "averaged_weights"}, network=network).game
    for averaged, live in zip(game.sampling_network().parameters(), game.g.net.parameters(), strict=True):
        assert averaged.stride() == live.stride()


def test_the_average_starts_at_the_first_weights() -> None:
    run = Session(recipe("pictures", {"kind": "averaged_weights"}), source("pictures"))
    assert unequal(run.game.sampling_network().state_dict(), run.game.g.net.state_dict()) == []


def test_the_default_half_life_is_ten_thousand_images() -> None:
    config = AveragedWeightsConfig()
    assert math.isclose(decay(10**7, 64, config.half_life, config.ramp_up) ** (10_000 / 64), 0.5)


def test_the_half_life_may_follow_a_schedule() -> None:
    """Until the schedule changes, the run equals one with a constant half-life; then the new one applies."""
    schedule = {"kind": "steps", "values": [64.0, 8.0], "at": [2], "over": "steps"}
    scheduled, constant = ({"kind": "averaged_weights", "half_life": life, "ramp_up": 0.0} for life in (schedule, 64.0))
    run, constant_run = session("points", scheduled).play(2), session("points", constant).play(2)
    assert unequal(run.saved(), constant_run.saved()) == []
    before = [w.clone() for w in run.game.sampling_network().parameters()]
    run.play(1)
    live = list(run.game.g.net.parameters())
    for mean, old, new in zip(run.game.sampling_network().parameters(), before, live, strict=True):
        assert torch.allclose(mean, 0.5 * old + 0.5 * new, atol=1e-6), "a batch of 8 is one half-life now"
    half = session("points", scheduled).play(2)
    assert unequal(half.resumed().play(1).saved(), run.saved()) == []
