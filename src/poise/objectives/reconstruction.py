"""Objectives without a discriminator: G reconstructs real samples from their latent codes (tip T25).

An autoencoder minimises the reconstruction error alone. A variational autoencoder (Kingma & Welling 2014,
arXiv:1312.6114; Rezende, Mohamed & Wierstra 2014, arXiv:1401.4082) minimises the negative evidence lower bound, in nats
per sample:

    -ELBO = -E log p(x | z) + beta KL(q(z | x) || p(z)),    z ~ q(z | x)

beta = 1 is the bound itself; a larger value penalises the information in the codes more strongly (beta-VAE, Higgins et
al. 2017).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, huber_loss

from poise.core.latent_codes import gaussian_kl
from poise.core.schedules import Schedulable, current_value, in_range
from poise.core.types import EncoderOutput, MoveContext, to_float32
from poise.objectives.base import ReconstructionObjective

Distance = Literal["l1", "l2", "huber"]
Likelihood = Literal["bernoulli", "gaussian"]

MIN_PROBABILITY = 1e-6
"""The probabilities of a Bernoulli decoder are at least this far from 0 and 1; the loss of a pixel is therefore at most
13.8 nats, the -log of it."""


def reconstruction_error(real: Tensor, reconstruction: Tensor, distance: Distance, delta: float = 1.0) -> Tensor:
    """The reconstruction error: the mean over all elements of a sample; per sample, B.

    With r = reconstruction - real, `l1` is |r|, `l2` is r^2, and `huber` is r^2 / 2 up to |r| = delta and
    delta (|r| - delta / 2) beyond (Huber 1964).
    """
    reconstruction, real = to_float32(reconstruction), to_float32(real)
    if distance == "huber":
        return huber_loss(reconstruction, real, reduction="none", delta=delta).flatten(1).mean(1)
    residual = (reconstruction - real).flatten(1)
    return residual.abs().mean(1) if distance == "l1" else residual.square().mean(1)


def bernoulli_nll(real: Tensor, reconstruction: Tensor) -> Tensor:
    """-log p(x | z) in nats, B, for binary samples.

    Each element of x is -1 or 1, and 1 with probability (reconstruction + 1) / 2. The probability is clamped to
    [`MIN_PROBABILITY`, 1 - `MIN_PROBABILITY`], but the gradient is that of the unclamped value, so that a confident and
    wrong pixel can still be corrected.
    """
    raw = to_float32(reconstruction).add(1).div(2)
    probability = raw + (raw.clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY) - raw).detach()
    return binary_cross_entropy(probability, to_float32(real).add(1).div(2), reduction="none").flatten(1).sum(1)


def gaussian_nll(real: Tensor, reconstruction: Tensor, sigma: float) -> Tensor:
    """-log p(x | z) in nats, B, for x ~ N(reconstruction, sigma^2) in each element; it can be negative."""
    residual = (to_float32(reconstruction) - to_float32(real)).flatten(1)
    return (0.5 * (residual / sigma).square() + math.log(sigma) + 0.5 * math.log(2 * math.pi)).sum(1)


def binarize(images: Tensor, generator: torch.Generator) -> Tensor:
    """Stochastic binarisation: each element becomes -1 or 1, with its grey level as probability of 1.

    Source: Salakhutdinov & Murray 2008.
    """
    uniform = torch.rand(images.shape, generator=generator, device=generator.device)
    return (uniform < images.add(1).div(2)).to(images.dtype).mul_(2).sub_(1)


class Reconstruction(ReconstructionObjective):
    """The reconstruction error of an autoencoder, or of free codes, in units of [-1, 1]; see `reconstruction_error`."""

    kind: Literal["reconstruction"] = "reconstruction"
    distance: Distance = "l2"
    delta: float = Field(default=1.0, gt=0)

    def loss_parts(self, real: Tensor, reconstruction: Tensor, codes: EncoderOutput) -> dict[str, Tensor]:
        """`reconstruction`: see `reconstruction_error`."""
        return {"reconstruction": reconstruction_error(real, reconstruction, self.distance, self.delta)}


class Elbo(ReconstructionObjective):
    """The negative evidence lower bound.

    `sigma` is the standard deviation of the Gaussian likelihood, in units of [-1, 1]; a smaller one increases the
    weight of the reconstruction error. With the `bernoulli` likelihood the images are binarised anew in each move
    (`binarize`); use `gaussian` for colour images and fine grey levels.
    """

    kind: Literal["elbo"] = "elbo"
    needs_code_variance: ClassVar[bool] = True
    allows_bf16: ClassVar[bool] = False  # too coarse for outputs near -1 and 1, where probabilities are near 0 and 1
    likelihood: Likelihood = "gaussian"
    sigma: float = Field(default=0.5, gt=0)
    beta: Annotated[Schedulable, in_range(0)] = 1.0

    def loss_parts(self, real: Tensor, reconstruction: Tensor, codes: EncoderOutput) -> dict[str, Tensor]:
        """`reconstruction` (-log p(x | z)), `kl` and `elbo`, in nats."""
        assert codes.log_var is not None
        if self.likelihood == "bernoulli":
            nll = bernoulli_nll(real, reconstruction)
        else:
            nll = gaussian_nll(real, reconstruction, self.sigma)
        kl = gaussian_kl(to_float32(codes.mean), to_float32(codes.log_var))
        return {"reconstruction": nll, "kl": kl, "elbo": -nll - kl}

    def prepare_real(self, real: Tensor, context: MoveContext) -> Tensor:
        """The real samples, binarised for the `bernoulli` likelihood."""
        return binarize(real, context.generator("coins")) if self.likelihood == "bernoulli" else real

    def total_loss(self, means: Mapping[str, Tensor], context: MoveContext) -> Tensor:
        """-log p(x | z) + beta KL."""
        return means["reconstruction"] + current_value(self.beta, context) * means["kl"]
