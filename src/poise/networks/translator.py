"""Residual translators: the generator of CycleGAN and the refiner of SimGAN, which map an image to an image.

`translator` is CycleGAN's G (Zhu et al. 2017, arXiv:1703.10593, appendix 7.2, after Johnson et al. 2016,
arXiv:1603.08155): a 7 x 7 convolution, two that halve the map, residual blocks, two that double it, and a 7 x 7
convolution. Convolutions that keep the size pad by reflection, and every one but the last has an instance norm. Layers
and initial weights, N(0, 0.02), are those of the authors' PyTorch code (`ResnetGenerator`): for the same weights the
outputs are equal. The paper uses 9 blocks for images of 256 pixels (11.378 M weights) and 6 below that (7.838 M).

`refiner` is SimGAN's (Shrivastava et al. 2017, arXiv:1612.07828, appendix): a convolution of 3 x 3 to 64 channels, 4
residual blocks of two such convolutions with ReLU at full resolution, and a convolution of 1 x 1; for larger images the
first one is 7 x 7 and there are 10 blocks. There are no norms. The paper states neither the padding, here by
reflection, nor the last activation, here tanh, nor the initial weights, here PyTorch's: without norms, with N(0, 0.02),
so little of the input arrives at the output that a refiner first learns an image of one colour, and may stay there.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from poise.core.types import Shape
from poise.networks.base import TranslatorConfig
from poise.networks.blocks import DropoutSlot, Output, init_dcgan_, output_activation
from poise.networks.conditioning import GeneratorConditioning, Incompatibility
from poise.networks.map_sizes import divisible_sizes, max_halvings
from poise.networks.norms import Norm, has_bias, norm_layer

KERNEL = 7
"""The side of the kernels of CycleGAN's first and last convolution."""


def unscaled_norm(norm: Norm, channels: int) -> list[nn.Module]:
    """The layer of `norm`; as in the authors' code, an instance norm has no scale and shift."""
    return norm_layer(norm, channels, affine=norm != "instance")


def keeps_bias(norm: Norm) -> bool:
    """Whether the layer before the norm has a bias: in the authors' code also before an instance norm, to no effect."""
    return has_bias(norm) or norm == "instance"


def convolution(in_channels: int, out_channels: int, kernel: int, norm: Norm) -> list[nn.Module]:
    """A convolution that keeps the size, with padding by reflection, and its norm layer."""
    padding: list[nn.Module] = [nn.ReflectionPad2d(kernel // 2)] if kernel > 1 else []
    layer = nn.Conv2d(in_channels, out_channels, kernel, bias=keeps_bias(norm))
    return [*padding, layer, *unscaled_norm(norm, out_channels)]


class ResidualBlock(nn.Module):
    """h + F(h), F being two 3 x 3 convolutions with norms and an activation in between, but none after the sum.

    Args:
        channels: the channels of h.
        norm: the kind of normalisation.
        index: the number of the block, for `DropoutSlot`: the authors' option of dropout is in every block.
    """

    def __init__(self, channels: int, norm: Norm, index: int) -> None:
        super().__init__()
        first, second = (convolution(channels, channels, 3, norm) for _ in range(2))
        self.residual = nn.Sequential(*first, nn.ReLU(inplace=True), DropoutSlot(index), *second)

    def forward(self, maps: Tensor) -> Tensor:
        """B x channels x H x W to the same shape."""
        return maps + self.residual(maps)


class ResidualTranslator(nn.Module):
    """Images, B x C x H x W, to images of the same height and width.

    Args:
        in_channels: the channels of the input.
        out_shape: the shape of an output.
        width: the channels of the first map, which double with each halving.
        downsamplings: the number of halvings.
        blocks: the number of residual blocks at the smallest map.
        kernels: the sides of the kernels of the first and of the last convolution, odd.
        norm: the kind of normalisation.
        out: the last activation; see `blocks.output_activation`.
    """

    def __init__(
        self,
        in_channels: int,
        out_shape: Shape,
        width: int,
        downsamplings: int,
        blocks: int,
        kernels: tuple[int, int],
        norm: Norm,
        out: Output,
    ) -> None:
        super().__init__()
        bias = keeps_bias(norm)
        layers: list[nn.Module] = [*convolution(in_channels, width, kernels[0], norm), nn.ReLU(inplace=True)]
        widths = [width << k for k in range(downsamplings + 1)]
        for k in range(downsamplings):
            layers.append(nn.Conv2d(widths[k], widths[k + 1], 3, 2, 1, bias=bias))
            layers += [*unscaled_norm(norm, widths[k + 1]), nn.ReLU(inplace=True)]
        layers += [ResidualBlock(widths[-1], norm, index) for index in range(blocks)]
        for k in reversed(range(downsamplings)):
            layers.append(nn.ConvTranspose2d(widths[k + 1], widths[k], 3, 2, 1, output_padding=1, bias=bias))
            layers += [*unscaled_norm(norm, widths[k]), nn.ReLU(inplace=True)]
        layers += [*convolution(width, out_shape[0], kernels[1], "none"), output_activation(out, out_shape)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """The translated images."""
        return self.layers(images)


class ResidualConfig(TranslatorConfig):
    """The base class of both configurations."""

    has_skip_connections: ClassVar[bool] = True

    width: int = Field(default=64, ge=1, le=4096)
    output: Output = "auto"

    @property
    def halvings(self) -> int:
        """How often the map is halved."""
        return 0

    def size_multiple(self, shape: Shape) -> int | None:
        """2 to the number of halvings; None with virtual batch norm, whose reference has one size."""
        return None if getattr(self, "norm", "none") == "virtual" else 1 << self.halvings

    @property
    def first_kernel(self) -> int:
        """The side of the kernel of the first convolution."""
        return KERNEL

    def conditioning_incompatibility(self, conditioning: GeneratorConditioning) -> Incompatibility | None:
        """An instance norm after the first convolution is refused: it removes what is constant over the image."""
        if getattr(self, "norm", "none") == "instance":
            reason = "an instance norm removes whatever is constant over an image, and so what the label adds to a map"
            return reason, 'set network.g.norm to "batch" or "none"'
        return super().conditioning_incompatibility(conditioning)

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """Points, and images that are not larger than the padding, are refused."""
        if len(shape) != 3:
            return "residual blocks translate images, and the samples are points", "use network.g kind 'linear_map'"
        if min(shape[1:]) > self.first_kernel // 2:
            return None
        reason = f"images of {shape[1]} x {shape[2]} pixels are too small for a kernel of {self.first_kernel} pixels"
        return reason, f"set data.size to {self.first_kernel // 2 + 1} or more"


class ResidualTranslatorConfig(ResidualConfig):
    """CycleGAN's generator; the paper uses 6 `blocks` for images of 128 pixels and 9 for 256."""

    kind: Literal["translator"] = "translator"
    blocks: int = Field(default=9, ge=0, le=64)
    downsamplings: int = Field(default=2, ge=0, le=7)
    norm: Norm = "instance"

    @property
    def halvings(self) -> int:
        """See `ResidualConfig.halvings`."""
        return self.downsamplings

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """Images that can't be halved as often as `downsamplings` says, to at least 2 pixels, are refused as well."""
        refused = super().incompatibility(shape)
        if refused or (most := max_halvings(shape, 2)) >= self.downsamplings:
            return refused
        reason = f"images of {shape[1]} x {shape[2]} pixels can't be halved {self.downsamplings} times"
        sizes = divisible_sizes(shape, self.downsamplings, smallest=2)
        return reason, f"set data.size to {sizes}, or network.g.downsamplings to at most {most}"

    def build_translator_layers(self, in_shape: Shape, out_shape: Shape) -> nn.Module:
        """See `ResidualTranslator`."""
        plan = self.width, self.downsamplings, self.blocks, (KERNEL, KERNEL)
        net = ResidualTranslator(in_shape[0], out_shape, *plan, self.norm, self.output)
        init_dcgan_(net)
        return net


class RefinerConfig(ResidualConfig):
    """SimGAN's refiner; for larger images the paper has a first `kernel` of 7 and 10 `blocks`."""

    kind: Literal["refiner"] = "refiner"
    blocks: int = Field(default=4, ge=0, le=64)
    kernel: Literal[3, 5, 7] = 3
    norm: Norm = "none"

    @property
    def first_kernel(self) -> int:
        """See `ResidualConfig.first_kernel`."""
        return self.kernel

    def build_translator_layers(self, in_shape: Shape, out_shape: Shape) -> nn.Module:
        """See `ResidualTranslator`; the initial weights are those of PyTorch."""
        plan = self.width, 0, self.blocks, (self.kernel, 1)
        return ResidualTranslator(in_shape[0], out_shape, *plan, self.norm, self.output)
