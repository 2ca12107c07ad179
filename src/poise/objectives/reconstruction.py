"""Rebuilding: games for one, in which G makes a real anew from its code and pays for what it missed (tip T25).

An autoencoder pays for the residual alone. A variational one (Kingma & Welling 2014, arXiv:1312.6114; Rezende, Mohamed
& Wierstra 2014, arXiv:1401.4082) pays for what an evidence lower bound lacks, in nats for each sample:

    -ELBO = -E log p(x | z) + beta KL(q(z | x) || p(z)),    z ~ q(z | x)

beta = 1 is the bound itself, a larger one asks for simpler codes (Higgins et al. 2017, beta-VAE). Nobody asks a
discriminator, so there is none.
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

EDGE = 1e-6
"""How near to certain a Bernoulli decoder may be: -log of it, 13.8 nats, is the most that one pixel can cost."""


def reconstruction_error(real: Tensor, rebuilt: Tensor, distance: Distance, delta: float = 1.0) -> Tensor:
    """How far `rebuilt` is from `real`, B x shape each: per sample, B, a mean over its numbers.

    `l1`: |r|; `l2`: r^2; `huber`: r^2 / 2 up to |r| = delta, delta (|r| - delta / 2) beyond (Huber 1964).
    """
    rebuilt, real = to_float32(rebuilt), to_float32(real)
    if distance == "huber":
        return huber_loss(rebuilt, real, reduction="none", delta=delta).flatten(1).mean(1)
    missed = (rebuilt - real).flatten(1)
    return missed.abs().mean(1) if distance == "l1" else missed.square().mean(1)


def bernoulli_nll(real: Tensor, rebuilt: Tensor) -> Tensor:
    """-log p(x | z) in nats, B: every number of x, -1 or 1, is a coin that G gives a chance of (rebuilt + 1) / 2.

    The chance is kept `EDGE` away from 0 and 1; the gradient goes on as if it were not, so that a pixel that is sure
    and wrong can still be put right.
    """
    told = to_float32(rebuilt).add(1).div(2)
    chance = told + (told.clamp(EDGE, 1 - EDGE) - told).detach()
    return binary_cross_entropy(chance, to_float32(real).add(1).div(2), reduction="none").flatten(1).sum(1)


def gaussian_nll(real: Tensor, rebuilt: Tensor, sigma: float) -> Tensor:
    """-log p(x | z) in nats, B: x ~ N(rebuilt, sigma^2) in each number; a density, so it may be below 0."""
    missed = (to_float32(rebuilt) - to_float32(real)).flatten(1)
    return (0.5 * (missed / sigma).square() + math.log(sigma) + 0.5 * math.log(2 * math.pi)).sum(1)


def binarize(images: Tensor, generator: torch.Generator) -> Tensor:
    """Black or white, -1 or 1, with the grey as its chance: the binarisation of Salakhutdinov & Murray 2008."""
    streams = torch.rand(images.shape, generator=generator, device=generator.device)
    return (streams < images.add(1).div(2)).to(images.dtype).mul_(2).sub_(1)


class Reconstruction(ReconstructionObjective):
    """The plain residual of an autoencoder, or of free codes: per number, in units of [-1, 1]; see `residual`."""

    kind: Literal["reconstruction"] = "reconstruction"
    distance: Distance = "l2"
    delta: float = Field(default=1.0, gt=0)

    def loss_parts(self, real: Tensor, rebuilt: Tensor, codes: EncoderOutput) -> dict[str, Tensor]:
        """`reconstruction`."""
        return {"reconstruction": reconstruction_error(real, rebuilt, self.distance, self.delta)}


class Elbo(ReconstructionObjective):
    """The bound. `sigma` is the Gaussian's, in units of [-1, 1]: the smaller, the more a missed pixel costs.

    Under `bernoulli` each move sees its pictures as `coins`; for colour and finer greys take `gaussian`.
    """

    kind: Literal["elbo"] = "elbo"
    needs_code_variance: ClassVar[bool] = True
    allows_bf16: ClassVar[bool] = False  # a coin's chance near 0 or 1 has no digits left there
    likelihood: Likelihood = "gaussian"
    sigma: float = Field(default=0.5, gt=0)
    beta: Annotated[Schedulable, in_range(0)] = 1.0

    def loss_parts(self, real: Tensor, rebuilt: Tensor, codes: EncoderOutput) -> dict[str, Tensor]:
        """`reconstruction` (-log p(x | z)), `kl` and `elbo`, in nats."""
        assert codes.log_var is not None
        if self.likelihood == "bernoulli":
            missed = bernoulli_nll(real, rebuilt)
        else:
            missed = gaussian_nll(real, rebuilt, self.sigma)
        apart = gaussian_kl(to_float32(codes.mean), to_float32(codes.log_var))
        return {"reconstruction": missed, "kl": apart, "elbo": -missed - apart}

    def prepare_real(self, real: Tensor, context: MoveContext) -> Tensor:
        """Coins, where the likelihood is of coins."""
        return binarize(real, context.generator("coins")) if self.likelihood == "bernoulli" else real

    def total_loss(self, told: Mapping[str, Tensor], context: MoveContext) -> Tensor:
        """-log p(x | z) + beta KL."""
        return told["reconstruction"] + current_value(self.beta, context) * told["kl"]
