"""The small players of the stacked-digits tests (Metz 2017, arXiv:1611.02163; Lin 2018, arXiv:1712.04086, table 3).

For 28 x 28 pictures: G projects z onto 4 x 4 and doubles it to 7, 14 and 28 by 3 x 3 transposed convolutions, and a
last 3 x 3 convolution paints; D halves it three times. Batch norm everywhere but at both ends of D's score and G's
picture, ReLU in G, LeakyReLU of slope 0.3 in D. A D of a quarter of G's width can't hold many modes apart: the setting
in which ways against collapse can be told from each other.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from poise.core import Shape, Verdict
from poise.derivatives import Conv2d
from poise.networks.blocks import Discriminator, Generator, Network, ToMap, first_weights_

SIDE, BASE, SLOPE = 28, 4, 0.3


class UnrolledGenerator(nn.Module):
    """z, B x latent, to pictures, B x C x 28 x 28; `width` channels beside the picture, eight times as many inside."""

    def __init__(self, latent: int, channels: int, width: int) -> None:
        super().__init__()
        widths = [8 * width, 4 * width, 2 * width, width]
        layers: list[nn.Module] = [ToMap(latent, widths[0], BASE, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for place, (here, there) in enumerate(pairwise(widths)):
            odd = int(place > 0)  # 4 becomes 7, then 14 and 28
            layers += [nn.ConvTranspose2d(here, there, 3, 2, 1, odd, bias=False), nn.BatchNorm2d(there), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, 1, 1), nn.Tanh())
        first_weights_(self, "batch")

    def forward(self, latents: Tensor) -> Tensor:
        """Pictures."""
        return self.layers(latents)


class UnrolledDiscriminator(nn.Module):
    """Pictures, B x C x 28 x 28, to a score, B, over `width`, twice and four times as many channels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for here, there in pairwise([channels, width, 2 * width, 4 * width]):
            layers += [Conv2d(here, there, 3, 2, 1, bias=False), nn.BatchNorm2d(there), nn.LeakyReLU(SLOPE)]
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.width = 4 * width * BASE * BASE
        self.score = nn.Linear(self.width, 1)
        first_weights_(self, "batch")

    def forward(self, images: Tensor) -> Verdict:
        """What D says."""
        features = self.trunk(images)
        return Verdict(self.score(features).squeeze(1), features)


class Unrolled(Network):
    """What both players' entries share."""

    @property
    def mixing(self) -> bool:
        """Both have batch norms."""
        return True

    def misfit(self, shape: Shape) -> tuple[str, str] | None:
        """Only 28 x 28 pictures."""
        if len(shape) == 3 and shape[1:] == (SIDE, SIDE):
            return None
        return f"these players are made for {SIDE} x {SIDE} pictures", f"set data.size = {SIDE}, or take dcgan"


class UnrolledGeneratorEntry(Unrolled, Generator):
    """The generator; `width = 8` is the published 64-32-16-8."""

    kind: Literal["unrolled"] = "unrolled"
    width: int = Field(default=8, ge=1, le=1024)

    def build(self, latent: int, shape: Shape) -> nn.Module:
        """See `UnrolledGenerator`."""
        return UnrolledGenerator(latent, shape[0], self.width)


class UnrolledDiscriminatorEntry(Unrolled, Discriminator):
    """The discriminator; `width = 2` is the published quarter of G's, 4 the half."""

    kind: Literal["unrolled"] = "unrolled"
    width: int = Field(default=2, ge=1, le=1024)

    def build(self, shape: Shape) -> nn.Module:
        """See `UnrolledDiscriminator`."""
        return UnrolledDiscriminator(shape[0], self.width)
