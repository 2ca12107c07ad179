"""The small networks of the stacked-digits test (Metz 2017, arXiv:1611.02163; Lin 2018, arXiv:1712.04086, table 3).

G projects z onto a feature map with an eighth of the image's side, rounded up, doubles it three times by 3 x 3
transposed convolutions (4, 7, 14 and 28 for the published images), and ends in a 3 x 3 convolution. D halves the image
three times. Every layer but G's output and D's score has a batch norm. Activations are ReLU in G, and LeakyReLU with
slope 0.3 in D. If D has a quarter of G's width, it cannot distinguish many modes, so methods against mode collapse
differ clearly in their results.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from poise.core.double_backward import Conv2d
from poise.core.types import DiscriminatorOutput, Shape
from poise.networks.base import DiscriminatorConfig, GeneratorConfig, NetworkConfig
from poise.networks.blocks import ProjectAndReshape, init_weights_

SLOPE = 0.3
"""The negative slope of D's LeakyReLUs."""


def map_sizes(size: int) -> list[int]:
    """The sides of the feature maps, from the smallest one to the image: each is half of the next, rounded up."""
    sizes = [size]
    for _ in range(3):
        sizes.append((sizes[-1] + 1) // 2)
    return sizes[::-1]


class UnrolledGenerator(nn.Module):
    """z, B x latent, to images, B x C x S x S.

    The map next to the image has `width` channels, and the smallest one eight times as many.
    """

    def __init__(self, latent: int, shape: Shape, width: int) -> None:
        super().__init__()
        sizes = map_sizes(shape[1])
        widths = [8 * width, 4 * width, 2 * width, width]
        layers: list[nn.Module] = [
            ProjectAndReshape(latent, widths[0], (sizes[0], sizes[0]), bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        for in_channels, out_channels, small, large in zip(widths, widths[1:], sizes, sizes[1:], strict=False):
            padding = large - (2 * small - 1)  # output padding: 1 if the side doubles exactly, 0 otherwise
            convolution = nn.ConvTranspose2d(in_channels, out_channels, 3, 2, 1, padding, bias=False)
            layers += [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, shape[0], 3, 1, 1), nn.Tanh())
        init_weights_(self, "batch")

    def forward(self, latents: Tensor) -> Tensor:
        """The images."""
        return self.layers(latents)


class UnrolledDiscriminator(nn.Module):
    """Images, B x C x S x S, to a score, B; the maps have `width`, twice and four times as many channels."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for in_channels, out_channels in pairwise([shape[0], width, 2 * width, 4 * width]):
            convolution = Conv2d(in_channels, out_channels, 3, 2, 1, bias=False)
            layers += [convolution, nn.BatchNorm2d(out_channels), nn.LeakyReLU(SLOPE)]
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.width = 4 * width * map_sizes(shape[1])[0] ** 2
        self.score = nn.Linear(self.width, 1)
        init_weights_(self, "batch")

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """The scores and the features."""
        features = self.trunk(images)
        return DiscriminatorOutput(self.score(features).squeeze(1), features)


class UnrolledConfig(NetworkConfig):
    """The base class of both configurations."""

    @property
    def uses_batch_statistics(self) -> bool:
        """True: both networks have batch norms."""
        return True

    def min_batch(self, shape: Shape | None) -> int:
        """2 for images of 8 x 8, whose smallest map is 1 x 1: a batch norm then averages over the batch alone."""
        return 2 if shape is not None and map_sizes(shape[1])[0] == 1 else 1

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """Only square images of at least 8 x 8 are supported."""
        if len(shape) == 3 and shape[1] == shape[2] >= 8:
            return None
        return "network kind 'unrolled' needs square images of at least 8 x 8", "use kind 'mlp', or set data.size = 28"


class UnrolledGeneratorConfig(UnrolledConfig, GeneratorConfig):
    """The generator; `width = 8` gives the published channels, 64-32-16-8."""

    kind: Literal["unrolled"] = "unrolled"
    width: int = Field(default=8, ge=1, le=1024)

    def build_layers(self, latent: int, shape: Shape) -> nn.Module:
        """See `UnrolledGenerator`."""
        return UnrolledGenerator(latent, shape, self.width)


class UnrolledDiscriminatorConfig(UnrolledConfig, DiscriminatorConfig):
    """The discriminator; `width = 2` is the published quarter of G's width, 4 is half of it."""

    kind: Literal["unrolled"] = "unrolled"
    small_on_purpose: ClassVar[bool] = True

    width: int = Field(default=2, ge=1, le=1024)

    def build_layers(self, shape: Shape) -> nn.Module:
        """See `UnrolledDiscriminator`."""
        return UnrolledDiscriminator(shape, self.width)
