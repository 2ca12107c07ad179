"""StyleGAN2's networks (Karras et al. 2020, arXiv:1912.04958), at any width: skip G and residual D.

The layers are in `styles.py` (modulated convolutions, mapping network), `equalized.py` and `smoothing.py`.

For the same weights, latents and noise they return what the authors' code returns (NVlabs/stylegan2-ada-pytorch, commit
d72cc7d, its reference operations, at 8, 32 and 64 pixels). `benchmarks/parity.py` measures the largest differences, in
float64 and in float32:

    images, of up to 31              5.0e-14    1.7e-5
    scores, of up to 2.6             5.7e-15    9.5e-7
    w, of up to 7.2                  2.7e-15    0
    path lengths, of up to 7.5       1.1e-15    7.2e-7
    gradients of a loss, R1 and path lengths by all weights, of up to 4.7
                                     4.7e-15    2.2e-6

D was compared with the trick `minibatch_stddev`, as the authors' D contains it. Not compared are labels, which enter
the authors' D by a mapped embedding, style mixing and half precision.
"""

from __future__ import annotations

import copy
import math
from functools import partial
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from poise.core.types import DiscriminatorOutput, Shape, to_float32
from poise.networks.base import DiscriminatorConfig, GeneratorConfig, NetworkConfig
from poise.networks.blocks import Output, channel_widths, output_activation
from poise.networks.conditioning import GeneratorConditioning
from poise.networks.equalized import ACTIVATION_GAIN, EqualizedConv2d, EqualizedLinear, ScaledLeakyReLU
from poise.networks.map_sizes import Size, halved, max_halvings, shape_incompatibility
from poise.networks.noise_input import NoiseInput
from poise.networks.smoothing import blur, downsample, smoothing_kernel, upsample, upsampling_convolution
from poise.networks.styles import (
    MappingNetwork,
    StyleBroadcast,
    convolve_same,
    modulated_conv2d,
    split_inputs,
)

Noise = Literal["constant", "random", "none"]


class StyledConv2d(nn.Module):
    """A modulated 3 x 3 convolution, noise, a bias and an activation.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        style_dim: the dimension of w.
        size: height and width of the output.
        noise: see `StyleGAN2GeneratorConfig`.
        kernel: the smoothing filter of a layer that doubles the sides; None for one that keeps them.
    """

    kernel: Tensor | None

    def __init__(
        self, in_channels: int, out_channels: int, style_dim: int, size: Size, noise: Noise, kernel: Tensor | None
    ) -> None:
        super().__init__()
        self.noise: Noise = noise
        self.noise_input: NoiseInput | None = None
        self.affine = EqualizedLinear(style_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("kernel", kernel, persistent=False)
        if noise != "none":
            self.noise_strength = nn.Parameter(torch.zeros(()))
        if noise == "constant":
            self.register_buffer("constant_noise", torch.randn(*size))
        self.activation = ScaledLeakyReLU()

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """B x in x H x W and w, B x style_dim, to B x out x `size`."""
        convolve = convolve_same if self.kernel is None else partial(upsampling_convolution, kernel=self.kernel)
        y = modulated_conv2d(x, self.weight, self.affine(w), convolve=convolve)
        if self.noise != "none":
            y = y + (self.noise_strength * self._draw_noise(y)).to(y.dtype)
        return self.activation(y + self.bias[:, None, None].to(y.dtype))

    def mean_layer(self) -> StyledConv2d | None:
        """A copy without noise, whose mean is 0, for an export; None if the layer is not random in evaluation."""
        if self.noise != "random":
            return None
        layer = copy.deepcopy(self)
        layer.noise = "none"
        del layer.noise_strength
        return layer

    def take_noise_as_input(self) -> NoiseInput | None:
        """See `NoiseInput`; None if the layer is not random in evaluation."""
        self.noise_input = NoiseInput() if self.noise == "random" else None
        return self.noise_input

    def _draw_noise(self, maps: Tensor) -> Tensor:
        """One map per sample, B x 1 x H x W, or the constant map, H x W."""
        if self.noise_input is not None:
            return self.noise_input((maps.shape[0], 1, *maps.shape[2:]))
        if self.training or self.noise == "random":
            return torch.randn(maps.shape[0], 1, *maps.shape[2:], device=maps.device, dtype=self.noise_strength.dtype)
        return self.constant_noise  # type: ignore[return-value]


class ToImage(nn.Module):
    """Feature maps to image channels ("toRGB"): a modulated 1 x 1 convolution without demodulation, and a bias."""

    def __init__(self, in_channels: int, image_channels: int, style_dim: int) -> None:
        super().__init__()
        self.affine = EqualizedLinear(style_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(image_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(image_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """B x in x H x W and w, B x style_dim, to B x C x H x W in float32."""
        styles = self.affine(w) / math.sqrt(self.weight.shape[1])
        return to_float32(modulated_conv2d(x, self.weight, styles, demodulate=False)) + self.bias[:, None, None]


class SynthesisNetwork(nn.Module):
    """The w of each layer, B x `num_layers` x style_dim, to images, B x C x H x W.

    A learned constant map passes through one convolution at the smallest size and two at each larger one, the first of
    which doubles the sides. Each size adds to the image, which is upsampled from size to size. The layer that makes an
    image shares its w with the next convolution.
    """

    def __init__(self, shape: Shape, widths: list[int], base: Size, style_dim: int, noise: Noise) -> None:
        super().__init__()
        self.register_buffer("kernel", smoothing_kernel(), persistent=False)
        self.constant = nn.Parameter(torch.randn(widths[0], *base))
        first = StyledConv2d(widths[0], widths[0], style_dim, base, noise, None)
        layers: list[nn.Module] = [first, ToImage(widths[0], shape[0], style_dim)]
        for level, (in_channels, out_channels) in enumerate(pairwise(widths), 1):
            size = base[0] << level, base[1] << level
            layers.append(StyledConv2d(in_channels, out_channels, style_dim, size, noise, smoothing_kernel()))
            layers.append(StyledConv2d(out_channels, out_channels, style_dim, size, noise, None))
            layers.append(ToImage(out_channels, shape[0], style_dim))
        self.layers = nn.ModuleList(layers)
        self.num_layers = 2 * len(widths)

    def forward(self, styles: Tensor) -> Tensor:
        """The images."""
        x, image, k = self.constant.expand(styles.shape[0], -1, -1, -1), None, 0
        for layer in self.layers:
            if isinstance(layer, ToImage):
                image = layer(x, styles[:, k]) if image is None else self._upsample(image) + layer(x, styles[:, k])
            else:
                x, k = layer(x, styles[:, k]), k + 1
        assert image is not None
        return image

    def _upsample(self, image: Tensor) -> Tensor:
        with torch.autocast(image.device.type, enabled=False):
            return upsample(image, self.kernel)  # type: ignore[bad-argument-type]


class StyleGAN2Generator(nn.Module):
    """z, B x latent, to images, B x C x H x W."""

    num_label_inputs: int = 0
    """How many of the last inputs are an embedding of the label (see `StyleGAN2GeneratorConfig.build_for`).

    It is normalised separately from z, and both latents of a mixed sample have the same one.
    """

    def __init__(
        self, mapping: MappingNetwork, broadcast: StyleBroadcast, synthesis: nn.Module, out: nn.Module
    ) -> None:
        super().__init__()
        self.mapping, self.broadcast, self.synthesis, self.output = mapping, broadcast, synthesis, out

    def forward(self, latents: Tensor) -> Tensor:
        """The images."""
        w, other = self.mapping(latents, self.num_label_inputs), None
        if self.training and self.broadcast.mixing:
            z, label = split_inputs(latents, self.num_label_inputs)
            other = self.mapping(torch.cat((torch.randn_like(z), label), 1), self.num_label_inputs)
        return self.output(self.synthesis(self.broadcast(w, other)))

    def map_latents(self, latents: Tensor) -> Tensor:
        """w, B x style_dim, neither truncated nor mixed; see `base.HasIntermediateLatents`."""
        return self.mapping(latents, self.num_label_inputs)

    def synthesize(self, w: Tensor) -> Tensor:
        """The images of w, B x style_dim, as the style of all layers."""
        return self.output(self.synthesis(w[:, None].expand(-1, self.broadcast.num_layers, -1)))


class ResidualDown(nn.Module):
    """A block of D: two 3 x 3 convolutions, the second with stride 2, and a 1 x 1 convolution around them.

    Maps are smoothed before they are subsampled. The sum is divided by sqrt(2), which keeps its variance.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.register_buffer("kernel", smoothing_kernel(), persistent=False)
        self.skip = EqualizedConv2d(in_channels, out_channels, 1, bias=False)
        self.conv0, self.act0 = EqualizedConv2d(in_channels, in_channels, 3, padding=1), ScaledLeakyReLU()
        self.conv1 = EqualizedConv2d(in_channels, out_channels, 3, stride=2)
        self.act1 = ScaledLeakyReLU(ACTIVATION_GAIN / math.sqrt(2))

    def forward(self, x: Tensor) -> Tensor:
        """B x in x H x W to B x out x H/2 x W/2."""
        kernel: Tensor = self.kernel  # type: ignore[assignment]
        y = self.act1(self.conv1(blur(self.act0(self.conv0(x)), kernel, padding=2)))
        return y + self.skip(downsample(x, kernel)) / math.sqrt(2)


class StyleGAN2Discriminator(nn.Module):
    """Images, B x C x H x W, to a score, B; the features are those of the last hidden layer.

    The trick `minibatch_stddev` acts at the input of `trunk`'s last convolution, as in the paper.
    """

    def __init__(self, shape: Shape, widths: list[int], base: Size) -> None:
        super().__init__()
        self.width = widths[-1]
        layers: list[nn.Module] = [EqualizedConv2d(shape[0], widths[0], 1), ScaledLeakyReLU()]
        layers += [ResidualDown(in_channels, out_channels) for in_channels, out_channels in pairwise(widths)]
        layers += [EqualizedConv2d(self.width, self.width, 3, padding=1), ScaledLeakyReLU(), nn.Flatten()]
        layers += [EqualizedLinear(self.width * math.prod(base), self.width), ScaledLeakyReLU()]
        self.trunk = nn.Sequential(*layers)
        self.score = EqualizedLinear(self.width, 1)

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """The scores and the features."""
        features = self.trunk(images)
        return DiscriminatorOutput(self.score(features).squeeze(1), features)


class StyleGAN2Config(NetworkConfig):
    """The base class of both configurations.

    `width` is the number of channels of the maps at full size; it doubles with each halving, up to `widest`. The paper
    has `width` = 32 at 1024 pixels and 64 at 512, and `widest` = 512. The smallest map is
    4 x 4 for square images whose side is a power of two; see `map_sizes.max_halvings`.
    """

    has_skip_connections: ClassVar[bool] = True
    width: int = Field(default=32, ge=1, le=4096)
    widest: int = Field(default=512, ge=1, le=16384)

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """See `map_sizes.shape_incompatibility`."""
        return shape_incompatibility("StyleGAN2 network", shape)

    def channel_plan(self, shape: Shape) -> tuple[list[int], Size]:
        """The channels of the maps, starting at the image, and height and width of the smallest map."""
        depth = max_halvings(shape)
        return channel_widths(self.width, self.widest, depth + 1), halved(shape, depth)


class StyleGAN2GeneratorConfig(StyleGAN2Config, GeneratorConfig):
    """A style-based generator.

    `style_dim` is the dimension of w, 512 in the paper, and `mapping_layers` the number of layers that compute it from
    z, 8 in the paper and 2 in the authors' setting for CIFAR-10. `style_mixing` is the probability that a training
    batch has two latents; the second one is Gaussian, so it suits latents of kind `gaussian` and `sphere`. `noise` adds
    noise to each map, with a strength that is learned and starts at 0: `random` draws it, `constant` draws it in
    training and has one map for all samples in evaluation, and `none` has no noise.
    """

    kind: Literal["stylegan2"] = "stylegan2"
    style_dim: int = Field(default=256, ge=1, le=4096)
    mapping_layers: int = Field(default=2, ge=1, le=32)
    style_mixing: float = Field(default=0.9, ge=0, le=1)
    noise: Noise = "constant"
    output: Output = "linear"

    def build_layers_for(self, conditioning: GeneratorConditioning | None, latent: int, shape: Shape) -> nn.Module:
        """A module that knows how many of its last inputs are an embedding of the label (see `conditioning.Concat`)."""
        inputs = latent if conditioning is None else conditioning.latent_dim(latent)
        net = self.build_layers(inputs, shape)
        net.num_label_inputs = inputs - latent
        return net

    def build_layers(self, latent: int, shape: Shape) -> StyleGAN2Generator:
        """See `StyleGAN2Generator`."""
        widths, base = self.channel_plan(shape)
        synthesis = SynthesisNetwork(shape, widths[::-1], base, self.style_dim, self.noise)
        broadcast = StyleBroadcast(synthesis.num_layers, self.style_dim, self.style_mixing)
        mapping = MappingNetwork(latent, self.style_dim, self.mapping_layers)
        return StyleGAN2Generator(mapping, broadcast, synthesis, output_activation(self.output, shape))


class StyleGAN2DiscriminatorConfig(StyleGAN2Config, DiscriminatorConfig):
    """A residual discriminator."""

    kind: Literal["stylegan2"] = "stylegan2"

    def build_layers(self, shape: Shape) -> nn.Module:
        """See `StyleGAN2Discriminator`."""
        return StyleGAN2Discriminator(shape, *self.channel_plan(shape))
