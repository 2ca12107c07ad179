"""Norms against their formulas: singular values, statistics over the right axes, and the reference batch."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from io import BytesIO
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.func import jacrev

from contracts.tiny import recipe
from poise.core.random_streams import RandomStreams
from poise.core.types import DataSpec, DiscriminatorOutput
from poise.data.source import ImageDataset
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.engine.step_metrics import StepMetrics
from poise.networks.base import WithClassifier, mixes_samples
from poise.networks.blocks import MapToScore, ProjectAndReshape
from poise.networks.dcgan import DCGANDiscriminatorConfig, DCGANGeneratorConfig
from poise.networks.mlp import MLPDiscriminatorConfig, MLPGeneratorConfig
from poise.networks.norms import (
    BATCH_STATISTICS_NORMS,
    Norm,
    VirtualBatchNorm,
    WithReferenceBatch,
    has_bias,
    norm_layer,
    spectral_norm_,
)
from poise.runs.state_tensors import collect_tensors, load_game_tensors
from poise.tricks.averaged_weights import TensorPairs, ema_update_

NORMS: tuple[Norm, ...] = get_args(Norm)
SHAPE = (1, 8, 8)
Array = npt.NDArray[np.float64]


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def matrix(kind: str, weight: Tensor) -> Tensor:
    """The weight as the rows that a linear map has."""
    if kind == "transposed":  # stored as in x out, and the rows are output channels
        weight = weight.transpose(0, 1)
    return weight.reshape(len(weight), -1)


LAYERS: dict[str, tuple[Any, tuple[int, ...], dict[str, bool], tuple[int, ...]]] = {
    "linear": (nn.Linear, (5, 7), {}, (2, 5)),
    "conv": (nn.Conv2d, (3, 6, 3), {}, (2, 3, 4, 4)),
    "transposed": (nn.ConvTranspose2d, (4, 6, 4, 2, 1), {}, (2, 4, 3, 3)),
    "to_map": (ProjectAndReshape, (5, 3, 4), {"bias": True}, (2, 5)),
    "from_map": (MapToScore, (3, 4), {}, (2, 3, 4, 4)),
}


def layer(kind: str, dtype: torch.dtype = torch.float64) -> tuple[Any, Tensor, Tensor]:
    """A layer with its norm, its weight before, and something it takes."""
    make, sizes, told, shape = LAYERS[kind]
    made: Any = make(*sizes, **told).to(dtype)
    before = made.weight.detach().clone()
    spectral_norm_(made)
    return made, before, torch.randn(shape, dtype=dtype)


# ---------------------------------------------------------------- spectral


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_spectral_norm_divides_by_the_largest_singular_value(kind: str, dtype: torch.dtype, close: float) -> None:
    net, before, x = layer(kind, dtype)
    for _ in range(100):
        net(x)
    net.eval()
    sigma = float(torch.linalg.svdvals(matrix(kind, before))[0])
    told = before / net.weight.detach()
    assert told.numpy() == pytest.approx(np.full(before.shape, sigma), rel=close)


@pytest.mark.parametrize("kind", LAYERS)
def test_each_pass_is_one_power_iteration_whose_sigma_is_never_too_large(kind: str) -> None:
    net, before, x = layer(kind)
    kept = net.parametrizations.weight[0]
    other = torch.randn_like(before)
    net.parametrizations.weight.original.data.copy_(other)
    rows = matrix(kind, other).numpy()
    largest = np.linalg.svd(rows, compute_uv=False)[0]
    v = kept._v.numpy().copy()
    estimates = []
    for _ in range(3):
        u = rows @ v / np.linalg.norm(rows @ v)
        v = rows.T @ u / np.linalg.norm(rows.T @ u)
        estimates.append(float(u @ rows @ v))
        net(x)
        np.testing.assert_allclose(kept._u.numpy(), u, atol=1e-12)
        np.testing.assert_allclose(kept._v.numpy(), v, atol=1e-12)
        assert estimates[-1] <= largest * (1 + 1e-12)
    assert kind == "from_map" or estimates[0] < largest * (1 - 1e-6), "and the first ones are estimates"
    net.eval()
    np.testing.assert_allclose((other / net.weight.detach()).numpy(), estimates[-1], rtol=1e-12)


def test_the_matrix_of_the_first_map_is_the_linear_map_it_is() -> None:
    net, _, x = layer("to_map")
    for _ in range(100):
        net(x)
    net.eval()
    slopes = jacrev(lambda z: net(z[None]).flatten())(x[0])
    assert slopes.shape == (3 * 4 * 4, 5)
    assert float(torch.linalg.svdvals(slopes.detach())[0]) == pytest.approx(1, rel=1e-6)


def test_evaluation_moves_nothing_and_training_does() -> None:
    net, _, x = layer("conv")
    net.parametrizations.weight.original.data.normal_()
    before = copy.deepcopy(net.state_dict())
    net.eval()
    for _ in range(3):
        net(x)
    assert all(torch.equal(before[name], now) for name, now in net.state_dict().items())
    net.train()
    net(x)
    moved = [name for name, now in net.state_dict().items() if not torch.equal(before[name], now)]
    assert sorted(name.rpartition(".")[2] for name in moved) == ["_u", "_v"]


def test_every_weight_of_both_players_is_normed() -> None:
    g = DCGANGeneratorConfig(width=2, norm="spectral_batch")
    d = DCGANDiscriminatorConfig(width=2, norm="spectral")
    for net, x in (
        (g.apply_norm(g.build(3, SHAPE), torch.zeros(1)), torch.randn(2, 3)),
        (d.apply_norm(d.build(SHAPE), torch.zeros(1)), torch.randn(2, *SHAPE)),
    ):
        linear: list[Any] = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        assert len(linear) == 3
        for module in linear:
            module.parametrizations.weight.original.data.mul_(50)
        for _ in range(100):
            net(x)
        for module in linear:
            straight = isinstance(module, ProjectAndReshape | nn.Conv2d)
            rows = matrix("conv" if straight else "transposed", module.weight.detach())
            assert float(torch.linalg.svdvals(rows)[0]) == pytest.approx(1, rel=1e-2)


def test_what_a_projection_adds_is_normed_too() -> None:
    """Miyato & Koyama 2018 norm the embedding as every other weight: without, it leaves D's slope unbounded."""
    conditioning = {"g": {"kind": "concat"}, "d": {"kind": "projection"}}
    network = {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "dcgan", "width": 2, "norm": "spectral"}}
    told = recipe("pictures", network=network, conditioning=conditioning)
    d = build_game(told, DataSpec(SHAPE, 3), ComputeSettings(torch.device("cpu"), "fp32"), RandomStreams(0)).d.net
    linear = [m for m in d.modules() if isinstance(m, nn.Embedding | nn.Conv2d)]
    assert len(linear) == 4
    assert [type(m) for m in linear if not nn.utils.parametrize.is_parametrized(m, "weight")] == []


def test_spectral_norm_survives_a_save_bit_for_bit() -> None:
    entry = DCGANDiscriminatorConfig(width=2, norm="spectral")
    ours, theirs = (entry.apply_norm(entry.build((1, 16, 16)), torch.zeros(1)) for _ in range(2))
    x = torch.randn(4, 1, 16, 16)
    for _ in range(3):
        ours(x)
    held = BytesIO()
    torch.save(ours.state_dict(), held)
    held.seek(0)
    assert not torch.equal(ours(x).score, theirs(x).score)
    theirs.load_state_dict(torch.load(held))
    ours.load_state_dict(theirs.state_dict())
    for _ in range(2):
        assert torch.equal(ours(x).score, theirs(x).score)
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name


def test_an_average_copies_singular_vectors() -> None:
    """Half of one unit vector and half of another is shorter than one."""
    entry = DCGANGeneratorConfig(width=2, norm="spectral_batch")
    live = entry.apply_norm(entry.build(3, (1, 16, 16)), torch.zeros(1))
    mean = copy.deepcopy(live)
    before = copy.deepcopy(mean.state_dict())
    with torch.no_grad():
        for weight in live.parameters():
            weight.normal_()
    for _ in range(3):
        live(torch.randn(4, 3))
    ema_update_(mean, live, 0.5)
    now, new = mean.state_dict(), live.state_dict()
    vectors = [name for name in now if name.endswith(("._u", "._v"))]
    assert len(vectors) == 2 * 3
    for name in vectors:
        assert not torch.equal(before[name], new[name])
        assert torch.equal(now[name], new[name])
        assert float(now[name].norm()) == pytest.approx(1, rel=1e-5)
    whole = [name for name in now if name.endswith("num_batches_tracked")]
    assert len(TensorPairs.of(mean, live).copied) == len(vectors) + len(whole)
    for name in now.keys() - set(vectors) - set(whole):
        assert torch.allclose(now[name], (before[name] + new[name]) / 2, atol=1e-6), name


# ---------------------------------------------------------------- layers


def normalised(x: Array, norm: str) -> Array:
    """What each norm says with scale 1 and shift 0, B x C x H x W."""
    if norm == "group":
        parts = x.reshape(len(x), -1, 16, *x.shape[2:]) if x.shape[1] % 16 == 0 else x[:, None]
        mean, var = parts.mean((2, 3, 4), keepdims=True), parts.var((2, 3, 4), keepdims=True)
        return ((parts - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
    axes = {"batch": (0, 2, 3), "spectral_batch": (0, 2, 3), "instance": (2, 3), "layer": (1, 2, 3)}[norm]
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


@pytest.mark.parametrize("channels", [16, 24, 32])
@pytest.mark.parametrize("norm", ["batch", "spectral_batch", "instance", "layer", "group"])
def test_layers_are_their_formulas(norm: Norm, channels: int) -> None:
    (made,) = norm_layer(norm, channels)
    x = torch.randn(5, channels, 3, 3, dtype=torch.float64) * torch.arange(1, channels + 1)[:, None, None] + 2
    found = made.double()(x).detach().numpy()
    np.testing.assert_allclose(found, normalised(x.numpy(), norm), atol=1e-10)
    weights = dict(made.named_parameters())
    assert {name: weight.shape for name, weight in weights.items()} == {"weight": (channels,), "bias": (channels,)}


@pytest.mark.parametrize("norm", NORMS)
def test_a_layer_stands_where_one_is_asked_for(norm: Norm) -> None:
    count = 0 if norm in ("none", "spectral") else 1
    assert len(norm_layer(norm, 4)) == count
    for flat, x in ((False, torch.randn(6, 4, 3, 3)), (True, torch.randn(6, 4))):
        if flat and norm == "instance":
            continue
        layers = norm_layer(norm, 4, flat=flat)
        for made in layers:
            if isinstance(made, VirtualBatchNorm):
                made.leading = 2
        assert nn.Sequential(*layers)(x).shape == x.shape


@pytest.mark.parametrize("norm", NORMS)
def test_a_bias_stands_where_no_norm_takes_it_away(norm: Norm) -> None:
    """Where the norm takes a channel's mean away; over layers and groups it doesn't, so their bias means something."""
    assert has_bias(norm) is (norm in ("none", "spectral", "layer", "group"))
    if norm not in ("batch", "spectral_batch", "instance", "virtual"):
        return
    (made,) = norm_layer(norm, 3)
    if isinstance(made, VirtualBatchNorm):
        made.leading = 2
    x, bias = torch.randn(5, 3, 4, 4), torch.randn(3, 1, 1)
    assert torch.allclose(made(x), made(x + bias), atol=1e-4), "each channel's bias would be lost"


def network(side: str, norm: Norm, flat: bool = False) -> Any:
    if side == "g":
        entry = (MLPGeneratorConfig if flat else DCGANGeneratorConfig)(width=4, norm=norm)
        return entry.apply_norm(entry.build(3, SHAPE), torch.randn(6, 3))
    entry = (MLPDiscriminatorConfig if flat else DCGANDiscriminatorConfig)(width=4, norm=norm)
    return entry.apply_norm(entry.build(SHAPE), torch.randn(6, *SHAPE))


def told(net: nn.Module, x: Tensor) -> Tensor:
    """What a copy of `net` makes of x, in training mode: a spectral norm moves with each pass."""
    out = copy.deepcopy(net)(x)
    return out.score if isinstance(out, DiscriminatorOutput) else out


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("side", ["g", "d"])
@pytest.mark.parametrize("norm", NORMS)
def test_only_batch_norm_mixes_samples(norm: Norm, side: str, flat: bool) -> None:
    if flat and norm == "instance":
        pytest.skip("no maps")
    net = network(side, norm, flat)
    x = torch.randn(5, 3) if side == "g" else torch.randn(5, *SHAPE)
    moved = torch.cat((x[:1] + 1, x[1:]))
    before, after = told(net, x), told(net, moved)
    assert before.shape == ((5, *SHAPE) if side == "g" else (5,))
    assert not torch.allclose(before[0], after[0])
    assert (
        (not torch.allclose(before[1:], after[1:], atol=1e-6)) == (norm in BATCH_STATISTICS_NORMS) == mixes_samples(net)
    )


# ---------------------------------------------------------------- virtual


def virtual(x: Array, n: int, weight: Array, bias: Array) -> Array:
    """Salimans 2016, section 3.5, sample by sample; the first n are the reference."""
    columns = (len(weight), *(1 for _ in x.shape[2:]))
    axes = tuple(range(1, x.ndim - 1))
    m, q = (x[:n] ** power for power in (1, 2))
    m, q = (part.mean((0, *(a + 1 for a in axes))) for part in (m, q))
    out = np.empty_like(x)
    for i, sample in enumerate(x):
        own, square = sample.mean(axes), (sample**2).mean(axes)
        mean, mean_square = (m, q) if i < n else ((n * m + own) / (n + 1), (n * q + square) / (n + 1))
        root = np.sqrt(mean_square - mean**2 + 1e-5).reshape(columns)
        out[i] = (sample - mean.reshape(columns)) / root * weight.reshape(columns) + bias.reshape(columns)
    return out


@pytest.mark.parametrize("shape", [(9, 3, 4, 4), (9, 3)])
@pytest.mark.parametrize("n", [1, 4])
def test_virtual_batch_norm_is_its_formula(shape: tuple[int, ...], n: int) -> None:
    made = VirtualBatchNorm(3)
    made.leading = n
    with torch.no_grad():
        made.weight.copy_(torch.tensor([0.5, 1.0, -2.0]))
        made.bias.copy_(torch.tensor([0.1, -0.3, 0.0]))
    x = torch.randn(shape) * 2 + 1
    weight, bias = (w.detach().double().numpy() for w in (made.weight, made.bias))
    found = made(x).detach().numpy()
    # one reference point has no variance, and eps alone holds the root: float32 has fewer digits there
    after = slice(n if n == 1 else 0, None)
    np.testing.assert_allclose(found[after], virtual(x.double().numpy(), n, weight, bias)[after], atol=1e-4)


def test_virtual_batch_norm_keeps_half_precision_outside_only() -> None:
    made = VirtualBatchNorm(3)
    made.leading = 4
    x = torch.randn(9, 3, 4, 4).bfloat16()
    assert made(x).dtype == torch.bfloat16
    assert torch.equal(made(x), made(x.float()).bfloat16())


@pytest.mark.parametrize("side", ["g", "d"])
def test_the_reference_goes_along_and_is_left_out(side: str) -> None:
    net = network(side, "virtual")
    assert isinstance(net, WithReferenceBatch)
    x = torch.randn(5, 3) if side == "g" else torch.randn(5, *SHAPE)
    alone, all_of_it = net(x), net.net(torch.cat((net.reference, x)))
    assert not mixes_samples(net)
    if isinstance(alone, DiscriminatorOutput):
        assert alone.features is not None
        assert torch.equal(alone.score, all_of_it.score[6:])
        assert torch.equal(alone.features, all_of_it.features[6:])
        assert alone.features.shape == (5, net.width)
        classified = WithClassifier(net, 3)(x)
        assert (classified.score.shape, classified.classes.shape) == ((5,), (5, 3))
    else:
        assert torch.equal(alone, all_of_it[6:])
    one_by_one = torch.cat([told(net, sample[None]) for sample in x])
    assert torch.allclose(told(net, x), one_by_one, atol=1e-6)


@pytest.mark.parametrize("side", ["g", "d"])
def test_the_reference_is_saved_and_matters(side: str) -> None:
    net = network(side, "virtual")
    x = torch.randn(5, 3) if side == "g" else torch.randn(5, *SHAPE)
    assert "reference" in net.state_dict()
    before = told(net, x)
    net.reference += 1
    assert not torch.allclose(told(net, x), before)


@pytest.mark.parametrize("count", [40, 100])
def test_a_save_fits_a_game_that_is_built_without_the_data(count: int) -> None:
    """To sample from a run no data is read, and there may be fewer pictures than a reference batch wants."""
    network = {side: {"kind": "dcgan", "width": 2, "norm": "virtual"} for side in ("g", "d")}
    told = recipe("pictures", network=network)
    compute = ComputeSettings(torch.device("cpu"), "fp32")
    data = ImageDataset(np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8))
    trained = build_game(told, data.spec(), compute, RandomStreams(1))
    fresh = build_game(told, DataSpec(data.shape), compute, RandomStreams(0))
    load_game_tensors(fresh, collect_tensors(trained, StepMetrics()))
    assert torch.equal(fresh.d.net.reference, trained.d.net.reference)  # type: ignore[arg-type]


def test_the_reference_is_a_copy() -> None:
    """It comes from the data's own memory, and batches of that are worked on in place."""
    reals = torch.randn(6, *SHAPE)
    entry = DCGANDiscriminatorConfig(width=2, norm="virtual")
    net: Any = entry.apply_norm(entry.build(SHAPE), reals)
    kept = net.reference.clone()
    reals.zero_()
    assert torch.equal(net.reference, kept)
