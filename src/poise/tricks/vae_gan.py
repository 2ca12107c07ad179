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

from poise.core.hooks import LossTerm
from poise.core.latent_codes import gaussian_kl
from poise.core.move import MoveData
from poise.core.schedules import Schedulable, bounds, in_range
from poise.core.types import ExtraOutput, Side, to_float32
from poise.objectives.base import Objective
from poise.tricks.base import TrickConfig, TrickContext


def feature_reconstruction_loss(real: Tensor, rebuilt: Tensor) -> Tensor:
    """|f(x) - f(x~)|^2 / 2, from features, B x F each: -log N(f(x); f(x~), I) in nats but for a constant, B."""
    return 0.5 * (rebuilt - real).square().sum(1)


class HybridConfig(TrickConfig):
    """What the three share: a weight, at which nothing acts if it is always 0."""

    tip: ClassVar[str] = "T08b"
    source: ClassVar[str] = "Larsen et al. 2016, arXiv:1512.09300"

    weight: Annotated[Schedulable, in_range(0)] = 1.0

    @property
    def is_active(self) -> bool:
        """Whether it ever weighs anything."""
        return any(bounds(self.weight))

    @property
    def needs_codes(self) -> bool:
        """Yes, if it acts."""
        return self.is_active


class PosteriorKLConfig(HybridConfig):
    """`weight` of the KL in nats; in a game for one of kind `reconstruction` it makes that a beta-VAE."""

    kind: Literal["posterior_kl"] = "posterior_kl"
    needs_discriminator: ClassVar[bool] = False
    source: ClassVar[str] = "Kingma & Welling 2014, arXiv:1312.6114; Larsen et al. 2016, arXiv:1512.09300"

    weight: Annotated[Schedulable, in_range(0)] = 0.01

    @property
    def needs_code_variance(self) -> bool:
        """Yes, if it acts."""
        return self.is_active

    def build(self, name: str, context: TrickContext) -> PosteriorKL:
        """See `PosteriorKL`."""
        return PosteriorKL(name, self.weight)


class PosteriorKL(LossTerm):
    """Charges G's encoder for regions away from N(0, I)."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})
    needs_real: ClassVar[bool] = True

    def loss(self, move: MoveData) -> Tensor:
        """Mean of `gaussian_kl`."""
        mean, log_var = move.reconstruction.codes
        assert log_var is not None
        return gaussian_kl(to_float32(mean), to_float32(log_var)).mean()


class FeatureReconstructionConfig(HybridConfig):
    """`weight` is the paper's gamma; ours, for features that are summed, not averaged."""

    kind: Literal["feature_reconstruction"] = "feature_reconstruction"

    weight: Annotated[Schedulable, in_range(0)] = 0.01

    @property
    def required_outputs(self) -> frozenset[ExtraOutput]:
        """Features, if it acts."""
        return frozenset[ExtraOutput]({"features"}) if self.is_active else frozenset()

    def build(self, name: str, context: TrickContext) -> FeatureReconstruction:
        """See `FeatureReconstruction`."""
        return FeatureReconstruction(name, self.weight)


class FeatureReconstruction(LossTerm):
    """Charges G and its encoder; the reals' features are where to go, and take no gradient.

    D is shown both in the same way, so that views (noise, shifts) do the same to a real and to what is made of it.
    """

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})
    needs_real: ClassVar[bool] = True

    def loss(self, move: MoveData) -> Tensor:
        """Mean of `feature_gap`."""
        with torch.no_grad():
            goal = move.discriminate(move.samples("real"), move.labels).features
        said = move.discriminate(move.reconstruction.images, move.labels).features
        assert goal is not None, "this D says nothing of features"
        assert said is not None, "this D says nothing of features"
        return feature_reconstruction_loss(to_float32(goal), to_float32(said)).mean()


class JudgedReconstructionConfig(HybridConfig):
    """`weight` beside the cost of the prior's samples; 1 in the paper.

    At 1 D is shown two fakes for each real, and where it can't tell it calls most things fake.
    """

    kind: Literal["judged_reconstruction"] = "judged_reconstruction"

    @property
    def needs_separate_fake_loss(self) -> bool:
        """Yes, if it acts."""
        return self.is_active

    def build(self, name: str, context: TrickContext) -> JudgedReconstruction:
        """See `JudgedReconstruction`."""
        assert context.objective is not None
        return JudgedReconstruction(name, self.weight, context.objective)


class JudgedReconstruction(LossTerm):
    """What the objective charges for fakes, for what is rebuilt; D's targets for these are hard ones, always."""

    needs_real: ClassVar[bool] = True

    def __init__(self, name: str, weight: Schedulable, objective: Objective) -> None:
        super().__init__(name, weight)
        self.objective = objective

    def loss(self, move: MoveData) -> Tensor:
        """In G's move of a code that is a constant: the encoder is not asked to fool D."""
        rebuilt, g = move.reconstruction, move.context.side is Side.G
        images = move.generate_from(rebuilt.latents.detach()) if g else rebuilt.images
        score = to_float32(move.discriminate(images, move.labels).score)
        if g:
            return self.objective.g_losses(score, None)[0].mean()
        return self.objective.d_losses(move.score("real"), score, None)[1].mean()
