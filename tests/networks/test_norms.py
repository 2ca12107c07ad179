"""Norms compared with their formulas: singular values, statistics over the right axes, and the reference batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.func import jacrev

from contracts.tiny import recipe
from poise.core.config import find_components
from poise.core.random_streams import RandomStreams
from poise.core.types import DataSpec, DiscriminatorOutput
from poise.data.source import ImageDataset
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.engine.step_metrics import StepMetrics
from poise.errors import RecipeError
from poise.networks.base import (
    DiscriminatorConfig,
    EncoderConfig,
    GeneratorConfig,
    TranslatorConfig,
    WithClassifier,
    WithCodes,
    mixes_samples,
)
from poise.networks.blocks import MapToScore, ProjectAndReshape
from poise.networks.conditioning import Projection
from poise.networks.dcgan import DCGANDiscriminatorConfig, DCGANGeneratorConfig
from poise.networks.mlp import MLPDiscriminatorConfig, MLPGeneratorConfig
from poise.networks.norms import (
    BATCH_STATISTICS_NORMS,
    Norm,
    VirtualBatchNorm,
    WithReferenceBatch,
    has_bias,
    has_spectral_norm,
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
    """The weight as a matrix with output channels as rows."""
    if kind == "transposed":  # stored as in x out
        weight = weight.transpose(0, 1)
    return weight.reshape(len(weight), -1)


LAYERS: dict[str, tuple[Any, tuple[int, ...], dict[str, bool], tuple[int, ...]]] = {
    "linear": (nn.Linear, (5, 7), {}, (2, 5)),
    "conv": (nn.Conv2d, (3, 6, 3), {}, (2, 3, 4, 4)),
    "transposed": (nn.ConvTranspose2d, (4, 6, 4, 2, 1), {}, (2, 4, 3, 3)),
    "to_map": (ProjectAndReshape, (5, 3, 4), {"bias": True}, (2, 5)),
    "from_map": (MapToScore, (3, (4, 4)), {}, (2, 3, 4, 4)),
}


def layer(kind: str, dtype: torch.dtype = torch.float64) -> tuple[Any, Tensor, Tensor]:
    """A layer with spectral norm, its original weight, and an input."""
    layer_type, sizes, options, shape = LAYERS[kind]
    module: Any = layer_type(*sizes, **options).to(dtype)
    before = module.weight.detach().clone()
    spectral_norm_(module)
    return module, before, torch.randn(shape, dtype=dtype)


# ---------------------------------------------------------------- spectral


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_spectral_norm_divides_by_the_largest_singular_value(kind: str, dtype: torch.dtype, tolerance: float) -> None:
    net, before, x = layer(kind, dtype)
    for _ in range(100):
        net(x)
    net.eval()
    sigma = float(torch.linalg.svdvals(matrix(kind, before))[0])
    ratio = before / net.weight.detach()
    assert ratio.numpy() == pytest.approx(np.full(before.shape, sigma), rel=tolerance)


@pytest.mark.parametrize("kind", LAYERS)
def test_each_pass_is_one_power_iteration_and_never_overestimates(kind: str) -> None:
    net, before, x = layer(kind)
    parametrization = net.parametrizations.weight[0]
    other = torch.randn_like(before)
    net.parametrizations.weight.original.data.copy_(other)
    rows = matrix(kind, other).numpy()
    largest = np.linalg.svd(rows, compute_uv=False)[0]
    v = parametrization._v.numpy().copy()
    estimates = []
    for _ in range(3):
        u = rows @ v / np.linalg.norm(rows @ v)
        v = rows.T @ u / np.linalg.norm(rows.T @ u)
        estimates.append(float(u @ rows @ v))
        net(x)
        np.testing.assert_allclose(parametrization._u.numpy(), u, atol=1e-12)
        np.testing.assert_allclose(parametrization._v.numpy(), v, atol=1e-12)
        assert estimates[-1] <= largest * (1 + 1e-12)
    assert kind == "from_map" or estimates[0] < largest * (1 - 1e-6), "the first values are estimates"
    net.eval()
    np.testing.assert_allclose((other / net.weight.detach()).numpy(), estimates[-1], rtol=1e-12)


def test_the_first_layer_has_the_singular_values_of_its_linear_map() -> None:
    net, _, x = layer("to_map")
    for _ in range(100):
        net(x)
    net.eval()
    jacobian = jacrev(lambda z: net(z[None]).flatten())(x[0])
    assert jacobian.shape == (3 * 4 * 4, 5)
    assert float(torch.linalg.svdvals(jacobian.detach())[0]) == pytest.approx(1, rel=1e-6)


def test_only_training_mode_updates_the_estimate() -> None:
    net, _, x = layer("conv")
    net.parametrizations.weight.original.data.normal_()
    before = copy.deepcopy(net.state_dict())
    net.eval()
    for _ in range(3):
        net(x)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    net.train()
    net(x)
    changed = [name for name, tensor in net.state_dict().items() if not torch.equal(before[name], tensor)]
    assert sorted(name.rpartition(".")[2] for name in changed) == ["_u", "_v"]


def test_every_weight_of_both_networks_is_normalised() -> None:
    g = DCGANGeneratorConfig(width=2, norm="spectral_batch")
    d = DCGANDiscriminatorConfig(width=2, norm="spectral")
    for net, x in (
        (g.build(3, SHAPE), torch.randn(2, 3)),
        (d.build(SHAPE), torch.randn(2, *SHAPE)),
    ):
        linear: list[Any] = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        assert len(linear) == 3
        for module in linear:
            module.parametrizations.weight.original.data.mul_(50)
        for _ in range(100):
            net(x)
        for module in linear:
            out_channels_first = isinstance(module, ProjectAndReshape | nn.Conv2d)
            rows = matrix("conv" if out_channels_first else "transposed", module.weight.detach())
            assert float(torch.linalg.svdvals(rows)[0]) == pytest.approx(1, rel=1e-2)


def test_the_embedding_of_a_projection_is_normalised_too() -> None:
    """As in Miyato & Koyama 2018; otherwise D's Lipschitz constant would be unbounded."""
    conditioning = {"g": {"kind": "concat"}, "d": {"kind": "projection"}}
    network = {"g": {"kind": "dcgan", "width": 2}, "d": {"kind": "dcgan", "width": 2, "norm": "spectral"}}
    table = recipe("pictures", network=network, conditioning=conditioning)
    d = build_game(table, DataSpec(SHAPE, 3), ComputeSettings(torch.device("cpu"), "fp32"), RandomStreams(0)).d.net
    linear = [m for m in d.modules() if isinstance(m, nn.Embedding | nn.Conv2d)]
    assert len(linear) == 4
    assert [type(m) for m in linear if not nn.utils.parametrize.is_parametrized(m, "weight")] == []


class Weights(nn.Module):
    """A custom D with features, whose layers have the given norm."""

    width = 3

    def __init__(self, norm: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.layer, self.score = norm(nn.Linear(4, 3)), norm(nn.Linear(3, 1))


@pytest.mark.parametrize(
    ("norm", "matched"),
    [
        (nn.utils.parametrizations.spectral_norm, True),
        (nn.utils.spectral_norm, True),
        (nn.utils.parametrizations.weight_norm, False),
        (nn.utils.parametrizations.orthogonal, False),
        (nn.Identity(), False),
    ],
    ids=["spectral", "spectral as a hook", "weight", "orthogonal", "none"],
)
def test_heads_get_the_spectral_norm_of_the_network_and_no_other(norm: Any, matched: bool) -> None:
    net = Weights(norm)
    heads = [WithClassifier(net, 2).head, *WithCodes(net, 2).code_head[::2], Projection(net, 2).embedding]
    assert [has_spectral_norm(head) for head in heads] == [matched] * 4


def test_spectral_norm_is_saved_and_loaded_bit_identically() -> None:
    entry = DCGANDiscriminatorConfig(width=2, norm="spectral")
    original, loaded = (entry.build((1, 16, 16)) for _ in range(2))
    x = torch.randn(4, 1, 16, 16)
    for _ in range(3):
        original(x)
    buffer = BytesIO()
    torch.save(original.state_dict(), buffer)
    buffer.seek(0)
    assert not torch.equal(original(x).score, loaded(x).score)
    loaded.load_state_dict(torch.load(buffer))
    original.load_state_dict(loaded.state_dict())
    for _ in range(2):
        assert torch.equal(original(x).score, loaded(x).score)
    for name, tensor in original.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


def test_averaged_weights_copy_singular_vectors() -> None:
    """The average of two unit vectors is not a unit vector."""
    entry = DCGANGeneratorConfig(width=2, norm="spectral_batch")
    live = entry.build(3, (1, 16, 16))
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
    counters = [name for name in now if name.endswith("num_batches_tracked")]
    assert len(TensorPairs.of(mean, live).copied) == len(vectors) + len(counters)
    for name in now.keys() - set(vectors) - set(counters):
        assert torch.allclose(now[name], (before[name] + new[name]) / 2, atol=1e-6), name


# ---------------------------------------------------------------- layers


def normalised(x: Array, norm: str) -> Array:
    """The output of each norm with scale 1 and shift 0, B x C x H x W."""
    if norm == "group":
        parts = x.reshape(len(x), -1, 16, *x.shape[2:]) if x.shape[1] % 16 == 0 else x[:, None]
        mean, var = parts.mean((2, 3, 4), keepdims=True), parts.var((2, 3, 4), keepdims=True)
        return ((parts - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
    axes = {"batch": (0, 2, 3), "spectral_batch": (0, 2, 3), "instance": (2, 3), "layer": (1, 2, 3)}[norm]
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


@pytest.mark.parametrize("channels", [16, 24, 32])
@pytest.mark.parametrize("norm", ["batch", "spectral_batch", "instance", "layer", "group"])
def test_layers_match_their_formulas(norm: Norm, channels: int) -> None:
    (module,) = norm_layer(norm, channels)
    x = torch.randn(5, channels, 3, 3, dtype=torch.float64) * torch.arange(1, channels + 1)[:, None, None] + 2
    actual = module.double()(x).detach().numpy()
    np.testing.assert_allclose(actual, normalised(x.numpy(), norm), atol=1e-10)
    weights = dict(module.named_parameters())
    assert {name: weight.shape for name, weight in weights.items()} == {"weight": (channels,), "bias": (channels,)}


@pytest.mark.parametrize("norm", NORMS)
def test_there_is_a_layer_for_each_norm_but_none_and_spectral(norm: Norm) -> None:
    count = 0 if norm in ("none", "spectral") else 1
    assert len(norm_layer(norm, 4)) == count
    for flat, x in ((False, torch.randn(6, 4, 3, 3)), (True, torch.randn(6, 4))):
        if flat and norm == "instance":
            continue
        layers = norm_layer(norm, 4, flat=flat)
        for module in layers:
            if isinstance(module, VirtualBatchNorm):
                module.leading = 2
        assert nn.Sequential(*layers)(x).shape == x.shape


@pytest.mark.parametrize("norm", NORMS)
def test_layers_have_a_bias_unless_the_norm_removes_it(norm: Norm) -> None:
    """Norms per channel subtract its mean and with it the bias; layer and group norm do not."""
    assert has_bias(norm) is (norm in ("none", "spectral", "layer", "group"))
    if norm not in ("batch", "spectral_batch", "instance", "virtual"):
        return
    (module,) = norm_layer(norm, 3)
    if isinstance(module, VirtualBatchNorm):
        module.leading = 2
    x, bias = torch.randn(5, 3, 4, 4), torch.randn(3, 1, 1)
    assert torch.allclose(module(x), module(x + bias), atol=1e-4), "a bias per channel has no effect"


def network(side: str, norm: Norm, flat: bool = False) -> Any:
    if side == "g":
        entry = (MLPGeneratorConfig if flat else DCGANGeneratorConfig)(width=4, norm=norm)
        return entry.build(3, SHAPE, reference=torch.randn(6, 3))
    entry = (MLPDiscriminatorConfig if flat else DCGANDiscriminatorConfig)(width=4, norm=norm)
    return entry.build(SHAPE, reference=torch.randn(6, *SHAPE))


def run_copy(net: nn.Module, x: Tensor) -> Tensor:
    """The output of a copy of `net` in training mode; each pass changes a spectral norm."""
    out = copy.deepcopy(net)(x)
    return out.score if isinstance(out, DiscriminatorOutput) else out


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("side", ["g", "d"])
@pytest.mark.parametrize("norm", NORMS)
def test_only_batch_norm_mixes_samples(norm: Norm, side: str, flat: bool) -> None:
    if flat and norm == "instance":
        pytest.skip("no feature maps")
    net = network(side, norm, flat)
    x = torch.randn(5, 3) if side == "g" else torch.randn(5, *SHAPE)
    changed = torch.cat((x[:1] + 1, x[1:]))
    before, after = run_copy(net, x), run_copy(net, changed)
    assert before.shape == ((5, *SHAPE) if side == "g" else (5,))
    assert not torch.allclose(before[0], after[0])
    assert (
        (not torch.allclose(before[1:], after[1:], atol=1e-6)) == (norm in BATCH_STATISTICS_NORMS) == mixes_samples(net)
    )


# ---------------------------------------------------------------- the complete network


def all_configs(norm: Norm) -> list[Any]:
    """Every network with a choice of norms that has this one, as small as it gets."""
    found = []
    for base in (GeneratorConfig, DiscriminatorConfig, EncoderConfig):
        for entry in find_components(base, "poise.networks").values():
            field = entry.model_fields.get("norm")
            if field is not None and norm in get_args(field.annotation):
                config: Any = entry(norm=norm, **({"width": 4} if "width" in entry.model_fields else {}))
                found += [config] if config.incompatibility(SHAPE) is None else []
    return found


def built(config: Any, method: str = "build", **reference: Tensor) -> Any:
    if isinstance(config, TranslatorConfig):
        return getattr(config, method.replace("build", "build_translator"))(SHAPE, SHAPE, **reference)
    sizes = {GeneratorConfig: (8, SHAPE), DiscriminatorConfig: (SHAPE,), EncoderConfig: (SHAPE, 3, 10)}
    (arguments,) = (sizes[base] for base in sizes if isinstance(config, base))
    return getattr(config, method)(*arguments, **reference)


def inputs_of(config: Any, n: int) -> Tensor:
    is_generator = isinstance(config, GeneratorConfig) and not isinstance(config, TranslatorConfig)
    return torch.randn(n, 8) if is_generator else torch.randn(n, *SHAPE)


@pytest.mark.parametrize("norm", ["spectral", "spectral_batch"])
def test_a_built_network_has_its_spectral_norm(norm: Norm) -> None:
    configs = all_configs(norm)
    assert len({config.tag() for config in configs}) >= 6
    for config in configs:
        layers = [m for m in built(config).modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
        assert layers, config
        assert all(nn.utils.parametrize.is_parametrized(layer, "weight") for layer in layers), config


def test_a_network_with_virtual_norm_is_built_with_a_reference_or_not_at_all() -> None:
    configs = all_configs("virtual")
    assert len({config.tag() for config in configs}) >= 6
    for config in configs:
        with pytest.raises(RecipeError, match=r"norm: virtual batch norm needs a reference batch.*; pass"):
            built(config)
        output = built(config, reference=inputs_of(config, 5))(inputs_of(config, 2))
        assert torch.isfinite(getattr(output, "score", output)).all(), config
        layers = built(config, "build_layers")
        if any(isinstance(module, VirtualBatchNorm) for module in layers.modules()):
            with pytest.raises(RecipeError, match="WithReferenceBatch"):
                layers(inputs_of(config, 2))


@pytest.mark.parametrize("norm", ["batch", "spectral", "spectral_batch", "none"])
def test_a_game_has_the_networks_that_their_configs_build(norm: Norm) -> None:
    network = {side: {"kind": "dcgan", "width": 2, "norm": norm} for side in ("g", "d")}
    table, streams = recipe("pictures", network=network), RandomStreams(3)
    game = build_game(table, DataSpec(SHAPE), ComputeSettings(torch.device("cpu"), "fp32"), streams)
    with streams.seeded_global("init/g"):
        g = table.network.g.build(table.latent.dim, SHAPE)
    with streams.seeded_global("init/d"):
        d = table.network.d.build(SHAPE)  # type: ignore[union-attr]
    for ours, theirs in ((g, game.g.net), (d, game.d.net)):
        weights = theirs.state_dict()
        assert list(ours.state_dict()) == list(weights)
        assert all(torch.equal(tensor, weights[name]) for name, tensor in ours.state_dict().items())


# ---------------------------------------------------------------- virtual


def virtual(x: Array, n: int, weight: Array, bias: Array) -> Array:
    """Salimans 2016, section 3.5, sample by sample; the first n samples are the reference."""
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
def test_virtual_batch_norm_matches_its_formula(shape: tuple[int, ...], n: int) -> None:
    module = VirtualBatchNorm(3)
    module.leading = n
    with torch.no_grad():
        module.weight.copy_(torch.tensor([0.5, 1.0, -2.0]))
        module.bias.copy_(torch.tensor([0.1, -0.3, 0.0]))
    x = torch.randn(shape) * 2 + 1
    weight, bias = (w.detach().double().numpy() for w in (module.weight, module.bias))
    actual = module(x).detach().numpy()
    # a single reference point has variance 0, so only eps remains, and float32 is less accurate
    after = slice(n if n == 1 else 0, None)
    np.testing.assert_allclose(actual[after], virtual(x.double().numpy(), n, weight, bias)[after], atol=1e-4)


def test_virtual_batch_norm_computes_in_float32() -> None:
    module = VirtualBatchNorm(3)
    module.leading = 4
    x = torch.randn(9, 3, 4, 4).bfloat16()
    assert module(x).dtype == torch.bfloat16
    assert torch.equal(module(x), module(x.float()).bfloat16())


@pytest.mark.parametrize("side", ["g", "d"])
def test_the_reference_is_part_of_the_batch_but_not_of_the_output(side: str) -> None:
    net = network(side, "virtual")
    assert isinstance(net, WithReferenceBatch)
    x = torch.randn(5, 3) if side == "g" else torch.randn(5, *SHAPE)
    output, with_reference = net(x), net.net(torch.cat((net.reference, x)))
    assert not mixes_samples(net)
    if isinstance(output, DiscriminatorOutput):
        assert output.features is not None
        assert torch.equal(output.score, with_reference.score[6:])
        assert torch.equal(output.features, with_reference.features[6:])
        assert output.features.shape == (5, net.width)
        classified = WithClassifier(net, 3)(x)
        assert (classified.score.shape, classified.classes.shape) == ((5,), (5, 3))
    else:
        assert torch.equal(output, with_reference[6:])
    single = torch.cat([run_copy(net, sample[None]) for sample in x])
    assert torch.allclose(run_copy(net, x), single, atol=1e-6)


@pytest.mark.parametrize("side", ["g", "d"])
def test_the_reference_is_saved_and_affects_the_output(side: str) -> None:
    net = network(side, "virtual")
    x = torch.randn(5, 3) if side == "g" else torch.randn(5, *SHAPE)
    assert "reference" in net.state_dict()
    before = run_copy(net, x)
    net.reference += 1
    assert not torch.allclose(run_copy(net, x), before)


@pytest.mark.parametrize("count", [40, 100])
def test_a_checkpoint_can_be_loaded_without_the_data(count: int) -> None:
    """Sampling from a run reads no data, and the data may be smaller than the reference batch."""
    network = {side: {"kind": "dcgan", "width": 2, "norm": "virtual"} for side in ("g", "d")}
    table = recipe("pictures", network=network)
    compute = ComputeSettings(torch.device("cpu"), "fp32")
    data = ImageDataset(np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8))
    trained = build_game(table, data.spec(), compute, RandomStreams(1))
    loaded_game = build_game(table, DataSpec(data.shape), compute, RandomStreams(0))
    load_game_tensors(loaded_game, collect_tensors(trained, StepMetrics()))
    assert torch.equal(loaded_game.d.net.reference, trained.d.net.reference)  # type: ignore[arg-type]


def test_the_reference_is_a_copy() -> None:
    """The samples may be a view of the data, whose batches are modified in place."""
    real = torch.randn(6, *SHAPE)
    entry = DCGANDiscriminatorConfig(width=2, norm="virtual")
    net: Any = entry.build(SHAPE, reference=real)
    before = net.reference.clone()
    real.zero_()
    assert torch.equal(net.reference, before)
