"""DCGAN (Radford, Metz & Chintala 2015, arXiv:1511.06434; tip T08a).

All-convolutional players with no fully connected hidden layer: G projects z onto a small map and doubles
it by strided transposed convolutions, D halves the picture by strided convolutions. Batch norm in all but
G's output and D's input layer, LeakyReLU, weights ~ N(0, 0.02); without norms, He's.
"""

from __future__ import annotations

from itertools import pairwise
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
    num_halvings,
    output,
    square_incompatibility,
    upsampling,
)
from poise.networks.norms import Norm, has_bias, norm_layer


class DCGANGenerator(nn.Module):
    """z, B x latent, to pictures, B x C x S x S.

    Args:
        latent: length of z.
        shape: (C, S, S).
        widths: channels of the maps, from the smallest map to the last one before the picture.
        base: side of the smallest map.
    """

    def __init__(
        self,
        latent: int,
        shape: Shape,
        widths: list[int],
        base: int,
        norm: Norm,
        act: Activation,
        up: Up,
        out: Output,
    ) -> None:
        super().__init__()
        bias = has_bias(norm)
        layers: list[nn.Module] = [ProjectAndReshape(latent, widths[0], base, bias=bias)]
        layers += [*norm_layer(norm, widths[0]), activation(act)]
        for here, there in pairwise(widths):
            layers += [*upsampling(up, here, there, bias=bias), *norm_layer(norm, there), activation(act)]
        layers += [*upsampling(up, widths[-1], shape[0], bias=True), output(out, shape)]
        self.layers = nn.Sequential(*layers)
        init_weights_(self, norm)

    def forward(self, latents: Tensor) -> Tensor:
        """Pictures."""
        return self.layers(latents)


class DCGANDiscriminator(nn.Module):
    """Pictures, B x C x S x S, to a score, B; the mirror image of the generator. Its features are the last map."""

    def __init__(self, shape: Shape, widths: list[int], base: int, norm: Norm, act: Activation, down: Down) -> None:
        super().__init__()
        bias = has_bias(norm)
        layers: list[nn.Module] = [*downsampling(down, shape[0], widths[0], bias=True), activation(act)]
        for here, there in pairwise(widths):
            layers += [*downsampling(down, here, there, bias=bias), *norm_layer(norm, there), activation(act)]
        self.trunk = nn.Sequential(*layers)
        self.score = MapToScore(widths[-1], base)
        self.width = widths[-1] * base * base
        init_weights_(self, norm)

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """What D says."""
        maps = self.trunk(images)
        return DiscriminatorOutput(
            self.score(maps), maps.permute(0, 2, 3, 1).flatten(1)
        )  # no copy where maps are channels_last


class DCGANConfig(NetworkConfig):
    """What both players' entries share.

    `width` is the number of channels beside the picture; it doubles with every halving of the map, up to
    `widest`. `depth` is the number of halvings; left out, the smallest map is 4 x 4 (2 x 2 for size 8).
    """

    width: int = Field(default=64, ge=1, le=4096)
    widest: int = Field(default=1024, ge=1, le=16384)
    depth: int | None = Field(default=None, ge=1, le=7)
    norm: Norm = "batch"
    activation: Activation = "leaky_relu"

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """Only square pictures, any power of two from 8 to 256, deep enough to leave a map."""
        return square_incompatibility("DCGAN", shape, self.depth)

    def channel_plan(self, shape: Shape) -> tuple[list[int], int]:
        """Channels from the picture's side inwards, and the side of the smallest map."""
        depth = num_halvings(shape[1], self.depth)
        return channel_widths(self.width, self.widest, depth), shape[1] >> depth


class DCGANGeneratorConfig(DCGANConfig, GeneratorConfig):
    """A DCGAN generator; `width = 128` at size 64 is the paper's 4 x 4 x 1024."""

    kind: Literal["dcgan"] = "dcgan"
    up: Up = "transposed"
    output: Output = "auto"

    def build(self, latent: int, shape: Shape) -> nn.Module:
        """See `DCGANGenerator`."""
        widths, base = self.channel_plan(shape)
        return DCGANGenerator(latent, shape, widths[::-1], base, self.norm, self.activation, self.up, self.output)


class DCGANDiscriminatorConfig(DCGANConfig, DiscriminatorConfig):
    """A DCGAN discriminator."""

    kind: Literal["dcgan"] = "dcgan"
    down: Down = "conv"

    def build(self, shape: Shape) -> nn.Module:
        """See `DCGANDiscriminator`."""
        widths, base = self.channel_plan(shape)
        return DCGANDiscriminator(shape, widths, base, self.norm, self.activation, self.down)
