"""Frozen layers: which layers are counted, and that nothing in training changes them or their buffers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contracts.tiny import TRANSLATED, session, unequal
from poise.core.types import Side
from poise.errors import RecipeError
from poise.networks.base import call_network
from poise.tricks.frozen_layers import Layer, freeze_, layers_in_order

DCGAN: dict[str, Any] = {"kind": "dcgan", "width": 2}
SPECTRAL: dict[str, Any] = {**DCGAN, "norm": "spectral"}
FROZEN: dict[str, Any] = {"kind": "frozen_layers", "d": 2, "g": 1}


def parameters(layer: Layer) -> list[nn.Parameter]:
    return [w for part in layer for w in (part.parameters() if isinstance(part, nn.Module) else [part])]


def frozen_state(net: nn.Module, count: int) -> dict[str, Tensor]:
    """Copies of the weights and buffers of the first `count` layers of a network, by number."""
    modules = [part for layer in layers_in_order(net)[:count] for part in layer if isinstance(part, nn.Module)]
    return {f"{k}/{name}": t.clone() for k, module in enumerate(modules) for name, t in module.state_dict().items()}


# ---------------------------------------------------------------- the layers of a network

D_OF: list[tuple[str, dict[str, Any], int]] = [
    ("pictures", DCGAN, 3),
    ("pictures", SPECTRAL, 3),
    ("pictures", {**DCGAN, "norm": "virtual"}, 3),
    ("pictures", {**DCGAN, "activation": "prelu"}, 3),
    ("pictures", {"kind": "resnet", "width": 2, "plain": 1}, 3),
    ("pictures", {"kind": "resnet", "width": 2, "plain": 1, "attention": 4}, 4),
    ("pictures", {"kind": "r3gan", "width": 4, "blocks": 1}, 8),
    ("pictures", {"kind": "mlp", "width": 6, "depth": 3}, 4),
    ("pictures", {"kind": "unrolled"}, 4),
    ("points", {"kind": "mlp", "width": 6, "depth": 2}, 3),
]
G_OF: list[tuple[str, dict[str, Any], int]] = [
    ("pictures", DCGAN, 3),
    ("pictures", {**DCGAN, "norm": "spectral_batch"}, 3),
    ("pictures", {"kind": "resnet", "width": 2, "attention": 8}, 4),
    ("pictures", {"kind": "r3gan", "width": 4, "blocks": 1}, 7),
    ("pictures", {"kind": "mlp", "width": 6, "depth": 2}, 3),
    ("points", {"kind": "mlp", "width": 6, "depth": 2}, 3),
]
CASES = [(Side.D, *case) for case in D_OF] + [(Side.G, *case) for case in G_OF]


@pytest.mark.parametrize(("side", "world", "net", "count"), CASES, ids=[f"{c[0]}-{n}" for n, c in enumerate(CASES)])
def test_layers_are_counted_in_the_order_in_which_they_run(
    side: Side, world: str, net: dict[str, Any], count: int
) -> None:
    other = DCGAN if world == "pictures" else {"kind": "mlp", "width": 6}
    run = session(world, network={"g": other, "d": other} | {side.value: net})
    player = run.game.players[side]
    layers = layers_in_order(player.net)
    assert len(layers) == count
    every = [id(weight) for layer in layers for weight in parameters(layer)]
    assert len(set(every)) == len(every)
    assert set(every) == {id(weight) for weight in player.net.parameters()}
    calls: list[int] = []
    for k, layer in enumerate(layers):
        (first, *_) = [part for part in layer if isinstance(part, nn.Module)]
        first.register_forward_pre_hook(lambda *_, k=k: calls.append(k))
    run.play(1)
    assert list(dict.fromkeys(calls)) == list(range(count))


@pytest.mark.parametrize(
    ("trick", "labels", "added"),
    [
        (None, {"d": {"kind": "projection"}}, {"d": 1, "g": 0}),
        (None, {"d": {"kind": "channels"}, "g": {"kind": "concat"}}, {"d": 1, "g": 1}),
        (None, {"g": {"kind": "class_norm"}}, {"d": 0, "g": 0}),
        ({"kind": "auxiliary_classifier"}, {"g": {"kind": "concat"}}, {"d": 1, "g": 1}),
        ({"kind": "minibatch_discrimination", "kernels": 2}, {}, {"d": 2, "g": 0}),
        ({"kind": "packing"}, {}, {"d": 0, "g": 0}),
        ({"kind": "minibatch_stddev"}, {}, {"d": 0, "g": 0}),
        ({"kind": "layer_noise"}, {}, {"d": 0, "g": 0}),
    ],
    ids=str,
)
def test_what_is_added_to_a_network_is_counted_last(
    trick: dict[str, Any] | None, labels: dict[str, Any], added: dict[str, int]
) -> None:
    """Norms with weights per class count as part of the layer before them, as others do."""
    tricks = [] if trick is None else [trick]
    run = session("labelled", *tricks, network={"g": DCGAN, "d": DCGAN}, conditioning=labels)
    for side, player in run.game.players.items():
        kinds = [type(layer[0]).__name__ for layer in layers_in_order(player.net)]
        first = {"d": ["Conv2d", "Conv2d"], "g": ["ProjectAndReshape", "ConvTranspose2d", "ConvTranspose2d"]}[side]
        assert kinds[: len(first)] == first
        assert len(kinds) - 3 == added[side]


class Nested(nn.Module):
    """A network of a user: weights of its own, a branch and a block."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.trunk = nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(nn.Linear(2, 3), nn.PReLU()), nn.Tanh())
        self.unused = nn.Identity()
        self.score = nn.Linear(3, 1)


def test_a_network_of_a_user_has_layers_and_each_weight_is_in_one() -> None:
    net = Nested()
    layers = layers_in_order(net)
    kinds = [[type(part).__name__ for part in layer] for layer in layers]
    assert kinds == [["Parameter", "BatchNorm1d"], ["Linear", "PReLU"], ["Linear"]]
    assert layers_in_order(nn.Linear(2, 1))[0][0].weight.shape == (1, 2)  # type: ignore[union-attr]
    assert layers_in_order(nn.Tanh()) == []


# ---------------------------------------------------------------- training

COMPANIONS: list[dict[str, Any]] = [
    {},
    {"optimizer": {side: {"kind": "adamw", "lr": 1e-2, "weight_decay": 0.5} for side in ("g", "d")}},
    {"optimizer": {side: {"kind": "rmsprop", "lr": 1e-2} for side in ("g", "d")}},
    {"optimizer": {side: {"kind": "sgd", "lr": 1e-2, "momentum": 0.9} for side in ("g", "d")}},
    {"tricks": [{"kind": "weight_clipping", "limit": 1e-3}]},
    {"tricks": [{"kind": "historical_averaging", "weight": 10.0}]},
    {"tricks": [{"kind": "gradient_clipping", "max_norm": 1e-3}]},
    {"tricks": [{"kind": "past_selves", "every": 3, "duration": 1, "keep": 2}]},
    {"tricks": [{"kind": "r1", "gamma": 1.0}]},
    {"tricks": [{"kind": "minibatch_stddev"}]},
    {"judging": "together"},
    {"tempo": {"kind": "simultaneous"}},
]


@pytest.mark.parametrize("d", [DCGAN, SPECTRAL], ids=["batch", "spectral"])
@pytest.mark.parametrize("companion", COMPANIONS, ids=str)
def test_nothing_changes_a_frozen_layer(d: dict[str, Any], companion: dict[str, Any]) -> None:
    """Weights, batch statistics and singular vectors are bit-identical, and all other weights change."""
    others = companion.get("tricks", [])
    tables = {"network": {"g": {**DCGAN, "norm": "spectral_batch"}, "d": d}} | companion
    tables.pop("tricks", None)
    average = {"kind": "averaged_weights", "half_life": 20.0}
    run = session("pictures", FROZEN, average, *others, **tables)
    nets = {side: player.net for side, player in run.game.players.items()}
    counts = {Side.D: 2, Side.G: 1}
    before = {side: frozen_state(net, counts[side]) for side, net in nets.items()}
    all_before = {side: {n: w.clone() for n, w in net.named_parameters()} for side, net in nets.items()}
    assert [side for side in nets if any("running_mean" in n or "_u" in n for n in before[side])] == list(nets)
    run.play(5)
    mean = run.game.tricks["averaged_weights"].sampling_network(Side.G)  # type: ignore[operator]
    for side, net in nets.items():
        assert unequal(before[side], frozen_state(net, counts[side])) == []
        changed = {n for n, w in net.named_parameters() if not torch.equal(w, all_before[side][n])}
        assert changed == {n for n, w in net.named_parameters() if w.requires_grad}
        assert changed
    assert unequal(before[Side.G], frozen_state(mean, 1)) == []


def test_a_frozen_layer_treats_each_sample_alone_in_training() -> None:
    """A frozen batch norm uses its running statistics."""
    run = session("pictures", FROZEN)
    net = run.game.players[Side.D].net.train()
    images = torch.randn(8, 1, 8, 8)
    outputs: list[Tensor] = []
    norm = next(module for module in net.modules() if isinstance(module, nn.BatchNorm2d))
    norm.register_forward_hook(lambda _, inputs, output: outputs.append(output.detach().clone()))
    call_network(net, images, None)
    call_network(net, images[:2], None)
    assert torch.allclose(outputs[0][:2], outputs[1], atol=1e-6)
    plain = session("pictures")
    other = plain.game.players[Side.D].net.train()
    scores = call_network(other, images, None).score[:2] - call_network(other, images[:2], None).score
    assert scores.abs().max() > 1e-3, "without the trick a sample depends on its batch"


def test_a_copy_of_a_frozen_layer_is_frozen() -> None:
    layer: Layer = [nn.BatchNorm1d(2)]
    freeze_(layer)
    norm = copy.deepcopy(layer[0])
    assert isinstance(norm, nn.BatchNorm1d)
    norm.train()(torch.randn(4, 2))
    assert not norm.training
    assert norm.running_mean is not None
    assert norm.running_mean.tolist() == [0.0, 0.0]
    assert isinstance(layer[0], nn.BatchNorm1d)
    assert layer[0].training, "the copy has not touched the original"


def test_it_acts_after_a_trick_that_replaces_layers() -> None:
    """`minibatch_stddev` makes a new last convolution, which is frozen although the trick is listed later."""
    network = {"g": DCGAN, "d": SPECTRAL}
    run = session("pictures", FROZEN, {"kind": "minibatch_stddev"}, network=network)
    widened = next(module for module in run.game.players[Side.D].net.modules() if hasattr(module, "layer"))
    assert not any(weight.requires_grad for weight in widened.parameters())


def test_the_optimizer_knows_trained_weights_only() -> None:
    run = session("pictures", FROZEN)
    for player in run.game.players.values():
        known = {id(weight) for group in player.optimizer.param_groups for weight in group["params"]}
        assert known == {id(weight) for weight in player.net.parameters() if weight.requires_grad}
        assert known == {id(weight) for weight in player.weights}


@pytest.mark.parametrize(("side", "count"), [("d", 3), ("d", 50), ("g", 3)])
def test_more_layers_than_there_are_is_refused(side: str, count: int) -> None:
    with pytest.raises(RecipeError) as error:
        session("pictures", {"kind": "frozen_layers", "d": 0, side: count})
    assert str(error.value) == (
        f"tricks.frozen_layers.{side}: {side.upper()} has 3 layers, of which at least one must be trained, "
        f"found {count}; use at most 2"
    )


def test_layers_are_counted_in_each_of_two_networks() -> None:
    """With two domains, the first layer of either D is frozen, and of G's networks in either direction."""
    run = session(TRANSLATED, {"kind": "frozen_layers", "d": 1, "g": 2})
    for side in Side:
        for net in run.game.players[side].net.networks.values():  # type: ignore[union-attr]
            layers = layers_in_order(net)
            frozen = [not any(weight.requires_grad for weight in parameters(layer)) for layer in layers]
            count = 1 if side is Side.D else 2
            assert frozen == [True] * count + [False] * (len(layers) - count)
