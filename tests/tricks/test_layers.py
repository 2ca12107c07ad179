"""Noise and dropout in G's layers: which layers, what law, which dice, and when they are on."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, relu

from contracts.tiny import Session, no_waiting, recipe, session, source, unequal
from poise.core.hooks import LayerContext
from poise.core.random_streams import RandomStreams
from poise.core.types import DataSpec, MoveContext, Side
from poise.errors import RecipeError
from poise.networks.base import call_network
from poise.runs.generate import generate
from poise.runs.run import Run
from poise.tricks.base import TrickContext
from poise.tricks.layers import (
    InsertLayers,
    LayerNoiseConfig,
    StandingDropoutConfig,
    StochasticLayer,
    add_layer_noise,
    dropout,
    hidden_activations,
)
from tricks.small import cloud

NOISE: dict[str, Any] = {"kind": "layer_noise", "sigma": 0.5}
DROPOUT: dict[str, Any] = {"kind": "standing_dropout", "rate": 0.5}
D: dict[str, Any] = {"kind": "dcgan", "width": 2, "norm": "none"}
CONCAT = {"g": {"kind": "concat", "dim": 4}}
CLASS_NORM = {"g": {"kind": "class_norm"}}
STAGE = TrickContext({}, DataSpec((2,)))


def randoms(net: nn.Module) -> list[StochasticLayer]:
    return [module for module in net.modules() if isinstance(module, StochasticLayer)]


def told(run: Session) -> dict[str, list[tuple[MoveContext | None, Tensor, Tensor]]]:
    """By stream, what each layer is given and makes of it, move by move, from now on."""
    heard_of: dict[str, list[tuple[MoveContext | None, Tensor, Tensor]]] = {}

    def hear(layer: nn.Module, given: tuple[Tensor], made: Tensor) -> None:
        assert isinstance(layer, StochasticLayer)
        at = layer.layer_context.current, given[0].detach().clone(), made.detach().clone()
        heard_of.setdefault(layer.stream, []).append(at)

    for layer in randoms(run.game.g.net):
        layer.register_forward_hook(hear)
    return heard_of


# ---------------------------------------------------------------- where

KINDS: list[tuple[str, dict[str, Any], int]] = [
    ("pictures", {"kind": "dcgan", "width": 2}, 2),
    *(
        ("pictures", {"kind": "dcgan", "width": 2, "activation": act}, 2)
        for act in ("relu", "tanh", "prelu", "gelu", "elu")
    ),
    *(("pictures", {"kind": "dcgan", "width": 2, "norm": norm}, 2) for norm in ("none", "spectral", "virtual")),
    ("pictures", {"kind": "dcgan", "width": 2, "up": "pixel_shuffle", "output": "sigmoid"}, 2),
    ("pictures", {"kind": "dcgan", "width": 2, "up": "nearest", "activation": "tanh", "output": "linear"}, 2),
    ("pictures", {"kind": "mlp", "width": 6, "depth": 3}, 3),
    ("pictures", {"kind": "mlp", "width": 6, "depth": 2, "activation": "tanh", "output": "sigmoid"}, 2),
    ("pictures", {"kind": "resnet", "width": 2}, 3),
    ("pictures", {"kind": "resnet", "width": 2, "activation": "tanh", "attention": 4, "norm": "spectral_batch"}, 3),
    ("pictures", {"kind": "r3gan", "width": 4, "blocks": 1}, 6),
    ("pictures", {"kind": "r3gan", "width": 4, "blocks": 1, "output": "tanh"}, 6),
    ("points", {"kind": "mlp", "width": 6, "depth": 4, "activation": "tanh"}, 4),
    ("points", {"kind": "mlp", "width": 6, "depth": 2, "output": "tanh"}, 2),
]


def world_of(world: str, g: dict[str, Any]) -> dict[str, Any]:
    d = D if world != "points" else {"kind": "mlp", "width": 6, "depth": 1}
    return {"network": {"g": g, "d": d}}


def told_how(world: str, g: dict[str, Any]) -> list[dict[str, Any] | None]:
    """The ways in which this G may learn of labels, and not at all."""
    norm = g.get("norm", "batch" if g["kind"] in ("dcgan", "resnet") else "none")
    if world == "points" or norm == "virtual":
        return [None]
    return [None, CONCAT, *([CLASS_NORM] if norm in ("batch", "spectral_batch") else [])]


PLACES = [(world, g, count, labels) for world, g, count in KINDS for labels in told_how(world, g)]


@pytest.mark.parametrize(
    ("world", "g", "count", "labels"),
    PLACES,
    ids=[f"{k}-{g['kind']}-{labels['g']['kind'] if labels else 'bare'}" for k, (_, g, _, labels) in enumerate(PLACES)],
)
def test_behind_every_hidden_activation_in_their_order(
    world: str, g: dict[str, Any], count: int, labels: dict[str, Any] | None
) -> None:
    tables = world_of(world, g) | ({} if labels is None else {"conditioning": labels})
    plain = session("labelled" if labels else world, **({"conditioning": {}} | tables))
    run = session("labelled" if labels else world, NOISE, **({"conditioning": {}} | tables))
    layers = randoms(run.game.g.net)
    assert [layer.stream for layer in layers] == [f"layer_noise/{k}" for k in range(count)]
    assert randoms(run.game.d.net) == []

    passed: list[str] = []
    for layer in layers:
        layer.register_forward_pre_hook(lambda layer, _: passed.append(layer.stream))
    run.play(1)
    assert passed[:count] == [layer.stream for layer in layers]
    assert list(dict.fromkeys(passed)) == passed[:count]

    # what they stand behind are the activations of the bare network, all but the output's
    assert len(hidden_activations(plain.game.g.net)) == count
    for kind in (nn.Tanh, nn.Sigmoid):
        both = [sum(isinstance(m, kind) for m in of.game.g.net.modules()) for of in (plain, run)]
        assert both[0] == both[1]
    for parent in run.game.g.net.modules():
        for child in parent.children():
            if isinstance(child, nn.Sequential) and any(isinstance(m, StochasticLayer) for m in child.children()):
                first, second = child.children()
                assert isinstance(first, nn.LeakyReLU | nn.ReLU | nn.Tanh | nn.PReLU | nn.GELU | nn.ELU)
                assert isinstance(second, StochasticLayer)
    assert all(torch.isfinite(t).all() for t in run.saved().values())


def test_the_output_is_left_alone() -> None:
    """However loud the layers are, pictures stay within what the last activation gives."""
    for g in (KINDS[0][1], KINDS[2][1], {"kind": "mlp", "width": 6, "activation": "tanh"}):
        run = session("pictures", NOISE | {"sigma": 50.0}, network={"g": g, "d": D}).play(1)
        assert all(move.fake.abs().max() <= 1 for move in run.moves)


def test_dropout_takes_the_first_layers_only() -> None:
    run = session("points", DROPOUT | {"layers": 2}, **world_of("points", {"kind": "mlp", "width": 6, "depth": 4}))
    assert [layer.stream for layer in randoms(run.game.g.net)] == ["standing_dropout/0", "standing_dropout/1"]
    places = [name for name, module in run.game.g.net.named_modules() if isinstance(module, StochasticLayer)]
    assert places == ["layers.1.1", "layers.3.1"]
    assert StandingDropoutConfig().layers == 3


def test_both_tricks_and_one_twice_stand_behind_each_other() -> None:
    run = session("pictures", NOISE, DROPOUT | {"layers": 1}, NOISE)
    streams = [layer.stream for layer in randoms(run.game.g.net)]
    assert streams == ["layer_noise/0", "standing_dropout/0", "layer_noise_2/0", "layer_noise/1", "layer_noise_2/1"]
    noise = told(run)
    run.play(1)
    first, second = (noise[name][0] for name in ("layer_noise/0", "layer_noise_2/0"))
    assert not torch.allclose(first[2] - first[1], second[2] - second[1], atol=1e-2)


class Functional(nn.Module):
    """A G whose hidden activation is a function."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.out = nn.Linear(3, 4), nn.Linear(4, 2), nn.Tanh()

    def forward(self, z: Tensor) -> Tensor:
        return self.out(self.last(relu(self.first(z))))


@pytest.mark.parametrize("net", [Functional(), nn.Sequential(nn.Linear(3, 2), nn.Tanh()), nn.Identity()])
@pytest.mark.parametrize("entry", [LayerNoiseConfig(), StandingDropoutConfig()])
def test_a_g_without_hidden_activations_is_refused_with_a_cure(
    net: nn.Module, entry: LayerNoiseConfig | StandingDropoutConfig
) -> None:
    trick = entry.build("loud", STAGE)
    with pytest.raises(RecipeError, match="'loud' finds no hidden activation in G") as refused:
        trick.transform_network(Side.G, net)
    assert refused.value.where == "network.g"
    assert "modules" in refused.value.cure
    assert "remove the trick" in refused.value.cure
    assert randoms(net) == []


@pytest.mark.parametrize("entry", [LayerNoiseConfig(sigma=0.0), StandingDropoutConfig(rate=0.0)])
def test_without_strength_the_network_is_itself(entry: LayerNoiseConfig | StandingDropoutConfig) -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    before = str(net)
    assert entry.build("t", STAGE).transform_network(Side.G, net) is net
    assert str(net) == before
    assert entry.build("t", STAGE).transform_network(Side.G, Functional())  # nor is there anything to refuse


def test_the_network_says_what_was_put_in() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    InsertLayers("t", add_layer_noise, 0.25, None).transform_network(Side.G, net)
    assert "add_layer_noise, 0.25" in repr(net)


# ---------------------------------------------------------------- what


def test_noise_has_its_size_and_no_mean() -> None:
    maps, n = cloud(50, 8, 20, 20), 50 * 8 * 400
    for sigma in (0.1, 2.0):
        noise = add_layer_noise(maps, sigma, torch.Generator().manual_seed(3)) - maps
        assert abs(float(noise.mean())) < 5 * sigma / math.sqrt(n)
        assert abs(float(noise.std()) - sigma) < 5 * sigma / math.sqrt(2 * n)
        assert abs(float((noise[:25] * noise[25:]).mean())) < 5 * sigma**2 / math.sqrt(n / 2)
        assert abs(float((noise / sigma).pow(4).mean()) - 3) < 5 * math.sqrt(96 / n)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    maps, n = torch.full((50, 8, 20, 20), 3.0), 50 * 8 * 400
    for rate in (0.1, 0.5, 0.9):
        made = dropout(maps, rate, torch.Generator().manual_seed(4))
        zeros = float((made == 0).float().mean())
        assert abs(zeros - rate) < 5 * math.sqrt(rate * (1 - rate) / n)
        assert made[made != 0].tolist() == pytest.approx([3 / (1 - rate)] * int((made != 0).sum()), rel=1e-5)
        assert abs(float(made.double().mean()) - 3) < 5 * 3 * math.sqrt(rate / (1 - rate) / n)


@pytest.mark.parametrize("act", [relu, lambda x: leaky_relu(x, 0.2)], ids=["relu", "leaky_relu"])
@pytest.mark.parametrize("rate", [0.5, 0.3])
def test_dropout_may_stand_on_either_side_of_a_rectifier(act: Callable[[Tensor], Tensor], rate: float) -> None:
    maps = cloud(20, 7)

    def drop(x: Tensor) -> Tensor:
        return dropout(x, rate, torch.Generator().manual_seed(5))

    assert torch.allclose(drop(act(maps)), act(drop(maps)), rtol=1e-6, atol=0)
    assert not torch.allclose(drop(torch.sigmoid(maps)), torch.sigmoid(drop(maps)), atol=1e-2)


@pytest.mark.parametrize("act", [add_layer_noise, dropout])
def test_types_and_layouts_stay(act: Callable[..., Tensor]) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        maps = cloud(4, 3, 5, 5).to(dtype).to(memory_format=torch.channels_last)
        made = act(maps, 0.5, torch.Generator().manual_seed(0))
        assert made.dtype == dtype
        assert made.shape == maps.shape
        assert made.is_contiguous(memory_format=torch.channels_last)
        for view in (maps[:, :2, 1:], maps[:1].expand(4, -1, -1, -1), maps.transpose(2, 3)):
            made = act(view, 0.5, torch.Generator().manual_seed(0)).float()
            assert made.shape == view.shape
            assert not torch.allclose(made[0], made[1], atol=1e-3)
            assert not torch.allclose(made[:, 0], made[:, 1], atol=1e-3)


@pytest.mark.parametrize("act", [add_layer_noise, dropout])
def test_the_gradient_passes_and_its_gradient(act: Callable[..., Tensor]) -> None:
    def through(maps: Tensor) -> Tensor:
        return act(maps, 0.4, torch.Generator().manual_seed(1)).square()

    maps = cloud(3, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(through, maps)
    assert torch.autograd.gradgradcheck(through, maps)


@pytest.mark.parametrize("g", [{"kind": "dcgan", "width": 2, "activation": "tanh"}, {"kind": "mlp", "width": 6}])
def test_a_whole_g_goes_backward_twice(g: dict[str, Any]) -> None:
    net = session("pictures", NOISE, DROPOUT, network={"g": g, "d": D}).game.g.net
    z = cloud(5, 3).requires_grad_()
    (slope,) = torch.autograd.grad(net(z).square().sum(), z, create_graph=True)
    slope.square().sum().backward()
    grads = [w.grad for w in net.parameters() if w.grad is not None]
    assert all(torch.isfinite(grad).all() for grad in grads)
    assert sum(float(grad.abs().sum()) for grad in grads) > 0


# ---------------------------------------------------------------- whose dice


def test_noise_is_each_layers_own_stream_of_the_move() -> None:
    run = session("pictures", NOISE | {"sigma": 0.3})
    heard_of = told(run)
    run.play(3)
    assert set(heard_of) == {"layer_noise/0", "layer_noise/1"}
    for stream, calls in heard_of.items():
        assert [(at.side, at.step) for at, *_ in calls if at] == [(s, k) for k in range(3) for s in (Side.D, Side.G)]
        for at, given, made in calls:
            assert at is not None
            assert torch.equal(made, add_layer_noise(given, 0.3, at.generator(stream)))


def test_layers_samples_and_moves_are_independent() -> None:
    g = {"kind": "mlp", "width": 500, "depth": 3}
    run = session("points", NOISE, tempo={"kind": "ratio", "d": 2}, **world_of("points", g))
    heard_of = told(run)
    run.play(2)
    noise = [made - given for calls in heard_of.values() for _, given, made in calls]
    assert len(noise) == 3 * 2 * 3
    rows = torch.stack([n.flatten() for n in noise]).double()
    within = torch.stack(list(torch.cat(noise).double()))
    for samples in (rows, within):
        apart = torch.corrcoef(samples)
        off = apart[~torch.eye(len(apart), dtype=torch.bool)]
        assert off.abs().max() < 5.5 / math.sqrt(samples.shape[1])


def test_another_trick_that_draws_changes_nothing() -> None:
    def noises(*others: dict[str, Any]) -> list[Tensor]:
        run = session("pictures", *others[:1], DROPOUT | {"rate": 0.3}, *others[1:])
        heard_of = told(run)
        run.play(2)
        return [made == 0 for stream, calls in heard_of.items() if "dropout" in stream for _, _, made in calls]

    alone, beside = noises(), noises({"kind": "instance_noise"}, NOISE, {"kind": "diff_augment"})
    assert len(alone) == 8
    for a, b in zip(alone, beside, strict=True):
        assert torch.equal(a, b)


def test_another_seed_is_other_noise() -> None:
    def first(seed: int) -> Tensor:
        run = session("points", NOISE, seed=seed)
        heard_of = told(run)
        run.play(1)
        _, given, made = heard_of["layer_noise/0"][0]
        return made - given

    assert not torch.allclose(first(0), first(1), atol=1e-2)
    assert torch.allclose(first(0), first(0), atol=1e-6)


def test_between_moves_the_clock_is_off() -> None:
    run = session("points", NOISE, {"kind": "r1"})
    (clock,) = {layer.layer_context for layer in randoms(run.game.g.net)}
    assert clock.current is None
    run.play(2)
    assert clock.current is None
    assert clock.generator("anything") is None
    broken = session("points", NOISE)

    def spoil(*_: object) -> None:
        raise ArithmeticError

    broken.game.d.net.register_forward_pre_hook(spoil)
    with pytest.raises(ArithmeticError):
        broken.play(1)
    assert randoms(broken.game.g.net)[0].layer_context.current is None


def test_in_a_move_the_clock_gives_that_moves_numbers() -> None:
    clock, at = LayerContext(), MoveContext(3, 10, 8, RandomStreams(1), Side.G, 2)
    clock.current = at
    ours, theirs = clock.generator("x"), RandomStreams(1)("g/x", 3, 2)
    assert ours is not None
    assert torch.equal(torch.rand(5, generator=ours), torch.rand(5, generator=theirs))


# ---------------------------------------------------------------- sampling and copies


@pytest.mark.parametrize("trick", [NOISE, DROPOUT], ids=["noise", "dropout"])
@pytest.mark.parametrize("world", ["points", "pictures", "labelled"])
def test_they_stay_on_in_evaluation(trick: dict[str, Any], world: str) -> None:
    net = session(world, trick).play(2).game.g.net.eval()
    z, labels = cloud(6, 3), torch.zeros(6, dtype=torch.long) if world == "labelled" else None
    with torch.no_grad():
        assert not torch.equal(call_network(net, z, labels), call_network(net, z, labels))


@pytest.mark.parametrize("trick", [NOISE, DROPOUT], ids=["noise", "dropout"])
def test_the_same_call_gives_the_same_samples_and_another_seed_others(trick: dict[str, Any]) -> None:
    net, z = session("pictures", trick).play(2).game.g.net, cloud(6, 3)
    state = torch.get_rng_state()
    first, again, other = (generate(net, z, streams=RandomStreams(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)
    assert torch.equal(state, torch.get_rng_state())
    assert net.training
    same = generate(net, z[:1].expand(6, -1), streams=RandomStreams(0))
    assert not torch.allclose(same[0], same[1], atol=1e-4)


def test_a_run_is_sampled_with_them(poise: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "told.toml"
    path.write_text(recipe("points", DROPOUT, {"kind": "averaged_weights"}, steps=3).to_toml())
    said = poise("train", path, "--out", tmp_path / "run")
    assert said.code == 0, said.err
    run = Run(tmp_path / "run")
    assert randoms(run.generator())
    assert torch.equal(run.sample(20), run.sample(20))
    assert torch.equal(run.sample(20), Run(tmp_path / "run").sample(20))
    net, z = run.generator(), run.latents(20)
    assert not torch.equal(generate(net, z, streams=RandomStreams(0)), generate(net, z, streams=RandomStreams(1)))
    assert not torch.equal(run.sample(20, raw=True), run.sample(20, seed=1, raw=True))


def test_copies_share_the_clock() -> None:
    copies = ({"kind": "averaged_weights"}, {"kind": "past_selves", "every": 3, "duration": 1, "keep": 2})
    run = session("points", NOISE, *copies)
    layers = randoms(run.game)
    assert len(layers) == 4
    assert len({id(layer.layer_context) for layer in layers}) == 1
    again = copy.deepcopy(run.game.g.net)
    assert randoms(again)[0].layer_context is layers[0].layer_context
    assert randoms(again)[0] is not layers[0]

    selves = randoms(run.game.tricks["past_selves"])
    contexts: list[MoveContext | None] = []
    for layer in selves:
        layer.register_forward_hook(lambda layer, *_: contexts.append(layer.layer_context.current))
    run.play(6)
    assert contexts
    assert all(at is not None and at.side is Side.D for at in contexts)


@pytest.mark.parametrize("trick", [NOISE, DROPOUT], ids=["noise", "dropout"])
def test_a_resumed_run_goes_on_as_if_nothing_had_been(trick: dict[str, Any]) -> None:
    whole, half = session("pictures", trick).play(4), session("pictures", trick).play(2)
    assert unequal(whole.saved(), half.resumed().play(2).saved()) == []


# ---------------------------------------------------------------- strengths that move

FALLS = {"kind": "linear", "start": 0.8, "end": 0.0, "until": 4, "over": "steps"}
STAIRS = {"kind": "steps", "values": [0.0, 0.6, 0.25], "at": [2, 4], "over": "steps"}
MOVING = pytest.mark.parametrize("trick", [NOISE | {"sigma": FALLS}, DROPOUT | {"rate": STAIRS}], ids=["noise", "drop"])
IN_STEPS = {"layer_noise": [0.8, 0.6, 0.4, 0.2, 0.0, 0.0], "standing_dropout": [0.0, 0.0, 0.6, 0.6, 0.25, 0.25]}


def strengths(net: nn.Module) -> list[float]:
    """What layers act with from now on, call by call; calls in which they do nothing are not among them."""
    used: list[float] = []

    def listening(act: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def listen(maps: Tensor, strength: float, generator: torch.Generator | None) -> Tensor:
            used.append(strength)
            return act(maps, strength, generator)

        return listen

    for layer in randoms(net):
        layer.function = listening(layer.function)
    return used


def in_sampling(net: nn.Module) -> set[float]:
    """The strengths that samples are drawn with."""
    net = copy.deepcopy(net)
    used = strengths(net)
    generate(net, cloud(4, 3), streams=RandomStreams(0))
    return {round(strength, 6) for strength in used}


@MOVING
@pytest.mark.parametrize("world", ["points", "pictures"])
def test_a_strength_follows_its_dial_in_training(trick: dict[str, Any], world: str) -> None:
    run = session(world, trick)
    used = strengths(run.game.g.net)
    for wanted in IN_STEPS[trick["kind"]]:
        used.clear()
        run.play(1)
        assert used == pytest.approx([wanted] * len(used))
        assert bool(used) is bool(wanted)


@MOVING
@pytest.mark.parametrize("average", [{"kind": "averaged_weights"}, {"kind": "mean_weights", "every": 1, "last": 3}])
def test_samples_are_drawn_with_the_strength_that_was_reached(trick: dict[str, Any], average: dict[str, Any]) -> None:
    """By the live G, by an average of it, and by both from a save."""
    run, wanted = session("points", trick, average), IN_STEPS[trick["kind"]]
    assert in_sampling(run.game.g.net) == {wanted[0]} - {0.0}
    for strength in wanted:
        run.play(1)
        for net in (
            run.game.g.net,
            run.game.sampling_network(),
            run.resumed().game.g.net,
            run.resumed().game.sampling_network(),
        ):
            assert in_sampling(net) == {strength} - {0.0}


@MOVING
def test_a_run_whose_strength_moves_resumes_bit_for_bit(trick: dict[str, Any]) -> None:
    selves = {"kind": "past_selves", "every": 3, "duration": 1, "keep": 2}
    tricks = (trick, selves, {"kind": "averaged_weights"})
    whole, half = session("pictures", *tricks).play(6), session("pictures", *tricks).play(3)
    assert unequal(whole.saved(), half.resumed().play(3).saved()) == []
    z = cloud(4, 3)
    first, second = (generate(run.game.g.net, z, streams=RandomStreams(0)) for run in (half, half.resumed()))
    assert torch.equal(first, second)


@MOVING
def test_a_strength_that_moves_waits_for_nothing(trick: dict[str, Any]) -> None:
    run = session("points", trick, {"kind": "averaged_weights"}).play(1)
    with no_waiting():
        run.play(3)


@pytest.mark.parametrize(("trick", "field"), [(NOISE, "sigma"), (DROPOUT, "rate")], ids=["noise", "dropout"])
def test_a_constant_strength_keeps_no_state_and_a_dial_that_stands_still_is_one(
    trick: dict[str, Any], field: str
) -> None:
    constant = session("points", trick).play(3).saved()
    assert not [name for name in constant if "strength" in name]
    still = {"kind": "linear", "start": trick[field], "end": trick[field]}
    assert unequal(session("points", trick | {field: still}).play(3).saved(), constant) == []
    moving = session("points", trick | {field: {**still, "start": 0.25}}).play(3).saved()
    assert [name for name in moving if name not in constant] == ["game/g.net.layers.1.1.strength_reached"]


@pytest.mark.parametrize(("trick", "field"), [(NOISE, "sigma"), (DROPOUT, "rate")], ids=["noise", "dropout"])
def test_while_the_strength_is_zero_the_run_is_that_without_it(trick: dict[str, Any], field: str) -> None:
    later = {"kind": "steps", "values": [0.0, 0.5], "at": [3], "over": "steps"}
    run, without = session("points", trick | {field: later}), session("points")
    saved = {name: tensor for name, tensor in run.play(3).saved().items() if "strength" not in name}
    renamed = {name.replace("layers.1.0.", "layers.1."): tensor for name, tensor in saved.items()}
    assert unequal(renamed, without.play(3).saved()) == []
    z = cloud(4, 3)
    ours, theirs = (generate(net, z, streams=RandomStreams(0)) for net in (run.game.g.net, without.game.g.net))
    assert torch.equal(ours, theirs)
    assert unequal(
        {name: run.play(1).saved()[name] for name in ("game/d.net.score.weight",)},
        {name: without.play(1).saved()[name] for name in ("game/d.net.score.weight",)},
    )


def test_they_run_in_bfloat16() -> None:
    run = Session(recipe("pictures", NOISE, DROPOUT), source("pictures"), precision="bf16").play(2)
    assert all(torch.isfinite(t).all() for t in run.saved().values())
