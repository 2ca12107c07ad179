"""DCGAN: shapes at every valid size, the paper's widths, the positions of batch norms, and the initial weights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d

from contracts.tiny import one_thread
from poise.core.double_backward import Conv2d, ConvTranspose2d
from poise.core.types import Shape
from poise.networks.base import mixes_samples
from poise.networks.blocks import MapToScore, ProjectAndReshape
from poise.networks.dcgan import DCGANDiscriminatorConfig, DCGANGeneratorConfig

SIZES = [8, 16, 32, 64, 128, 256]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def latents(n: int, dim: int = 3) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0))


def convolutions(net: nn.Module) -> list[nn.Conv2d | nn.ConvTranspose2d]:
    return [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_shapes(size: int, channels: int) -> None:
    shape = (channels, size, size)
    g, d = DCGANGeneratorConfig(width=1), DCGANDiscriminatorConfig(width=1)
    assert g.incompatibility(shape) is None
    assert d.incompatibility(shape) is None
    images = g.build(3, shape)(latents(2))
    assert images.shape == (2, *shape)
    assert d.build(shape)(images).score.shape == (2,)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_any_batch(n: int) -> None:
    shape = (1, 8, 8)
    g, d = DCGANGeneratorConfig(width=2).build(3, shape), DCGANDiscriminatorConfig(width=2).build(shape)
    assert d(g(latents(n))).score.shape == (n,)


@pytest.mark.parametrize(
    ("size", "depth", "widths", "base"),
    [
        (8, None, [3, 6], 2),
        (16, None, [3, 6], 4),
        (32, None, [3, 6, 12], 4),
        (256, None, [3, 6, 12, 20, 20, 20], 4),
        (64, 2, [3, 6], 16),
        (64, 5, [3, 6, 12, 20, 20], 2),
        (8, 1, [3], 4),
    ],
)
def test_width_doubles_with_each_halving_up_to_widest(
    size: int, depth: int | None, widths: list[int], base: int
) -> None:
    shape = (1, size, size)
    options = {"width": 3, "widest": 20, "depth": depth}
    d = DCGANDiscriminatorConfig(**options).build(shape)
    g = DCGANGeneratorConfig(**options).build(5, shape)
    assert [c.out_channels for c in convolutions(d)] == [*widths, 1]
    assert [c.out_channels for c in convolutions(g)] == [*widths[::-1], 1]
    smallest: list[Shape] = []
    d.trunk.register_forward_hook(lambda m, x, y: smallest.append(tuple(y.shape[1:])))
    assert d(g(latents(2, 5))).score.shape == (2,)
    assert smallest == [(widths[-1], base, base)]


def test_the_papers_generator() -> None:
    """Figure 1 of Radford 2015: z of 100, 4 x 4 x 1024, then 512, 256, 128 and three channels at 64 x 64."""
    g = DCGANGeneratorConfig(width=128).build(100, (3, 64, 64))
    maps: list[Shape] = []
    for layer in convolutions(g):
        layer.register_forward_hook(lambda m, x, y: maps.append(tuple(y.shape[1:])))
    with torch.no_grad():
        g(latents(1, 100))
    assert maps == [(1024, 4, 4), (512, 8, 8), (256, 16, 16), (128, 32, 32), (3, 64, 64)]
    kernels = 16 * (100 * 1024 + 1024 * 512 + 512 * 256 + 256 * 128 + 128 * 3)
    assert sum(w.numel() for w in g.parameters()) == kernels + 2 * (1024 + 512 + 256 + 128) + 3


def kinds_of(layers: nn.Sequential) -> list[str]:
    names = {Conv2d: "conv", ConvTranspose2d: "conv", nn.BatchNorm2d: "norm", nn.Tanh: "tanh"}
    names |= {ProjectAndReshape: "conv"}
    return [names.get(type(m), "act") for m in layers]


def test_batch_norm_is_everywhere_but_next_to_the_image() -> None:
    g = DCGANGeneratorConfig(width=2).build(3, (3, 32, 32))
    d = DCGANDiscriminatorConfig(width=2).build((3, 32, 32))
    assert kinds_of(g.layers) == ["conv", "norm", "act"] * 3 + ["conv", "tanh"]
    assert kinds_of(d.trunk) == ["conv", "act"] + ["conv", "norm", "act"] * 2
    assert not any(isinstance(m, nn.BatchNorm2d) for m in d.score.modules())
    assert mixes_samples(g)
    assert mixes_samples(d)


@pytest.mark.parametrize("bias", [True, False])
def test_first_and_last_layers_match_convolutions(bias: bool) -> None:
    first, last = ProjectAndReshape(7, 5, (4, 4), bias=bias).double(), MapToScore(5, (4, 4)).double()
    z, maps = latents(3, 7).double(), torch.randn(3, 5, 4, 4, dtype=torch.float64)
    expected = conv_transpose2d(z[:, :, None, None], first.weight, first.bias)
    assert torch.allclose(first(z), expected, rtol=0, atol=1e-13)
    expected = conv2d(maps, last.weight, last.bias).flatten()
    assert torch.allclose(last(maps), expected, rtol=0, atol=1e-13)


def test_convolutions_have_a_bias_unless_a_batch_norm_follows() -> None:
    for norm, has in (("batch", False), ("none", True)):
        g = DCGANGeneratorConfig(width=2, norm=norm).build(3, (3, 32, 32))
        d = DCGANDiscriminatorConfig(width=2, norm=norm).build((3, 32, 32))
        assert [c.bias is not None for c in convolutions(g)] == [has, has, has, True]
        assert [c.bias is not None for c in convolutions(d)] == [True, has, has, True]
        assert mixes_samples(g) is mixes_samples(d) is (not has)


def test_initial_weights_match_the_paper() -> None:
    """Weights ~ N(0, 0.02), batch norm's scale ~ N(1, 0.02), biases 0."""
    for net in (
        DCGANGeneratorConfig(width=64).build(100, (3, 32, 32)),
        DCGANDiscriminatorConfig(width=64).build((3, 32, 32)),
    ):
        for conv in convolutions(net):
            kernel = conv.weight.detach()
            assert float(kernel.std()) == pytest.approx(0.02, rel=5 / (2 * kernel.numel()) ** 0.5)
            assert abs(float(kernel.mean())) < 5 * 0.02 / kernel.numel() ** 0.5
            assert conv.bias is None or not conv.bias.any()
        scales = torch.cat([m.weight for m in net.modules() if isinstance(m, nn.BatchNorm2d)]).detach()
        assert float(scales.mean()) == pytest.approx(1, abs=5 * 0.02 / len(scales) ** 0.5)
        assert float(scales.std()) == pytest.approx(0.02, rel=5 / (2 * len(scales)) ** 0.5)
        assert not torch.cat([m.bias for m in net.modules() if isinstance(m, nn.BatchNorm2d)]).any()


@pytest.mark.parametrize(
    ("shape", "depth", "reason", "cure"),
    [
        ((2,), None, "points", "mlp"),
        ((3, 4, 4), None, "8 to 256", "data.size to 8"),
        ((3, 27, 27), None, "odd", "26 or 28"),
        ((3, 512, 512), None, "8 to 256", "data.size to 256"),
        ((3, 50, 70), None, "25 x 35", "data.size to [48, 64], [48, 72] or [56, 72]"),
        ((3, 16, 24), 4, "depth 4", "at most 3"),
        ((3, 16, 16), 4, "depth 4", "at most 3"),
        ((3, 8, 8), 3, "depth 3", "at most 2"),
    ],
)
@pytest.mark.parametrize("entry", [DCGANGeneratorConfig, DCGANDiscriminatorConfig])
def test_incompatible_shapes_are_reported_with_a_cure(
    entry: type, shape: Shape, depth: int | None, reason: str, cure: str
) -> None:
    misfit = entry(depth=depth).incompatibility(shape)
    assert misfit is not None
    assert reason in misfit[0]
    assert cure in misfit[1]


@pytest.mark.parametrize("size", SIZES)
def test_the_maximum_depth_can_be_built(size: int) -> None:
    shape = (1, size, size)
    deepest = max(d for d in range(1, 8) if DCGANDiscriminatorConfig(depth=d).incompatibility(shape) is None)
    assert size >> deepest == 2
    options = {"width": 1, "widest": 2, "depth": deepest}
    d, g = DCGANDiscriminatorConfig(**options).build(shape), DCGANGeneratorConfig(**options).build(3, shape)
    assert d(g(latents(2))).score.shape == (2,)


@pytest.mark.parametrize(("name", "low", "high"), [("auto", -1, 1), ("tanh", -1, 1), ("sigmoid", 0, 1)])
def test_outputs_stay_in_their_range(name: str, low: float, high: float) -> None:
    g = DCGANGeneratorConfig(width=2, output=name).build(3, (1, 16, 16))
    with torch.no_grad():
        for weight in g.parameters():
            weight.mul_(100)
        images = g(latents(50))
    assert images.min() >= low
    assert images.max() <= high
    assert images.max() - images.min() > 0.9 * (high - low), "and use most of it"


def test_a_linear_output_is_unbounded() -> None:
    g = DCGANGeneratorConfig(width=2, output="linear").build(3, (1, 16, 16))
    with torch.no_grad():
        for weight in g.parameters():
            weight.mul_(100)
    assert g(latents(50)).abs().max() > 10


@pytest.mark.parametrize(
    ("name", "module"),
    [("leaky_relu", nn.LeakyReLU), ("relu", nn.ReLU), ("prelu", nn.PReLU), ("gelu", nn.GELU), ("tanh", nn.Tanh)],
)
def test_activation_is_the_configured_one(name: str, module: type[nn.Module]) -> None:
    g = DCGANGeneratorConfig(width=2, activation=name, output="linear").build(3, (1, 16, 16))
    d = DCGANDiscriminatorConfig(width=2, activation=name).build((1, 16, 16))
    for net, count in ((g, 2), (d, 2)):
        assert len([m for m in net.modules() if isinstance(m, module)]) == count
    if name == "leaky_relu":
        assert {m.negative_slope for m in d.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("size", [8, 32])
def test_ds_gradient_reaches_every_weight_of_both_players(norm: str, size: int) -> None:
    shape = (3, size, size)
    g = DCGANGeneratorConfig(width=4, norm=norm).build(3, shape)
    d = DCGANDiscriminatorConfig(width=4, norm=norm).build(shape)
    weights = torch.randn(6, generator=torch.Generator().manual_seed(1))
    (d(g(latents(6))).score * weights).sum().backward()
    for net in (g, d):
        for name, weight in net.named_parameters():
            assert weight.grad is not None, name
            assert weight.grad.abs().sum() > 0, name


def test_every_pixel_affects_the_score_of_its_own_image_only() -> None:
    """The gradient of a score with respect to its image has no zeros; with respect to another image it is zero."""
    d = DCGANDiscriminatorConfig(width=4, norm="none").build((1, 32, 32))
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(d(images).score[0], images)
    assert (gradient[0] != 0).all()
    assert not gradient[1].any()
