"""Residual networks as in SNGAN (Miyato et al. 2018, arXiv:1802.05957, tables 3 and 4) and SAGAN.

G starts from a small feature map and doubles its sides in each block. D halves the image in its first blocks, keeps the
size in the following ones, and sums the last map over space. With `width` = `widest` = 256 for G and 128 for D, these
are the paper's networks for 32 x 32. Otherwise the width doubles towards the small maps, up to `widest`, as in the
paper's larger networks, which have more halvings instead of blocks that keep the size.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from poise.core.double_backward import Conv2d
from poise.core.types import DiscriminatorOutput, Shape
from poise.networks.attention import SelfAttention
from poise.networks.base import DiscriminatorConfig, GeneratorConfig, NetworkConfig
from poise.networks.blocks import (
    Activation,
    Output,
    ProjectAndReshape,
    activation,
    channel_widths,
    interpolation,
    output_activation,
)
from poise.networks.map_sizes import Size, halved, max_halvings, shape_incompatibility
from poise.networks.norms import Norm, has_bias, norm_layer


class GeneratorBlock(nn.Module):
    """A residual block that doubles the sides of a feature map.

    The branch is norm, activation, upsampling, 3 x 3 convolution, norm, activation, 3 x 3 convolution; the shortcut is
    a 1 x 1 convolution and upsampling.
    """

    def __init__(
        self, in_channels: int, out_channels: int, norm: Norm, act: Activation, up: Literal["nearest", "bilinear"]
    ) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *norm_layer(norm, in_channels),
            out_of_place_activation(act),
            interpolation(up),
            Conv2d(in_channels, out_channels, 3, padding=1, bias=has_bias(norm)),
            *norm_layer(norm, out_channels),
            activation(act),
            Conv2d(out_channels, out_channels, 3, padding=1),
        )
        # a 1 x 1 convolution commutes with the interpolation, and is cheaper on the smaller map
        self.shortcut = nn.Sequential(Conv2d(in_channels, out_channels, 1), interpolation(up))

    def forward(self, x: Tensor) -> Tensor:
        """B x in_channels x H x W to B x out_channels x 2H x 2W."""
        return self.branch(x) + self.shortcut(x)


class DiscriminatorBlock(nn.Module):
    """A residual block that halves the sides of a feature map if `halve` is set.

    The branch is norm, activation, 3 x 3 convolution, norm, activation, 3 x 3 convolution, pooling; the shortcut is
    pooling and a 1 x 1 convolution. The `first` block of a network has no norm and no activation before its first
    convolution. A block that changes neither size nor channels has the identity as shortcut. Between the convolutions
    there are `inner` channels; by default `in_channels`, and in the first block `out_channels`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: Norm,
        act: Activation,
        *,
        halve: bool,
        first: bool = False,
        inner: int | None = None,
    ) -> None:
        super().__init__()
        start = [] if first else [*norm_layer(norm, in_channels), out_of_place_activation(act)]
        inner = inner or (out_channels if first else in_channels)
        pool = [nn.AvgPool2d(2)] if halve else []
        self.branch = nn.Sequential(
            *start,
            Conv2d(in_channels, inner, 3, padding=1, bias=has_bias(norm)),
            *norm_layer(norm, inner),
            activation(act),
            Conv2d(inner, out_channels, 3, padding=1),
            *pool,
        )
        convolution = [Conv2d(in_channels, out_channels, 1)] if halve or in_channels != out_channels else []
        self.shortcut = nn.Sequential(*pool, *convolution)  # in the cheaper order, as in `GeneratorBlock`

    def forward(self, x: Tensor) -> Tensor:
        """B x in_channels x H x W to B x out_channels x H' x W': both sides halved, or the same size."""
        return self.branch(x) + self.shortcut(x)


def out_of_place_activation(act: Activation) -> nn.Module:
    """An activation at the start of a branch; it must not overwrite its input, which the shortcut uses too."""
    module = activation(act)
    if isinstance(module, nn.LeakyReLU | nn.ReLU):
        module.inplace = False
    return module


@torch.no_grad()
def init_glorot_(net: nn.Module) -> None:
    """SNGAN's initialisation, in place: uniform weights (Glorot & Bengio 2010), biases 0.

    The gain is sqrt(2) for 3 x 3 convolutions and 1 for all other layers, as in SNGAN's code.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            is_3x3 = isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
            # the fans of the first layer are those of a fully connected one
            weight = module.weight.flatten(1) if isinstance(module, ProjectAndReshape) else module.weight
            nn.init.xavier_uniform_(weight, math.sqrt(2) if is_3x3 else 1.0)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class ResNetGenerator(nn.Module):
    """z, B x latent, to images, B x C x H x W.

    Args:
        latent: the dimension of z.
        shape: (C, H, W).
        widths: the channels of the feature maps, from the smallest one to the one of the image's size.
        base: height and width of the smallest map.
        norm: the kind of normalisation.
        act: the hidden activation.
        up: how maps are upsampled.
        attention: the shorter side of the map with self-attention, or None.
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
        up: Literal["nearest", "bilinear"],
        attention: int | None,
        out: Output,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [ProjectAndReshape(latent, widths[0], base, bias=True)]
        side = min(base)
        for in_channels, out_channels in pairwise(widths):
            side *= 2
            layers += [GeneratorBlock(in_channels, out_channels, norm, act, up)]
            layers += [SelfAttention(out_channels)] if side == attention else []
        last = Conv2d(widths[-1], shape[0], 3, padding=1)
        self.layers = nn.Sequential(
            *layers, *norm_layer(norm, widths[-1]), activation(act), last, output_activation(out, shape)
        )
        init_glorot_(self)
        nn.init.xavier_uniform_(last.weight)

    def forward(self, latents: Tensor) -> Tensor:
        """The images."""
        return self.layers(latents)


class ResNetDiscriminator(nn.Module):
    """Images, B x C x H x W, to a score, B. The features are the sum of the last map over space.

    Args:
        shape: (C, H, W).
        widths: the channels of the maps after each halving.
        plain: the number of further blocks, which keep the size.
        norm: the kind of normalisation.
        act: the hidden activation.
        attention: the shorter side of the map with self-attention, or None.
    """

    def __init__(
        self,
        shape: Shape,
        widths: list[int],
        plain: int,
        norm: Norm,
        act: Activation,
        attention: int | None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        side = min(shape[1:])
        for k, (in_channels, out_channels) in enumerate(pairwise([shape[0], *widths])):
            side //= 2
            layers += [DiscriminatorBlock(in_channels, out_channels, norm, act, halve=True, first=k == 0)]
            layers += [SelfAttention(out_channels)] if side == attention else []
        self.width = widths[-1]
        layers += [DiscriminatorBlock(self.width, self.width, norm, act, halve=False) for _ in range(plain)]
        self.trunk = nn.Sequential(*layers, *norm_layer(norm, self.width), activation(act))
        self.score = nn.Linear(self.width, 1)
        init_glorot_(self)

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """The scores and the features."""
        features = self.trunk(images).sum((2, 3))
        return DiscriminatorOutput(self.score(features).squeeze(1), features)


class ResNetConfig(NetworkConfig):
    """The base class of both configurations.

    `attention` is the shorter side of the feature map with self-attention (in SAGAN 32, for images of 128 x 128);
    `depth` is the number of halvings.
    """

    has_skip_connections: ClassVar[bool] = True
    width: int = Field(default=64, ge=1, le=4096)
    widest: int = Field(default=1024, ge=1, le=16384)
    depth: int | None = Field(default=None, ge=1, le=7)
    norm: Norm = "none"
    activation: Activation = "relu"
    attention: int | None = Field(default=None, ge=2, le=256)

    def default_base(self) -> int:
        """The least length of the smallest map's shorter side if `depth` is not given."""
        raise NotImplementedError

    def num_halvings(self, shape: Shape) -> int:
        """The number of halvings from the image to the smallest map."""
        return self.depth or max(1, max_halvings(shape, self.default_base()))

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """See `map_sizes.shape_incompatibility`; self-attention needs a map of its size."""
        reason = shape_incompatibility("residual network", shape, self.depth)
        if reason is not None:
            return reason
        sides = [min(halved(shape, k)) for k in range(self.num_halvings(shape) + 1)]
        inner = sides[:-1] if isinstance(self, GeneratorConfig) else sides[1:]
        if self.attention is not None and self.attention not in inner:
            side = "a side" if shape[1] == shape[2] else "a shorter side"
            return (
                f"no feature map has {side} of {self.attention}",
                f"set attention to one of {', '.join(map(str, inner))}",
            )
        return None


class ResNetGeneratorConfig(ResNetConfig, GeneratorConfig):
    """A residual generator."""

    kind: Literal["resnet"] = "resnet"
    norm: Norm = "batch"
    up: Literal["nearest", "bilinear"] = "nearest"
    output: Output = "auto"

    def default_base(self) -> int:
        """4, as in the paper."""
        return 4

    def build_layers(self, latent: int, shape: Shape) -> nn.Module:
        """See `ResNetGenerator`."""
        depth = self.num_halvings(shape)
        widths = channel_widths(self.width, self.widest, depth + 1)[::-1]
        base = halved(shape, depth)
        return ResNetGenerator(
            latent, shape, widths, base, self.norm, self.activation, self.up, self.attention, self.output
        )


class ResNetDiscriminatorConfig(ResNetConfig, DiscriminatorConfig):
    """A residual discriminator; `plain` is the number of blocks after the last halving."""

    kind: Literal["resnet"] = "resnet"
    norm: Norm = "spectral"
    plain: int = Field(default=2, ge=0, le=64)

    def default_base(self) -> int:
        """8, as in the paper."""
        return 8

    def build_layers(self, shape: Shape) -> nn.Module:
        """See `ResNetDiscriminator`."""
        widths = channel_widths(self.width, self.widest, self.num_halvings(shape))
        return ResNetDiscriminator(shape, widths, self.plain, self.norm, self.activation, self.attention)
