"""StyleGAN2 beside its authors' code (NVlabs/stylegan2-ada-pytorch, commit d72cc7d).

There are no labels, which enter the authors' D by a mapped embedding, and no style mixing, whose draws differ. D has
minibatch standard deviation, which the authors' D contains. The noise is that of the buffers in evaluation, and in
training it is drawn from the same stream. The loss is the non-saturating loss of G, softplus(-D(G(z))).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from _parity_pairs import BATCH, IMAGE_CHANNELS, Comparison, Names, Pair, Shapes, compare, pair
from poise.core.double_backward import input_gradients
from poise.core.types import Shape, Side
from poise.networks.stylegan2 import StyleGAN2DiscriminatorConfig, StyleGAN2GeneratorConfig
from poise.tricks.batch_stddev import MinibatchStddev
from poise.tricks.path_length import path_lengths
from poise.truncation import truncated_layers


class StyleGAN2Size(NamedTuple):
    """The sizes of a StyleGAN2; `width` and `widest` as in `StyleGAN2Config`."""

    side: int
    mapping_layers: int
    width: int = 16
    widest: int = 64
    latent: int = 24
    style_dim: int = 40

    def channels(self, side: int) -> int:
        """The channels of the maps with this side."""
        return min(self.width * self.side // side, self.widest)

    @property
    def sides(self) -> list[int]:
        """The sides of the maps, from 4 to that of the image."""
        return [1 << k for k in range(2, self.side.bit_length())]


GROUP = 4
"""The size of a group of minibatch standard deviation, the default of both."""

SIZES = (StyleGAN2Size(8, 2), StyleGAN2Size(32, 8), StyleGAN2Size(64, 2))


def generator_modules(size: StyleGAN2Size) -> Names:
    """The authors' name of each module of our generator, by ours."""
    mapping = {f"mapping.{2 * k}": f"mapping.fc{k}" for k in range(size.mapping_layers)}
    names = ("conv0", "conv1", "torgb")
    layers = [f"synthesis.b{side}.{name}" for side in size.sides for name in (names[1:] if side == 4 else names)]
    return {
        **mapping,
        "broadcast.w_mean": "mapping.w_avg",
        "synthesis.constant": "synthesis.b4.const",
        **{f"synthesis.layers.{k}": name for k, name in enumerate(layers)},
    }


def discriminator_modules(size: StyleGAN2Size) -> Names:
    """The authors' name of each module of our discriminator, by ours."""
    blocks = {f"trunk.{k}": f"b{side}" for k, side in enumerate(size.sides[:0:-1], 2)}
    end = 2 + len(blocks)
    return {
        "trunk.0": f"b{size.side}.fromrgb",
        **blocks,
        f"trunk.{end}.layer": "b4.conv",
        f"trunk.{end + 3}": "b4.fc",
        "score": "b4.out",
    }


def generator_shapes(size: StyleGAN2Size) -> Shapes:
    """The tensors of the authors' StyleGAN2 generator, except for `ONLY_THEIRS`."""
    shapes: Shapes = {"mapping.w_avg": (size.style_dim,), "synthesis.b4.const": (size.channels(4), 4, 4)}
    for k in range(size.mapping_layers):
        shapes |= _layer(f"mapping.fc{k}", (size.style_dim, size.style_dim if k else size.latent))
    for side in size.sides:
        outputs, block = size.channels(side), f"synthesis.b{side}"
        layers = {"conv1": outputs} if side == 4 else {"conv0": size.channels(side // 2), "conv1": outputs}
        for name, inputs in layers.items():
            shapes |= _layer(f"{block}.{name}", (outputs, inputs, 3, 3))
            shapes |= _layer(f"{block}.{name}.affine", (inputs, size.style_dim))
            shapes |= {f"{block}.{name}.noise_strength": (), f"{block}.{name}.noise_const": (side, side)}
        shapes |= _layer(f"{block}.torgb", (IMAGE_CHANNELS, outputs, 1, 1))
        shapes |= _layer(f"{block}.torgb.affine", (outputs, size.style_dim))
    return shapes


def discriminator_shapes(size: StyleGAN2Size) -> Shapes:
    """The tensors of the authors' StyleGAN2 discriminator, except for `ONLY_THEIRS`."""
    shapes = _layer(f"b{size.side}.fromrgb", (size.channels(size.side), IMAGE_CHANNELS, 1, 1))
    for side in size.sides[1:]:
        inputs, outputs = size.channels(side), size.channels(side // 2)
        shapes |= _layer(f"b{side}.conv0", (inputs, inputs, 3, 3)) | _layer(f"b{side}.conv1", (outputs, inputs, 3, 3))
        shapes[f"b{side}.skip.weight"] = (outputs, inputs, 1, 1)
    last = size.channels(4)
    shapes |= _layer("b4.conv", (last, last + 1, 3, 3))  # one more input: the standard deviation
    return shapes | _layer("b4.fc", (last, 16 * last)) | _layer("b4.out", (1, last))


def _layer(name: str, weight: tuple[int, ...]) -> Shapes:
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def our_networks(size: StyleGAN2Size) -> tuple[nn.Module, nn.Module]:
    """G without style mixing, and D with minibatch standard deviation."""
    shape: Shape = (IMAGE_CHANNELS, size.side, size.side)
    channels = {"width": size.width, "widest": size.widest}
    styles = {"style_dim": size.style_dim, "mapping_layers": size.mapping_layers, "style_mixing": 0}
    g = StyleGAN2GeneratorConfig(**channels, **styles).build(size.latent, shape)
    d = StyleGAN2DiscriminatorConfig(**channels).build(shape)
    return g, MinibatchStddev("minibatch_stddev", GROUP).transform_network(Side.D, d)


def authors_networks(authors: Any, size: StyleGAN2Size) -> tuple[nn.Module, nn.Module]:
    """G and D of the authors' module, in the default dtype."""
    channels = {"channel_base": size.width * size.side, "channel_max": size.widest}
    layers, dtype = {"num_layers": size.mapping_layers}, torch.get_default_dtype()
    g = authors.Generator(
        size.latent,
        0,
        size.style_dim,
        size.side,
        IMAGE_CHANNELS,
        mapping_kwargs=layers,
        synthesis_kwargs=channels,
    )
    d = authors.Discriminator(0, size.side, IMAGE_CHANNELS, **channels, epilogue_kwargs={"mbstd_group_size": GROUP})
    return g.to(dtype), d.to(dtype)


def compare_stylegan2(authors: Any, size: StyleGAN2Size) -> list[Comparison]:
    """All comparisons of one size, in the default dtype."""
    torch.manual_seed(size.side)
    (our_g, our_d), (their_g, their_d) = our_networks(size), authors_networks(authors, size)
    g = pair(our_g, their_g, generator_modules(size), generator_shapes(size))
    d = pair(our_d, their_d, discriminator_modules(size), discriminator_shapes(size))
    ours, theirs = g.ours, g.theirs
    z, real = torch.randn(BATCH, size.latent), torch.rand(BATCH, IMAGE_CHANNELS, size.side, size.side) * 2 - 1
    g.train(False)
    w = theirs.mapping(z, None)
    images, their_images = ours(z), theirs(z, None, noise_mode="const")
    with truncated_layers(ours, 0.5):
        truncated = ours(z)
    result = [
        compare("w", [ours.map_latents(z)], [w[:, 0]]),
        compare("images", [images], [their_images]),
        compare("images, truncation 0.5", [truncated], [theirs(z, None, truncation_psi=0.5, noise_mode="const")]),
        compare("scores", [d.ours(real).score], [d.theirs(real, None)]),
    ]
    result += _path_lengths(g, z)
    g.train()
    torch.manual_seed(1)
    images = ours(z)
    torch.manual_seed(1)
    their_images = theirs(z, None)
    result += [
        compare("images, in training", [images], [their_images]),
        compare("running mean of w", [ours.broadcast.w_mean], [theirs.mapping.w_avg]),
    ]
    losses = softplus(-d.ours(images).score).mean(), softplus(-d.theirs(their_images, None)).mean()
    result += [g.gradients("gradients of the loss, G", *losses), d.gradients("gradients of the loss, D", *losses)]
    return [*result, _r1(d, real)]


def _path_lengths(g: Pair, z: Tensor) -> list[Comparison]:
    """Path lengths by w, as the trick `path_length` and the paper's equation 4 define them, and their gradients."""
    styles, w = g.ours.broadcast(g.ours.map_latents(z)), g.theirs.mapping(z, None)
    images, their_images = g.ours.synthesis(styles), g.theirs.synthesis(w, noise_mode="const")
    noise = torch.randn_like(images)
    lengths = path_lengths(images, styles, noise)
    total = (their_images * noise).sum() / (images.shape[2] * images.shape[3]) ** 0.5
    their_lengths = torch.autograd.grad(total, w, create_graph=True)[0].square().sum(2).mean(1).sqrt()
    return [
        compare("path lengths", [lengths], [their_lengths]),
        g.gradients("gradients of path lengths, G", lengths.square().mean(), their_lengths.square().mean()),
    ]


def _r1(d: Pair, images: Tensor) -> Comparison:
    """The gradients of R1: of the squared norms of D's gradients by the images, as the tricks here compute them."""
    x, other = (images.clone().requires_grad_() for _ in range(2))
    (gradient,) = input_gradients(d.ours(x).score.sum(), [x])
    (their_gradient,) = torch.autograd.grad(d.theirs(other, None).sum(), other, create_graph=True)
    return d.gradients("gradients of R1, D", gradient.square().sum(), their_gradient.square().sum())
