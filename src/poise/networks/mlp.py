"""Fully connected players: for points of the plane, and for pictures laid flat (Goodfellow 2014)."""

from __future__ import annotations

from math import prod
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from poise.core.types import DiscriminatorOutput, Shape
from poise.networks.base import DiscriminatorConfig, GeneratorConfig, NetworkConfig
from poise.networks.blocks import Activation, Output, activation, output
from poise.networks.norms import BATCH_STATISTICS_NORMS, Norm, has_bias, norm_layer


def _hidden(here: int, width: int, depth: int, norm: Norm, act: Activation, *, skip_first: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for k in range(depth):
        here_norm: Norm = "none" if skip_first and k == 0 else norm
        layers += [nn.Linear(here, width, bias=has_bias(here_norm)), *norm_layer(here_norm, width, flat=True)]
        layers += [activation(act)]
        here = width
    return layers


class MLPGenerator(nn.Module):
    """z, B x latent, through `depth` hidden layers of `width` to samples, B x shape."""

    def __init__(
        self, latent: int, shape: Shape, width: int, depth: int, norm: Norm, act: Activation, out: Output
    ) -> None:
        super().__init__()
        hidden = _hidden(latent, width, depth, norm, act, skip_first=False)
        last = [output(out, shape), nn.Unflatten(1, shape)] if len(shape) > 1 or out != "auto" else []
        self.layers = nn.Sequential(*hidden, nn.Linear(width, prod(shape)), *last)

    def forward(self, latents: Tensor) -> Tensor:
        """Samples."""
        return self.layers(latents)


class MLPDiscriminator(nn.Module):
    """Samples, B x shape, laid flat, through `depth` hidden layers of `width` to a score, B."""

    def __init__(self, shape: Shape, width: int, depth: int, norm: Norm, act: Activation) -> None:
        super().__init__()
        flat = [nn.Flatten()] if len(shape) > 1 else []
        self.trunk = nn.Sequential(*flat, *_hidden(prod(shape), width, depth, norm, act, skip_first=True))
        self.score = nn.Linear(width, 1)
        self.width = width

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """What D says."""
        features = self.trunk(images)
        return DiscriminatorOutput(self.score(features).squeeze(1), features)


class MLPConfig(NetworkConfig):
    """What both players' entries share. Initial weights are PyTorch's own for linear layers."""

    allows_bf16: ClassVar[bool] = False
    width: int = Field(default=128, ge=1, le=65536)
    depth: int = Field(default=2, ge=1, le=64)
    norm: Norm = "none"
    activation: Activation = "leaky_relu"

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """No instance norm: a hidden layer has no space to take statistics over."""
        if self.norm == "instance":
            return "instance norm needs maps, and a fully connected layer has none", 'take norm "layer"'
        return None

    def min_batch(self, shape: Shape | None) -> int:
        """A vector has no space, so that a batch norm of vectors has the batch alone to take its means over."""
        return 2 if self.norm in BATCH_STATISTICS_NORMS else 1

    @property
    def uses_batch_statistics(self) -> bool:
        """D's first layer has no norm, so a D of depth 1 has none at all."""
        return super().uses_batch_statistics and (isinstance(self, GeneratorConfig) or self.depth > 1)


class MLPGeneratorConfig(MLPConfig, GeneratorConfig):
    """A fully connected generator."""

    kind: Literal["mlp"] = "mlp"
    output: Output = "auto"

    def build(self, latent: int, shape: Shape) -> nn.Module:
        """See `MLPGenerator`."""
        return MLPGenerator(latent, shape, self.width, self.depth, self.norm, self.activation, self.output)


class MLPDiscriminatorConfig(MLPConfig, DiscriminatorConfig):
    """A fully connected discriminator."""

    kind: Literal["mlp"] = "mlp"

    def min_batch(self, shape: Shape | None) -> int:
        """Its first layer has no norm."""
        return 2 if self.uses_batch_statistics else 1

    def build(self, shape: Shape) -> nn.Module:
        """See `MLPDiscriminator`."""
        return MLPDiscriminator(shape, self.width, self.depth, self.norm, self.activation)
