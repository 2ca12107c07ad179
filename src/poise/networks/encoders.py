"""Encoders: from a sample to its code, the way back through G (tips T08b and T25).

Two are networks: a DCGAN discriminator without its head, and a fully connected one. The third is no network at all:
one free code for each training picture, learnt with the decoder (Bojanowski et al. 2018, arXiv:1707.05776, "GLO").
"""

from __future__ import annotations

from math import prod
from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from poise.core.types import Shape
from poise.networks.base import EncoderConfig
from poise.networks.blocks import Down, init_weights_
from poise.networks.dcgan import DCGANConfig, DCGANDiscriminator
from poise.networks.mlp import MLPConfig, MLPGenerator
from poise.networks.norms import Norm


def convolved(entry: DCGANConfig, shape: Shape, down: Down, numbers: int) -> nn.Sequential:
    """DCGAN's layers from a picture to `numbers` numbers."""
    widths, base = entry.channel_plan(shape)
    trunk = DCGANDiscriminator(shape, widths, base, entry.norm, entry.activation, down).trunk
    return nn.Sequential(trunk, nn.Flatten(), nn.Linear(widths[-1] * base * base, numbers))


def flattened(entry: MLPConfig, shape: Shape, numbers: int) -> nn.Sequential:
    """Fully connected layers from a sample to `numbers` numbers."""
    flat = [nn.Flatten()] if len(shape) > 1 else []
    return nn.Sequential(
        *flat, MLPGenerator(prod(shape), (numbers,), entry.width, entry.depth, entry.norm, entry.activation, "auto")
    )


class DCGANEncoderConfig(DCGANConfig, EncoderConfig):
    """The mirror image of a DCGAN generator."""

    kind: Literal["dcgan"] = "dcgan"
    norm: Norm = "batch"
    down: Down = "conv"

    def build(self, shape: Shape, numbers: int, count: int) -> nn.Module:
        """See `convolved`."""
        net = convolved(self, shape, self.down, numbers)
        init_weights_(net, self.norm)
        return net


class MLPEncoderConfig(MLPConfig, EncoderConfig):
    """A fully connected encoder."""

    kind: Literal["mlp"] = "mlp"

    def build(self, shape: Shape, numbers: int, count: int) -> nn.Module:
        """See `flattened`."""
        return flattened(self, shape, numbers)


class FreeCodesConfig(EncoderConfig):
    """One code for each training picture, which begins as N(0, `std`^2); there is none for any other picture.

    A picture is seen once an epoch and its code moves in between by what Adam remembers, so codes want a rate of
    their own: `pace` times that of G.
    """

    kind: Literal["free_codes"] = "free_codes"
    by_index: ClassVar[bool] = True
    pace: float = Field(default=10.0, gt=0)
    std: float = Field(default=1.0, gt=0)

    def build(self, shape: Shape, numbers: int, count: int) -> nn.Module:
        """A table, count x numbers."""
        table = nn.Embedding(count, numbers)
        nn.init.normal_(table.weight, 0.0, self.std)
        return table
