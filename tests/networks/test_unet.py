"""The U-Net: it computes what the published network computes, and has as many weights; its dropout; what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from poise.core.types import Side
from poise.networks.blocks import DropoutSlot
from poise.networks.unet import UNetConfig
from poise.tricks.base import TrickContext
from poise.tricks.layers import StandingDropoutConfig, StochasticLayer


class Level(nn.Module):
    """One level of the published network, which is nested: halve, do what is inside, double, and append the input.

    Args:
        outside: the channels of the larger map.
        inside_width: the channels of the smaller map.
        inside: the next smaller level, if any.
        norm: makes a norm layer.
        bias: whether convolutions next to a norm have a bias.
    """

    def __init__(self, outside: int, inside_width: int, inside: nn.Module | None, norm: type[nn.Module], bias: bool):
        super().__init__()
        self.down = nn.Conv2d(outside, inside_width, 4, stride=2, padding=1, bias=bias)
        self.down_norm = nn.Identity() if inside is None else norm(inside_width)
        self.inside = nn.Identity() if inside is None else inside
        self.up = nn.ConvTranspose2d(inside_width * (1 if inside is None else 2), outside, 4, 2, 1, bias=bias)
        self.up_norm = norm(outside)

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.inside(self.down_norm(self.down(nn.functional.leaky_relu(maps, 0.2))))
        return torch.cat((maps, self.up_norm(self.up(inner.relu()))), 1)


class PublishedUNet(nn.Module):
    """The whole: no activation before the first convolution, no norm after it, a bias and tanh at the end."""

    def __init__(self, channels: int, out_channels: int, width: int, depth: int, norm: type[nn.Module], bias: bool):
        super().__init__()
        widths = [width * min(8, 2**k) for k in range(depth)]
        level: nn.Module | None = None
        for outside, inside_width in zip(widths[-2::-1], widths[:0:-1], strict=True):
            level = Level(outside, inside_width, level, norm, bias)
        assert level is not None
        self.first = nn.Conv2d(channels, width, 4, 2, 1, bias=bias)
        self.level = level
        self.last = nn.ConvTranspose2d(2 * width, out_channels, 4, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.level(self.first(images)).relu()).tanh()


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Both register their layers from the image to the smallest map and back."""
    pairs = list(zip(in_order(source), in_order(target), strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    with torch.no_grad():
        for a, b in pairs:
            b.copy_(a)


def in_order(net: nn.Module) -> Iterator[Tensor]:
    return iter([tensor for tensor in net.state_dict().values() if tensor.is_floating_point()])


@pytest.mark.parametrize(
    ("norm", "layer", "bias"), [("batch", nn.BatchNorm2d, False), ("instance", nn.InstanceNorm2d, True)]
)
@pytest.mark.parametrize(("depth", "size"), [(3, (16, 24)), (5, (32, 32))])
def test_it_computes_what_the_published_network_does(
    norm: str, layer: type[nn.Module], bias: bool, depth: int, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    ours = UNetConfig(width=4, depth=depth, norm=norm).build_translator((2, *size), (3, *size))  # type: ignore[arg-type]
    theirs = PublishedUNet(2, 3, 4, depth, layer, bias)
    images = torch.randn(2, 2, *size)
    copy_weights(theirs, ours)
    for mode in (True, False):
        for net in (ours, theirs):
            net.train(mode)
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-6)
    grads = [torch.autograd.grad(net(images).square().sum(), next(net.parameters()))[0] for net in (ours, theirs)]
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("depth", "count"), [(8, 54_413_955), (7, 41_828_995)])
def test_the_weights_are_those_of_the_authors(depth: int, count: int) -> None:
    """Their code prints 54.414 M for 256 pixels and 41.829 M for 128."""
    size = 1 << depth
    with torch.device("meta"):
        net = UNetConfig().build_translator((3, size, size), (3, size, size))
    assert sum(weight.numel() for weight in net.parameters()) == count


def test_the_initial_weights_are_those_of_the_authors() -> None:
    torch.manual_seed(0)
    net = UNetConfig(width=16).build_translator((3, 32, 32), (3, 32, 32))
    kernels = torch.cat([weight.detach().flatten() for weight in net.parameters() if weight.dim() == 4])
    assert abs(float(kernels.std()) - 0.02) < 1e-4
    assert abs(float(kernels.mean())) < 1e-4


@pytest.mark.parametrize(
    ("shape", "depth"), [((1, 256, 256), 8), ((1, 512, 512), 8), ((1, 96, 64), 5), ((1, 28, 28), 2), ((1, 4, 4), 2)]
)
def test_images_are_halved_as_often_as_possible(shape: tuple[int, ...], depth: int) -> None:
    config = UNetConfig(width=1, norm="none")
    assert config.incompatibility(shape) is None
    with torch.device("meta"):
        net = config.build_translator(shape, shape)
        assert net(torch.zeros(1, *shape)).shape == (1, *shape)
    assert len(net.downs) == len(net.ups) == depth  # type: ignore[arg-type]


def test_what_is_refused() -> None:
    reason, cure = UNetConfig().incompatibility((1, 27, 30)) or ("", "")
    assert reason == "images of 27 x 30 pixels can't be halved 2 times"
    assert cure == "set data.size to [24, 28] or [28, 32]"
    reason, cure = UNetConfig(depth=4).incompatibility((1, 28, 28)) or ("", "")
    assert reason == "images of 28 x 28 pixels can't be halved 4 times"
    assert cure == "set data.size to 16 or 32, or network.g.depth to at most 2"
    assert UNetConfig().incompatibility((2,)) is not None


def with_dropout(layers: int = 3) -> nn.Module:
    net = UNetConfig(width=2, depth=5).build_translator((1, 32, 32), (1, 32, 32))
    trick = StandingDropoutConfig(rate=0.5, layers=layers).build("standing_dropout", TrickContext({}, None))  # type: ignore[arg-type]
    return trick.transform_network(Side.G, net)  # type: ignore[attr-defined]


def test_dropout_is_in_the_innermost_layers_of_the_decoder() -> None:
    """It comes after the norm, before the map is concatenated; all other layers, and the encoder, are as before."""
    for layers in (1, 3, 9):
        net = with_dropout(layers)
        last = [up[-1] for up in net.ups]  # type: ignore[union-attr]
        assert [isinstance(layer, StochasticLayer) for layer in last] == [k < min(layers, 4) for k in range(5)]
        assert not any(isinstance(module, StochasticLayer) for module in net.downs.modules())  # type: ignore[union-attr]
        inserted = [module.stream for module in net.modules() if isinstance(module, StochasticLayer)]
        assert inserted == [f"standing_dropout/{k}" for k in range(min(layers, 4))]


def test_dropout_drops_half_of_a_layer_and_nothing_of_the_encoder() -> None:
    net = with_dropout().eval()
    seen: list[Tensor] = []
    net.ups[1].register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))  # type: ignore[union-attr]
    torch.manual_seed(0)
    image = torch.randn(1, 1, 32, 32)
    images = image.expand(500, -1, -1, -1)
    outputs = net(images).detach()
    skipped, dropped = seen[0].chunk(2, 1)
    assert torch.equal(skipped, skipped[:1].expand_as(skipped)), "the encoder has no noise"
    values = dropped[:, dropped[0].numel() // 2 // 4 :].flatten(1)
    assert abs(float((values == 0).float().mean()) - 0.5) < 0.05
    assert float(outputs.std(0).max()) > 0, "samples differ in evaluation mode too"


def test_without_the_trick_nothing_is_dropped() -> None:
    net = UNetConfig(width=2, depth=3).build_translator((1, 8, 8), (1, 8, 8)).eval()
    assert [module.index for module in net.modules() if isinstance(module, DropoutSlot)] == [0, 1]
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(net(images), net(images))
