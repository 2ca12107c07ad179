"""Residual networks: published shapes and counts, the order of layers, attention, and initial weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from poise.core.double_backward import Conv2d
from poise.core.types import Shape
from poise.networks.attention import SelfAttention, attend
from poise.networks.base import mixes_samples
from poise.networks.blocks import Activation, ProjectAndReshape
from poise.networks.norms import Norm
from poise.networks.resnet import (
    DiscriminatorBlock,
    GeneratorBlock,
    ResNetDiscriminator,
    ResNetDiscriminatorConfig,
    ResNetGeneratorConfig,
)

PAPER_G = ResNetGeneratorConfig(width=256, widest=256)
PAPER_D = ResNetDiscriminatorConfig(width=128, widest=128)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def num_weights(net: nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


def shapes_of(net: nn.Module, kinds: tuple[type[nn.Module], ...], x: Tensor) -> list[Shape]:
    """The output shapes of all modules of these kinds for the input x."""
    shapes: list[Shape] = []
    hooks = [
        module.register_forward_hook(lambda m, inputs, out: shapes.append(tuple(out.shape[1:])))
        for module in net.modules()
        if isinstance(module, kinds)
    ]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return shapes


# ---------------------------------------------------------------- the published networks


def test_the_papers_generator_for_32() -> None:
    """Miyato 2018, appendix B.4: dense to 4 x 4 x 256, three blocks up, norm, ReLU, 3 x 3, tanh."""
    g = PAPER_G.build(128, (3, 32, 32))
    assert shapes_of(g, (ProjectAndReshape, GeneratorBlock), torch.randn(2, 128)) == [
        (256, 4, 4),
        (256, 8, 8),
        (256, 16, 16),
        (256, 32, 32),
    ]
    layers: Any = g.layers
    assert [type(m) for m in layers[-4:]] == [nn.BatchNorm2d, nn.ReLU, Conv2d, nn.Tanh]
    conv3x3, conv1x1 = 9 * 256 * 256, 256 * 256
    block = 2 * 256 + conv3x3 + 2 * 256 + (conv3x3 + 256) + (conv1x1 + 256)  # no bias before a norm
    # the first layer is a transposed convolution, with one bias per channel
    assert num_weights(g) == (128 * 16 * 256 + 256) + 3 * block + 2 * 256 + (9 * 256 * 3 + 3)


def test_the_papers_discriminator_for_32() -> None:
    """Two blocks down, two that keep their size, ReLU, sum over space, dense to 1."""
    d = PAPER_D.build((3, 32, 32))
    seen = shapes_of(d, (DiscriminatorBlock,), torch.randn(2, 3, 32, 32))
    assert seen == [(128, 16, 16), (128, 8, 8), (128, 8, 8), (128, 8, 8)]
    conv3x3 = 9 * 128 * 128 + 128
    first = (9 * 3 * 128 + 128) + conv3x3 + (3 * 128 + 128)
    assert num_weights(d) == first + (2 * conv3x3 + 128 * 128 + 128) + 2 * 2 * conv3x3 + 128 + 1
    assert not mixes_samples(d)


def test_features_are_the_rectified_last_map_summed_over_space() -> None:
    d: Any = ResNetDiscriminatorConfig(width=4, norm="none").build((3, 32, 32))
    x = torch.randn(2, 3, 32, 32)
    last = nn.Sequential(*d.trunk[:-1])(x)
    output = d(x)
    assert output.features is not None
    assert d.width == 8
    assert torch.allclose(output.features, last.clamp_min(0).sum((2, 3)), atol=1e-5)
    assert torch.allclose(output.score, output.features @ d.score.weight[0] + d.score.bias, atol=1e-5)


def test_the_networks_for_64() -> None:
    """4 x 4 x 1024, 512, 256, 128, 64; D halves down to 8 x 8."""
    g = ResNetGeneratorConfig(width=64).build(128, (3, 64, 64))
    assert shapes_of(g, (ProjectAndReshape, GeneratorBlock), torch.randn(1, 128).expand(2, -1)) == [
        (1024, 4, 4),
        (512, 8, 8),
        (256, 16, 16),
        (128, 32, 32),
        (64, 64, 64),
    ]
    widths = [1024, 512, 256, 128, 64]
    blocks = sum(2 * a + 9 * a * b + 2 * b + (9 * b * b + b) + (a * b + b) for a, b in pairwise(widths))
    assert num_weights(g) == (128 * 16 * 1024 + 1024) + blocks + 2 * 64 + (9 * 64 * 3 + 3)
    d = ResNetDiscriminatorConfig(width=4, plain=1).build((3, 64, 64))
    assert shapes_of(d, (DiscriminatorBlock,), torch.randn(2, 3, 64, 64)) == [
        (4, 32, 32),
        (8, 16, 16),
        (16, 8, 8),
        (16, 8, 8),
    ]


@pytest.mark.parametrize("size", [8, 16, 128, 256])
def test_other_sizes(size: int) -> None:
    shape = (2, size, size)
    g, d = ResNetGeneratorConfig(width=1), ResNetDiscriminatorConfig(width=1)
    assert g.incompatibility(shape) is d.incompatibility(shape) is None
    images = g.build(3, shape)(torch.randn(2, 3))
    assert images.shape == (2, *shape)
    assert d.build(shape)(images).score.shape == (2,)


# ---------------------------------------------------------------- blocks


def reference_block(block: Any, x: Tensor, act: nn.Module, *, first: bool = False) -> Tensor:
    """A block without norms as in the paper's figure, with resizing before the 1 x 1 convolution."""
    convolutions = [m for m in block.branch if isinstance(m, nn.Conv2d)]
    shortcut = [m for m in block.shortcut if isinstance(m, nn.Conv2d)]
    up = [m for m in block.branch if isinstance(m, nn.Upsample)]
    pool = [m for m in block.branch if isinstance(m, nn.AvgPool2d)]
    branch = convolutions[0](nn.Sequential(*up)(x if first else act(x)))
    branch = nn.Sequential(*pool)(convolutions[1](act(branch)))
    if first:
        return branch + shortcut[0](pool[0](x))
    resized = nn.Sequential(*up)(x)
    return branch + nn.Sequential(*pool)(nn.Sequential(*shortcut)(resized))


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu"])
def test_blocks_match_the_paper(name: Activation) -> None:
    """Only the order of the 1 x 1 convolution and the resizing in the shortcut differs."""
    act = {"relu": nn.ReLU(), "leaky_relu": nn.LeakyReLU(0.2), "elu": nn.ELU()}[name]
    x = torch.randn(2, 6, 8, 8, dtype=torch.float64)
    blocks: list[tuple[nn.Module, bool, int, int]] = [
        (GeneratorBlock(6, 4, "none", name, "nearest"), False, 4, 16),
        (GeneratorBlock(6, 6, "none", name, "bilinear"), False, 6, 16),
        (DiscriminatorBlock(6, 4, "none", name, halve=True), False, 4, 4),
        (DiscriminatorBlock(6, 6, "none", name, halve=True), False, 6, 4),
        (DiscriminatorBlock(6, 4, "none", name, halve=True, first=True), True, 4, 4),
        (DiscriminatorBlock(6, 6, "none", name, halve=False), False, 6, 8),
    ]
    for block, first, channels, side in blocks:
        copied = x.clone()
        output = block.double()(copied)
        assert torch.equal(copied, x), "the input is not modified"
        assert output.shape == (2, channels, side, side)
        assert torch.allclose(output, reference_block(block, x, act, first=first), rtol=0, atol=1e-12)


def test_a_block_that_keeps_size_and_channels_has_an_identity_shortcut() -> None:
    assert len(DiscriminatorBlock(4, 4, "none", "relu", halve=False).shortcut) == 0
    kinds = [type(m) for m in DiscriminatorBlock(4, 4, "none", "relu", halve=True).shortcut]
    assert kinds == [nn.AvgPool2d, Conv2d]
    assert [type(m) for m in GeneratorBlock(4, 4, "none", "relu", "nearest").shortcut] == [Conv2d, nn.Upsample]


def gradients(net: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = net(x)
    out = out if isinstance(out, Tensor) else out.score
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad((out * weights).sum(), [x, *net.parameters()])]


@pytest.mark.parametrize("attention", [None, 8])
@pytest.mark.parametrize("norm", ["none", "batch", "group", "layer"])
@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_in_place_activations_do_not_change_the_gradients(name: Activation, norm: Norm, attention: int | None) -> None:
    options: dict[str, Any] = {"width": 3, "norm": norm, "activation": name, "attention": attention}
    g = ResNetGeneratorConfig(**options).build(3, (1, 16, 16)).double()
    d = ResNetDiscriminatorConfig(**options).build((1, 16, 16)).double()
    for net, x in ((g, torch.randn(3, 3)), (d, torch.randn(3, 1, 16, 16))):
        for module in net.modules():
            if isinstance(module, SelfAttention):
                module.gamma.data.fill_(0.7)
        out_of_place = copy.deepcopy(net)
        num_in_place = 0
        for module in out_of_place.modules():
            if isinstance(module, nn.ReLU | nn.LeakyReLU):
                num_in_place += module.inplace
                module.inplace = False
        assert num_in_place > 0
        for actual, expected in zip(gradients(net, x.double()), gradients(out_of_place, x.double()), strict=True):
            assert torch.equal(actual, expected)


def test_norms_precede_both_convolutions_but_not_the_first_of_d() -> None:
    g = ResNetGeneratorConfig(width=2).build(3, (1, 16, 16))
    d = ResNetDiscriminatorConfig(width=2, norm="batch").build((1, 16, 16))
    assert len([m for m in g.modules() if isinstance(m, nn.BatchNorm2d)]) == 2 * 2 + 1
    assert len([m for m in d.modules() if isinstance(m, nn.BatchNorm2d)]) == 1 + 2 * 2 + 1
    layers: Any = d.trunk
    assert type(layers[0].branch[0]) is Conv2d
    assert type(layers[1].branch[0]) is nn.BatchNorm2d


# ---------------------------------------------------------------- attention


def test_attention_is_a_weighted_mean_over_positions() -> None:
    """Zhang 2019, equation 1, position by position."""
    query, key = (torch.randn(2, 3, 2, 4, dtype=torch.float64) for _ in range(2))
    value = torch.randn(2, 5, 2, 4, dtype=torch.float64)
    expected = torch.zeros_like(value)
    for b in range(2):
        for i in range(8):
            scores = [query[b, :, i // 4, i % 4] @ key[b, :, j // 4, j % 4] for j in range(8)]
            total = sum(math.exp(a) for a in scores)
            for j in range(8):
                expected[b, :, i // 4, i % 4] += math.exp(scores[j]) / total * value[b, :, j // 4, j % 4]
    assert torch.allclose(attend(query, key, value), expected, rtol=0, atol=1e-12)


def test_attention_starts_as_the_identity() -> None:
    net, x = SelfAttention(16), torch.randn(2, 16, 4, 4)
    assert torch.equal(net(x), x)
    assert net.query.out_channels == net.key.out_channels == net.value.out_channels == 2
    with torch.no_grad():
        net.gamma.fill_(0.5)
    attended = net.out(attend(net.query(x), net.key(x), net.value(x)))
    assert torch.allclose(net(x), x + 0.5 * attended, atol=1e-6)
    assert not torch.allclose(net(x), x, atol=1e-3)


def test_attention_can_be_differentiated_twice() -> None:
    """Gradient penalties need this; the fused kernel has one derivative only."""
    x = [torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert gradcheck(attend, x)
    assert gradgradcheck(attend, x)
    net = SelfAttention(3).double()
    with torch.no_grad():
        net.gamma.fill_(0.7)
    assert gradgradcheck(net, (torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True),))


@pytest.mark.parametrize("size", [8, 32, 64])
@pytest.mark.parametrize("depth", [None, 2])
@pytest.mark.parametrize("side", ["g", "d"])
def test_the_map_of_the_given_size_has_attention(side: str, size: int, depth: int | None) -> None:
    shape = (1, size, size)
    smallest = size >> depth if depth else {"g": 4, "d": 4 if size == 8 else 8}[side]
    inner = {size >> k for k in range(7) if size >> k >= smallest} - {smallest if side == "g" else size}
    for attention in (2, 4, 8, 16, 32, 64, 128):
        options: dict[str, Any] = {"width": 2, "depth": depth, "attention": attention}
        entry = ResNetGeneratorConfig(**options) if side == "g" else ResNetDiscriminatorConfig(**options)
        misfit = entry.incompatibility(shape)
        if attention not in inner:
            assert misfit is not None
            assert misfit[0] == f"no feature map has a side of {attention}"
            assert set(misfit[1].removeprefix("set attention to one of ").split(", ")) == set(map(str, inner))
            continue
        assert misfit is None
        net = entry.build(3, shape) if isinstance(entry, ResNetGeneratorConfig) else entry.build(shape)
        x = torch.randn(2, 3) if side == "g" else torch.randn(2, *shape)
        seen = shapes_of(net, (SelfAttention,), x)
        assert [shape[1:] for shape in seen] == [(attention, attention)]


@pytest.mark.parametrize(
    ("shape", "depth", "reason", "cure"),
    [
        ((2,), None, "points", "mlp"),
        ((3, 27, 27), None, "odd", "26 or 28"),
        ((3, 16, 16), 4, "depth 4", "at most 3"),
    ],
)
@pytest.mark.parametrize("entry", [ResNetGeneratorConfig, ResNetDiscriminatorConfig])
def test_incompatible_shapes_are_reported_with_a_cure(
    entry: Any, shape: Shape, depth: int | None, reason: str, cure: str
) -> None:
    misfit = entry(depth=depth).incompatibility(shape)
    assert misfit is not None
    assert reason in misfit[0]
    assert cure in misfit[1]


# ---------------------------------------------------------------- initial weights


def is_uniform(weight: Tensor, bound: float) -> bool:
    """Whether the range and the variance are those of a uniform distribution on [-bound, bound]."""
    kernel = weight.detach()
    n = kernel.numel()
    is_in_range = bound * (1 - 10 / n) <= float(kernel.abs().max()) <= bound * (1 + 1e-6)
    return is_in_range and abs(float(kernel.std()) / (bound / math.sqrt(3)) - 1) < 3 / math.sqrt(n)


def test_initial_weights_are_glorots() -> None:
    """Gain sqrt(2) for the 3 x 3 convolutions of blocks, 1 for shortcuts, linear layers and G's last; biases 0."""
    g: Any = ResNetGeneratorConfig(width=16, norm="none").build(20, (3, 16, 16))
    d: Any = ResNetDiscriminatorConfig(width=16, norm="none").build((3, 16, 16))
    count = 0
    for net in (g, d):
        for block in net.modules():
            if not isinstance(block, GeneratorBlock | DiscriminatorBlock):
                continue
            for module, gain, taps in (
                *((m, math.sqrt(2), 9) for m in block.branch if isinstance(m, nn.Conv2d)),
                *((m, 1.0, 1) for m in block.shortcut if isinstance(m, nn.Conv2d)),
            ):
                fans = taps * (module.in_channels + module.out_channels)
                assert is_uniform(module.weight, gain * math.sqrt(6 / fans)), module
                count += 1
    assert count == 2 * 3 + (1 * 3 + 2 * 2)
    assert is_uniform(g.layers[-2].weight, math.sqrt(6 / (9 * (16 + 3))))
    assert is_uniform(d.score.weight, math.sqrt(6 / (16 + 1)))
    for net in (g, d):
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and module.bias is not None:
                assert not module.bias.any()


def test_the_weights_of_the_first_layer_are_those_of_a_linear_layer() -> None:
    """128 inputs, 4 x 4 x 256 outputs: it is a matrix that is stored as a kernel."""
    g: Any = PAPER_G.build(128, (3, 32, 32))
    assert is_uniform(g.layers[0].weight, math.sqrt(6 / (128 + 4 * 4 * 256)))


def test_the_number_of_plain_blocks() -> None:
    for plain in (0, 3):
        d = ResNetDiscriminatorConfig(width=2, plain=plain).build((1, 16, 16))
        assert isinstance(d, ResNetDiscriminator)
        assert len([m for m in d.modules() if isinstance(m, DiscriminatorBlock)]) == 1 + plain
