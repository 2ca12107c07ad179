"""Class-conditional networks (tips T13 and T17).

Each kind of conditioning is a module that wraps an unconditional network. For G it concatenates z with an embedding of
the label, or gives batch norms a scale and shift per class. For D, and for a G that translates images, it adds channels
with an embedding of the label to the image; for D it may also add to the score the inner product of the features with
an embedding of the label. Labels are int64, B, below the number of classes.

A module names those of its layers whose weights have a row for each class in `class_layers`, so that a run that starts
from the weights of another one finds the rows of the classes that both have (`engine/initial_weights.py`).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from poise.core.config import ComponentConfig
from poise.core.types import DiscriminatorOutput, ExtraOutput, Shape, for_patches
from poise.errors import RecipeError
from poise.networks.norms import BATCH_STATISTICS_NORMS, match_spectral_norm_

Incompatibility = tuple[str, str]
"""The reason, and what to do about it."""

NO_NORMS = (
    "class-conditional batch norm replaces batch norms, and this generator has none",
    'set network.g.norm to "batch"',
)
VIRTUAL_NORM = ("the reference batch of virtual batch norm has no labels", 'use norm "layer" or "group"')


class GeneratorConditioning(ComponentConfig):
    """How G is conditioned on the label."""

    of_images: ClassVar[bool] = False
    """Whether it is for a G that starts from images, instead of one that starts from vectors."""

    def incompatibility(self, norm: str) -> Incompatibility | None:
        """Why a G with `norm` does not support it, and what to do; None if it does."""
        return None

    def latent_dim(self, dim: int) -> int:
        """The input dimension of the wrapped network, for latents of dimension `dim`."""
        return dim

    def input_shape(self, shape: Shape) -> Shape:
        """The input shape of the wrapped network, for images of shape `shape` that G starts from."""
        return shape

    def wrap(self, net: nn.Module, num_classes: int, scale: float = 1.0) -> nn.Module:
        """The conditional network: latents, B x dim, and labels, B, to samples.

        Args:
            net: the network to wrap.
            num_classes: the number of classes.
            scale: the standard deviation of a coordinate of z.
        """
        raise NotImplementedError


class DiscriminatorConditioning(ComponentConfig):
    """How D is conditioned on the label."""

    required_outputs: ClassVar[frozenset[ExtraOutput]] = frozenset()
    """The outputs of D that it needs in addition to the score."""

    def incompatibility(self, norm: str, output_kind: str) -> Incompatibility | None:
        """Why a D with this norm and kind of output does not support it, and what to do; None if it does."""
        if output_kind == "energy":
            reason = "the energy of an autoencoder is its reconstruction error, which does not depend on the label"
            return reason, "remove conditioning.d and add the trick 'auxiliary_classifier', which uses the latent code"
        return None

    def input_shape(self, shape: Shape) -> Shape:
        """The input shape of the wrapped network, for samples of shape `shape`."""
        return shape

    def wrap(self, net: nn.Module, num_classes: int) -> nn.Module:
        """The conditional network: samples, B x shape, and labels, B, to a `DiscriminatorOutput`."""
        raise NotImplementedError


class ConcatConfig(GeneratorConditioning):
    """An embedding of dimension `dim`, concatenated with z (Mirza & Osindero 2014, arXiv:1411.1784; also R3GAN)."""

    kind: Literal["concat"] = "concat"
    dim: int = Field(default=16, ge=1, le=4096)

    def incompatibility(self, norm: str) -> Incompatibility | None:
        """Virtual batch norm is refused."""
        return VIRTUAL_NORM if norm == "virtual" else None

    def latent_dim(self, dim: int) -> int:
        """The dimension of z plus that of the embedding."""
        return dim + self.dim

    def wrap(self, net: nn.Module, num_classes: int, scale: float = 1.0) -> nn.Module:
        """See `Concat`."""
        return Concat(net, num_classes, self.dim, scale)


class Concat(nn.Module):
    """G(z, y) = net([z, scale x embedding of y]), with an embedding initialised from N(0, I).

    With the scale of z's coordinates the embedding does not dominate z, as an embedding of norm 4 would beside a z of
    norm 1.
    """

    takes_labels = True
    class_layers = ("embedding",)

    def __init__(self, net: nn.Module, num_classes: int, dim: int, scale: float = 1.0) -> None:
        super().__init__()
        self.net, self.embedding, self.scale = net, nn.Embedding(num_classes, dim), scale

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """The samples."""
        return self.net(self.wrapped_inputs(latents, labels))

    def wrapped_inputs(self, latents: Tensor, labels: Tensor) -> Tensor:
        """The inputs of the wrapped network, B x (dim of z + dim of the embedding)."""
        embedded = self.embedding(labels)
        return torch.cat((latents, embedded if self.scale == 1 else self.scale * embedded), 1)


class ClassNormConfig(GeneratorConditioning):
    """Batch norms with a scale and shift per class (Dumoulin 2017, arXiv:1610.07629; de Vries 2017)."""

    kind: Literal["class_norm"] = "class_norm"

    def incompatibility(self, norm: str) -> Incompatibility | None:
        """Norms other than batch norm are refused; a custom network is checked when it is wrapped."""
        return None if norm in (*BATCH_STATISTICS_NORMS, "own") else NO_NORMS

    def wrap(self, net: nn.Module, num_classes: int, scale: float = 1.0) -> nn.Module:
        """See `ClassNorm`."""
        return ClassNorm(net, num_classes)


class ClassBatchNorm(nn.Module):
    """A batch norm without affine weights, followed by a scale and shift per class, which start at 1 and 0."""

    class_layers = ("scale", "shift")

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d, num_classes: int) -> None:
        super().__init__()
        self.norm = type(norm)(norm.num_features, eps=norm.eps, momentum=norm.momentum, affine=False)
        self.scale, self.shift = (nn.Embedding(num_classes, norm.num_features) for _ in range(2))
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)
        self.labels: Tensor | None = None
        """The labels of the current batch; set by `ClassNorm`, as the layers in between pass on feature maps only."""

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W, or B x C, to the same shape."""
        assert self.labels is not None, "a class-conditional batch norm was called without labels"
        broadcast = (..., *(None for _ in x.shape[2:]))
        scale, shift = (table(self.labels)[broadcast].to(x.dtype) for table in (self.scale, self.shift))
        return self.norm(x) * scale + shift


class ClassNorm(nn.Module):
    """G(z, y) = net(z), with every batch norm replaced by a class-conditional one."""

    takes_labels = True

    def __init__(self, net: nn.Module, num_classes: int) -> None:
        super().__init__()
        norms = [
            (module, name, child)
            for module in net.modules()
            for name, child in module.named_children()
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d)
        ]
        if not norms:
            raise RecipeError(NO_NORMS[0], where="conditioning.g", cure=NO_NORMS[1])
        for module, name, child in norms:
            setattr(module, name, ClassBatchNorm(child, num_classes))
        self.net = net

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """The samples."""
        norms = [module for module in self.net.modules() if isinstance(module, ClassBatchNorm)]
        for norm in norms:
            norm.labels = labels
        try:
            return self.net(latents)
        finally:
            for norm in norms:
                norm.labels = None


class SourceChannelsConfig(GeneratorConditioning):
    """An embedding of dimension `dim`, broadcast over the image that G translates as `dim` extra channels.

    StarGAN (Choi et al. 2018, arXiv:1711.09020) adds a channel per class, which is 1 for the label and otherwise 0. Any
    function of those channels after a convolution is one of these after a convolution, if `dim` is at least the number
    of classes.
    """

    of_images: ClassVar[bool] = True

    kind: Literal["channels"] = "channels"
    dim: int = Field(default=8, ge=1, le=256)

    def incompatibility(self, norm: str) -> Incompatibility | None:
        """Virtual batch norm is refused."""
        return VIRTUAL_NORM if norm == "virtual" else None

    def input_shape(self, shape: Shape) -> Shape:
        """The shape with `dim` more channels."""
        return (shape[0] + self.dim, *shape[1:])

    def wrap(self, net: nn.Module, num_classes: int, scale: float = 1.0) -> nn.Module:
        """See `Channels`."""
        return Channels(net, num_classes, self.dim)


class ChannelsConfig(DiscriminatorConditioning):
    """An embedding of dimension `dim`, broadcast over the image as `dim` extra channels (ganhacks 16)."""

    kind: Literal["channels"] = "channels"
    dim: int = Field(default=8, ge=1, le=256)

    def incompatibility(self, norm: str, output_kind: str) -> Incompatibility | None:
        """Virtual batch norm and autoencoders are refused."""
        return VIRTUAL_NORM if norm == "virtual" else super().incompatibility(norm, output_kind)

    def input_shape(self, shape: Shape) -> Shape:
        """The shape with `dim` more channels, or for points `dim` more coordinates."""
        return (shape[0] + self.dim, *shape[1:])

    def wrap(self, net: nn.Module, num_classes: int) -> nn.Module:
        """See `Channels`."""
        return Channels(net, num_classes, self.dim)


class Channels(nn.Module):
    """net([x, embedding of y, repeated at each pixel]): D's score of the image x, or G's translation of it."""

    takes_labels = True
    class_layers = ("embedding",)

    def __init__(self, net: nn.Module, num_classes: int, dim: int) -> None:
        super().__init__()
        self.net, self.embedding = net, nn.Embedding(num_classes, dim)
        self.width = getattr(net, "width", None)

    def forward(self, images: Tensor, labels: Tensor) -> DiscriminatorOutput | Tensor:
        """The output of the wrapped network."""
        embedded = self.embedding(labels)[(..., *(None for _ in images.shape[2:]))]
        return self.net(torch.cat((images, embedded.expand(-1, -1, *images.shape[2:]).to(images.dtype)), 1))


class ProjectionConfig(DiscriminatorConditioning):
    """Adds <embedding of y, features> to the score (Miyato & Koyama 2018, arXiv:1802.05637, equation 4)."""

    kind: Literal["projection"] = "projection"
    required_outputs: ClassVar[frozenset[ExtraOutput]] = frozenset({"features"})

    def wrap(self, net: nn.Module, num_classes: int) -> nn.Module:
        """See `Projection`."""
        return Projection(net, num_classes)


class Projection(nn.Module):
    """D(x, y) = net(x) + <V_y, features of x>.

    V is initialised from N(0, 1/F) for F features, so that both terms have the same scale. If the weights of the
    network are spectrally normalised, V is too, as in the paper.
    """

    takes_labels = True
    class_layers = ("embedding",)

    def __init__(self, net: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.width: int = net.width  # type: ignore[assignment]
        self.net, self.embedding = net, nn.Embedding(num_classes, self.width)
        nn.init.normal_(self.embedding.weight, 0.0, self.width**-0.5)
        match_spectral_norm_(self.embedding, net)

    def forward(self, images: Tensor, labels: Tensor) -> DiscriminatorOutput:
        """The output of the wrapped network, with the projection added to the score."""
        output: DiscriminatorOutput = self.net(images)
        assert output.features is not None
        projection = (self.embedding(labels) * output.features).sum(1)
        return output._replace(score=output.score + for_patches(projection, output.score))
