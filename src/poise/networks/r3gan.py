"""Residual networks without normalisation, as in R3GAN (Huang et al. 2024, arXiv:2501.05441; tip M01).

Their initialisation keeps them trainable (Fixup: Zhang 2019, arXiv:1901.09321, with three convolutions per block): the
last convolution of each block is zero, so that the block is the identity, and the weights of the others are scaled by
L^(-1/4) for L blocks. Feature maps are upsampled bilinearly and downsampled by averaging; the middle convolution of a
block is grouped (ResNeXt).
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from poise.core.double_backward import Conv2d
from poise.core.types import DiscriminatorOutput, Shape
from poise.networks.base import DiscriminatorConfig, GeneratorConfig, NetworkConfig
from poise.networks.blocks import (
    HE_GAIN,
    SLOPE,
    Output,
    channel_widths,
    init_he_,
    interpolation,
    output_activation,
)
from poise.networks.map_sizes import Size, halved, num_halvings, shape_incompatibility


class Block(nn.Module):
    """A residual block: x + C3(act(C2(act(C1(x))))).

    C1 is a 1 x 1 convolution to `expansion` times the channels, C2 a grouped 3 x 3 convolution, and C3 a 1 x 1
    convolution back, initialised to zero. C1 and C2 have a bias.

    Args:
        channels: the channels of the input and the output.
        expansion: the factor of the inner channels.
        group: the channels per group of C2, if the inner channels are a multiple of it; otherwise there is one group.
        num_blocks: the number of blocks of the network, for the scale of the initial weights.
    """

    def __init__(self, channels: int, expansion: int, group: int, num_blocks: int) -> None:
        super().__init__()
        inner = channels * expansion
        groups = inner // group if inner % group == 0 else 1
        gain = HE_GAIN * num_blocks**-0.25
        self.layers = nn.Sequential(
            init_he_(Conv2d(channels, inner, 1), gain),
            nn.LeakyReLU(SLOPE, inplace=True),
            init_he_(Conv2d(inner, inner, 3, padding=1, groups=groups), gain),
            nn.LeakyReLU(SLOPE, inplace=True),
            init_he_(Conv2d(inner, channels, 1, bias=False), 0.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W to the same shape."""
        return x + self.layers(x)


def resize_layers(in_channels: int, out_channels: int, resize: nn.Module, *, convolve_first: bool) -> list[nn.Module]:
    """Layers that change the sides of a feature map and its channels.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output; if they differ, a 1 x 1 convolution changes them.
        resize: the layer that changes the sides.
        convolve_first: whether the convolution comes first. It is cheaper where the map is smaller.
    """
    if in_channels == out_channels:
        return [resize]
    convolution = init_he_(Conv2d(in_channels, out_channels, 1, bias=False), 1.0)
    return [convolution, resize] if convolve_first else [resize, convolution]


class GenerativeBasis(nn.Module):
    """z to the first feature map: a learned constant map, whose channels are scaled by a linear function of z."""

    def __init__(self, latent: int, channels: int, base: Size) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.randn(channels, *base))
        self.scale = init_he_(nn.Linear(latent, channels, bias=False), 1.0)

    def forward(self, latents: Tensor) -> Tensor:
        """B x latent to B x channels x h x w."""
        return self.basis * self.scale(latents)[:, :, None, None]


class R3GANGenerator(nn.Module):
    """z, B x latent, to images, B x C x H x W; in the paper the output is linear."""

    def __init__(
        self,
        latent: int,
        shape: Shape,
        widths: list[int],
        base: Size,
        blocks: int,
        expansion: int,
        group: int,
        out: Output,
    ) -> None:
        super().__init__()
        num_blocks = blocks * len(widths)
        layers: list[nn.Module] = [GenerativeBasis(latent, widths[0], base)]
        layers += [Block(widths[0], expansion, group, num_blocks) for _ in range(blocks)]
        for in_channels, out_channels in pairwise(widths):
            layers += resize_layers(in_channels, out_channels, interpolation("bilinear"), convolve_first=True)
            layers += [Block(out_channels, expansion, group, num_blocks) for _ in range(blocks)]
        layers += [init_he_(Conv2d(widths[-1], shape[0], 1, bias=False), 1.0), output_activation(out, shape)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        """The images."""
        return self.layers(latents)


class R3GANDiscriminator(nn.Module):
    """Images, B x C x H x W, to a score, B: the mirror image of the generator.

    The features are a weighted sum of the last map over space, one per channel.
    """

    def __init__(self, shape: Shape, widths: list[int], base: Size, blocks: int, expansion: int, group: int) -> None:
        super().__init__()
        num_blocks = blocks * len(widths)
        layers: list[nn.Module] = [init_he_(Conv2d(shape[0], widths[0], 1, bias=False), 1.0)]
        for in_channels, out_channels in pairwise(widths):
            layers += [Block(in_channels, expansion, group, num_blocks) for _ in range(blocks)]
            layers += resize_layers(in_channels, out_channels, nn.AvgPool2d(2), convolve_first=False)
        self.width = widths[-1]
        layers += [Block(self.width, expansion, group, num_blocks) for _ in range(blocks)]
        layers += [init_he_(Conv2d(self.width, self.width, base, groups=self.width, bias=False), 1.0), nn.Flatten()]
        self.trunk = nn.Sequential(*layers)
        self.score = init_he_(nn.Linear(self.width, 1, bias=False), 1.0)

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """The scores and the features."""
        features = self.trunk(images)
        return DiscriminatorOutput(self.score(features).squeeze(1), features)


class R3GANConfig(NetworkConfig):
    """The base class of both configurations.

    `blocks` is the number of blocks per map size. The middle convolution of a block has `expansion` times the channels,
    in groups of `group`. `width`, `widest` and `depth` are as for `DCGANConfig`. The paper's networks have
    `blocks` = 2, `expansion` = 2, `group` = 16, hundreds of channels, and a [1, 2, 1] filter for resizing.
    """

    has_skip_connections: ClassVar[bool] = True
    width: int = Field(default=64, ge=1, le=4096)
    widest: int = Field(default=256, ge=1, le=16384)
    blocks: int = Field(default=2, ge=1, le=32)
    expansion: int = Field(default=2, ge=1, le=16)
    group: int = Field(default=16, ge=1, le=4096)
    depth: int | None = Field(default=None, ge=1, le=7)

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """See `map_sizes.shape_incompatibility`."""
        return shape_incompatibility("residual network", shape, self.depth)

    def channel_plan(self, shape: Shape) -> tuple[list[int], Size]:
        """The channels of the maps, starting at the image, and height and width of the smallest map."""
        depth = num_halvings(shape, self.depth)
        return channel_widths(self.width, self.widest, depth + 1), halved(shape, depth)


class R3GANGeneratorConfig(R3GANConfig, GeneratorConfig):
    """A generator without normalisation."""

    kind: Literal["r3gan"] = "r3gan"
    output: Output = "linear"

    def build_layers(self, latent: int, shape: Shape) -> nn.Module:
        """See `R3GANGenerator`."""
        widths, base = self.channel_plan(shape)
        return R3GANGenerator(latent, shape, widths[::-1], base, self.blocks, self.expansion, self.group, self.output)


class R3GANDiscriminatorConfig(R3GANConfig, DiscriminatorConfig):
    """A discriminator without normalisation."""

    kind: Literal["r3gan"] = "r3gan"

    def build_layers(self, shape: Shape) -> nn.Module:
        """See `R3GANDiscriminator`."""
        widths, base = self.channel_plan(shape)
        return R3GANDiscriminator(shape, widths, base, self.blocks, self.expansion, self.group)
