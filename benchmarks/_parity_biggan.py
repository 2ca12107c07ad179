"""BigGAN beside its authors' code in PyTorch (ajbrock/BigGAN-PyTorch, commit 9845943).

There are labels, attention, and spectral norm with exact singular vectors: PyTorch's power iteration is half a step
ahead of the authors', so that results in training mode differ before it has converged. The authors' D for 32 pixels
gets no attention, because it would have it in each of its four blocks. The loss is G's hinge loss, -D(G(z)).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import nn

from _parity_pairs import BATCH, IMAGE_CHANNELS, Comparison, Names, Pair, Shapes, compare, pair
from poise.core.types import Shape
from poise.networks.biggan import BigGANDiscriminatorConfig, BigGANGeneratorConfig
from poise.networks.conditioning import ProjectionConfig
from poise.networks.shared_embedding import SharedEmbeddingConfig


class BigGANSize(NamedTuple):
    """The sizes of a BigGAN with `ch` as the multiplier of the paper's channels.

    `attention_d` is None at 32 pixels, where the authors' D has several maps of equal size, each with attention if any.
    """

    side: int
    attention_g: int
    attention_d: int | None
    latent: int
    ch: int = 8
    num_classes: int = 7
    embedding: int = 24

    @property
    def g_channels(self) -> list[int]:
        """The channels of G's maps, from 4 x 4 to the image's size (tables 4 to 6 of the paper)."""
        factors = {32: (4, 4, 4, 4), 64: (16, 16, 8, 4, 2), 128: (16, 16, 8, 4, 2, 1)}[self.side]
        return [factor * self.ch for factor in factors]

    @property
    def d_channels(self) -> list[int]:
        """The channels of the outputs of D's blocks."""
        factors = {32: (4, 4, 4, 4), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16)}[self.side]
        return [factor * self.ch for factor in factors]

    @property
    def d_sides(self) -> list[int]:
        """The sides of the outputs of D's blocks: all but the last halve the map, at 32 pixels all but the last two."""
        smallest = 8 if self.side == 32 else 4
        return [max(self.side >> k, smallest) for k in range(1, len(self.d_channels) + 1)]


SIZES = (BigGANSize(32, 16, None, 32), BigGANSize(64, 32, 32, 40), BigGANSize(128, 64, 64, 48))


def generator_modules(size: BigGANSize) -> Names:
    """The authors' name of each module of our generator, by ours."""
    modules = {
        "embedding": "shared",
        "net.first": "linear",
        "net.last.0": "output_layer.0",
        "net.last.0.weight": "output_layer.0.gain",
        "net.last.2": "output_layer.2",
    }
    for k in range(len(size.g_channels) - 1):
        ours, theirs = f"net.blocks.{k}", f"blocks.{k}.0"
        for norm in (1, 2):
            modules[f"{ours}.norm{norm}.norm.0"] = f"{theirs}.bn{norm}"
            modules[f"{ours}.norm{norm}.gain"] = f"{theirs}.bn{norm}.gain"
            modules[f"{ours}.norm{norm}.shift"] = f"{theirs}.bn{norm}.bias"
        modules[f"{ours}.branch1.2"], modules[f"{ours}.branch2.1"] = f"{theirs}.conv1", f"{theirs}.conv2"
        modules[f"{ours}.shortcut.0"] = f"{theirs}.conv_sc"
        if 8 << k == size.attention_g:
            modules |= _attention_modules(f"net.attention.{k}", f"blocks.{k}.1")
    return modules


def discriminator_modules(size: BigGANSize) -> Names:
    """The authors' name of each module of our discriminator, by ours."""
    modules, index = {"embedding": "embed", "net.score": "linear"}, 0
    for k, side in enumerate(size.d_sides):
        ours, theirs, first = f"net.trunk.{index}", f"blocks.{k}.0", int(k > 0)
        modules[f"{ours}.branch.{first}"], modules[f"{ours}.branch.{first + 2}"] = f"{theirs}.conv1", f"{theirs}.conv2"
        halves = side < (size.d_sides[k - 1] if k else size.side)
        if halves or size.d_channels[k] != size.d_channels[k - 1]:
            modules[f"{ours}.shortcut.{int(halves)}"] = f"{theirs}.conv_sc"
        index += 1
        if halves and side == size.attention_d:
            modules |= _attention_modules(f"net.trunk.{index}", f"blocks.{k}.1")
            index += 1
    return modules


def _attention_modules(ours: str, theirs: str) -> Names:
    layers = {"query": "theta", "key.0": "phi", "value.0": "g", "out": "o"}
    return {ours: theirs, **{f"{ours}.{mine}": f"{theirs}.{other}" for mine, other in layers.items()}}


def redundant_biases(size: BigGANSize) -> Names:
    """The biases before a norm in the authors' G, which have no effect, to the running mean that contains them."""
    return {f"blocks.{k}.0.conv1.bias": f"blocks.{k}.0.bn2.stored_mean" for k in range(len(size.g_channels) - 1)}


def generator_shapes(size: BigGANSize) -> Shapes:
    """The tensors of the authors' BigGAN generator, except for `ONLY_THEIRS`."""
    channels, part = size.g_channels, size.latent // len(size.g_channels)
    shapes: Shapes = {"shared.weight": (size.num_classes, size.embedding)}
    shapes |= _spectral("linear", (16 * channels[0], part))
    for k, (inputs, outputs) in enumerate(pairwise(channels)):
        block = f"blocks.{k}.0"
        shapes |= _block(block, inputs, outputs, shortcut=True)
        for norm, width in (("bn1", inputs), ("bn2", outputs)):
            for name in ("gain", "bias"):
                shapes |= _spectral(f"{block}.{norm}.{name}", (width, size.embedding + part), bias=False)
            shapes |= {f"{block}.{norm}.{name}": (width,) for name in ("stored_mean", "stored_var")}
        if 8 << k == size.attention_g:
            shapes |= _attention(f"blocks.{k}.1", outputs)
    for name in ("gain", "bias", "stored_mean", "stored_var"):
        shapes[f"output_layer.0.{name}"] = (channels[-1],)
    return shapes | _spectral("output_layer.2", (IMAGE_CHANNELS, channels[-1], 3, 3))


def discriminator_shapes(size: BigGANSize) -> Shapes:
    """The tensors of the authors' BigGAN discriminator, except for `ONLY_THEIRS`."""
    shapes = _spectral("embed", (size.num_classes, size.d_channels[-1]), bias=False)
    shapes |= _spectral("linear", (1, size.d_channels[-1]))
    widths, sides = [IMAGE_CHANNELS, *size.d_channels], [size.side, *size.d_sides]
    for k, (inputs, outputs) in enumerate(pairwise(widths)):
        shapes |= _block(f"blocks.{k}.0", inputs, outputs, shortcut=inputs != outputs or sides[k + 1] < sides[k])
        if sides[k + 1] == size.attention_d:
            shapes |= _attention(f"blocks.{k}.1", outputs)
    return shapes


def _spectral(name: str, weight: tuple[int, ...], bias: bool = True) -> Shapes:
    """A layer with spectral norm, whose buffer is the left singular vector."""
    return {f"{name}.weight": weight, f"{name}.u0": (1, weight[0])} | ({f"{name}.bias": weight[:1]} if bias else {})


def _block(name: str, inputs: int, outputs: int, *, shortcut: bool) -> Shapes:
    shapes = _spectral(f"{name}.conv1", (outputs, inputs, 3, 3)) | _spectral(f"{name}.conv2", (outputs, outputs, 3, 3))
    return shapes | (_spectral(f"{name}.conv_sc", (outputs, inputs, 1, 1)) if shortcut else {})


def _attention(name: str, channels: int) -> Shapes:
    inner, values = channels // 8, channels // 2
    widths = {"theta": (inner, channels), "phi": (inner, channels), "g": (values, channels), "o": (channels, values)}
    shapes: Shapes = {f"{name}.gamma": ()}
    for layer, (outputs, inputs) in widths.items():
        shapes |= _spectral(f"{name}.{layer}", (outputs, inputs, 1, 1), bias=False)
    return shapes


def our_networks(size: BigGANSize) -> tuple[nn.Module, nn.Module]:
    """G with an embedding of the label, and D with a projection."""
    shape: Shape = (IMAGE_CHANNELS, size.side, size.side)
    widest = max(size.g_channels)
    g_config = BigGANGeneratorConfig(width=size.g_channels[-1], widest=widest, attention=size.attention_g)
    d_config = BigGANDiscriminatorConfig(width=size.d_channels[0], widest=widest, attention=size.attention_d)
    embedding = SharedEmbeddingConfig(dim=size.embedding)
    g = g_config.build_for(embedding, size.latent, shape)
    d = d_config.build(shape)
    return embedding.wrap(g, size.num_classes), ProjectionConfig().wrap(d, size.num_classes)


def authors_networks(authors: Any, size: BigGANSize) -> tuple[nn.Module, nn.Module]:
    """G and D of the authors' module, in the default dtype."""
    same = {"resolution": size.side, "n_classes": size.num_classes}
    parts = {"dim_z": size.latent, "shared_dim": size.embedding, "G_shared": True, "hier": True}
    g = authors.Generator(G_ch=size.ch, G_attn=str(size.attention_g), no_optim=True, **parts, **same)
    return g, authors.Discriminator(D_ch=size.ch, D_attn=str(size.attention_d or 0), **same)


@torch.no_grad()
def draw_redundant_biases_(theirs: nn.Module, size: BigGANSize) -> None:
    """Give the biases without effect random values, and add them to the running means of their outputs, in place."""
    state = theirs.state_dict()
    for bias, mean in redundant_biases(size).items():
        state[bias].normal_()
        state[mean].add_(state[bias])


def compare_biggan(authors: Any, size: BigGANSize) -> list[Comparison]:
    """All comparisons of one size, in the default dtype."""
    torch.manual_seed(size.side)
    (our_g, our_d), (their_g, their_d) = our_networks(size), authors_networks(authors, size)
    g = pair(our_g, their_g, generator_modules(size), generator_shapes(size))
    d = pair(our_d, their_d, discriminator_modules(size), discriminator_shapes(size))
    draw_redundant_biases_(their_g, size)
    z, real = torch.randn(BATCH, size.latent), torch.rand(BATCH, IMAGE_CHANNELS, size.side, size.side) * 2 - 1
    labels = torch.randint(size.num_classes, (BATCH,))
    result = []
    for mode in ("evaluation", "training"):
        g.train(mode == "training")
        d.train(mode == "training")
        images, their_images = g.ours(z, labels), g.theirs(z, g.theirs.shared(labels))
        scores = d.ours(images, labels).score, d.theirs(their_images, labels)
        result += [
            compare(f"images, in {mode}", [images], [their_images]),
            compare(f"scores of real images, in {mode}", [d.ours(real, labels).score], [d.theirs(real, labels)]),
            compare(f"scores of G's images, in {mode}", [scores[0]], [scores[1]]),
        ]
        losses = -scores[0].mean(), -scores[1].mean()
        result += [
            g.gradients(f"gradients of the loss, G, in {mode}", *losses),
            d.gradients(f"gradients of the loss, D, in {mode}", *losses),
        ]
    g.train(False)
    return [*result, _running_statistics(g, size)]


def _running_statistics(g: Pair, size: BigGANSize) -> Comparison:
    """The running means and variances, less the redundant biases, which are a part of the authors' means."""
    ours, theirs = g.ours.state_dict(), g.theirs.state_dict()
    biases = {mean: theirs[bias] for bias, mean in redundant_biases(size).items()}
    names = {name: other for name, other in g.names.items() if name.endswith(("running_mean", "running_var"))}
    corrected = [theirs[other] - biases.get(other, torch.zeros(())) for other in names.values()]
    return compare("running statistics", [ours[name] for name in names], corrected)
