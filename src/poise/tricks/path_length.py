"""Path-length regularisation (Karras et al. 2020, arXiv:1912.04958, section 3.2 and appendix B; tip M03).

G should map a step of fixed length in w to a change of fixed size of the image, in whatever direction. With the
Jacobian J of the image with respect to w and noise y of the image's shape, |J^T y| is kept near its running mean a:

    weight E (|J^T y| - a)^2,    y ~ N(0, I) / sqrt(H W)

J^T y = grad_w <G(w), y> is one backward pass. Each layer has its own w, and |.|^2 is the sum over the coordinates and
the mean over the layers. As in the authors' code, a includes the present batch, the term is computed in every fourth
step and on half of the batch, and that half is generated anew. A generator without styles is differentiated with
respect to z.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from poise.core.double_backward import input_gradients
from poise.core.hooks import LossTerm
from poise.core.move import MoveData
from poise.core.random_streams import normal_like
from poise.core.schedules import Schedulable, in_range
from poise.core.types import Side, to_float32
from poise.networks.styles import StyleBroadcast
from poise.tricks.base import TrickConfig, TrickContext

DECAY = 0.01
"""The share of the present batch in the running mean of the lengths."""


def path_lengths(images: Tensor, styles: Tensor, noise: Tensor) -> Tensor:
    """|J^T y|, B, differentiable again: sqrt(mean over layers of the sum of squares over coordinates).

    Args:
        images: G's samples, B x C x H x W (or points, B x 2), computed from `styles`.
        styles: w of each layer, B x L x D, or latents, B x D.
        noise: N(0, 1) of the images' shape; it is divided by sqrt(H W) here.

    Source: Karras et al. 2020, arXiv:1912.04958, equation 4.
    """
    weighted = to_float32(images) * noise / math.sqrt(math.prod(images.shape[2:]))
    (gradient,) = input_gradients(weighted.sum(), [styles])
    squares = to_float32(gradient).square().sum(-1)  # B x L, or B for latents
    mean_squares = squares.reshape(len(styles), -1).mean(1)
    return (mean_squares + 1e-16).sqrt()  # a finite gradient even if the images do not depend on the styles


class PathLengthConfig(TrickConfig):
    """`weight`, times `every` in every `every`-th step, on one `shrink`-th of the batch; defaults as the authors'."""

    kind: Literal["path_length"] = "path_length"
    tip: ClassVar[str] = "M03"
    source: ClassVar[str] = "Karras et al. 2020, arXiv:1912.04958"
    needs_discriminator: ClassVar[bool] = False

    weight: Annotated[Schedulable, in_range(0)] = 2.0
    every: int = Field(default=4, ge=1)
    shrink: int = Field(default=2, ge=1)

    def build(self, name: str, context: TrickContext) -> PathLength:
        """See `PathLength`."""
        return PathLength(name, self.weight, self.every, self.shrink, context.networks[Side.G])


class PathLength(LossTerm):
    """Penalises G for lengths that differ from their running mean, which starts at 0."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})
    mean_length: Tensor

    def __init__(self, name: str, weight: Schedulable, every: int, shrink: int, g: nn.Module) -> None:
        super().__init__(name, weight, every)
        self.shrink = shrink
        self.register_buffer("mean_length", torch.zeros(()))
        self._broadcasts = tuple(module for module in g.modules() if isinstance(module, StyleBroadcast))
        """In a tuple, so that they do not become modules of the trick, whose state would contain them."""

    def loss(self, move: MoveData) -> Tensor:
        """The mean of (length - a)^2 over the samples; a is updated."""
        latents = move.latents[: max(1, len(move.latents) // self.shrink)].detach().requires_grad_()
        images, styles = self._generate(move, latents)
        noise = normal_like(images, 1.0, move.context.generator(self.name))
        lengths = path_lengths(images, styles, noise)
        share = 1 - (1 - DECAY) ** (1 / move.context.accumulate)  # the parts of a batch together count once
        mean = self.mean_length.lerp(lengths.mean(), share)
        with torch.no_grad():
            updated = move.context.ranks.mean(mean)
            self.mean_length.copy_(torch.where(updated.isfinite(), updated, self.mean_length))
        return (lengths - mean).square().mean()

    def _generate(self, move: MoveData, latents: Tensor) -> tuple[Tensor, Tensor]:
        """G's samples, and the w of each layer that they were computed from, or else the latents."""
        styles: list[Tensor] = []

        def keep_output(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            styles.append(output)

        handles = [module.register_forward_hook(keep_output) for module in self._broadcasts]
        try:
            images = move.generate_from(latents)
        finally:
            for handle in handles:
                handle.remove()
        return images, styles[0] if styles else latents
