"""Encoders, which map samples to latent codes (tips T08b and T25).

Two of them are networks: a DCGAN discriminator without its head, and a fully connected network. The third is a table
with one free code per training image, which is optimised together with the decoder (GLO: Bojanowski et al. 2018,
arXiv:1707.05776).
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


def conv_encoder(config: DCGANConfig, shape: Shape, down: Down, out_dim: int) -> nn.Sequential:
    """The layers of a DCGAN discriminator, from images, B x shape, to B x `out_dim`."""
    widths, base = config.channel_plan(shape)
    trunk = DCGANDiscriminator(shape, widths, base, config.norm, config.activation, down).trunk
    return nn.Sequential(trunk, nn.Flatten(), nn.Linear(widths[-1] * prod(base), out_dim))


def mlp_encoder(config: MLPConfig, shape: Shape, out_dim: int) -> nn.Sequential:
    """Fully connected layers from samples, B x shape, to B x `out_dim`."""
    flatten = [nn.Flatten()] if len(shape) > 1 else []
    net = MLPGenerator(prod(shape), (out_dim,), config.width, config.depth, config.norm, config.activation, "auto")
    return nn.Sequential(*flatten, net)


class DCGANEncoderConfig(DCGANConfig, EncoderConfig):
    """A DCGAN discriminator with a linear layer for the code instead of its head."""

    kind: Literal["dcgan"] = "dcgan"
    norm: Norm = "batch"
    down: Down = "conv"

    def build_layers(self, shape: Shape, out_dim: int, num_samples: int) -> nn.Module:
        """See `conv_encoder`."""
        net = conv_encoder(self, shape, self.down, out_dim)
        init_weights_(net, self.norm)
        return net


class MLPEncoderConfig(MLPConfig, EncoderConfig):
    """A fully connected encoder."""

    kind: Literal["mlp"] = "mlp"

    def build_layers(self, shape: Shape, out_dim: int, num_samples: int) -> nn.Module:
        """See `mlp_encoder`."""
        return mlp_encoder(self, shape, out_dim)


class FreeCodesConfig(EncoderConfig):
    """One code per training image, initialised from N(0, `std`^2); other images have no code.

    An image is used once per epoch, and in the other steps Adam moves its code by its momentum alone. Codes therefore
    need a learning rate of their own: `pace` times that of G.
    """

    kind: Literal["free_codes"] = "free_codes"
    by_index: ClassVar[bool] = True
    pace: float = Field(default=10.0, gt=0)
    std: float = Field(default=1.0, gt=0)

    def build_layers(self, shape: Shape, out_dim: int, num_samples: int) -> nn.Module:
        """An embedding, `num_samples` x `out_dim`."""
        table = nn.Embedding(num_samples, out_dim)
        nn.init.normal_(table.weight, 0.0, self.std)
        return table
