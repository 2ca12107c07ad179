"""The loss terms of a VAE-GAN: a GAN and a variational autoencoder (Larsen et al. 2016, arXiv:1512.09300; tip T08b).

G is also the decoder of an encoder. Three terms can be added to the adversarial loss; the paper uses all three:

    posterior_kl             KL(q(z | x) || p(z)): keeps codes where latents are sampled (equation 6)
    feature_reconstruction   |f(x) - f(G(z))|^2 / 2, z ~ q(z | x), f being D's last hidden layer (equation 7)
    judged_reconstruction    D also classifies reconstructions G(z), z ~ q(z | x); G's loss gets the matching term

As in the paper (section 2.3), the second term does not train D and the third does not train the encoder. The paper
weights the second with gamma against the third in the decoder only, and not in the encoder. Here a term has one weight:
if the first two have the same weight gamma, the encoder's gradient is gamma times the paper's, which Adam normalises.
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


def feature_reconstruction_loss(real: Tensor, reconstruction: Tensor) -> Tensor:
    """|f(x) - f(x~)|^2 / 2, B, from features, B x F each: -log N(f(x); f(x~), I) in nats up to a constant."""
    return 0.5 * (reconstruction - real).square().sum(1)


class HybridConfig(TrickConfig):
    """The common fields of the three terms: a weight; the term is inactive if it is always 0."""

    tip: ClassVar[str] = "T08b"
    source: ClassVar[str] = "Larsen et al. 2016, arXiv:1512.09300"

    weight: Annotated[Schedulable, in_range(0)] = 1.0

    @property
    def is_active(self) -> bool:
        """Whether the weight is ever above 0."""
        return any(bounds(self.weight))

    @property
    def needs_codes(self) -> bool:
        """True if the term is active."""
        return self.is_active


class PosteriorKLConfig(HybridConfig):
    """`weight` of the KL in nats; in training with `reconstruction` and no discriminator it makes a beta-VAE."""

    kind: Literal["posterior_kl"] = "posterior_kl"
    needs_discriminator: ClassVar[bool] = False
    source: ClassVar[str] = "Kingma & Welling 2014, arXiv:1312.6114; Larsen et al. 2016, arXiv:1512.09300"

    weight: Annotated[Schedulable, in_range(0)] = 0.01

    @property
    def needs_code_variance(self) -> bool:
        """True if the term is active."""
        return self.is_active

    def build(self, name: str, context: TrickContext) -> PosteriorKL:
        """See `PosteriorKL`."""
        return PosteriorKL(name, self.weight)


class PosteriorKL(LossTerm):
    """Penalises the encoder's Gaussians for their divergence from N(0, I)."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})
    needs_real: ClassVar[bool] = True

    def loss(self, move: MoveData) -> Tensor:
        """The mean of `gaussian_kl`."""
        mean, log_var = move.reconstruction.codes
        assert log_var is not None
        return gaussian_kl(to_float32(mean), to_float32(log_var)).mean()


class FeatureReconstructionConfig(HybridConfig):
    """`weight` is the paper's gamma; the default is our choice, for features that are summed, not averaged."""

    kind: Literal["feature_reconstruction"] = "feature_reconstruction"

    weight: Annotated[Schedulable, in_range(0)] = 0.01

    @property
    def required_outputs(self) -> frozenset[ExtraOutput]:
        """Features, if the term is active."""
        return frozenset[ExtraOutput]({"features"}) if self.is_active else frozenset()

    def build(self, name: str, context: TrickContext) -> FeatureReconstruction:
        """See `FeatureReconstruction`."""
        return FeatureReconstruction(name, self.weight)


class FeatureReconstruction(LossTerm):
    """Adds the term to the loss of G and its encoder; the features of the real samples are a constant target.

    Both go through D in the same way, so that input transforms (noise, shifts) change a real sample and its
    reconstruction alike.
    """

    sides: ClassVar[frozenset[Side]] = frozenset({Side.G})
    needs_real: ClassVar[bool] = True

    def loss(self, move: MoveData) -> Tensor:
        """The mean of `feature_reconstruction_loss`."""
        with torch.no_grad():
            target = move.discriminate(move.samples("real"), move.labels).features
        features = move.discriminate(move.reconstruction.images, move.labels).features
        assert target is not None, "this D does not return features"
        assert features is not None, "this D does not return features"
        return feature_reconstruction_loss(to_float32(target), to_float32(features)).mean()


class JudgedReconstructionConfig(HybridConfig):
    """`weight` relative to the loss of samples from the prior; 1 in the paper.

    At 1, D gets two fake samples for each real one, and calls most samples fake that it cannot tell apart.
    """

    kind: Literal["judged_reconstruction"] = "judged_reconstruction"

    @property
    def needs_separate_fake_loss(self) -> bool:
        """True if the term is active."""
        return self.is_active

    def build(self, name: str, context: TrickContext) -> JudgedReconstruction:
        """See `JudgedReconstruction`."""
        assert context.objective is not None
        return JudgedReconstruction(name, self.weight, context.objective)


class JudgedReconstruction(LossTerm):
    """The objective's loss of fake samples, applied to reconstructions; D's and G's targets for these are always hard.

    It is a second loss beside that of the samples from the prior: a selection of those (`top_k`) does not concern it.
    """

    needs_real: ClassVar[bool] = True

    def __init__(self, name: str, weight: Schedulable, objective: Objective) -> None:
        super().__init__(name, weight)
        self.objective = objective

    def loss(self, move: MoveData) -> Tensor:
        """The loss of the reconstructions; in G's move codes are constant, so the encoder is not trained to fool D."""
        reconstruction, is_g = move.reconstruction, move.context.side is Side.G
        images = move.generate_from(reconstruction.latents.detach()) if is_g else reconstruction.images
        score = to_float32(move.discriminate(images, move.labels).score)
        if is_g:
            return self.objective.g_losses(score, None)[0].mean()
        return self.objective.d_losses(move.score("real"), score, None)[1].mean()
