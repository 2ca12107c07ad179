"""A discriminator that is an autoencoder: what it can't rebuild, it calls fake.

EBGAN (Zhao, Mathieu & LeCun 2017, arXiv:1609.03126) reads the Euclidean length of the residual as an energy;
BEGAN (Berthelot 2017, arXiv:1703.10717) the mean absolute residual. D's score is the energy's minus, its features
are the code. The encoder is a DCGAN discriminator without its head, the decoder a DCGAN generator with a linear
output: through a tanh that is at its end D could no longer unlearn a picture that G has found it rebuilds well.
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
from poise.networks.encoders import convolved, flattened
from poise.networks.mlp import MLPConfig, MLPGenerator
from poise.networks.norms import BATCH_STATISTICS_NORMS, Norm

Measure = Literal["norm", "squared", "absolute"]


def energy(images: Tensor, rebuilt: Tensor, measure: Measure) -> Tensor:
    """How far `rebuilt` is from `images`, B x shape each; per sample, B, at least 0.

    `norm`: the Euclidean length of the residual (EBGAN, equation 3); `squared`: its mean square per number;
    `absolute`: its mean absolute value (BEGAN, with eta = 1).
    """
    residual = (to_float32(rebuilt) - to_float32(images)).flatten(1)
    if measure == "norm":
        return torch.linalg.vector_norm(residual, dim=1)
    return residual.square().mean(1) if measure == "squared" else residual.abs().mean(1)


class Autoencoder(nn.Module):
    """Samples, B x shape, to minus their energy, with the code as features."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, code: int, measure: Measure) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        init_weights_(self, "none")  # with norms too: small weights leave a deep autoencoder deaf
        self.width, self.measure = code, measure

    def rebuild(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Samples as the autoencoder sees them, and their codes."""
        code = self.encoder(images)
        return self.decoder(code), code

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """What D says."""
        rebuilt, code = self.rebuild(images)
        return DiscriminatorOutput(-energy(images, rebuilt, self.measure), code)


class AutoencoderConfig(DCGANConfig, DiscriminatorConfig):
    """An autoencoder of DCGAN's layers for pictures; `code` numbers are left of a picture in the middle."""

    kind: Literal["autoencoder"] = "autoencoder"
    norm: Norm = "none"
    down: Down = "conv"
    up: Up = "transposed"
    code: int = Field(default=64, ge=1, le=65536)
    measure: Measure = "norm"

    @property
    def output_kind(self) -> OutputKind:
        """An energy."""
        return "energy"

    def build(self, shape: Shape) -> nn.Module:
        """See `Autoencoder`."""
        widths, base = self.channel_plan(shape)
        encoder = convolved(self, shape, self.down, self.code)
        decoder = DCGANGenerator(self.code, shape, widths[::-1], base, self.norm, self.activation, self.up, "linear")
        return Autoencoder(encoder, decoder, self.code, self.measure)


class FlatAutoencoderConfig(MLPConfig, DiscriminatorConfig):
    """A fully connected autoencoder, for points of the plane and pictures laid flat."""

    kind: Literal["flat_autoencoder"] = "flat_autoencoder"
    code: int = Field(default=16, ge=1, le=65536)
    measure: Measure = "norm"

    @property
    def uses_batch_statistics(self) -> bool:
        """Its layers are a generator's, all of them normed."""
        return self.norm in BATCH_STATISTICS_NORMS

    @property
    def output_kind(self) -> OutputKind:
        """An energy."""
        return "energy"

    def build(self, shape: Shape) -> nn.Module:
        """See `Autoencoder`."""
        inwards = flattened(self, shape, self.code)
        outwards = MLPGenerator(self.code, shape, self.width, self.depth, self.norm, self.activation, "linear")
        return Autoencoder(inwards, outwards, self.code, self.measure)
