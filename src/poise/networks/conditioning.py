"""Labels for the players (tips T13 and T17): what turns a network into a conditional one.

Each kind is a shell around any network. G may get the label's embedding beside z, or norms whose scale and
shift are the label's; D may see the label as extra channels of the picture, or add to its score how well the
label fits its features. Labels are int64, B, below the number of classes.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from poise.core.config import ComponentConfig
from poise.core.types import DiscriminatorOutput, ExtraOutput, Shape
from poise.errors import RecipeError
from poise.networks.norms import BATCH_STATISTICS_NORMS, match_spectral_norm_

Finding = tuple[str, str]
"""Why something does not fit, and the cure."""


NO_NORMS = ("class-conditional batch norm needs batch norms, and this G has none", 'set network.g.norm to "batch"')


class GeneratorConditioning(ComponentConfig):
    """How G learns of the label."""

    def incompatibility(self, norm: str) -> Finding | None:
        """Why a G with `norm` can't be told in this way; None if it can."""
        return None

    def latent_dim(self, dim: int) -> int:
        """How long a z the inner network takes."""
        return dim

    def wrap(self, net: nn.Module, classes: int, scale: float = 1.0) -> nn.Module:
        """The network, told: B x dim and B to samples. `scale` is the standard deviation of a coordinate of z."""
        raise NotImplementedError


class DiscriminatorConditioning(ComponentConfig):
    """How D learns of the label."""

    required_outputs: ClassVar[frozenset[ExtraOutput]] = frozenset()
    """What D must say beside its score."""

    def incompatibility(self, norm: str, says: str) -> Finding | None:
        """Why such a D can't be told in this way; None if it can."""
        if says == "energy":
            reason = "an autoencoder's energy says how well it rebuilds, not whether a label fits"
            return reason, "leave conditioning.d out and add the trick 'auxiliary_classifier', which reads D's code"
        return None

    def input_shape(self, shape: Shape) -> Shape:
        """The shape of what the inner network sees."""
        return shape

    def wrap(self, net: nn.Module, classes: int) -> nn.Module:
        """The network, told: B x shape and B to a verdict."""
        raise NotImplementedError


class ConcatConfig(GeneratorConditioning):
    """An embedding of `dim` numbers beside z (Mirza & Osindero 2014, arXiv:1411.1784; R3GAN does the same)."""

    kind: Literal["concat"] = "concat"
    dim: int = Field(default=16, ge=1, le=4096)

    def incompatibility(self, norm: str) -> Finding | None:
        """Not with virtual batch norm."""
        return _no_reference() if norm == "virtual" else None

    def latent_dim(self, dim: int) -> int:
        """z and the embedding."""
        return dim + self.dim

    def wrap(self, net: nn.Module, classes: int, scale: float = 1.0) -> nn.Module:
        """See `Concat`."""
        return Concat(net, classes, self.dim, scale)


class Concat(nn.Module):
    """G(z, y) = net([z, scale x embedding of y]), the embedding starting as N(0, I).

    With the scale of z's own coordinates the label drowns no z: beside a z of length 1 an embedding of length 4 would.
    """

    takes_labels = True

    def __init__(self, net: nn.Module, classes: int, dim: int, scale: float = 1.0) -> None:
        super().__init__()
        self.net, self.embedding, self.scale = net, nn.Embedding(classes, dim), scale

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Samples."""
        told = self.embedding(labels)
        return self.net(torch.cat((latents, told if self.scale == 1 else self.scale * told), 1))


class ClassNormConfig(GeneratorConditioning):
    """Every batch norm's scale and shift become the label's own (Dumoulin 2017, arXiv:1610.07629; de Vries 2017)."""

    kind: Literal["class_norm"] = "class_norm"

    def incompatibility(self, norm: str) -> Finding | None:
        """Only with batch norm; whether a network of the user's has any is seen when it is built."""
        return None if norm in (*BATCH_STATISTICS_NORMS, "own") else NO_NORMS

    def wrap(self, net: nn.Module, classes: int, scale: float = 1.0) -> nn.Module:
        """See `ClassNorm`."""
        return ClassNorm(net, classes)


class ClassBatchNorm(nn.Module):
    """A batch norm without weights of its own, then a scale and a shift per class, which start as 1 and 0."""

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d, classes: int) -> None:
        super().__init__()
        self.norm = type(norm)(norm.num_features, eps=norm.eps, momentum=norm.momentum, affine=False)
        self.scale, self.shift = (nn.Embedding(classes, norm.num_features) for _ in range(2))
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)
        self.labels: Tensor | None = None
        """Of the batch that passes; whispered by `ClassNorm`, since the layers in between hand on maps alone."""

    def forward(self, x: Tensor) -> Tensor:
        """B x C x H x W, or B x C; the same shape."""
        assert self.labels is not None, "a class-conditional norm was asked without labels"
        over = (..., *(None for _ in x.shape[2:]))
        scale, shift = (told(self.labels)[over].to(x.dtype) for told in (self.scale, self.shift))
        return self.norm(x) * scale + shift


class ClassNorm(nn.Module):
    """G(z, y) = net(z), with every batch norm replaced by a class-conditional one."""

    takes_labels = True

    def __init__(self, net: nn.Module, classes: int) -> None:
        super().__init__()
        found = [
            (module, name, child)
            for module in net.modules()
            for name, child in module.named_children()
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d)
        ]
        if not found:
            raise RecipeError(NO_NORMS[0], where="conditioning.g", cure=NO_NORMS[1])
        for module, name, child in found:
            setattr(module, name, ClassBatchNorm(child, classes))
        self.net = net

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Samples."""
        norms = [module for module in self.net.modules() if isinstance(module, ClassBatchNorm)]
        for norm in norms:
            norm.labels = labels
        try:
            return self.net(latents)
        finally:
            for norm in norms:
                norm.labels = None


class ChannelsConfig(DiscriminatorConditioning):
    """An embedding of `dim` numbers, spread over the picture as `dim` extra channels (ganhacks 16)."""

    kind: Literal["channels"] = "channels"
    dim: int = Field(default=8, ge=1, le=256)

    def incompatibility(self, norm: str, says: str) -> Finding | None:
        """Not with virtual batch norm, nor for an autoencoder."""
        return _no_reference() if norm == "virtual" else super().incompatibility(norm, says)

    def input_shape(self, shape: Shape) -> Shape:
        """`dim` channels more; `dim` coordinates more for points."""
        return (shape[0] + self.dim, *shape[1:])

    def wrap(self, net: nn.Module, classes: int) -> nn.Module:
        """See `Channels`."""
        return Channels(net, classes, self.dim)


class Channels(nn.Module):
    """D(x, y) = net([x, embedding of y, the same at every place])."""

    takes_labels = True

    def __init__(self, net: nn.Module, classes: int, dim: int) -> None:
        super().__init__()
        self.net, self.embedding = net, nn.Embedding(classes, dim)
        self.width = getattr(net, "width", None)

    def forward(self, images: Tensor, labels: Tensor) -> DiscriminatorOutput:
        """What D says."""
        told = self.embedding(labels)[(..., *(None for _ in images.shape[2:]))]
        return self.net(torch.cat((images, told.expand(-1, -1, *images.shape[2:]).to(images.dtype)), 1))


class ProjectionConfig(DiscriminatorConditioning):
    """The score grows by <embedding of y, features> (Miyato & Koyama 2018, arXiv:1802.05637, equation 4)."""

    kind: Literal["projection"] = "projection"
    required_outputs: ClassVar[frozenset[ExtraOutput]] = frozenset({"features"})

    def wrap(self, net: nn.Module, classes: int) -> nn.Module:
        """See `Projection`."""
        return Projection(net, classes)


class Projection(nn.Module):
    """D(x, y) = net(x) + <V_y, features of x>. V starts as N(0, 1/F), so that both parts are of one size.

    Where the network's weights are spectrally normed, V is too, as in the paper.
    """

    takes_labels = True

    def __init__(self, net: nn.Module, classes: int) -> None:
        super().__init__()
        self.width: int = net.width  # type: ignore[assignment]
        self.net, self.embedding = net, nn.Embedding(classes, self.width)
        nn.init.normal_(self.embedding.weight, 0.0, self.width**-0.5)
        match_spectral_norm_(self.embedding, net)

    def forward(self, images: Tensor, labels: Tensor) -> DiscriminatorOutput:
        """What D says."""
        said: DiscriminatorOutput = self.net(images)
        assert said.features is not None
        return said._replace(score=said.score + (self.embedding(labels) * said.features).sum(1))


def _no_reference() -> Finding:
    return "the reference batch of virtual batch norm has no labels to go beside", 'take norm "layer" or "group"'
