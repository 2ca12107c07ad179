"""Minibatch standard deviation: StyleGAN2's formula in NumPy, one more channel in every D, and collapsed batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import conv2d, softplus
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized

from contracts.tiny import TRANSLATED, Session, recipe, session, source, unequal
from poise.core.random_streams import RandomStreams
from poise.core.types import DataSpec, DiscriminatorOutput, Side
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.errors import RecipeError
from poise.networks.base import call_network
from poise.tricks.base import TrickContext
from poise.tricks.batch_stddev import MinibatchStddevConfig, WithGroupStddev, group_size, group_stddev, widen_input_
from tricks.small import as_float64, randn

STDDEV: dict[str, Any] = {"kind": "minibatch_stddev"}
CPU = ComputeSettings(torch.device("cpu"), "fp32")


def stylegan2(x: np.ndarray[Any, Any], group: int) -> np.ndarray[Any, Any]:
    """MinibatchStdLayer of NVlabs/stylegan2-ada-pytorch with one channel: the map that it concatenates."""
    _, c, h, w = x.shape
    y = x.reshape(group, -1, 1, c, h, w)  # [GnFcHW]
    y = y - y.mean(0)
    y = np.sqrt((y**2).mean(0) + 1e-8)  # [nFcHW]
    y = y.mean((2, 3, 4))  # [nF]
    return np.tile(y.reshape(-1, 1, 1, 1), (group, 1, h, w))  # [NFHW]


@pytest.mark.parametrize(("n", "group"), [(8, 4), (12, 3), (8, 8), (4, 16)])
def test_the_map_equals_stylegan2s(n: int, group: int) -> None:
    x = randn(n, 3, 4, 4, dtype=torch.float64) * torch.linspace(0.1, 3, n, dtype=torch.float64)[:, None, None, None]
    expected = stylegan2(as_float64(x), min(group, n))
    np.testing.assert_allclose(as_float64(group_stddev(x, group)), expected[:, 0, 0, 0], rtol=1e-12)
    layer = nn.Conv2d(4, 2, 3, padding=1).double()
    output = conv2d(torch.cat((x, torch.from_numpy(expected)), 1), layer.weight, layer.bias, padding=1)
    assert torch.allclose(WithGroupStddev(layer, group)(x), output, rtol=1e-10)


def test_the_group_size_is_the_largest_divisor() -> None:
    assert [group_size(n, 4) for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)] == [1, 1, 2, 3, 4, 1, 3, 1, 4, 3, 2]


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (0, 6)])
def test_an_empty_batch_has_no_deviations(shape: tuple[int, ...]) -> None:
    assert group_stddev(torch.zeros(shape), 4).shape == (0,)


def test_gradients() -> None:
    maps = randn(6, 2, 2, 2, seed=1, dtype=torch.float64).requires_grad_()
    for group in (2, 3, 4):
        assert torch.autograd.gradcheck(lambda x, group=group: group_stddev(x, group), maps)
        assert torch.autograd.gradgradcheck(lambda x, group=group: group_stddev(x, group), maps)


NETWORKS: dict[str, dict[str, Any]] = {
    "dcgan": {"kind": "dcgan", "width": 4},
    "dcgan, no norm": {"kind": "dcgan", "width": 4, "norm": "none"},
    "dcgan, spectral": {"kind": "dcgan", "width": 4, "norm": "spectral"},
    "dcgan, virtual": {"kind": "dcgan", "width": 4, "norm": "virtual"},
    "dcgan, instance": {"kind": "dcgan", "width": 4, "norm": "instance"},
    "sngan": {"kind": "resnet", "width": 4},
    "sngan, batch": {"kind": "resnet", "width": 4, "norm": "batch"},
    "sagan": {"kind": "resnet", "width": 4, "attention": 4, "depth": 1, "plain": 0},
    "biggan": {"kind": "biggan", "width": 4, "attention": 4, "depth": 1, "plain": 0},
    "r3gan": {"kind": "r3gan", "width": 4},
    "stylegan2": {"kind": "stylegan2", "width": 4, "widest": 8},
    "mlp": {"kind": "mlp", "width": 8},
    "mlp, batch": {"kind": "mlp", "width": 8, "norm": "batch"},
    "mlp, one layer": {"kind": "mlp", "width": 8, "depth": 1},
    "unrolled": {"kind": "unrolled", "width": 2},
}
AT_SCORE = ("dcgan", "dcgan, instance", "sngan, batch", "mlp, batch", "unrolled")


def session_with(network: dict[str, Any], *tricks: dict[str, Any], **changes: Any) -> Session:
    g = {"kind": "dcgan", "width": 2}
    world = "labelled" if "conditioning" in changes else "pictures"
    return Session(recipe(world, *tricks, network={"g": g, "d": network}, **changes), source(world))


def find_layer(net: nn.Module) -> WithGroupStddev:
    (found,) = (module for module in net.modules() if isinstance(module, WithGroupStddev))
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_every_d_gets_one_more_input_and_keeps_its_weights(name: str) -> None:
    plain, run = session_with(NETWORKS[name]), session_with(NETWORKS[name], STDDEV)
    net, layer = run.game.d.net, find_layer(run.game.d.net).layer
    parameters = {
        key.replace(".layer.", ".").replace("parametrizations.weight.original", "weight"): w
        for key, w in net.named_parameters()
    }
    widened = []
    for key, w in plain.game.d.net.named_parameters():
        key = key.replace("parametrizations.weight.original", "weight")
        if parameters[key].shape == w.shape:
            assert torch.equal(parameters[key], w)
        else:
            widened.append(key)
            assert torch.equal(parameters[key][:, :-1], w)
            assert bool(torch.isin(parameters[key][:, -1], w).all())
    assert len(widened) == 1
    scores = layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
    assert (scores == 1) is (name in AT_SCORE)
    assert is_parametrized(layer) is ("spectral" in name or name in ("sngan", "sagan", "biggan"))
    assert unequal(dict(plain.game.g.net.state_dict()), dict(run.game.g.net.state_dict())) == []
    assert all(torch.isfinite(t).all() for t in run.play(2).saved().values())
    half = session_with(NETWORKS[name], STDDEV).play(1)
    assert unequal(half.resumed().play(1).saved(), run.saved()) == []


def test_a_reference_batch_is_compared_separately() -> None:
    net = session_with(NETWORKS["dcgan, virtual"], STDDEV).game.d.net.eval()
    layer, inputs = find_layer(net), []
    layer.layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.no_grad():
        net(randn(8, 1, 8, 8))
        net(randn(8, 1, 8, 8, seed=2))
    maps = [given[:, -1, 0, 0] for given in inputs]
    assert layer.num_reference > 0
    assert torch.equal(maps[0][: layer.num_reference], maps[1][: layer.num_reference])
    assert not torch.equal(maps[0][layer.num_reference :], maps[1][layer.num_reference :])


@pytest.mark.parametrize("d", ["projection", "channels", None])
@pytest.mark.parametrize("network", ["dcgan", "sngan", "mlp"])
def test_wrappers_are_kept(d: str | None, network: str) -> None:
    others = [] if d else [{"kind": "auxiliary_classifier"}]
    conditioning = {"g": {"kind": "concat"}} | ({"d": {"kind": d}} if d else {})
    run = session_with(NETWORKS[network], STDDEV, *others, conditioning=conditioning).play(2)
    assert find_layer(run.game.d.net)
    assert run.of(Side.D)[-1].move.score("real").shape == (8,)


WRAPPED: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "none": ([], {}),
    "classifier": ([{"kind": "auxiliary_classifier"}], {"conditioning": {"g": {"kind": "concat"}}}),
    "projection": ([], {"conditioning": {"g": {"kind": "concat"}, "d": {"kind": "projection"}}}),
    "channels": ([], {"conditioning": {"g": {"kind": "concat"}, "d": {"kind": "channels"}}}),
    "codes": ([{"kind": "infogan"}], {"latent": {"kind": "codes", "dim": 8, "categories": [3], "continuous": 0}}),
    "packing": ([{"kind": "packing"}], {}),
    "statistic": ([{"kind": "minibatch_discrimination"}], {}),
}


@pytest.mark.parametrize("network", ["dcgan", "sngan", "mlp"])
@pytest.mark.parametrize("wrapper", WRAPPED)
def test_the_score_depends_on_the_group_whatever_wraps_the_network(wrapper: str, network: str) -> None:
    """And not, for instance, the predicted codes alone: the gradient reaches the weights that read the map."""
    tricks, changes = WRAPPED[wrapper]
    run = session_with(NETWORKS[network], STDDEV, *tricks, **changes)
    net, layer = run.game.d.net, find_layer(run.game.d.net).layer
    labels = [torch.zeros(8, dtype=torch.int64)] if getattr(net, "takes_labels", False) else []
    net(randn(8, 1, 8, 8), *labels).score.sum().backward()
    weight = next(parameter for name, parameter in layer.named_parameters() if "weight" in name)
    assert weight.grad is not None
    assert float(weight.grad[:, -1].abs().max()) > 0


def test_packs_are_compared_with_packs() -> None:
    for tricks in ((STDDEV, {"kind": "packing"}), ({"kind": "packing"}, STDDEV)):
        run = session_with(NETWORKS["dcgan"], *tricks).play(2)
        assert run.of(Side.D)[-1].move.score("real").shape == (4,)
        assert find_layer(run.game.d.net)


class UserDiscriminator(nn.Module):
    """A user's discriminator."""

    def __init__(self, *, normed: bool = False, layers: bool = True) -> None:
        super().__init__()
        first = nn.Conv2d(1, 3, 3, bias=False)
        self.first = weight_norm(first) if normed else first
        self.last = nn.Linear(3 * 36, 1) if layers else nn.Identity()

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(self.last(self.first(x).relu().flatten(1)).sum(1))


def test_user_networks() -> None:
    x, trick = randn(8, 1, 8, 8), MinibatchStddevConfig().build("t", TrickContext({}, DataSpec((1, 8, 8))))
    for normed in (False, True):
        net = UserDiscriminator(normed=normed)
        before = net.first.weight.detach().clone()
        trick.transform_network(Side.D, net)
        layer = find_layer(net).layer
        assert is_parametrized(layer) is normed
        assert layer.weight.shape == (3, 2, 3, 3)
        assert torch.allclose(layer.weight[:, :1], before)
        assert net(x).score.shape == (8,)
    with pytest.raises(RecipeError, match="no convolution and no linear layer"):
        trick.transform_network(Side.D, nn.Sequential(nn.Flatten()))
    old = nn.Linear(3, 2)
    torch.nn.utils.spectral_norm(old)
    with pytest.raises(RecipeError, match="computed by a hook"):
        widen_input_(old)


# ---------------------------------------------------------------- detection of collapse


def draw_batch(samples: Tensor, count: int, *, one: bool, generator: torch.Generator) -> Tensor:
    """Real digits, or copies of one digit."""
    indices = torch.randint(len(samples), (count,), generator=generator)
    return samples[indices[:1].expand(count) if one else indices]


@pytest.mark.parametrize(
    ("trick", "network"),
    [
        (STDDEV, {"kind": "dcgan", "width": 8}),
        (STDDEV, {"kind": "resnet", "width": 8}),
        ({"kind": "minibatch_discrimination"}, {"kind": "resnet", "width": 8}),
        ({"kind": "packing"}, {"kind": "resnet", "width": 8}),
    ],
)
def test_a_batch_of_one_repeated_digit_is_detected(trick: dict[str, Any], network: dict[str, Any]) -> None:
    """After a short training on both kinds of batches, on unseen digits, in over 95 % of cases."""
    digits = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 8 - 1
    checked = recipe("pictures", trick, batch=16, network={"g": {"kind": "dcgan", "width": 2}, "d": network})
    d = build_game(checked, DataSpec((1, 8, 8), 0, digits[:64], 1200), CPU, RandomStreams(0)).d.net
    optimizer = torch.optim.Adam(d.parameters(), lr=5e-3, betas=(0.5, 0.99))
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        real, repeated = (
            call_network(d, draw_batch(digits[:1200], 16, one=one, generator=generator), None).score for one in (0, 1)
        )
        optimizer.zero_grad()
        (softplus(-real).mean() + softplus(repeated).mean()).backward()
        optimizer.step()
    num_correct = 0
    with torch.no_grad():
        for _ in range(50):
            scores = [
                d(draw_batch(digits[1200:], 16, one=one, generator=generator)).score.mean() for one in (False, True)
            ]
            num_correct += bool(scores[0] > scores[1])
    assert num_correct > 47


STEPS = 80


@pytest.mark.parametrize(("judges", "direction", "count"), [("each", "both_ways", 2), ("b", "a_to_b", 1)])
def test_every_network_of_two_domains_gets_the_map(judges: str, direction: str, count: int) -> None:
    network = recipe(TRANSLATED).canonical()["network"] | {"judges": judges, "direction": direction}
    run = session(TRANSLATED, {"kind": "minibatch_stddev"}, network=network)
    widened = [name for name, module in run.game.d.net.named_modules() if isinstance(module, WithGroupStddev)]
    assert len(widened) == count
    assert all(torch.isfinite(tensor).all() for tensor in run.play(2).saved().values())
