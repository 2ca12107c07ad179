"""DCGAN (Radford, Metz & Chintala 2015, arXiv:1511.06434; tip T08a).

Both networks are convolutional, without fully connected hidden layers. G projects z onto a small feature map and
doubles its sides by strided transposed convolutions; D halves the image by strided convolutions. Every layer but G's
output and D's input layer has a batch norm. Activations are LeakyReLUs, and weights ~ N(0, 0.02); without norms, He's
initialisation is used.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from poise.core.types import DiscriminatorOutput, Shape
from poise.networks.base import DiscriminatorConfig, GeneratorConfig, NetworkConfig
from poise.networks.blocks import (
    Activation,
    Down,
    MapToScore,
    Output,
    ProjectAndReshape,
    Up,
    activation,
    channel_widths,
    downsampling,
    init_weights_,
    output_activation,
    upsampling,
)
from poise.networks.map_sizes import Size, halved, num_halvings, shape_incompatibility
from poise.networks.norms import Norm, has_bias, norm_layer


class DCGANGenerator(nn.Module):
    """z, B x latent, to images, B x C x H x W.

    Args:
        latent: the dimension of z.
        shape: (C, H, W).
        widths: the channels of the feature maps, from the smallest one to the last one before the image.
        base: height and width of the smallest map.
        norm: the kind of normalisation.
        act: the hidden activation.
        up: how maps are upsampled; see `blocks.upsampling`.
        out: the last activation; see `blocks.output_activation`.
    """

    def __init__(
        self,
        latent: int,
        shape: Shape,
        widths: list[int],
        base: Size,
        norm: Norm,
        act: Activation,
        up: Up,
        out: Output,
    ) -> None:
        super().__init__()
        bias = has_bias(norm)
        layers: list[nn.Module] = [ProjectAndReshape(latent, widths[0], base, bias=bias)]
        layers += [*norm_layer(norm, widths[0]), activation(act)]
        for in_channels, out_channels in pairwise(widths):
            layers += upsampling(up, in_channels, out_channels, bias=bias)
            layers += [*norm_layer(norm, out_channels), activation(act)]
        layers += [*upsampling(up, widths[-1], shape[0], bias=True), output_activation(out, shape)]
        self.layers = nn.Sequential(*layers)
        init_weights_(self, norm)

    def forward(self, latents: Tensor) -> Tensor:
        """The images."""
        return self.layers(latents)


class DCGANDiscriminator(nn.Module):
    """Images, B x C x H x W, to a score, B: the mirror image of the generator. The features are the last map."""

    def __init__(self, shape: Shape, widths: list[int], base: Size, norm: Norm, act: Activation, down: Down) -> None:
        super().__init__()
        bias = has_bias(norm)
        layers: list[nn.Module] = [*downsampling(down, shape[0], widths[0], bias=True), activation(act)]
        for in_channels, out_channels in pairwise(widths):
            layers += downsampling(down, in_channels, out_channels, bias=bias)
            layers += [*norm_layer(norm, out_channels), activation(act)]
        self.trunk = nn.Sequential(*layers)
        self.score = MapToScore(widths[-1], base)
        self.width = widths[-1] * prod(base)
        init_weights_(self, norm)

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """The scores and the features."""
        maps = self.trunk(images)
        score = self.score(maps)
        features = maps.permute(0, 2, 3, 1).flatten(1)  # no copy if the maps are in channels_last format
        return DiscriminatorOutput(score, features)


class DCGANConfig(NetworkConfig):
    """The base class of both configurations.

    `width` is the number of channels of the map next to the image; it doubles with each halving of the map, up to
    `widest`. `depth` is the number of halvings; by default, the smallest map of square images is 4 x 4 if their side
    is a power of two (2 x 2 for images of 8 x 8); see `map_sizes.num_halvings`.
    """

    width: int = Field(default=64, ge=1, le=4096)
    widest: int = Field(default=1024, ge=1, le=16384)
    depth: int | None = Field(default=None, ge=1, le=7)
    norm: Norm = "batch"
    activation: Activation = "leaky_relu"

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """See `map_sizes.shape_incompatibility`."""
        return shape_incompatibility("DCGAN", shape, self.depth)

    def channel_plan(self, shape: Shape) -> tuple[list[int], Size]:
        """The channels of the maps, starting at the image, and height and width of the smallest map."""
        depth = num_halvings(shape, self.depth)
        return channel_widths(self.width, self.widest, depth), halved(shape, depth)


class DCGANGeneratorConfig(DCGANConfig, GeneratorConfig):
    """A DCGAN generator; `width = 128` at size 64 is the paper's 4 x 4 x 1024."""

    kind: Literal["dcgan"] = "dcgan"
    up: Up = "transposed"
    output: Output = "auto"

    def build_layers(self, latent: int, shape: Shape) -> nn.Module:
        """See `DCGANGenerator`."""
        widths, base = self.channel_plan(shape)
        return DCGANGenerator(latent, shape, widths[::-1], base, self.norm, self.activation, self.up, self.output)


class DCGANDiscriminatorConfig(DCGANConfig, DiscriminatorConfig):
    """A DCGAN discriminator."""

    kind: Literal["dcgan"] = "dcgan"
    down: Down = "conv"

    def build_layers(self, shape: Shape) -> nn.Module:
        """See `DCGANDiscriminator`."""
        widths, base = self.channel_plan(shape)
        return DCGANDiscriminator(shape, widths, base, self.norm, self.activation, self.down)
