"""Fully connected networks, for points in the plane and flattened images (Goodfellow 2014)."""

from __future__ import annotations

from math import pi, prod
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from poise.core.config import Config
from poise.core.types import DiscriminatorOutput, Shape
from poise.networks.base import DiscriminatorConfig, GeneratorConfig, NetworkConfig
from poise.networks.blocks import Activation, Output, activation, output_activation
from poise.networks.norms import BATCH_STATISTICS_NORMS, Norm, has_bias, norm_layer


def _hidden_layers(
    in_dim: int, width: int, depth: int, norm: Norm, act: Activation, *, skip_first_norm: bool
) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for k in range(depth):
        layer_norm: Norm = "none" if skip_first_norm and k == 0 else norm
        linear = nn.Linear(in_dim if k == 0 else width, width, bias=has_bias(layer_norm))
        layers += [linear, *norm_layer(layer_norm, width, flat=True), activation(act)]
    return layers


class MLPGenerator(nn.Module):
    """z, B x latent, to samples, B x shape, through `depth` hidden layers of `width` units."""

    def __init__(
        self, latent: int, shape: Shape, width: int, depth: int, norm: Norm, act: Activation, out: Output
    ) -> None:
        super().__init__()
        hidden = _hidden_layers(latent, width, depth, norm, act, skip_first_norm=False)
        last = [output_activation(out, shape), nn.Unflatten(1, shape)] if len(shape) > 1 or out != "auto" else []
        self.layers = nn.Sequential(*hidden, nn.Linear(width, prod(shape)), *last)

    def forward(self, latents: Tensor) -> Tensor:
        """The samples."""
        return self.layers(latents)


class FourierFeatures(nn.Module):
    """x, B x d, to B x (d + 2F): x itself, then sin(2 pi W x) and cos(2 pi W x) for a fixed random matrix W, F x d.

    The entries of W are drawn from N(0, scale^2), in cycles per unit of x. A fully connected network learns details of
    its input late, and in this way sooner (Tancik et al. 2020, arXiv:2006.10739).

    Args:
        dim: d.
        num_frequencies: F.
        scale: their standard deviation in each coordinate.
    """

    weight: Tensor

    def __init__(self, dim: int, num_frequencies: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(num_frequencies, dim) * scale)

    def forward(self, x: Tensor) -> Tensor:
        """The features."""
        angles = 2 * pi * (x @ self.weight.T)
        return torch.cat((x, angles.sin(), angles.cos()), 1)


class MLPDiscriminator(nn.Module):
    """Samples, B x shape, to a score, B, through `depth` hidden layers; the features are the last one.

    With `fourier`, the first layer gets the `FourierFeatures` of the sample.
    """

    def __init__(
        self,
        shape: Shape,
        width: int,
        depth: int,
        norm: Norm,
        act: Activation,
        fourier: FourierFeaturesConfig | None = None,
    ) -> None:
        super().__init__()
        inputs: list[nn.Module] = [nn.Flatten()] if len(shape) > 1 else []
        in_dim = prod(shape)
        if fourier is not None:
            inputs.append(FourierFeatures(in_dim, fourier.frequencies, fourier.scale))
            in_dim += 2 * fourier.frequencies
        hidden = _hidden_layers(in_dim, width, depth, norm, act, skip_first_norm=True)
        self.trunk = nn.Sequential(*inputs, *hidden)
        self.score = nn.Linear(width, 1)
        self.width = width

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """The scores and the features."""
        features = self.trunk(images)
        return DiscriminatorOutput(self.score(features).squeeze(1), features)


class FourierFeaturesConfig(Config):
    """The number of random `frequencies`, and their standard deviation `scale` in cycles per unit of the data."""

    frequencies: int = Field(default=32, ge=1, le=65536)
    scale: float = Field(default=1.0, gt=0)


class MLPConfig(NetworkConfig):
    """The base class of all configurations. Initial weights are PyTorch's defaults for linear layers."""

    allows_bf16: ClassVar[bool] = False
    width: int = Field(default=128, ge=1, le=65536)
    depth: int = Field(default=2, ge=1, le=64)
    norm: Norm = "none"
    activation: Activation = "leaky_relu"

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """Instance norm is refused: it needs spatial dimensions."""
        if self.norm == "instance":
            return "instance norm needs feature maps, and fully connected layers have none", 'use norm "layer"'
        return None

    def min_batch(self, shape: Shape | None) -> int:
        """2 with batch norm: vectors have no spatial dimensions, so its means are over the batch alone."""
        return 2 if self.norm in BATCH_STATISTICS_NORMS else 1


class MLPGeneratorConfig(MLPConfig, GeneratorConfig):
    """A fully connected generator."""

    kind: Literal["mlp"] = "mlp"
    output: Output = "auto"

    def build_layers(self, latent: int, shape: Shape) -> nn.Module:
        """See `MLPGenerator`."""
        return MLPGenerator(latent, shape, self.width, self.depth, self.norm, self.activation, self.output)


class MLPDiscriminatorConfig(MLPConfig, DiscriminatorConfig):
    """A fully connected discriminator, which gets `FourierFeatures` of the sample if `fourier_features` is given."""

    kind: Literal["mlp"] = "mlp"
    fourier_features: FourierFeaturesConfig | None = None

    @property
    def uses_batch_statistics(self) -> bool:
        """True with batch norm, unless the only layer is the first one, which has no norm."""
        return super().uses_batch_statistics and self.depth > 1

    def min_batch(self, shape: Shape | None) -> int:
        """2 with batch norm, unless the only layer is the first one, which has no norm."""
        return 2 if self.uses_batch_statistics else 1

    def build_layers(self, shape: Shape) -> nn.Module:
        """See `MLPDiscriminator`."""
        return MLPDiscriminator(shape, self.width, self.depth, self.norm, self.activation, self.fourier_features)
