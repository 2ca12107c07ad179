"""Noise and dropout in G's layers: where they are inserted, their distributions, random streams, and when they act."""

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
    ActivationWithLayers,
    InsertLayers,
    LayerNoiseConfig,
    StandingDropoutConfig,
    StochasticLayer,
    add_layer_noise,
    dropout,
    hidden_activations,
)
from tricks.small import randn

NOISE: dict[str, Any] = {"kind": "layer_noise", "sigma": 0.5}
DROPOUT: dict[str, Any] = {"kind": "standing_dropout", "rate": 0.5}
D: dict[str, Any] = {"kind": "dcgan", "width": 2, "norm": "none"}
CONCAT = {"g": {"kind": "concat", "dim": 4}}
CLASS_NORM = {"g": {"kind": "class_norm"}}
CONTEXT = TrickContext({}, DataSpec((2,)))


def stochastic_layers(net: nn.Module) -> list[StochasticLayer]:
    return [module for module in net.modules() if isinstance(module, StochasticLayer)]


def record_calls(run: Session) -> dict[str, list[tuple[MoveContext | None, Tensor, Tensor]]]:
    """Record by stream the context, input and output of each layer, move by move, from now on."""
    calls_by_stream: dict[str, list[tuple[MoveContext | None, Tensor, Tensor]]] = {}

    def record(layer: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(layer, StochasticLayer)
        call = layer.layer_context.current, args[0].detach().clone(), output.detach().clone()
        calls_by_stream.setdefault(layer.stream, []).append(call)

    for layer in stochastic_layers(run.game.g.net):
        layer.register_forward_hook(record)
    return calls_by_stream


# ---------------------------------------------------------------- positions

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
    ("pictures", {"kind": "resnet", "width": 2, "activation": "tanh", "attention": 8, "norm": "spectral_batch"}, 3),
    ("pictures", {"kind": "biggan", "width": 2, "attention": 8}, 3),
    ("pictures", {"kind": "r3gan", "width": 4, "blocks": 1}, 6),
    ("pictures", {"kind": "r3gan", "width": 4, "blocks": 1, "output": "tanh"}, 6),
    (
        "pictures",
        {"kind": "stylegan2", "width": 2, "widest": 4, "style_dim": 4, "style_mixing": 0.0, "noise": "none"},
        5,
    ),
    ("points", {"kind": "mlp", "width": 6, "depth": 4, "activation": "tanh"}, 4),
    ("points", {"kind": "mlp", "width": 6, "depth": 2, "output": "tanh"}, 2),
]


def world_of(world: str, g: dict[str, Any]) -> dict[str, Any]:
    d = D if world != "points" else {"kind": "mlp", "width": 6, "depth": 1}
    return {"network": {"g": g, "d": d}}


def conditionings(world: str, g: dict[str, Any]) -> list[dict[str, Any] | None]:
    """The ways in which this G may be conditioned on labels, and none."""
    norm_kind = g.get("norm", "batch" if g["kind"] in ("dcgan", "resnet") else "none")
    if world == "points" or norm_kind == "virtual":
        return [None]
    return [None, CONCAT, *([CLASS_NORM] if norm_kind in ("batch", "spectral_batch") else [])]


CASES = [(world, g, count, labels) for world, g, count in KINDS for labels in conditionings(world, g)]


@pytest.mark.parametrize(
    ("world", "g", "count", "labels"),
    CASES,
    ids=[f"{k}-{g['kind']}-{labels['g']['kind'] if labels else 'bare'}" for k, (_, g, _, labels) in enumerate(CASES)],
)
def test_layers_follow_every_hidden_activation_in_order(
    world: str, g: dict[str, Any], count: int, labels: dict[str, Any] | None
) -> None:
    tables = world_of(world, g) | ({} if labels is None else {"conditioning": labels})
    plain = session("labelled" if labels else world, **({"conditioning": {}} | tables))
    run = session("labelled" if labels else world, NOISE, **({"conditioning": {}} | tables))
    layers = stochastic_layers(run.game.g.net)
    assert [layer.stream for layer in layers] == [f"layer_noise/{k}" for k in range(count)]
    assert stochastic_layers(run.game.d.net) == []

    passed: list[str] = []
    for layer in layers:
        layer.register_forward_pre_hook(lambda layer, _: passed.append(layer.stream))
    run.play(1)
    assert passed[:count] == [layer.stream for layer in layers]
    assert list(dict.fromkeys(passed)) == passed[:count]

    # they follow all activations of the plain network except the output's
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


def test_the_output_activation_is_not_followed_by_noise() -> None:
    """However strong the noise is, samples stay within the range of the output activation."""
    for g in (KINDS[0][1], KINDS[2][1], {"kind": "mlp", "width": 6, "activation": "tanh"}):
        run = session("pictures", NOISE | {"sigma": 50.0}, network={"g": g, "d": D}).play(1)
        assert all(move.fake.abs().max() <= 1 for move in run.moves)


def test_dropout_is_inserted_in_the_first_layers_only() -> None:
    run = session("points", DROPOUT | {"layers": 2}, **world_of("points", {"kind": "mlp", "width": 6, "depth": 4}))
    assert [layer.stream for layer in stochastic_layers(run.game.g.net)] == ["standing_dropout/0", "standing_dropout/1"]
    names = [name for name, module in run.game.g.net.named_modules() if isinstance(module, StochasticLayer)]
    assert names == ["layers.1.1", "layers.3.1"]
    assert StandingDropoutConfig().layers == 3


def test_several_tricks_are_inserted_one_after_another() -> None:
    run = session("pictures", NOISE, DROPOUT | {"layers": 1}, NOISE)
    streams = [layer.stream for layer in stochastic_layers(run.game.g.net)]
    assert streams == ["layer_noise/0", "standing_dropout/0", "layer_noise_2/0", "layer_noise/1", "layer_noise_2/1"]
    noise = record_calls(run)
    run.play(1)
    first, second = (noise[name][0] for name in ("layer_noise/0", "layer_noise_2/0"))
    assert not torch.allclose(first[2] - first[1], second[2] - second[1], atol=1e-2)


class FunctionalActivation(nn.Module):
    """A G whose hidden activation is a function."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.out = nn.Linear(3, 4), nn.Linear(4, 2), nn.Tanh()

    def forward(self, z: Tensor) -> Tensor:
        return self.out(self.last(relu(self.first(z))))


@pytest.mark.parametrize("net", [FunctionalActivation(), nn.Sequential(nn.Linear(3, 2), nn.Tanh()), nn.Identity()])
@pytest.mark.parametrize("config", [LayerNoiseConfig(), StandingDropoutConfig()])
def test_a_g_without_hidden_activations_is_rejected_with_a_cure(
    net: nn.Module, config: LayerNoiseConfig | StandingDropoutConfig
) -> None:
    trick = config.build("loud", CONTEXT)
    with pytest.raises(RecipeError, match="'loud' finds no hidden activation in G") as rejected:
        trick.transform_network(Side.G, net)
    assert rejected.value.where == "network.g"
    assert "modules" in rejected.value.cure
    assert "remove the trick" in rejected.value.cure
    assert stochastic_layers(net) == []


@pytest.mark.parametrize("config", [LayerNoiseConfig(sigma=0.0), StandingDropoutConfig(rate=0.0)])
def test_strength_0_leaves_the_network_unchanged(config: LayerNoiseConfig | StandingDropoutConfig) -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    before = str(net)
    assert config.build("t", CONTEXT).transform_network(Side.G, net) is net
    assert str(net) == before
    assert config.build("t", CONTEXT).transform_network(Side.G, FunctionalActivation())  # nothing is rejected either


@pytest.mark.parametrize(
    ("last_layers", "expected"), [(1, [False, False, True]), (2, [False, True, True]), (9, [True] * 3)]
)
def test_layer_noise_after_the_last_activations_only(last_layers: int, expected: list[bool]) -> None:
    net = nn.Sequential(*(layer for _ in range(3) for layer in (nn.Linear(2, 2), nn.ReLU())), nn.Linear(2, 2))
    LayerNoiseConfig(last_layers=last_layers).build("t", CONTEXT).transform_network(Side.G, net)
    assert [isinstance(net[k], ActivationWithLayers) for k in (1, 3, 5)] == expected


def test_noise_after_the_last_activation_has_the_covariance_of_the_last_layer() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    plain = copy.deepcopy(net)
    LayerNoiseConfig(sigma=0.5, last_layers=1).build("t", CONTEXT).transform_network(Side.G, net)
    z, n = torch.full((1, 2), 0.3), 200_000
    torch.manual_seed(0)
    weight = plain[4].weight
    expected = 0.25 * (weight @ weight.T).detach()
    assert torch.allclose(
        (net(z.expand(n, 2)) - plain(z)).detach().T.cov(), expected, rtol=0.02, atol=0.02 * float(expected.max())
    )


def test_the_repr_shows_the_inserted_layers() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    InsertLayers("t", add_layer_noise, 0.25).transform_network(Side.G, net)
    assert "add_layer_noise, 0.25" in repr(net)


# ---------------------------------------------------------------- distributions


def test_noise_has_standard_deviation_sigma_and_mean_0() -> None:
    maps, n = randn(50, 8, 20, 20), 50 * 8 * 400
    for sigma in (0.1, 2.0):
        noise = add_layer_noise(maps, sigma, torch.Generator().manual_seed(3)) - maps
        assert abs(float(noise.mean())) < 5 * sigma / math.sqrt(n)
        assert abs(float(noise.std()) - sigma) < 5 * sigma / math.sqrt(2 * n)
        assert abs(float((noise[:25] * noise[25:]).mean())) < 5 * sigma**2 / math.sqrt(n / 2)
        assert abs(float((noise / sigma).pow(4).mean()) - 3) < 5 * math.sqrt(96 / n)


def test_dropout_has_its_rate_and_keeps_the_mean() -> None:
    maps, n = torch.full((50, 8, 20, 20), 3.0), 50 * 8 * 400
    for rate in (0.1, 0.5, 0.9):
        dropped = dropout(maps, rate, torch.Generator().manual_seed(4))
        zeros = float((dropped == 0).float().mean())
        assert abs(zeros - rate) < 5 * math.sqrt(rate * (1 - rate) / n)
        assert torch.allclose(dropped[dropped != 0], torch.tensor(3 / (1 - rate)), rtol=1e-5, atol=0)
        assert abs(float(dropped.double().mean()) - 3) < 5 * 3 * math.sqrt(rate / (1 - rate) / n)


@pytest.mark.parametrize("act", [relu, lambda x: leaky_relu(x, 0.2)], ids=["relu", "leaky_relu"])
@pytest.mark.parametrize("rate", [0.5, 0.3])
def test_dropout_commutes_with_rectifiers(act: Callable[[Tensor], Tensor], rate: float) -> None:
    maps = randn(20, 7)

    def drop(x: Tensor) -> Tensor:
        return dropout(x, rate, torch.Generator().manual_seed(5))

    assert torch.allclose(drop(act(maps)), act(drop(maps)), rtol=1e-6, atol=0)
    assert not torch.allclose(drop(torch.sigmoid(maps)), torch.sigmoid(drop(maps)), atol=1e-2)


@pytest.mark.parametrize("function", [add_layer_noise, dropout])
def test_dtypes_and_memory_formats_are_kept(function: Callable[..., Tensor]) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        maps = randn(4, 3, 5, 5).to(dtype).to(memory_format=torch.channels_last)
        output = function(maps, 0.5, torch.Generator().manual_seed(0))
        assert output.dtype == dtype
        assert output.shape == maps.shape
        assert output.is_contiguous(memory_format=torch.channels_last)
        for view in (maps[:, :2, 1:], maps[:1].expand(4, -1, -1, -1), maps.transpose(2, 3)):
            output = function(view, 0.5, torch.Generator().manual_seed(0)).float()
            assert output.shape == view.shape
            assert not torch.allclose(output[0], output[1], atol=1e-3)
            assert not torch.allclose(output[:, 0], output[:, 1], atol=1e-3)


@pytest.mark.parametrize("function", [add_layer_noise, dropout])
def test_first_and_second_derivatives(function: Callable[..., Tensor]) -> None:
    def squared_output(maps: Tensor) -> Tensor:
        return function(maps, 0.4, torch.Generator().manual_seed(1)).square()

    maps = randn(3, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(squared_output, maps)
    assert torch.autograd.gradgradcheck(squared_output, maps)


@pytest.mark.parametrize("g", [{"kind": "dcgan", "width": 2, "activation": "tanh"}, {"kind": "mlp", "width": 6}])
def test_g_is_twice_differentiable(g: dict[str, Any]) -> None:
    net = session("pictures", NOISE, DROPOUT, network={"g": g, "d": D}).game.g.net
    z = randn(5, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(net(z).square().sum(), z, create_graph=True)
    gradient.square().sum().backward()
    grads = [w.grad for w in net.parameters() if w.grad is not None]
    assert all(torch.isfinite(grad).all() for grad in grads)
    assert sum(float(grad.abs().sum()) for grad in grads) > 0


# ---------------------------------------------------------------- random streams


def test_each_layer_has_its_own_stream() -> None:
    run = session("pictures", NOISE | {"sigma": 0.3})
    calls_by_stream = record_calls(run)
    run.play(3)
    assert set(calls_by_stream) == {"layer_noise/0", "layer_noise/1"}
    for stream, calls in calls_by_stream.items():
        assert [(at.side, at.step) for at, *_ in calls if at] == [(s, k) for k in range(3) for s in (Side.D, Side.G)]
        for at, given, made in calls:
            assert at is not None
            assert torch.equal(made, add_layer_noise(given, 0.3, at.generator(stream)))


def test_layers_samples_and_moves_are_independent() -> None:
    g = {"kind": "mlp", "width": 500, "depth": 3}
    run = session("points", NOISE, tempo={"kind": "ratio", "d": 2}, **world_of("points", g))
    calls_by_stream = record_calls(run)
    run.play(2)
    noise = [made - given for calls in calls_by_stream.values() for _, given, made in calls]
    assert len(noise) == 3 * 2 * 3
    rows = torch.stack([n.flatten() for n in noise]).double()
    within = torch.stack(list(torch.cat(noise).double()))
    for samples in (rows, within):
        apart = torch.corrcoef(samples)
        off = apart[~torch.eye(len(apart), dtype=torch.bool)]
        assert off.abs().max() < 5.5 / math.sqrt(samples.shape[1])


def test_other_tricks_do_not_change_the_draws() -> None:
    def noises(*others: dict[str, Any]) -> list[Tensor]:
        run = session("pictures", *others[:1], DROPOUT | {"rate": 0.3}, *others[1:])
        calls_by_stream = record_calls(run)
        run.play(2)
        return [made == 0 for stream, calls in calls_by_stream.items() if "dropout" in stream for _, _, made in calls]

    alone, beside = noises(), noises({"kind": "instance_noise"}, NOISE, {"kind": "diff_augment"})
    assert len(alone) == 8
    for a, b in zip(alone, beside, strict=True):
        assert torch.equal(a, b)


def test_another_seed_gives_other_noise() -> None:
    def first(seed: int) -> Tensor:
        run = session("points", NOISE, seed=seed)
        calls_by_stream = record_calls(run)
        run.play(1)
        _, given, made = calls_by_stream["layer_noise/0"][0]
        return made - given

    assert not torch.allclose(first(0), first(1), atol=1e-2)
    assert torch.allclose(first(0), first(0), atol=1e-6)


def test_between_moves_there_is_no_current_move() -> None:
    run = session("points", NOISE, {"kind": "r1"})
    (layer_context,) = {layer.layer_context for layer in stochastic_layers(run.game.g.net)}
    assert layer_context.current is None
    run.play(2)
    assert layer_context.current is None
    assert layer_context.generator("anything") is None
    broken = session("points", NOISE)

    def spoil(*_: object) -> None:
        raise ArithmeticError

    broken.game.d.net.register_forward_pre_hook(spoil)
    with pytest.raises(ArithmeticError):
        broken.play(1)
    assert stochastic_layers(broken.game.g.net)[0].layer_context.current is None


def test_in_a_move_the_layer_context_uses_the_moves_stream() -> None:
    layer_context, at = LayerContext(), MoveContext(3, 10, 8, RandomStreams(1), Side.G, 2)
    layer_context.current = at
    actual, expected = layer_context.generator("x"), RandomStreams(1)("g/x", 3, 2)
    assert actual is not None
    assert torch.equal(torch.rand(5, generator=actual), torch.rand(5, generator=expected))


# ---------------------------------------------------------------- sampling and copies


@pytest.mark.parametrize("trick", [NOISE, DROPOUT], ids=["noise", "dropout"])
@pytest.mark.parametrize("world", ["points", "pictures", "labelled"])
def test_layers_act_in_evaluation_mode(trick: dict[str, Any], world: str) -> None:
    net = session(world, trick).play(2).game.g.net.eval()
    z, labels = randn(6, 3), torch.zeros(6, dtype=torch.long) if world == "labelled" else None
    with torch.no_grad():
        assert not torch.equal(call_network(net, z, labels), call_network(net, z, labels))


@pytest.mark.parametrize("trick", [NOISE, DROPOUT], ids=["noise", "dropout"])
def test_samples_are_determined_by_the_seed(trick: dict[str, Any]) -> None:
    net, z = session("pictures", trick).play(2).game.g.net, randn(6, 3)
    state = torch.get_rng_state()
    first, again, other = (generate(net, z, streams=RandomStreams(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)
    assert torch.equal(state, torch.get_rng_state())
    assert net.training
    same = generate(net, z[:1].expand(6, -1), streams=RandomStreams(0))
    assert not torch.allclose(same[0], same[1], atol=1e-4)


def test_a_run_is_sampled_with_the_layers(poise: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(recipe("points", DROPOUT, {"kind": "averaged_weights"}, steps=3).to_toml())
    result = poise("train", path, "--out", tmp_path / "run")
    assert result.code == 0, result.err
    run = Run(tmp_path / "run")
    assert stochastic_layers(run.generator())
    assert torch.equal(run.sample(20), run.sample(20))
    assert torch.equal(run.sample(20), Run(tmp_path / "run").sample(20))
    net, z = run.generator(), run.latents(20)
    assert not torch.equal(generate(net, z, streams=RandomStreams(0)), generate(net, z, streams=RandomStreams(1)))
    assert not torch.equal(run.sample(20, raw=True), run.sample(20, seed=1, raw=True))


def test_copies_share_the_layer_context() -> None:
    copies = ({"kind": "averaged_weights"}, {"kind": "past_selves", "every": 3, "duration": 1, "keep": 2})
    run = session("points", NOISE, *copies)
    layers = stochastic_layers(run.game)
    assert len(layers) == 4
    assert len({id(layer.layer_context) for layer in layers}) == 1
    again = copy.deepcopy(run.game.g.net)
    assert stochastic_layers(again)[0].layer_context is layers[0].layer_context
    assert stochastic_layers(again)[0] is not layers[0]

    selves = stochastic_layers(run.game.tricks["past_selves"])
    contexts: list[MoveContext | None] = []
    for layer in selves:
        layer.register_forward_hook(lambda layer, *_: contexts.append(layer.layer_context.current))
    run.play(6)
    assert contexts
    assert all(at is not None and at.side is Side.D for at in contexts)


@pytest.mark.parametrize("trick", [NOISE, DROPOUT], ids=["noise", "dropout"])
def test_a_resumed_run_equals_an_uninterrupted_one(trick: dict[str, Any]) -> None:
    whole, half = session("pictures", trick).play(4), session("pictures", trick).play(2)
    assert unequal(whole.saved(), half.resumed().play(2).saved()) == []


# ---------------------------------------------------------------- scheduled strengths

FALLING = {"kind": "linear", "start": 0.8, "end": 0.0, "until": 4, "over": "steps"}
STEPWISE = {"kind": "steps", "values": [0.0, 0.6, 0.25], "at": [2, 4], "over": "steps"}
SCHEDULED = pytest.mark.parametrize(
    "trick", [NOISE | {"sigma": FALLING}, DROPOUT | {"rate": STEPWISE}], ids=["noise", "drop"]
)
IN_STEPS = {"layer_noise": [0.8, 0.6, 0.4, 0.2, 0.0, 0.0], "standing_dropout": [0.0, 0.0, 0.6, 0.6, 0.25, 0.25]}


def record_strengths(net: nn.Module) -> list[float]:
    """Record the strengths with which layers act from now on; calls at strength 0 are not recorded."""
    used: list[float] = []

    def recording(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def record(maps: Tensor, strength: float, generator: torch.Generator | None) -> Tensor:
            used.append(strength)
            return function(maps, strength, generator)

        return record

    for layer in stochastic_layers(net):
        layer.function = recording(layer.function)
    return used


def sampling_strengths(net: nn.Module) -> set[float]:
    """The strengths with which samples are generated."""
    net = copy.deepcopy(net)
    used = record_strengths(net)
    generate(net, randn(4, 3), streams=RandomStreams(0))
    return {round(strength, 6) for strength in used}


@SCHEDULED
@pytest.mark.parametrize("world", ["points", "pictures"])
def test_a_strength_follows_its_schedule_in_training(trick: dict[str, Any], world: str) -> None:
    run = session(world, trick)
    used = record_strengths(run.game.g.net)
    for expected in IN_STEPS[trick["kind"]]:
        used.clear()
        run.play(1)
        assert used == pytest.approx([expected] * len(used))
        assert bool(used) is bool(expected)


@SCHEDULED
@pytest.mark.parametrize("average", [{"kind": "averaged_weights"}, {"kind": "mean_weights", "every": 1, "last": 3}])
def test_samples_use_the_strength_of_the_last_step(trick: dict[str, Any], average: dict[str, Any]) -> None:
    """Of the live G, of an average of it, and of both after a resume."""
    run, expected = session("points", trick, average), IN_STEPS[trick["kind"]]
    assert sampling_strengths(run.game.g.net) == {expected[0]} - {0.0}
    for strength in expected:
        run.play(1)
        for net in (
            run.game.g.net,
            run.game.sampling_network(),
            run.resumed().game.g.net,
            run.resumed().game.sampling_network(),
        ):
            assert sampling_strengths(net) == {strength} - {0.0}


@SCHEDULED
def test_a_run_with_a_scheduled_strength_resumes_bit_for_bit(trick: dict[str, Any]) -> None:
    selves = {"kind": "past_selves", "every": 3, "duration": 1, "keep": 2}
    tricks = (trick, selves, {"kind": "averaged_weights"})
    whole, half = session("pictures", *tricks).play(6), session("pictures", *tricks).play(3)
    assert unequal(whole.saved(), half.resumed().play(3).saved()) == []
    z = randn(4, 3)
    first, second = (generate(run.game.g.net, z, streams=RandomStreams(0)) for run in (half, half.resumed()))
    assert torch.equal(first, second)


@SCHEDULED
def test_a_scheduled_strength_does_not_wait_for_the_device(trick: dict[str, Any]) -> None:
    run = session("points", trick, {"kind": "averaged_weights"}).play(1)
    with no_waiting():
        run.play(3)


@pytest.mark.parametrize(("trick", "field"), [(NOISE, "sigma"), (DROPOUT, "rate")], ids=["noise", "dropout"])
def test_constant_strengths_and_constant_schedules_have_no_state(trick: dict[str, Any], field: str) -> None:
    constant = session("points", trick).play(3).saved()
    assert not [name for name in constant if "strength" in name]
    constant_schedule = {"kind": "linear", "start": trick[field], "end": trick[field]}
    assert unequal(session("points", trick | {field: constant_schedule}).play(3).saved(), constant) == []
    moving = session("points", trick | {field: {**constant_schedule, "start": 0.25}}).play(3).saved()
    assert [name for name in moving if name not in constant] == ["game/g.net.layers.1.1.strength_reached"]


@pytest.mark.parametrize(("trick", "field"), [(NOISE, "sigma"), (DROPOUT, "rate")], ids=["noise", "dropout"])
def test_while_the_strength_is_0_the_run_is_unchanged(trick: dict[str, Any], field: str) -> None:
    later = {"kind": "steps", "values": [0.0, 0.5], "at": [3], "over": "steps"}
    run, without = session("points", trick | {field: later}), session("points")
    saved = {name: tensor for name, tensor in run.play(3).saved().items() if "strength" not in name}
    renamed = {name.replace("layers.1.0.", "layers.1."): tensor for name, tensor in saved.items()}
    assert unequal(renamed, without.play(3).saved()) == []
    z = randn(4, 3)
    samples, expected = (generate(net, z, streams=RandomStreams(0)) for net in (run.game.g.net, without.game.g.net))
    assert torch.equal(samples, expected)
    assert unequal(
        {name: run.play(1).saved()[name] for name in ("game/d.net.score.weight",)},
        {name: without.play(1).saved()[name] for name in ("game/d.net.score.weight",)},
    )


def test_layers_run_in_bfloat16() -> None:
    run = Session(recipe("pictures", NOISE, DROPOUT), source("pictures"), precision="bf16").play(2)
    assert all(torch.isfinite(t).all() for t in run.saved().values())
