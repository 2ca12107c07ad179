"""The small players of the stacked-digits tests (Metz 2017, arXiv:1611.02163; Lin 2018, arXiv:1712.04086, table 3).

G projects z onto a map of an eighth of the picture's side, rounded up, and doubles it three times by 3 x 3 transposed
convolutions (4, 7, 14 and 28 for the published pictures), and a last 3 x 3 convolution paints; D halves it three times.
Batch norm everywhere but at G's picture and D's score, ReLU in G, LeakyReLU of slope 0.3 in D. A D of a quarter of G's
width can't hold many modes apart: a setting in which ways against collapse can be told from each other.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from poise.core.double_backward import Conv2d
from poise.core.types import DiscriminatorOutput, Shape
from poise.networks.base import DiscriminatorConfig, GeneratorConfig, NetworkConfig
from poise.networks.blocks import ProjectAndReshape, init_weights_

SLOPE = 0.3


def sides(side: int) -> list[int]:
    """The sides of the maps, from the smallest to the picture: each half of the next, rounded up."""
    found = [side]
    for _ in range(3):
        found.append((found[-1] + 1) // 2)
    return found[::-1]


class UnrolledGenerator(nn.Module):
    """z, B x latent, to pictures, B x C x S x S; `width` channels beside the picture, eight times as many inside."""

    def __init__(self, latent: int, shape: Shape, width: int) -> None:
        super().__init__()
        channels, maps = shape[0], sides(shape[1])
        widths = [8 * width, 4 * width, 2 * width, width]
        layers: list[nn.Module] = [
            ProjectAndReshape(latent, widths[0], maps[0], bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        for here, there, small, large in zip(widths, widths[1:], maps, maps[1:], strict=False):
            left = large - (2 * small - 1)  # a row and a column more where the side doubles exactly
            layers += [nn.ConvTranspose2d(here, there, 3, 2, 1, left, bias=False), nn.BatchNorm2d(there), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, 1, 1), nn.Tanh())
        init_weights_(self, "batch")

    def forward(self, latents: Tensor) -> Tensor:
        """Pictures."""
        return self.layers(latents)


class UnrolledDiscriminator(nn.Module):
    """Pictures, B x C x S x S, to a score, B, over `width`, twice and four times as many channels."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for here, there in pairwise([shape[0], width, 2 * width, 4 * width]):
            layers += [Conv2d(here, there, 3, 2, 1, bias=False), nn.BatchNorm2d(there), nn.LeakyReLU(SLOPE)]
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.width = 4 * width * sides(shape[1])[0] ** 2
        self.score = nn.Linear(self.width, 1)
        init_weights_(self, "batch")

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """What D says."""
        features = self.trunk(images)
        return DiscriminatorOutput(self.score(features).squeeze(1), features)


class UnrolledConfig(NetworkConfig):
    """What both players' entries share."""

    @property
    def uses_batch_statistics(self) -> bool:
        """Both have batch norms."""
        return True

    def min_batch(self, shape: Shape | None) -> int:
        """Pictures of 8 x 8 become maps of 1 x 1, which are vectors to a batch norm."""
        return 2 if shape is not None and sides(shape[1])[0] == 1 else 1

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """Only square pictures, of 8 x 8 or more."""
        if len(shape) == 3 and shape[1] == shape[2] >= 8:
            return None
        return "these players are made for square pictures of 8 x 8 or more", "take mlp, or set data.size = 28"


class UnrolledGeneratorConfig(UnrolledConfig, GeneratorConfig):
    """The generator; `width = 8` is the published 64-32-16-8."""

    kind: Literal["unrolled"] = "unrolled"
    width: int = Field(default=8, ge=1, le=1024)

    def build(self, latent: int, shape: Shape) -> nn.Module:
        """See `UnrolledGenerator`."""
        return UnrolledGenerator(latent, shape, self.width)


class UnrolledDiscriminatorConfig(UnrolledConfig, DiscriminatorConfig):
    """The discriminator; `width = 2` is the published quarter of G's, 4 the half."""

    kind: Literal["unrolled"] = "unrolled"
    width: int = Field(default=2, ge=1, le=1024)

    def build(self, shape: Shape) -> nn.Module:
        """See `UnrolledDiscriminator`."""
        return UnrolledDiscriminator(shape, self.width)
