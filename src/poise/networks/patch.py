"""PatchGAN (Isola et al. 2017, arXiv:1611.07004, section 3.2.2): a discriminator that scores overlapping patches.

D is fully convolutional, so that each of its scores depends on a patch of the image alone; a patch is real or generated
independently of those that are more than its side apart, as in a Markov random field. With `layers` convolutions of
stride 2, then two of stride 1, all 4 x 4, the patches have a side of

    layers       0    1    2    3 (the paper's)    4
    side       1*)   16   34   70                142         *) 1 x 1 convolutions, the paper's PixelGAN

The layers and their initial weights, N(0, 0.02), are those of the authors' PyTorch code (`NLayerDiscriminator` and
`PixelDiscriminator`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from poise.core.double_backward import Conv2d
from poise.core.types import DiscriminatorOutput, Shape
from poise.networks.base import DiscriminatorConfig
from poise.networks.blocks import SLOPE, init_dcgan_
from poise.networks.norms import Norm, has_bias, norm_layer

MAX_DOUBLINGS = 3
"""How often the number of channels is doubled at most."""


def patch_side(layers: int) -> int:
    """The side of the patch that a score depends on, in pixels."""
    side = 7  # of two convolutions of 4 x 4
    for _ in range(layers):
        side = 2 * side + 2
    return side if layers else 1


def score_map_size(size: int, layers: int) -> int:
    """The height or width of the map of scores, from that of the image; not positive if the image is too small."""
    if not layers:
        return size
    for _ in range(layers):
        size //= 2
    return size - 2


class PatchDiscriminator(nn.Module):
    """Images, B x C x H x W, to the scores of P patches, B x P; the features are the means of the last hidden map.

    Args:
        channels: C.
        width: the channels of the first map.
        layers: the number of convolutions with stride 2, at least 1.
        norm: the kind of normalisation, which the first map has none of.
    """

    def __init__(self, channels: int, width: int, layers: int, norm: Norm) -> None:
        super().__init__()
        bias = has_bias(norm) or norm == "instance"  # the authors' code has it there, although it has no effect
        widths = [width << min(k, MAX_DOUBLINGS) for k in range(layers + 1)]
        modules: list[nn.Module] = [Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(SLOPE, inplace=True)]
        for number, (in_width, out_width) in enumerate(pairwise(widths), 1):
            modules.append(Conv2d(in_width, out_width, 4, 2 if number < layers else 1, 1, bias=bias))
            modules += [*norm_layer(norm, out_width, affine=norm != "instance"), nn.LeakyReLU(SLOPE, inplace=True)]
        self.trunk, self.score, self.width = nn.Sequential(*modules), Conv2d(widths[-1], 1, 4, 1, 1), widths[-1]
        init_dcgan_(self)

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """The scores and the features."""
        maps = self.trunk(images)
        return DiscriminatorOutput(self.score(maps).flatten(1), maps.mean((2, 3)))


class PixelDiscriminator(nn.Module):
    """Images, B x C x H x W, to the scores of their pixels, B x HW, each of which depends on one pixel alone."""

    def __init__(self, channels: int, width: int, norm: Norm) -> None:
        super().__init__()
        bias = has_bias(norm) or norm == "instance"
        self.trunk = nn.Sequential(
            Conv2d(channels, width, 1),
            nn.LeakyReLU(SLOPE, inplace=True),
            Conv2d(width, 2 * width, 1, bias=bias),
            *norm_layer(norm, 2 * width, affine=norm != "instance"),
            nn.LeakyReLU(SLOPE, inplace=True),
        )
        self.score, self.width = Conv2d(2 * width, 1, 1, bias=bias), 2 * width
        init_dcgan_(self)

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """The scores and the features."""
        maps = self.trunk(images)
        return DiscriminatorOutput(self.score(maps).flatten(1), maps.mean((2, 3)))


class PatchDiscriminatorConfig(DiscriminatorConfig):
    """A PatchGAN; with `layers = 0` a PixelGAN. `norm` is `batch` in pix2pix and `instance` in CycleGAN."""

    kind: Literal["patch"] = "patch"
    width: int = Field(default=64, ge=1, le=4096)
    layers: int = Field(default=3, ge=0, le=5)
    norm: Norm = "batch"

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """Images that are too small for a map of at least one score are refused."""
        if len(shape) != 3:
            return "a PatchGAN processes images, and the samples are points", "use network kind 'mlp'"
        if score_map_size(min(shape[1:]), self.layers) >= 1:
            return None
        most = max(n for n in range(self.layers) if score_map_size(min(shape[1:]), n) >= 1)
        reason = f"images of {shape[1]} x {shape[2]} pixels are too small for a PatchGAN of {self.layers} layers"
        return reason, f"set layers to at most {most}"

    def build_layers(self, shape: Shape) -> nn.Module:
        """See `PatchDiscriminator` and `PixelDiscriminator`."""
        if not self.layers:
            return PixelDiscriminator(shape[0], self.width, self.norm)
        return PatchDiscriminator(shape[0], self.width, self.layers, self.norm)
