"""Residual translators: they compute what the published networks compute, with as many weights; what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, instance_norm, pad

from poise.networks.translator import RefinerConfig, ResidualTranslatorConfig


def reflected(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A convolution whose input is padded by reflection."""
    side = weight.shape[-1] // 2
    return conv2d(pad(maps, (side,) * 4, mode="reflect") if side else maps, weight, bias)


def published_cyclegan(net: nn.Module, images: Tensor, blocks: int) -> Tensor:
    """CycleGAN's generator as a chain of operations: c7s1, d, d, R..., u, u, c7s1, with the weights of `net`."""
    weights = iter(net.parameters())

    def take() -> tuple[Tensor, Tensor]:
        return next(weights), next(weights)

    maps = instance_norm(reflected(images, *take())).relu()
    for _ in range(2):
        maps = instance_norm(conv2d(maps, *take(), stride=2, padding=1)).relu()
    for _ in range(blocks):
        inner = instance_norm(reflected(maps, *take())).relu()
        maps = maps + instance_norm(reflected(inner, *take()))
    for _ in range(2):
        maps = instance_norm(conv_transpose2d(maps, *take(), stride=2, padding=1, output_padding=1)).relu()
    maps = reflected(maps, *take()).tanh()
    assert next(weights, None) is None
    return maps


def published_refiner(net: nn.Module, images: Tensor, blocks: int) -> Tensor:
    """SimGAN's refiner: a 3 x 3 convolution, blocks of two, a 1 x 1 convolution; ReLU, no norms."""
    weights = iter(net.parameters())

    def take() -> tuple[Tensor, Tensor]:
        return next(weights), next(weights)

    maps = reflected(images, *take()).relu()
    for _ in range(blocks):
        inner = reflected(maps, *take()).relu()
        maps = maps + reflected(inner, *take())
    weight, bias = take()
    assert weight.shape[2:] == (1, 1)
    assert next(weights, None) is None
    return conv2d(maps, weight, bias).tanh()


@pytest.mark.parametrize(("blocks", "size"), [(2, (16, 24)), (1, (8, 8)), (0, (12, 8))])
def test_it_computes_what_cyclegans_generator_does(blocks: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = ResidualTranslatorConfig(width=4, blocks=blocks).build_translator((2, *size), (3, *size))
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(0.2 * torch.randn_like(weight))
    images = torch.randn(2, 2, *size)
    torch.testing.assert_close(net(images), published_cyclegan(net, images, blocks), rtol=1e-4, atol=1e-5)
    assert torch.equal(net(images), net.eval()(images)), "instance norm is the same in evaluation"


def test_it_computes_what_simgans_refiner_does() -> None:
    torch.manual_seed(0)
    net = RefinerConfig(width=4).build_translator((1, 9, 7), (1, 9, 7))
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(0.2 * torch.randn_like(weight))
    images = torch.randn(2, 1, 9, 7)
    torch.testing.assert_close(net(images), published_refiner(net, images, 4), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("blocks", "count"), [(9, 11_378_179), (6, 7_837_699)])
def test_the_weights_are_those_of_the_authors(blocks: int, count: int) -> None:
    """Their code prints 11.378 M for 9 blocks and 7.838 M for 6."""
    with torch.device("meta"):
        net = ResidualTranslatorConfig(blocks=blocks).build_translator((3, 256, 256), (3, 256, 256))
    assert sum(weight.numel() for weight in net.parameters()) == count


def test_the_refiner_has_the_layers_of_the_paper() -> None:
    """64 maps of 3 x 3, four blocks of two, one map of 1 x 1; for larger images 7 x 7 first, and ten blocks."""
    for config, first, blocks in ((RefinerConfig(), 3, 4), (RefinerConfig(kernel=7, blocks=10), 7, 10)):
        with torch.device("meta"):
            net = config.build_translator((1, 35, 55), (1, 35, 55))
        kernels = [tuple(weight.shape) for weight in net.parameters() if weight.dim() == 4]
        assert kernels == [(64, 1, first, first), *[(64, 64, 3, 3)] * (2 * blocks), (1, 64, 1, 1)]


def test_the_initial_weights_are_those_of_the_authors() -> None:
    torch.manual_seed(0)
    net = ResidualTranslatorConfig(width=16, blocks=2).build_translator((3, 32, 32), (3, 32, 32))
    kernels = torch.cat([weight.detach().flatten() for weight in net.parameters() if weight.dim() == 4])
    assert abs(float(kernels.std()) - 0.02) < 2e-4


def test_what_is_refused() -> None:
    reason, cure = ResidualTranslatorConfig(downsamplings=3).incompatibility((1, 12, 20)) or ("", "")
    assert reason == "images of 12 x 20 pixels can't be halved 3 times"
    assert cure == "set data.size to 16 or [16, 24], or network.g.downsamplings to at most 2"
    reason, cure = ResidualTranslatorConfig(downsamplings=0).incompatibility((1, 3, 20)) or ("", "")
    assert reason == "images of 3 x 20 pixels are too small for a kernel of 7 pixels"
    assert cure == "set data.size to 4 or more"
    assert RefinerConfig().incompatibility((1, 3, 20)) is None
    assert RefinerConfig(kernel=7).incompatibility((1, 3, 20)) is not None
    assert RefinerConfig().incompatibility((2,)) is not None
    assert ResidualTranslatorConfig().incompatibility((3, 8, 12)) is None
