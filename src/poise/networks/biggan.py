"""The networks of BigGAN (Brock, Donahue & Simonyan 2019, arXiv:1809.11096, appendix B; the original, not BigGAN-deep).

They are residual networks as in `resnet.py` with three additions. In G every norm of a block has a scale and a shift
that are linear functions of a condition: the embedding of the label, if there is one, and a part of z. z is split into
equal parts, of which the first enters the first layer and each block gets one ("hierarchical latent"). The
self-attention is that of SAGAN's released code. In D the channels between the convolutions of a block are those of its
output.

For images of 32, 64 and 128 pixels the channels are those of the paper's networks and of its authors' PyTorch code
(github.com/ajbrock/BigGAN-PyTorch). With `ch` their multiplier, `width` is 4 ch and `widest` 4 ch at 32 pixels; at 64
and 128 `widest` is 16 ch and `width` is ch, except for G at 64, where it is 2 ch. At 256 the paper repeats a width.

With the weights of that code (commit 9845943) the networks return the same at these three sizes, with labels, attention
and spectral norm, in evaluation and in training mode. `benchmarks/parity.py` measures the largest differences, in
float64 and in float32, whose rounding errors batch norm magnifies:

    images                                           6.3e-14    6.1e-5
    scores, of up to 144                             4.3e-14    3.1e-5
    gradients of G's loss by all weights, up to 282  9.6e-14    1.0e-3

In training mode this holds once the power iterations have converged: those of PyTorch's spectral norm are half an
iteration ahead. A bias before a norm, which has no effect, is left out here, and all biases start at 0 instead of
random values. The embeddings of a projection D start as `conditioning.Projection` says.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from poise.core.double_backward import Conv2d
from poise.core.types import DiscriminatorOutput, Shape
from poise.errors import RecipeError
from poise.networks.attention import PooledSelfAttention
from poise.networks.base import DiscriminatorConfig, GeneratorConfig
from poise.networks.blocks import Activation, Output, activation, channel_widths, interpolation, output_activation
from poise.networks.conditioning import VIRTUAL_NORM, ConcatConfig, GeneratorConditioning, Incompatibility
from poise.networks.map_sizes import Size, halved, max_halvings
from poise.networks.norms import Norm, has_bias, norm_layer
from poise.networks.resnet import DiscriminatorBlock, ResNetConfig
from poise.networks.shared_embedding import SharedEmbeddingConfig

SMALL_SIDE = 32
"""The largest shorter side of the images for which D is the paper's network for 32 pixels."""


class ConditionalNorm(nn.Module):
    """A norm with a scale and a shift that depend on the sample: (1 + A c) norm(x) + B c, for a condition c.

    A and B are matrices without bias, so that the scale is 1 on average over conditions with mean zero.

    Args:
        norm: the kind of normalisation.
        channels: the number of channels.
        condition: the dimension of c.
    """

    def __init__(self, norm: Norm, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.Sequential(*norm_layer(norm, channels, affine=False))
        self.gain, self.shift = (nn.Linear(condition, channels, bias=False) for _ in range(2))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """B x channels x H x W and B x condition to B x channels x H x W."""
        gain, shift = (layer(condition)[:, :, None, None] for layer in (self.gain, self.shift))
        return self.norm(x) * (1 + gain) + shift


class ConditionalBlock(nn.Module):
    """The residual block of `resnet.GeneratorBlock`, with conditional norms and nearest-neighbour upsampling."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm, act: Activation, condition: int) -> None:
        super().__init__()
        self.norm1 = ConditionalNorm(norm, in_channels, condition)
        self.branch1 = nn.Sequential(
            activation(act),
            interpolation("nearest"),
            Conv2d(in_channels, out_channels, 3, padding=1, bias=has_bias(norm)),
        )
        self.norm2 = ConditionalNorm(norm, out_channels, condition)
        self.branch2 = nn.Sequential(activation(act), Conv2d(out_channels, out_channels, 3, padding=1))
        # a 1 x 1 convolution commutes with the interpolation, and is cheaper on the smaller map
        self.shortcut = nn.Sequential(Conv2d(in_channels, out_channels, 1), interpolation("nearest"))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """B x in_channels x H x W and B x condition to B x out_channels x 2H x 2W."""
        branch = self.branch1(self.norm1(x, condition))
        return self.branch2(self.norm2(branch, condition)) + self.shortcut(x)


@torch.no_grad()
def init_orthogonal_(net: nn.Module) -> None:
    """Orthogonal weights (Saxe et al. 2014, arXiv:1312.6120), with one row per output channel; biases 0. In place."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class BigGANGenerator(nn.Module):
    """z, B x latent, and embeddings, B x embedding, to images, B x C x H x W.

    Args:
        latent: the dimension of z. If it is not a multiple of the number of parts, the first ones are longer by one.
        shape: (C, H, W).
        widths: the channels of the feature maps, from the smallest one to the one of the image's size.
        base: height and width of the smallest map.
        norm: the kind of normalisation.
        act: the hidden activation.
        attention: the shorter side of the map with self-attention, or None.
        out: the last activation; see `blocks.output_activation`.
        embedding: the dimension of the embeddings; with 0 the module takes z alone.
    """

    def __init__(
        self,
        latent: int,
        shape: Shape,
        widths: list[int],
        base: Size,
        norm: Norm,
        act: Activation,
        attention: int | None,
        out: Output,
        embedding: int,
    ) -> None:
        super().__init__()
        self.parts = [len(part) for part in torch.arange(latent).tensor_split(len(widths))]
        self.first = nn.Linear(self.parts[0], widths[0] * prod(base))
        self.first_shape = (widths[0], *base)
        self.blocks, self.attention = nn.ModuleList(), nn.ModuleList()
        side = min(base)
        for (in_channels, out_channels), part in zip(pairwise(widths), self.parts[1:], strict=True):
            side *= 2
            self.blocks.append(ConditionalBlock(in_channels, out_channels, norm, act, embedding + part))
            self.attention.append(PooledSelfAttention(out_channels) if side == attention else nn.Identity())
        self.last = nn.Sequential(
            *norm_layer(norm, widths[-1]),
            activation(act),
            Conv2d(widths[-1], shape[0], 3, padding=1),
            output_activation(out, shape),
        )
        init_orthogonal_(self)

    def forward(self, latents: Tensor, embedding: Tensor | None = None) -> Tensor:
        """The images."""
        first, *parts = latents.split(self.parts, 1)
        maps = self.first(first).unflatten(1, self.first_shape).contiguous(memory_format=torch.channels_last)
        for block, attention, part in zip(self.blocks, self.attention, parts, strict=True):
            condition = part if embedding is None else torch.cat((embedding.to(part.dtype), part), 1)
            maps = attention(block(maps, condition))
        return self.last(maps)


class BigGANDiscriminator(nn.Module):
    """Images, B x C x H x W, to a score, B. The features are the sum of the last map over space.

    Args:
        shape: (C, H, W).
        widths: the output channels of the blocks.
        halvings: the number of blocks that halve the map, the first ones.
        norm: the kind of normalisation.
        act: the hidden activation.
        attention: the shorter side of the map with self-attention, or None.
    """

    def __init__(
        self, shape: Shape, widths: list[int], halvings: int, norm: Norm, act: Activation, attention: int | None
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for k, (in_channels, out_channels) in enumerate(pairwise([shape[0], *widths])):
            halve = k < halvings
            layers += [
                DiscriminatorBlock(in_channels, out_channels, norm, act, halve=halve, first=k == 0, inner=out_channels)
            ]
            side = min(halved(shape, k + 1))
            layers += [PooledSelfAttention(out_channels)] if halve and side == attention else []
        self.width = widths[-1]
        self.trunk = nn.Sequential(*layers, *norm_layer(norm, self.width), activation(act))
        self.score = nn.Linear(self.width, 1)
        init_orthogonal_(self)

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """The scores and the features."""
        features = self.trunk(images).sum((2, 3))
        return DiscriminatorOutput(self.score(features).squeeze(1), features)


class BigGANGeneratorConfig(ResNetConfig, GeneratorConfig):
    """A residual generator whose norms depend on z, and on an embedding of the label."""

    kind: Literal["biggan"] = "biggan"
    norm: Norm = "spectral_batch"
    output: Output = "auto"

    def default_base(self) -> int:
        """4, as in the paper."""
        return 4

    def build_layers(self, latent: int, shape: Shape, embedding: int = 0) -> nn.Module:
        """See `BigGANGenerator`; by default it takes latents alone.

        Raises:
            RecipeError: z has fewer dimensions than parts.
        """
        depth = self.num_halvings(shape)
        if latent <= depth:
            what = f"z is split into {depth + 1} parts, one for the first layer and one for each of {depth} blocks"
            raise RecipeError(what, where="latent.dim", found=str(latent), cure=f"use a multiple of {depth + 1}")
        widths, base = channel_widths(self.width, self.widest, depth + 1)[::-1], halved(shape, depth)
        return BigGANGenerator(
            latent, shape, widths, base, self.norm, self.activation, self.attention, self.output, embedding
        )

    def build_layers_for(self, conditioning: GeneratorConditioning | None, latent: int, shape: Shape) -> nn.Module:
        """A module that takes the embeddings of `shared_embedding`, and one that is unaware of labels otherwise."""
        if isinstance(conditioning, SharedEmbeddingConfig):
            return self.build_layers(latent, shape, conditioning.dim)
        return super().build_layers_for(conditioning, latent, shape)

    def conditioning_incompatibility(self, conditioning: GeneratorConditioning) -> Incompatibility | None:
        """With an embedding virtual batch norm is refused, and an embedding after z, which is split into parts."""
        if isinstance(conditioning, ConcatConfig):
            reason = (
                "'biggan' splits its input into one part for each block, so the label would reach the last block only"
            )
            return reason, 'use conditioning.g kind "shared_embedding" or "class_norm"'
        if isinstance(conditioning, SharedEmbeddingConfig):
            return VIRTUAL_NORM if self.norm == "virtual" else None
        return super().conditioning_incompatibility(conditioning)


class BigGANDiscriminatorConfig(ResNetConfig, DiscriminatorConfig):
    """A residual discriminator; `plain` is the number of blocks after the last halving, by default as in the paper."""

    kind: Literal["biggan"] = "biggan"
    norm: Norm = "spectral"
    plain: int | None = Field(default=None, ge=0, le=64)

    def default_base(self) -> int:
        """8, the smallest map of the paper's network for 32 pixels; `num_halvings` has 4 for larger images."""
        return 8

    def num_halvings(self, shape: Shape) -> int:
        """Down to a map of 8 x 8 for images of up to 32 pixels, and of 4 x 4 for larger ones, as in the paper."""
        if self.depth is None and min(shape[1:]) > SMALL_SIDE:
            return max_halvings(shape)
        return super().num_halvings(shape)

    def build_layers(self, shape: Shape) -> nn.Module:
        """See `BigGANDiscriminator`."""
        halvings = self.num_halvings(shape)
        plain = self.plain if self.plain is not None else 2 if min(shape[1:]) <= SMALL_SIDE else 1
        widths = channel_widths(self.width, self.widest, halvings + plain)
        return BigGANDiscriminator(shape, widths, halvings, self.norm, self.activation, self.attention)
