"""Autoencoders as discriminators: the score is the negative reconstruction error.

EBGAN (Zhao, Mathieu & LeCun 2017, arXiv:1609.03126) uses the Euclidean norm of the residual as an energy, BEGAN
(Berthelot 2017, arXiv:1703.10717) the mean absolute residual. D's features are the latent code. The encoder is a DCGAN
discriminator without its head, the decoder a DCGAN generator with a linear output: with a saturated tanh, D could not
unlearn an image that it reconstructs well and that G has found.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from poise.core.types import DiscriminatorOutput, OutputKind, Shape, to_float32
from poise.networks.base import DiscriminatorConfig
from poise.networks.blocks import Down, Up, init_weights_
from poise.networks.dcgan import DCGANConfig, DCGANGenerator
from poise.networks.encoders import conv_encoder, mlp_encoder
from poise.networks.mlp import MLPConfig, MLPGenerator
from poise.networks.norms import Norm

Measure = Literal["norm", "squared", "absolute"]


def energy(images: Tensor, reconstruction: Tensor, measure: Measure) -> Tensor:
    """The reconstruction error; per sample, B, at least 0.

    Args:
        images: the input, B x shape.
        reconstruction: the autoencoder's output, B x shape.
        measure: `norm` is the Euclidean norm of the residual (EBGAN, equation 3), `squared` the mean of its squared
            elements, and `absolute` the mean of their absolute values (BEGAN, with eta = 1).
    """
    residual = (to_float32(reconstruction) - to_float32(images)).flatten(1)
    if measure == "norm":
        return torch.linalg.vector_norm(residual, dim=1)
    return residual.square().mean(1) if measure == "squared" else residual.abs().mean(1)


class Autoencoder(nn.Module):
    """Maps samples, B x shape, to their negative energy, B, with the latent code as features."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, code_dim: int, measure: Measure) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        init_weights_(self, "none")  # with norms too: a deep autoencoder with small weights does not react to its input
        self.width, self.measure = code_dim, measure

    def reconstruct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The reconstructions, B x shape, and the latent codes, B x width."""
        code = self.encoder(images)
        return self.decoder(code), code

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """The negative energy as score, and the code as features."""
        reconstruction, code = self.reconstruct(images)
        return DiscriminatorOutput(-energy(images, reconstruction, self.measure), code)


class AutoencoderConfig(DCGANConfig, DiscriminatorConfig):
    """An autoencoder of images with DCGAN's layers; `code` is the dimension of the latent code."""

    kind: Literal["autoencoder"] = "autoencoder"
    norm: Norm = "none"
    down: Down = "conv"
    up: Up = "transposed"
    code: int = Field(default=64, ge=1, le=65536)
    measure: Measure = "norm"

    @property
    def output_kind(self) -> OutputKind:
        """The score is the negative of an energy."""
        return "energy"

    def build_layers(self, shape: Shape) -> nn.Module:
        """See `Autoencoder`."""
        widths, base = self.channel_plan(shape)
        encoder = conv_encoder(self, shape, self.down, self.code)
        decoder = DCGANGenerator(self.code, shape, widths[::-1], base, self.norm, self.activation, self.up, "linear")
        return Autoencoder(encoder, decoder, self.code, self.measure)


class FlatAutoencoderConfig(MLPConfig, DiscriminatorConfig):
    """A fully connected autoencoder, for points in the plane and flattened images."""

    kind: Literal["flat_autoencoder"] = "flat_autoencoder"
    code: int = Field(default=16, ge=1, le=65536)
    measure: Measure = "norm"

    @property
    def output_kind(self) -> OutputKind:
        """The score is the negative of an energy."""
        return "energy"

    def build_layers(self, shape: Shape) -> nn.Module:
        """See `Autoencoder`."""
        encoder = mlp_encoder(self, shape, self.code)
        decoder = MLPGenerator(self.code, shape, self.width, self.depth, self.norm, self.activation, "linear")
        return Autoencoder(encoder, decoder, self.code, self.measure)
