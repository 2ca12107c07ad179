"""R3GAN's networks: blocks that start as the identity, scaled initial weights, groups, and resizing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from poise.core.double_backward import Conv2d
from poise.networks.base import mixes_samples
from poise.networks.r3gan import Block, GenerativeBasis, R3GANDiscriminatorConfig, R3GANGeneratorConfig, resize_layers

GAIN = math.sqrt(2 / (1 + 0.2**2))


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def pair(size: int, **options: Any) -> tuple[Any, Any]:
    g = R3GANGeneratorConfig(**options).build(8, (3, size, size))
    return g, R3GANDiscriminatorConfig(**options).build((3, size, size))


def find_blocks(net: nn.Module) -> list[Any]:
    return [module for module in net.modules() if isinstance(module, Block)]


def has_std(weight: Tensor, std: float) -> bool:
    """Within five standard errors."""
    kernel = weight.detach()
    error = 5 / math.sqrt(2 * kernel.numel())
    return abs(float(kernel.std()) / std - 1) < error and abs(float(kernel.mean())) < 5 * std / kernel.numel() ** 0.5


def test_every_block_starts_as_the_identity() -> None:
    x = torch.randn(2, 16, 4, 4)
    for net in pair(16, width=16, widest=16):
        assert len(find_blocks(net)) == 2 * 3
        for block in find_blocks(net):
            assert torch.equal(block(x), x)
            block.layers[-1].weight.data.normal_()
            assert not torch.allclose(block(x), x)


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_initial_weights_decrease_with_the_number_of_blocks(blocks: int) -> None:
    """std = GAIN L^(-1/4) / sqrt(fan in) for the first two convolutions of each block; L is the number of blocks."""
    for net in pair(16, width=32, widest=64, blocks=blocks, group=8):
        net_blocks = find_blocks(net)
        assert len(net_blocks) == 3 * blocks
        for block in net_blocks:
            first, _, middle, _, last = block.layers
            channels = first.in_channels
            std = GAIN * (3 * blocks) ** -0.25
            assert has_std(first.weight, std / math.sqrt(channels))
            assert has_std(middle.weight, std / math.sqrt(9 * 8))
            assert not last.weight.any()
            assert not first.bias.any()
            assert not middle.bias.any()
            assert last.bias is None


def test_the_middle_of_a_block_is_grouped() -> None:
    for channels, expansion, group, groups in ((32, 2, 16, 4), (16, 3, 8, 6), (12, 2, 16, 1), (16, 1, 1, 16)):
        middle: Any = Block(channels, expansion, group, 1).layers[2]
        inner = channels * expansion
        assert (middle.in_channels, middle.out_channels, middle.groups) == (inner, inner, groups)
        assert middle.weight.shape == (inner, inner // groups, 3, 3)


def test_a_block_matches_the_paper() -> None:
    """1 x 1, LeakyReLU with slope 0.2, 3 x 3, LeakyReLU, 1 x 1, and the input added."""
    block: Any = Block(4, 2, 4, 1).double()
    for module in block.layers:
        if isinstance(module, nn.Conv2d):
            module.weight.data.normal_()
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    copied = x.clone()
    c1, _, c2, _, c3 = block.layers
    act = nn.LeakyReLU(0.2)
    assert torch.allclose(block(copied), x + c3(act(c2(act(c1(x))))), rtol=0, atol=1e-12)
    assert torch.equal(copied, x)


def test_the_output_of_the_generator_is_linear_by_default() -> None:
    g: Any = R3GANGeneratorConfig(width=8).build(8, (3, 16, 16))
    z = torch.randn(4, 8)
    images = g(z)
    assert torch.allclose(g(1000 * z), 1000 * images, rtol=1e-3, atol=1e-3), "blocks are still the identity"
    assert g(1000 * z).abs().max() > 10
    bounded = R3GANGeneratorConfig(width=8, output="auto").build(8, (3, 16, 16))
    assert bounded(1000 * z).abs().max() <= 1


def test_the_first_map_is_a_constant_scaled_channel_by_channel() -> None:
    basis = GenerativeBasis(8, 6, (4, 4))
    z = torch.randn(3, 8)
    result = basis(z)
    assert result.shape == (3, 6, 4, 4)
    for i in range(3):
        for c in range(6):
            scale = float(basis.scale.weight[c].detach() @ z[i])
            assert torch.allclose(result[i, c], scale * basis.basis[c], atol=1e-5)
    assert basis.scale.bias is None
    wide = GenerativeBasis(64, 512, (4, 4))
    assert has_std(wide.basis, 1.0)
    assert has_std(wide.scale.weight, 1 / 8)


def test_convolutions_are_where_the_map_is_smaller() -> None:
    """G reduces the channels before upsampling, D increases them after pooling; equal ones need no convolution."""
    g, d = pair(32, width=4, widest=8)
    plan = {"Conv2d": "1x1", "Upsample": "resize", "AvgPool2d": "resize", "Block": "block"}
    order = [plan.get(type(m).__name__, type(m).__name__) for m in g.layers]
    two = ["block"] * 2
    assert order == [
        "GenerativeBasis",
        *two,
        "resize",
        *two,
        "resize",
        *two,
        "1x1",
        "resize",
        *two,
        "1x1",
        "Identity",
    ]
    order = [plan.get(type(m).__name__, type(m).__name__) for m in d.trunk]
    assert order == ["1x1", *two, "resize", "1x1", *two, "resize", *two, "resize", *two, "1x1", "Flatten"]
    upsamplings = [m for m in g.layers if isinstance(m, nn.Upsample)]
    assert {(m.mode, m.align_corners, m.scale_factor) for m in upsamplings} == {("bilinear", False, 2.0)}


def test_convolution_and_resizing_commute() -> None:
    x = torch.randn(2, 6, 8, 8, dtype=torch.float64)
    for resize in (nn.Upsample(scale_factor=2, mode="bilinear"), nn.AvgPool2d(2)):
        before, after = (
            nn.Sequential(*resize_layers(6, 4, resize, convolve_first=first)).double() for first in (True, False)
        )
        assert type(before[0]) is type(after[1]) is Conv2d
        after[1].weight.data.copy_(before[0].weight.data)  # type: ignore[union-attr, operator, arg-type]
        assert torch.allclose(before(x), after(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [8, 16, 64])
def test_shapes_and_features(size: int) -> None:
    g, d = pair(size, width=4, widest=12)
    images = g(torch.randn(2, 8))
    assert images.shape == (2, 3, size, size)
    output = d(images)
    assert output.features is not None
    channels = min(12, 4 << (2 if size < 32 else 4))
    assert (output.score.shape, output.features.shape, d.width) == ((2,), (2, channels), channels)
    last: Any = d.trunk[-2]
    maps = nn.Sequential(*d.trunk[:-2])(images)
    assert maps.shape[2:] == ((2, 2) if size == 8 else (4, 4))
    assert torch.allclose(output.features, (maps * last.weight[:, 0]).sum((2, 3)), atol=1e-5)
    assert torch.allclose(output.score, output.features @ d.score.weight[0], atol=1e-5)
    assert not mixes_samples(g)
    assert not mixes_samples(d)


@pytest.mark.parametrize("blocks", [1, 8])
def test_many_blocks_do_not_amplify_the_signal(blocks: int) -> None:
    """A block whose last convolution has the usual scale multiplies the variance by 1 + 1/L: L blocks by at most e."""
    g, d = pair(32, width=16, widest=16, blocks=blocks)
    for net, inputs in ((g, torch.randn(64, 8)), (d, torch.randn(64, 3, 32, 32))):
        stds = []
        for _ in range(2):
            with torch.no_grad():
                out = net(inputs)
                stds.append(float((out if isinstance(out, Tensor) else out.score).std()))
                for block in find_blocks(net):
                    last = block.layers[-1].weight
                    last.normal_(0, last[0].numel() ** -0.5)
        assert 0 < stds[0] < 3
        assert 1 / 3 < stds[1] / stds[0] < 3


def test_gradients_reach_all_weights_but_those_before_a_zero_convolution() -> None:
    """At first only the last convolution of each block has a gradient; once its weights are not 0, all layers do."""
    for net, x in zip(pair(16, width=8), (torch.randn(4, 8), torch.randn(4, 3, 16, 16)), strict=True):
        for step in range(2):
            net.zero_grad()
            out = net(x)
            (out.square().mean() if isinstance(out, Tensor) else out.score.square().mean()).backward()
            hidden = {name for name, w in net.named_parameters() if not w.grad.any()}
            inside = {n for n, _ in net.named_parameters() if ".layers.0." in n or ".layers.2." in n}
            inside = {n for n in inside if "scale" not in n and n.count("layers") + n.count("trunk") == 2}
            assert hidden == (inside if step == 0 else set())
            for block in find_blocks(net):
                block.layers[-1].weight.data.normal_(0, 0.1)
