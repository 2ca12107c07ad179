"""DCGAN (Radford, Metz & Chintala 2015, arXiv:1511.06434; tip T08a).

All-convolutional players with no fully connected hidden layer: G projects z onto a small map and doubles
it by strided transposed convolutions, D halves the picture by strided convolutions. Batch norm in all but
G's output and D's input layer, LeakyReLU, weights ~ N(0, 0.02).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from poise.core import Shape, Verdict
from poise.networks.blocks import (
    Activation,
    Discriminator,
    FromMap,
    Generator,
    Network,
    Norm,
    Output,
    ToMap,
    activation,
    normal_,
    output,
)

SMALLEST, LARGEST = 8, 256


def _norm(norm: Norm, channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels)] if norm == "batch" else []


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
        out: Output,
    ) -> None:
        super().__init__()
        bias = norm == "none"
        layers: list[nn.Module] = [ToMap(latent, widths[0], base, bias=bias)]
        layers += [*_norm(norm, widths[0]), activation(act)]
        for here, there in pairwise(widths):
            layers += [
                nn.ConvTranspose2d(here, there, 4, 2, 1, bias=bias),
                *_norm(norm, there),
                activation(act),
            ]
        layers += [nn.ConvTranspose2d(widths[-1], shape[0], 4, 2, 1), output(out, shape)]
        self.layers = nn.Sequential(*layers)
        normal_(self)

    def forward(self, latents: Tensor) -> Tensor:
        """Pictures."""
        return self.layers(latents)


class DCGANDiscriminator(nn.Module):
    """Pictures, B x C x S x S, to a score, B; the mirror image of the generator."""

    def __init__(self, shape: Shape, widths: list[int], base: int, norm: Norm, act: Activation) -> None:
        super().__init__()
        bias = norm == "none"
        layers: list[nn.Module] = [nn.Conv2d(shape[0], widths[0], 4, 2, 1), activation(act)]
        for here, there in pairwise(widths):
            layers += [nn.Conv2d(here, there, 4, 2, 1, bias=bias), *_norm(norm, there), activation(act)]
        self.trunk = nn.Sequential(*layers)
        self.score = FromMap(widths[-1], base)
        normal_(self)

    def forward(self, images: Tensor) -> Verdict:
        """What D says."""
        return Verdict(score=self.score(self.trunk(images)))


class DCGAN(Network):
    """What both players' entries share.

    `width` is the number of channels beside the picture; it doubles with every halving of the map, up to
    `widest`. `depth` is the number of halvings; left out, the smallest map is 4 x 4 (2 x 2 for size 8).
    """

    width: int = Field(default=64, ge=1, le=4096)
    widest: int = Field(default=1024, ge=1, le=16384)
    depth: int | None = Field(default=None, ge=1, le=7)
    norm: Norm = "batch"
    activation: Activation = "leaky_relu"

    def misfit(self, shape: Shape) -> tuple[str, str] | None:
        """Only square pictures, any power of two from 8 to 256, deep enough to leave a map."""
        if len(shape) != 3:
            return "a DCGAN makes pictures, and this data is points", "take network kind 'mlp'"
        size = shape[1]
        legal = [2**k for k in range(SMALLEST.bit_length() - 1, LARGEST.bit_length())]
        if size not in legal or shape[1] != shape[2]:
            below, above = [s for s in legal if s < size][-1:], [s for s in legal if s > size][:1]
            near = " or ".join(str(s) for s in below + above)
            return (
                f"a DCGAN needs a power of two from {SMALLEST} to {LARGEST} as picture size",
                f"set data.size to {near}",
            )
        if self.depth is not None and size >> self.depth < 2:
            return (
                f"depth {self.depth} leaves no map of a {size}-pixel picture",
                f"at most {size.bit_length() - 2}",
            )
        return None

    def plan(self, shape: Shape) -> tuple[list[int], int]:
        """Channels from the picture's side inwards, and the side of the smallest map."""
        size = shape[1]
        depth = self.depth or max(2, size.bit_length() - 3)
        return [min(self.widest, self.width << k) for k in range(depth)], size >> depth


class DCGANGeneratorEntry(DCGAN, Generator):
    """A DCGAN generator; `width = 128` at size 64 is the paper's 4 x 4 x 1024."""

    kind: Literal["dcgan"] = "dcgan"
    output: Output = "auto"

    def build(self, latent: int, shape: Shape) -> nn.Module:
        """See `DCGANGenerator`."""
        widths, base = self.plan(shape)
        return DCGANGenerator(latent, shape, widths[::-1], base, self.norm, self.activation, self.output)


class DCGANDiscriminatorEntry(DCGAN, Discriminator):
    """A DCGAN discriminator."""

    kind: Literal["dcgan"] = "dcgan"

    def build(self, shape: Shape) -> nn.Module:
        """See `DCGANDiscriminator`."""
        widths, base = self.plan(shape)
        return DCGANDiscriminator(shape, widths, base, self.norm, self.activation)
