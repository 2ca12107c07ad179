"""Residual players as in SNGAN (Miyato et al. 2018, arXiv:1802.05957, tables 3 and 4) and SAGAN.

G starts from a small map and doubles it block by block; D halves the picture, then keeps its size for a while,
and sums its last map over space. With `width` = `widest` = 256 for G, 128 for D these are the paper's networks
for 32 x 32. Elsewhere the width doubles towards the small maps, up to `widest`, as in its larger networks, which
halve further instead of adding plain blocks.
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
    enlarged,
    output,
    square_incompatibility,
)
from poise.networks.norms import Norm, has_bias, norm_layer


class GeneratorBlock(nn.Module):
    """norm, activation, twice as large, 3 x 3, norm, activation, 3 x 3; beside it: twice as large, 1 x 1."""

    def __init__(self, here: int, there: int, norm: Norm, act: Activation, up: Literal["nearest", "bilinear"]) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *norm_layer(norm, here),
            fresh(act),
            enlarged(up),
            Conv2d(here, there, 3, padding=1, bias=has_bias(norm)),
            *norm_layer(norm, there),
            activation(act),
            Conv2d(there, there, 3, padding=1),
        )
        # a 1 x 1 convolution and an enlargement may change places: the cheaper order is the small map first
        self.shortcut = nn.Sequential(Conv2d(here, there, 1), enlarged(up))

    def forward(self, x: Tensor) -> Tensor:
        """B x here x S x S to B x there x 2S x 2S."""
        return self.branch(x) + self.shortcut(x)


class DiscriminatorBlock(nn.Module):
    """norm, activation, 3 x 3, norm, activation, 3 x 3, half as large; beside it: 1 x 1, half as large.

    The `first` block has no norm and no activation before its first convolution; one that keeps size and
    channels adds its input as it is.
    """

    def __init__(self, here: int, there: int, norm: Norm, act: Activation, *, halve: bool, first: bool = False) -> None:
        super().__init__()
        before = [] if first else [*norm_layer(norm, here), fresh(act)]
        inner = there if first else here
        pool = [nn.AvgPool2d(2)] if halve else []
        self.branch = nn.Sequential(
            *before,
            Conv2d(here, inner, 3, padding=1, bias=has_bias(norm)),
            *norm_layer(norm, inner),
            activation(act),
            Conv2d(inner, there, 3, padding=1),
            *pool,
        )
        wider = [Conv2d(here, there, 1)] if halve or here != there else []
        self.shortcut = nn.Sequential(*pool, *wider)  # pooling and 1 x 1 change places too

    def forward(self, x: Tensor) -> Tensor:
        """B x here x S x S to B x there x S' x S'."""
        return self.branch(x) + self.shortcut(x)


def fresh(act: Activation) -> nn.Module:
    """An activation at the head of a branch: the shortcut reads the same tensor, so it may not write over it."""
    made = activation(act)
    if isinstance(made, nn.LeakyReLU | nn.ReLU):
        made.inplace = False
    return made


@torch.no_grad()
def init_glorot_(net: nn.Module) -> None:
    """Uniform of Glorot & Bengio 2010: gain sqrt(2) for 3 x 3 convolutions, 1 for all else; biases 0 (SNGAN's code)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            wide = isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
            weight = (
                module.weight.flatten(1) if isinstance(module, ProjectAndReshape) else module.weight
            )  # a dense layer's fans
            nn.init.xavier_uniform_(weight, math.sqrt(2) if wide else 1.0)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class ResNetGenerator(nn.Module):
    """z, B x latent, to pictures, B x C x S x S.

    Args:
        widths: channels of the maps, from the smallest one to that of the picture's size.
        attention: side of the map that attends to itself, or None.
    """

    def __init__(
        self,
        latent: int,
        shape: Shape,
        widths: list[int],
        base: int,
        norm: Norm,
        act: Activation,
        up: Literal["nearest", "bilinear"],
        attention: int | None,
        out: Output,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [ProjectAndReshape(latent, widths[0], base, bias=True)]
        size = base
        for here, there in pairwise(widths):
            size *= 2
            layers += [GeneratorBlock(here, there, norm, act, up)]
            layers += [SelfAttention(there)] if size == attention else []
        last = Conv2d(widths[-1], shape[0], 3, padding=1)
        self.layers = nn.Sequential(*layers, *norm_layer(norm, widths[-1]), activation(act), last, output(out, shape))
        init_glorot_(self)
        nn.init.xavier_uniform_(last.weight)

    def forward(self, latents: Tensor) -> Tensor:
        """Pictures."""
        return self.layers(latents)


class ResNetDiscriminator(nn.Module):
    """Pictures, B x C x S x S, to a score, B. Its features are the last map, summed over space."""

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
        size = shape[1]
        for k, (here, there) in enumerate(pairwise([shape[0], *widths])):
            size //= 2
            layers += [DiscriminatorBlock(here, there, norm, act, halve=True, first=k == 0)]
            layers += [SelfAttention(there)] if size == attention else []
        self.width = widths[-1]
        layers += [DiscriminatorBlock(self.width, self.width, norm, act, halve=False) for _ in range(plain)]
        self.trunk = nn.Sequential(*layers, *norm_layer(norm, self.width), activation(act))
        self.score = nn.Linear(self.width, 1)
        init_glorot_(self)

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """What D says."""
        features = self.trunk(images).sum((2, 3))
        return DiscriminatorOutput(self.score(features).squeeze(1), features)


class ResNetConfig(NetworkConfig):
    """What both players' entries share; `attention` is the side of the map that attends to itself (SAGAN: 32 of 128).

    `depth` is the number of halvings.
    """

    has_skip_connections: ClassVar[bool] = True
    width: int = Field(default=64, ge=1, le=4096)
    widest: int = Field(default=1024, ge=1, le=16384)
    depth: int | None = Field(default=None, ge=1, le=7)
    norm: Norm = "none"
    activation: Activation = "relu"
    attention: int | None = Field(default=None, ge=2, le=256)

    def smallest(self) -> int:
        """The side of the smallest map, where `depth` leaves it open."""
        raise NotImplementedError

    def halvings(self, shape: Shape) -> int:
        """How often the side is halved between the picture and the smallest map."""
        return self.depth or max(1, (shape[1] // self.smallest()).bit_length() - 1)

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """Square pictures, a power of two from 8 to 256, with a map of the size that attends."""
        square = square_incompatibility("residual network", shape, self.depth)
        if square is not None:
            return square
        sizes = [shape[1] >> k for k in range(self.halvings(shape) + 1)]
        inner = sizes[:-1] if isinstance(self, GeneratorConfig) else sizes[1:]
        if self.attention is not None and self.attention not in inner:
            return f"no map here is {self.attention} wide", f"set attention to one of {', '.join(map(str, inner))}"
        return None


class ResNetGeneratorConfig(ResNetConfig, GeneratorConfig):
    """A residual generator."""

    kind: Literal["resnet"] = "resnet"
    norm: Norm = "batch"
    up: Literal["nearest", "bilinear"] = "nearest"
    output: Output = "auto"

    def smallest(self) -> int:
        """4, as in the paper."""
        return 4

    def build(self, latent: int, shape: Shape) -> nn.Module:
        """See `ResNetGenerator`."""
        depth = self.halvings(shape)
        widths = channel_widths(self.width, self.widest, depth + 1)[::-1]
        base = shape[1] >> depth
        return ResNetGenerator(
            latent, shape, widths, base, self.norm, self.activation, self.up, self.attention, self.output
        )


class ResNetDiscriminatorConfig(ResNetConfig, DiscriminatorConfig):
    """A residual discriminator; `plain` blocks follow that do not halve."""

    kind: Literal["resnet"] = "resnet"
    norm: Norm = "spectral"
    plain: int = Field(default=2, ge=0, le=64)

    def smallest(self) -> int:
        """8, as in the paper."""
        return 8

    def build(self, shape: Shape) -> nn.Module:
        """See `ResNetDiscriminator`."""
        widths = channel_widths(self.width, self.widest, self.halvings(shape))
        return ResNetDiscriminator(shape, widths, self.plain, self.norm, self.activation, self.attention)
