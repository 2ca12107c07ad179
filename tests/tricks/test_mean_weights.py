"""The plain mean of the last copies of G, compared with a float64 mean of snapshots."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from contracts.tiny import Shift, by_hand, context, recipe, ring_batches, session, unequal
from poise.core.move import MoveData
from poise.core.player import Player
from poise.core.types import DataSpec, Side
from poise.engine.step import alternate, make_move
from poise.engine.step_metrics import StepMetrics
from poise.errors import RecipeError
from poise.tempo import Ratio
from poise.tricks.averaged_weights import MeanWeights, MeanWeightsConfig
from poise.tricks.base import TrickContext
from tricks.small import FixedBatches, N, randn

EXACT = ("num_batches_tracked", "0._u", "0._v", "table")
"""Endings of the tensors that come from the newest copy and are not averaged."""


class NetWithBuffers(nn.Module):
    """Weights, batch statistics, a counter, a spectral norm and an integer buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.last = spectral_norm(nn.Linear(4, 2))
        self.register_buffer("table", torch.arange(3))

    def forward(self, latents: Tensor) -> Tensor:
        return self.last(self.norm(self.first(latents)))


def state(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


def player(net: nn.Module) -> Player:
    return Player(Side.G, net, torch.optim.SGD(net.parameters(), lr=1.0), lambda _: {"lr": 0.0})


def move_after(at: int, turn: int = 0) -> MoveData:
    return MoveData(context(at, side=Side.G, turn=turn, steps=1000), torch.zeros(1, 2), torch.zeros(1, 2))


@pytest.fixture
def net_with_buffers() -> NetWithBuffers:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NetWithBuffers().double()


@torch.no_grad()
def perturb(net: NetWithBuffers, at: int) -> None:
    """Change every weight, and run a batch, which changes all buffers."""
    for k, w in enumerate(net.parameters()):
        w += randn(1, *w.shape, seed=100 * at + k, dtype=torch.float64)[0] / 5
    net.table += 1
    net.train()(randn(6, 3, seed=at, dtype=torch.float64))


def mean_of(snapshots: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean in float64; for exact tensors the last one."""
    return {
        name: newest if name.endswith(EXACT) else torch.stack([snapshot[name] for snapshot in snapshots]).mean(0)
        for name, newest in snapshots[-1].items()
    }


@pytest.mark.parametrize(("last", "every"), [(1, 1), (4, 1), (4, 3), (3, 7), (10, 2)])
def test_equals_the_mean_of_the_last_copies(last: int, every: int, net_with_buffers: NetWithBuffers) -> None:
    """Exact to 1e-12 in float64 over more than one cycle; constant between copies and before the first one."""
    trick = MeanWeights("mean", net_with_buffers, last, every)
    live = player(net_with_buffers)
    snapshots: list[dict[str, Tensor]] = []
    expected = state(net_with_buffers)
    for at in range(every * (2 * last + 3)):
        before = state(trick.mean)
        perturb(net_with_buffers, at)
        trick.after_update(live, move_after(at))
        if (at + 1) % every == 0:
            snapshots.append(state(net_with_buffers))
            expected = mean_of(snapshots[-last:])
        else:
            assert unequal(state(trick.mean), before) == []
        for name, tensor in state(trick.mean).items():
            assert tensor.dtype == expected[name].dtype
            if name.endswith(EXACT):
                assert torch.equal(tensor, expected[name]), name
            else:
                assert torch.allclose(tensor, expected[name], rtol=0, atol=1e-12), name
        assert all(unequal(state(net_with_buffers), snapshots[-1]) == [] for _ in range((at + 1) % every == 0)), (
            "the network is not changed"
        )
    changed = unequal(snapshots[-1], snapshots[-2])
    assert set(changed) == set(snapshots[-1]), "the test changes every tensor"


def test_before_the_first_copy_it_is_the_initial_g(net_with_buffers: NetWithBuffers) -> None:
    start = state(net_with_buffers)
    trick = MeanWeights("mean", net_with_buffers, 3, 5)
    for at in range(4):
        perturb(net_with_buffers, at)
        trick.after_update(player(net_with_buffers), move_after(at))
        assert unequal(state(trick.sampling_network(Side.G)), start) == []  # type: ignore[arg-type]
    perturb(net_with_buffers, 4)
    trick.after_update(player(net_with_buffers), move_after(4))
    assert unequal(state(trick.mean), state(net_with_buffers)) == [], "then exactly the first copy"


def test_rounding_errors_do_not_accumulate(net_with_buffers: NetWithBuffers) -> None:
    """After 300 copies in float32, it is as close to the mean of the last three as after three."""
    net = net_with_buffers.float()
    trick, errors = MeanWeights("mean", net, 3, 1), []
    last_three: list[Tensor] = []
    for at in range(300):
        with torch.no_grad():
            net.first.weight.copy_(randn(4, 3, seed=at) * 10 ** (at % 4))
        trick.after_update(player(net), move_after(at))
        last_three = [*last_three, net.first.weight.detach().double()][-3:]
        errors.append(float((trick.mean.first.weight.double() - torch.stack(last_three).mean(0)).abs().max()))  # type: ignore[union-attr]
    assert max(errors[-100:]) < 1e-3
    assert max(errors[200:]) <= 2 * max(errors[2:102])


def test_the_copy_is_taken_after_the_last_move_of_a_step() -> None:
    g = Shift([0.3, 0.1])
    trick = MeanWeights("mean", g, 2, 1)
    game = by_hand(trick, g=g, tempo=Ratio(1, 3))
    path: list[Tensor] = []
    for at in range(5):
        alternate(game, ring_batches(), context(at), StepMetrics())
        path.append(g.by.detach().double())
        expected = torch.stack(path[-2:]).mean(0)
        assert torch.allclose(trick.mean.by.double(), expected, atol=1e-7)  # type: ignore[union-attr]


def test_ds_moves_copy_nothing() -> None:
    g = Shift([0.3, 0.1])
    trick = MeanWeights("mean", g, 2, 1)
    game = by_hand(trick, g=g)
    with torch.no_grad():
        g.by += 1.0
    make_move(game, FixedBatches(randn(N, 2)), context(), StepMetrics())
    assert trick.mean.by.tolist() == pytest.approx([0.3, 0.1])  # type: ignore[union-attr]
    assert MeanWeights.sides == {Side.G}


def test_during_a_head_start_the_copies_are_the_initial_g() -> None:
    g = Shift([0.3, 0.1])
    trick = MeanWeights("mean", g, 3, 2)
    game = by_hand(trick, g=g, tempo=Ratio(1, 1, head_start=4))
    path = [g.by.detach().double()]
    for at in range(6):
        alternate(game, ring_batches(), context(at), StepMetrics())
        path.append(g.by.detach().double())
    assert torch.equal(path[4], path[0])
    expected = torch.stack([path[2], path[4], path[6]]).mean(0)
    assert torch.allclose(trick.mean.by.double(), expected, atol=1e-7)  # type: ignore[union-attr]


TRICK = {"kind": "mean_weights", "last": 2, "every": 1}


def test_training_is_bitwise_unchanged() -> None:
    for world in ("points", "pictures"):
        without, meant = session(world).play(4), session(world, TRICK).play(4)
        shared = {name: tensor for name, tensor in meant.saved().items() if "mean_weights" not in name}
        assert unequal(shared, without.saved()) == []


@pytest.mark.parametrize("norm", ["batch", "spectral_batch"])
def test_in_a_run_on_images_it_is_the_mean_of_the_last_two(norm: str) -> None:
    network = {"g": {"kind": "dcgan", "width": 2, "norm": norm}, "d": {"kind": "dcgan", "width": 2}}
    run, snapshots = session("pictures", TRICK, network=network), []
    for _ in range(4):
        run.play(1)
        snapshots.append({name: t.double() for name, t in state(run.game.g.net).items()})
    averaged = state(run.game.sampling_network())
    for name, expected in mean_of(snapshots[-2:]).items():
        assert torch.allclose(averaged[name].double(), expected, rtol=1e-6, atol=1e-7), name
    assert any(name.endswith("0._u") for name in averaged) == (norm == "spectral_batch")
    images = run.game.sampling_network()(run.of(Side.G)[-1].latents)
    assert torch.isfinite(images).all()


def test_samples_come_from_the_mean_unless_raw_is_set() -> None:
    game = session("pictures", TRICK).play(2).game
    trick = game.tricks["mean_weights"]
    assert game.sampling_network() is trick.mean
    assert game.sampling_network(raw=True) is game.g.net
    assert trick.sampling_network(Side.D) is None


def test_the_mean_and_its_copies_are_not_trained() -> None:
    game = session("pictures", TRICK).play(2).game
    trick = game.tricks["mean_weights"]
    game.train()
    assert game.g.net.training
    assert not any(module.training for module in trick.modules())
    assert not any(weight.requires_grad for weight in trick.parameters())
    optimised = {id(w) for p in game.players.values() for group in p.optimizer.param_groups for w in group["params"]}
    assert not optimised & {id(w) for w in trick.parameters()}
    live = {w.data_ptr() for w in game.g.net.parameters()}
    assert not live & {w.data_ptr() for w in trick.parameters()}
    assert len({w.data_ptr() for w in trick.parameters()}) == len(list(trick.parameters()))


def test_sampling_from_the_mean_changes_nothing() -> None:
    """Evaluation mode: no statistics, no power iteration."""
    run = session("pictures", TRICK).play(2)
    before = run.saved()
    with torch.no_grad():
        run.game.sampling_network()(torch.zeros(4, 3))
    assert unequal(run.saved(), before) == []


def test_is_resumed(net_with_buffers: NetWithBuffers) -> None:
    """From its state alone, between two copies."""
    old = MeanWeights("mean", net_with_buffers, 3, 2)
    fresh = MeanWeights("mean", net_with_buffers, 3, 2)
    for at in range(9):
        perturb(net_with_buffers, at)
        old.after_update(player(net_with_buffers), move_after(at))
    fresh.load_state_dict(old.state_dict())
    for at in range(9, 15):
        perturb(net_with_buffers, at)
        for trick in (old, fresh):
            trick.after_update(player(net_with_buffers), move_after(at))
        assert unequal(state(fresh.mean), state(old.mean)) == []


def test_the_config_builds_the_trick() -> None:
    context = TrickContext({Side.G: Shift([0.3, 0.1]), Side.D: nn.Identity()}, DataSpec((2,)))
    trick = MeanWeightsConfig().build("mean", context)
    assert (trick.last, trick.every, len(trick.copies)) == (10, 100, 10)
    other = MeanWeightsConfig(last=3, every=7).build("x", context)
    assert (other.name, other.last, other.every, len(other.copies)) == ("x", 3, 7, 3)
    for key in ("last", "every"):
        with pytest.raises(RecipeError, match=key):
            recipe("points", {"kind": "mean_weights", key: 0})
