"""The losses between images that train a translator beside D (tips T13, T18, T19).

G's move compares what G generated with what it started from. A sample is (a, b), one image of each of two domains; G_AB
translates a, and G_BA, if there is one, translates b.

    target_l1              |G_AB(a) - b|, b being the true target of a (pix2pix: weight 100)
    cycle                  |G_BA(G_AB(a)) - a| and |G_AB(G_BA(b)) - b| (CycleGAN: weight 10)
    identity_mapping       |G_AB(b) - b| and |G_BA(a) - a| (CycleGAN: weight 5)
    self_regularization    |G_AB(a) - a| (SimGAN)

|.| is the mean absolute difference over all values of an image, with images in [-1, 1]. Where there are two directions,
a loss is the mean over both, as G's adversarial loss is. Their published sums are twice that in each case, so that the
weights relative to the adversarial loss are the published ones. But CycleGAN's least squares, (D - 1)^2, are twice
those of `least_squares` here, with which half of its weights, 5 and 2.5, are the published ones. SimGAN instead sums
this loss over the values of an image and the adversarial loss over D's patches: with N values and P patches, its weight
w is w N / P here, if pixels have the same range.

Sources: Isola et al. 2017, arXiv:1611.07004, equation 3; Zhu et al. 2017, arXiv:1703.10593, equation 2 and section 5.2;
Shrivastava et al. 2017, arXiv:1612.07828, equation 4, with the identity as feature transform.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from poise.core.hooks import LossTerm
from poise.core.move import MoveData
from poise.core.schedules import Schedulable, in_range
from poise.core.types import Side, to_float32
from poise.networks.translation import TRANSLATED, Direction, Parts, split_parts, swap_domains
from poise.tricks.base import TrickConfig, TrickContext

PIX2PIX = "Isola et al. 2017, arXiv:1611.07004"
CYCLEGAN = "Zhu et al. 2017, arXiv:1703.10593"
SIMGAN = "Shrivastava et al. 2017, arXiv:1612.07828"


def domain_l1(images: Tensor, targets: Tensor, parts: Parts, domains: tuple[int, ...]) -> Tensor:
    """The mean absolute difference, 0-dim, averaged over the given domains with equal weights.

    Args:
        images: B x sum(parts) x ..., an image of each domain per sample.
        targets: the same shape.
        parts: the number of channels of each domain.
        domains: the indices of the domains that are compared.
    """
    pairs = list(zip(*(split_parts(to_float32(both), parts) for both in (images, targets)), strict=True))
    return torch.stack([(pairs[k][0] - pairs[k][1]).abs().mean() for k in domains]).mean()


class TranslationLoss(LossTerm):
    """A loss between the images of G's move; it knows which domains G generates.

    Args:
        name: see `Trick`.
        weight: see `LossTerm`.
        context: gives the parts of a sample and the direction.
    """

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})

    def __init__(self, name: str, weight: Schedulable, context: TrickContext) -> None:
        super().__init__(name, weight)
        self.direction: Direction = context.direction or "same"
        shape, parts = context.data_spec.shape, context.data_spec.parts
        self.parts: Parts = parts if self.direction != "same" and parts else (shape[0],)
        self.translated = TRANSLATED[self.direction]

    def distance(self, images: Tensor, targets: Tensor) -> Tensor:
        """`domain_l1` over the domains that G generates."""
        return domain_l1(images, targets, self.parts, self.translated)


class TargetL1Config(TrickConfig):
    """`weight` relative to the adversarial loss: 100 in pix2pix."""

    kind: Literal["target_l1"] = "target_l1"
    tip: ClassVar[str] = "T18"
    source: ClassVar[str] = PIX2PIX
    directions: ClassVar[frozenset[Direction]] = frozenset[Direction]({"a_to_b", "both_ways"})
    needs_pairs: ClassVar[bool] = True

    weight: Annotated[Schedulable, in_range(0)] = 100.0

    def build(self, name: str, context: TrickContext) -> TargetL1:
        """See `TargetL1`."""
        return TargetL1(name, self.weight, context)


class TargetL1(TranslationLoss):
    """Adds E|G(a) - b| to G's loss; the true target b is beside a in what G started from."""

    def loss(self, move: MoveData) -> Tensor:
        """See `domain_l1`."""
        return self.distance(move.fake, move.latents)


class CycleConfig(TrickConfig):
    """`weight` relative to the adversarial loss: 10 in CycleGAN."""

    kind: Literal["cycle"] = "cycle"
    tip: ClassVar[str] = "T19"
    source: ClassVar[str] = CYCLEGAN
    directions: ClassVar[frozenset[Direction]] = frozenset[Direction]({"both_ways"})

    weight: Annotated[Schedulable, in_range(0)] = 10.0

    def build(self, name: str, context: TrickContext) -> Cycle:
        """See `Cycle`."""
        return Cycle(name, self.weight, context)


class Cycle(TranslationLoss):
    """Adds E|G_BA(G_AB(a)) - a| and E|G_AB(G_BA(b)) - b| to G's loss, which generates (G_BA(b), G_AB(a)) of (a, b)."""

    def loss(self, move: MoveData) -> Tensor:
        """See `domain_l1`; G translates its images of this move back."""
        return self.distance(move.generate_from(move.fake), move.latents)


class IdentityMappingConfig(TrickConfig):
    """`weight` relative to the adversarial loss: 5 in CycleGAN, half the weight of the cycle; some sets need 0."""

    kind: Literal["identity_mapping"] = "identity_mapping"
    tip: ClassVar[str] = "T19"
    source: ClassVar[str] = CYCLEGAN
    directions: ClassVar[frozenset[Direction]] = frozenset[Direction]({"a_to_b", "both_ways"})
    compares_domains: ClassVar[bool] = True

    weight: Annotated[Schedulable, in_range(0)] = 5.0

    def build(self, name: str, context: TrickContext) -> IdentityMapping:
        """See `IdentityMapping`."""
        return IdentityMapping(name, self.weight, context)


class IdentityMapping(TranslationLoss):
    """Adds E|G_AB(b) - b| and E|G_BA(a) - a| to G's loss: an image of the target domain stays as it is."""

    def loss(self, move: MoveData) -> Tensor:
        """See `domain_l1`; G starts from (b, a) in place of (a, b)."""
        return self.distance(move.generate_from(swap_domains(move.latents, self.parts)), move.latents)


class SelfRegularizationConfig(TrickConfig):
    """`weight` times the mean absolute change of an image by G, see the module for SimGAN's weights."""

    kind: Literal["self_regularization"] = "self_regularization"
    tip: ClassVar[str] = "T19"
    source: ClassVar[str] = SIMGAN
    directions: ClassVar[frozenset[Direction]] = frozenset[Direction]({"a_to_b", "both_ways", "same"})
    compares_domains: ClassVar[bool] = True

    weight: Annotated[Schedulable, in_range(0)] = 1.0

    def build(self, name: str, context: TrickContext) -> SelfRegularization:
        """See `SelfRegularization`."""
        return SelfRegularization(name, self.weight, context)


class SelfRegularization(TranslationLoss):
    """Adds E|G(a) - a| to G's loss, so that G changes its input as little as D permits."""

    def loss(self, move: MoveData) -> Tensor:
        """See `domain_l1`."""
        sources = move.latents if self.direction == "same" else swap_domains(move.latents, self.parts)
        return self.distance(move.fake, sources)
