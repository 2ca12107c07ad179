"""The U-Net of pix2pix (Isola et al. 2017, arXiv:1611.07004, section 3.2.1 and appendix 6.1.1): image to image.

An encoder halves the image, a decoder doubles it again, and each map of the encoder is concatenated to the map of the
decoder that has its size, so that what source and target share, such as edges, need not pass through the smallest map.
Layers and initial weights, N(0, 0.02), are those of the authors' PyTorch code (`UnetGenerator`): for the same weights
the outputs are equal. At 256 pixels there are 8 halvings and 54.414 M weights.

Differences:

- The dropout of the paper, its only noise, is the trick `standing_dropout`. In this network it acts where the paper has
  it, on the three innermost maps of the decoder, before these are concatenated (`DropoutSlot`). The PyTorch code leaves
  out the innermost one, and at 256 pixels has the next three.
- When images are generated, a batch norm uses its running statistics; the authors use those of the test batch. An
  instance norm, which equals theirs at their batch size of 1, is the same in training and in use.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from poise.core.double_backward import Conv2d, ConvTranspose2d
from poise.core.types import Shape
from poise.networks.base import TranslatorConfig
from poise.networks.blocks import SLOPE, DropoutSlot, Output, init_weights_, output_activation
from poise.networks.map_sizes import divisible_sizes, max_halvings
from poise.networks.norms import Norm
from poise.networks.translator import keeps_bias, unscaled_norm

MAX_DOUBLINGS = 3
"""How often the number of channels is doubled at most."""

MAX_DEPTH = 8
"""The number of halvings at 256 pixels, and the largest by default."""


class UNet(nn.Module):
    """Images, B x C x H x W, to images of the same height and width.

    Args:
        in_channels: the channels of the input.
        out_shape: the shape of an output.
        widths: the channels of the maps of the encoder, from the largest map to the smallest.
        norm: the kind of normalisation, which the encoder's first and last map have none of.
        out: the last activation; see `blocks.output_activation`.
    """

    def __init__(self, in_channels: int, out_shape: Shape, widths: list[int], norm: Norm, out: Output) -> None:
        super().__init__()
        bias = keeps_bias(norm)
        downs = [nn.Sequential(Conv2d(in_channels, widths[0], 4, 2, 1, bias=bias))]
        for number, (wide, narrow) in enumerate(pairwise(widths), 2):
            layers: list[nn.Module] = [nn.LeakyReLU(SLOPE), Conv2d(wide, narrow, 4, 2, 1, bias=bias)]
            layers += unscaled_norm(norm, narrow) if number < len(widths) else []
            downs.append(nn.Sequential(*layers))
        ups: list[nn.Sequential] = []
        for number, (inner, outer) in enumerate(pairwise(widths[::-1])):
            up = ConvTranspose2d(2 * inner if number else inner, outer, 4, 2, 1, bias=bias)
            ups.append(nn.Sequential(nn.ReLU(inplace=True), up, *unscaled_norm(norm, outer), DropoutSlot(number)))
        last = ConvTranspose2d(2 * widths[0] if ups else widths[0], out_shape[0], 4, 2, 1)
        ups.append(nn.Sequential(nn.ReLU(inplace=True), last, output_activation(out, out_shape)))
        self.downs, self.ups = nn.ModuleList(downs), nn.ModuleList(ups)
        init_weights_(self, norm)

    def forward(self, images: Tensor) -> Tensor:
        """The translated images."""
        maps, skipped = images, list[Tensor]()
        for down in self.downs:
            maps = down(maps)
            skipped.append(maps)
        skipped.pop()
        for up in self.ups:
            maps = up(maps)
            if skipped:
                maps = torch.cat((skipped.pop(), maps), 1)
        return maps


class UNetConfig(TranslatorConfig):
    """A U-Net; `depth` is the number of halvings, by default as many as the image permits, up to 8.

    `width` is the number of channels of the largest map, which doubles with the first three halvings. pix2pix uses the
    norm `batch`; at a batch size of 1 its statistics are those of one image, as with `instance`.
    """

    has_skip_connections: ClassVar[bool] = True

    kind: Literal["unet"] = "unet"
    width: int = Field(default=64, ge=1, le=4096)
    depth: int | None = Field(default=None, ge=1, le=12)
    norm: Norm = "batch"
    output: Output = "auto"

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """Images that can't be halved often enough are refused."""
        if len(shape) != 3:
            return "a U-Net translates images, and the samples are points", "use network.g kind 'linear_map'"
        most, least = max_halvings(shape, 1), self.depth or 2
        if most >= least:
            return None
        reason = f"images of {shape[1]} x {shape[2]} pixels can't be halved {least} times"
        smaller = f", or network.g.depth to at most {most}" if self.depth and most else ""
        return reason, f"set data.size to {divisible_sizes(shape, least)}{smaller}"

    def halvings(self, shape: Shape) -> int:
        """The number of halvings for images of `shape`."""
        return self.depth or min(MAX_DEPTH, max_halvings(shape, 1))

    def size_multiple(self, shape: Shape) -> int | None:
        """2 to the number of halvings; None with virtual batch norm, whose reference has one size."""
        return None if self.norm == "virtual" else 1 << self.halvings(shape)

    def build_translator_layers(self, in_shape: Shape, out_shape: Shape) -> nn.Module:
        """See `UNet`."""
        widths = [self.width << min(k, MAX_DOUBLINGS) for k in range(self.halvings(in_shape))]
        return UNet(in_shape[0], out_shape, widths, self.norm, self.output)
