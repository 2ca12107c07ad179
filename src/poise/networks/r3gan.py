"""Residual players without any normalisation, as in R3GAN (Huang et al. 2024, arXiv:2501.05441; tip M01).

What keeps them trainable is how they start: in every block the last convolution is zero, so that the block is
the identity, and the others are scaled by L^(-1/4) for L blocks (Zhang 2019, Fixup, arXiv:1901.09321, with three
convolutions to a block). Maps are resized bilinearly; the middle convolution is grouped (ResNeXt).
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
    enlarged,
    init_he_,
    num_halvings,
    output,
    square_incompatibility,
)


class Block(nn.Module):
    """x + C3(act(C2(act(C1(x))))): 1 x 1 to `expansion` times the channels, grouped 3 x 3, 1 x 1 back from zero.

    A convolution before an activation has a bias, the others have none.
    """

    def __init__(self, channels: int, expansion: int, group: int, blocks: int) -> None:
        super().__init__()
        wide = channels * expansion
        groups = wide // group if wide % group == 0 else 1
        gain = HE_GAIN * blocks**-0.25
        self.layers = nn.Sequential(
            init_he_(Conv2d(channels, wide, 1), gain),
            nn.LeakyReLU(SLOPE, inplace=True),
            init_he_(Conv2d(wide, wide, 3, padding=1, groups=groups), gain),
            nn.LeakyReLU(SLOPE, inplace=True),
            init_he_(Conv2d(wide, channels, 1, bias=False), 0.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        """B x C x S x S; the same shape."""
        return x + self.layers(x)


def resized(here: int, there: int, resize: nn.Module, *, first: bool) -> list[nn.Module]:
    """A map at another size and with other channels; the 1 x 1 convolution goes where the map is small."""
    wider = [init_he_(Conv2d(here, there, 1, bias=False), 1.0)] if here != there else []
    return [*wider, resize] if first else [resize, *wider]


class Start(nn.Module):
    """z to the first map: a learned constant map, each of its channels scaled by a linear function of z."""

    def __init__(self, latent: int, channels: int, base: int) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.randn(channels, base, base))
        self.scale = init_he_(nn.Linear(latent, channels, bias=False), 1.0)

    def forward(self, latents: Tensor) -> Tensor:
        """B x latent to B x channels x base x base."""
        return self.basis * self.scale(latents)[:, :, None, None]


class R3GANGenerator(nn.Module):
    """z, B x latent, to pictures, B x C x S x S; the paper's output is linear."""

    def __init__(
        self,
        latent: int,
        shape: Shape,
        widths: list[int],
        base: int,
        blocks: int,
        expansion: int,
        group: int,
        out: Output,
    ) -> None:
        super().__init__()
        count = blocks * len(widths)
        layers: list[nn.Module] = [Start(latent, widths[0], base)]
        layers += [Block(widths[0], expansion, group, count) for _ in range(blocks)]
        for here, there in pairwise(widths):
            layers += resized(here, there, enlarged("bilinear"), first=True)
            layers += [Block(there, expansion, group, count) for _ in range(blocks)]
        layers += [init_he_(Conv2d(widths[-1], shape[0], 1, bias=False), 1.0), output(out, shape)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        """Pictures."""
        return self.layers(latents)


class R3GANDiscriminator(nn.Module):
    """Pictures, B x C x S x S, to a score, B: the mirror image. Its features are its last map, weighted over space."""

    def __init__(self, shape: Shape, widths: list[int], base: int, blocks: int, expansion: int, group: int) -> None:
        super().__init__()
        count = blocks * len(widths)
        layers: list[nn.Module] = [init_he_(Conv2d(shape[0], widths[0], 1, bias=False), 1.0)]
        for here, there in pairwise(widths):
            layers += [Block(here, expansion, group, count) for _ in range(blocks)]
            layers += resized(here, there, nn.AvgPool2d(2), first=False)
        self.width = widths[-1]
        layers += [Block(self.width, expansion, group, count) for _ in range(blocks)]
        layers += [init_he_(Conv2d(self.width, self.width, base, groups=self.width, bias=False), 1.0), nn.Flatten()]
        self.trunk = nn.Sequential(*layers)
        self.score = init_he_(nn.Linear(self.width, 1, bias=False), 1.0)

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """What D says."""
        features = self.trunk(images)
        return DiscriminatorOutput(self.score(features).squeeze(1), features)


class R3GANConfig(NetworkConfig):
    """What both players' entries share: `blocks` per size, channels grouped by `group` in the middle of a block.

    The paper's networks have `blocks` = 2, `expansion` = 2, `group` = 16, hundreds of channels, and a [1, 2, 1] filter
    where maps are resized.
    """

    has_skip_connections: ClassVar[bool] = True
    width: int = Field(default=64, ge=1, le=4096)
    widest: int = Field(default=256, ge=1, le=16384)
    blocks: int = Field(default=2, ge=1, le=32)
    expansion: int = Field(default=2, ge=1, le=16)
    group: int = Field(default=16, ge=1, le=4096)
    depth: int | None = Field(default=None, ge=1, le=7)

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """Square pictures, a power of two from 8 to 256."""
        return square_incompatibility("residual network", shape, self.depth)

    def channel_plan(self, shape: Shape) -> tuple[list[int], int]:
        """Channels from the picture's side inwards, and the side of the smallest map (4, or 2 for size 8)."""
        depth = num_halvings(shape[1], self.depth)
        return channel_widths(self.width, self.widest, depth + 1), shape[1] >> depth


class R3GANGeneratorConfig(R3GANConfig, GeneratorConfig):
    """A generator without normalisation."""

    kind: Literal["r3gan"] = "r3gan"
    output: Output = "linear"

    def build(self, latent: int, shape: Shape) -> nn.Module:
        """See `R3GANGenerator`."""
        widths, base = self.channel_plan(shape)
        return R3GANGenerator(latent, shape, widths[::-1], base, self.blocks, self.expansion, self.group, self.output)


class R3GANDiscriminatorConfig(R3GANConfig, DiscriminatorConfig):
    """A discriminator without normalisation."""

    kind: Literal["r3gan"] = "r3gan"

    def build(self, shape: Shape) -> nn.Module:
        """See `R3GANDiscriminator`."""
        widths, base = self.channel_plan(shape)
        return R3GANDiscriminator(shape, widths, base, self.blocks, self.expansion, self.group)
