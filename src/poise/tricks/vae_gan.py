"""What makes a hybrid of a GAN and a variational autoencoder (VAE-GAN: Larsen et al. 2016, arXiv:1512.09300; tip T08b).

G is also the decoder of an encoder. Three terms stand beside the adversarial cost, and the paper has all three:

    posterior_kl             KL(q(z | x) || p(z)): codes stay where latents are drawn from (equation 6)
    feature_reconstruction   |f(x) - f(G(z))|^2 / 2, z ~ q(z | x), f being D's last hidden layer (equation 7)
    judged_reconstruction    D judges G(z), z ~ q(z | x), beside the samples of the prior; so does G's cost

As in the paper (section 2.3) D learns nothing from the second and the encoder nothing from the third. The paper weighs
the second with gamma against the third in the decoder only, and not in the encoder. Here a term has one weight: give
the first two the same weight gamma, and the encoder's gradient is gamma times the paper's, which Adam takes out.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from poise.codes import gaussian_kl
from poise.core import Exchange, Said, Side, in_full
from poise.dials import Dial, extremes, within
from poise.objectives.base import Objective
from poise.seams import Stage, Term
from poise.tricks.base import TrickEntry


def feature_gap(real: Tensor, rebuilt: Tensor) -> Tensor:
    """|f(x) - f(x~)|^2 / 2, from features, B x F each: -log N(f(x); f(x~), I) in nats but for a constant, B."""
    return 0.5 * (rebuilt - real).square().sum(1)


class HybridEntry(TrickEntry):
    """What the three share: a weight, at which nothing acts if it is always 0."""

    tip: ClassVar[str] = "T08b"
    source: ClassVar[str] = "Larsen et al. 2016, arXiv:1512.09300"

    weight: Annotated[Dial, within(0)] = 1.0

    @property
    def acts(self) -> bool:
        """Whether it ever weighs anything."""
        return any(extremes(self.weight))

    @property
    def reads_codes(self) -> bool:
        """Yes, if it acts."""
        return self.acts


class PosteriorKLEntry(HybridEntry):
    """`weight` of the KL in nats; in a game for one of kind `reconstruction` it makes that a beta-VAE."""

    kind: Literal["posterior_kl"] = "posterior_kl"
    asks_d: ClassVar[bool] = False
    source: ClassVar[str] = "Kingma & Welling 2014, arXiv:1312.6114; Larsen et al. 2016, arXiv:1512.09300"

    weight: Annotated[Dial, within(0)] = 0.01

    @property
    def reads_region(self) -> bool:
        """Yes, if it acts."""
        return self.acts

    def build(self, name: str, stage: Stage) -> PosteriorKL:
        """See `PosteriorKL`."""
        return PosteriorKL(name, self.weight)


class PosteriorKL(Term):
    """Charges G's encoder for regions away from N(0, I)."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})
    reads_reals: ClassVar[bool] = True

    def cost(self, exchange: Exchange) -> Tensor:
        """Mean of `gaussian_kl`."""
        mean, log_var = exchange.rebuilt.codes
        assert log_var is not None
        return gaussian_kl(in_full(mean), in_full(log_var)).mean()


class FeatureReconstructionEntry(HybridEntry):
    """`weight` is the paper's gamma; ours, for features that are summed, not averaged."""

    kind: Literal["feature_reconstruction"] = "feature_reconstruction"

    weight: Annotated[Dial, within(0)] = 0.01

    @property
    def reads(self) -> frozenset[Said]:
        """Features, if it acts."""
        return frozenset[Said]({"features"}) if self.acts else frozenset()

    def build(self, name: str, stage: Stage) -> FeatureReconstruction:
        """See `FeatureReconstruction`."""
        return FeatureReconstruction(name, self.weight)


class FeatureReconstruction(Term):
    """Charges G and its encoder; the reals' features are where to go, and take no gradient.

    D is shown both in the same way, so that views (noise, shifts) do the same to a real and to what is made of it.
    """

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})
    reads_reals: ClassVar[bool] = True

    def cost(self, exchange: Exchange) -> Tensor:
        """Mean of `feature_gap`."""
        with torch.no_grad():
            goal = exchange.answer(exchange.pile("real"), exchange.labels).features
        said = exchange.answer(exchange.rebuilt.images, exchange.labels).features
        assert goal is not None, "this D says nothing of features"
        assert said is not None, "this D says nothing of features"
        return feature_gap(in_full(goal), in_full(said)).mean()


class JudgedReconstructionEntry(HybridEntry):
    """`weight` beside the cost of the prior's samples; 1 in the paper.

    At 1 D is shown two fakes for each real, and where it can't tell it calls most things fake.
    """

    kind: Literal["judged_reconstruction"] = "judged_reconstruction"

    @property
    def splits(self) -> bool:
        """Yes, if it acts."""
        return self.acts

    def build(self, name: str, stage: Stage) -> JudgedReconstruction:
        """See `JudgedReconstruction`."""
        assert stage.objective is not None
        return JudgedReconstruction(name, self.weight, stage.objective)


class JudgedReconstruction(Term):
    """What the objective charges for fakes, for what is rebuilt; D's targets for these are hard ones, always."""

    reads_reals: ClassVar[bool] = True

    def __init__(self, name: str, weight: Dial, objective: Objective) -> None:
        super().__init__(name, weight)
        self.objective = objective

    def cost(self, exchange: Exchange) -> Tensor:
        """In G's move of a code that is a constant: the encoder is not asked to fool D."""
        rebuilt, g = exchange.rebuilt, exchange.moment.side is Side.G
        images = exchange.made_of(rebuilt.latents.detach()) if g else rebuilt.images
        score = in_full(exchange.answer(images, exchange.labels).score)
        if g:
            return self.objective.g_costs(score, None)[0].mean()
        return self.objective.d_costs(exchange.score("real"), score, None)[1].mean()
