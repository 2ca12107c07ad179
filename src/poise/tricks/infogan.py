"""Codes that G must make visible (InfoGAN: Chen et al. 2016, arXiv:1606.03657; tip M03).

Some coordinates of z are codes c (`latent.kind = "codes"`): categories, and continuous ones in [-1, 1]. A second head
of D predicts them from generated samples, and both players minimise

    -E log Q(c | G(z)) = E[cross-entropy of each category] + E[(c - m)^2 / (2 sigma^2)], summed over the codes,

m being the prediction of a continuous code. The entropy of c minus this loss, up to a constant, is a lower bound of
the mutual information between c and the sample. So G gives each code a meaning that D can see, without labels: on
digits, the category often becomes the digit.

As in the authors' code (`infogan_trainer.py`), the head, and the features below it, which the paper's Q shares with D,
are trained by D's optimiser in D's moves, and G in its own; the weight and sigma are 1 there. Their head has a hidden
layer of 128 with batch norm, ours has no norm. Of latents of another kind, all coordinates are continuous codes.
Samples that a trick has taken from a pool do not count, as their codes are not known.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from poise.core.hooks import LossTerm
from poise.core.move import MoveData
from poise.core.schedules import Schedulable, bounds, in_range
from poise.core.types import ExtraOutput
from poise.latents import CodeLayout
from poise.tricks.base import TrickConfig, TrickContext


def code_loss(predicted: Tensor, codes: Tensor, layout: CodeLayout, sigma: float) -> Tensor:
    """-log Q(c | x) up to a constant, in nats per sample, B.

    Args:
        predicted: logits of the categories and predictions of the continuous codes, B x `layout.size`.
        codes: the codes, B x `layout.size`: categories as one-hot vectors, then the continuous codes.
        layout: which columns are what.
        sigma: the standard deviation of Q for continuous codes.
    """
    wanted = layout.split(codes)
    *logits, means = layout.split(predicted)
    losses = (means - wanted[-1]).square().sum(1) / (2 * sigma**2)
    for categories, one_hot in zip(logits, wanted, strict=False):
        losses = losses + cross_entropy(categories, one_hot, reduction="none")
    return losses


def code_accuracy(predicted: Tensor, codes: Tensor, layout: CodeLayout) -> Tensor:
    """The share of the categories of each sample that are predicted, B; there must be some."""
    pairs = zip(layout.split(predicted)[:-1], layout.split(codes)[:-1], strict=True)
    return torch.stack([logits.argmax(1) == one_hot.argmax(1) for logits, one_hot in pairs]).float().mean(0)


class InfoGANConfig(TrickConfig):
    """`weight` relative to the adversarial loss; `sigma` of continuous codes: a smaller one counts errors more."""

    kind: Literal["infogan"] = "infogan"
    tip: ClassVar[str] = "M03"
    source: ClassVar[str] = "Chen et al. 2016, arXiv:1606.03657"

    weight: Annotated[Schedulable, in_range(0)] = 1.0
    sigma: float = Field(default=1.0, gt=0)

    @property
    def required_outputs(self) -> frozenset[ExtraOutput]:
        """Predicted codes, unless the weight is always 0."""
        return frozenset[ExtraOutput]({"codes"}) if any(bounds(self.weight)) else frozenset()

    def build(self, name: str, context: TrickContext) -> InfoGAN:
        """See `InfoGAN`."""
        assert context.code_layout is not None
        return InfoGAN(name, self.weight, context.code_layout, self.sigma)


class InfoGAN(LossTerm):
    """Adds -E log Q(c | G(z)) to both players' losses, and logs `code_accuracy` if there are categories."""

    def __init__(self, name: str, weight: Schedulable, layout: CodeLayout, sigma: float) -> None:
        super().__init__(name, weight)
        self.layout, self.sigma = layout, sigma

    def loss(self, move: MoveData) -> Tensor:
        """The mean over G's newest samples; of packs, the codes of each sample are predicted."""
        codes = move.latents[:, : self.layout.size]
        predicted = move.extra_output("fake", "codes").reshape(len(codes), -1)
        newest = (move.fake == move.generated).flatten(1).all(1).float()
        count = move.context.ranks.mean(newest.sum())  # a pool's samples are on the last ranks only
        share = newest / count.clamp(min=1e-6)
        if self.layout.categories:
            move.logged["code_accuracy"] = (code_accuracy(predicted.detach(), codes, self.layout) * share).sum()
        return (code_loss(predicted, codes, self.layout, self.sigma) * share).sum()
