"""Latent codes of an encoder as latents of G: sampling from the posterior, and its KL divergence from the prior."""

from __future__ import annotations

import torch
from torch import Tensor

from poise.core.random_streams import normal_like
from poise.core.types import EncoderOutput, to_float32


def reparameterize(mean: Tensor, log_var: Tensor, generator: torch.Generator) -> Tensor:
    """z = mean + exp(log_var / 2) eps, eps ~ N(0, I): a draw from N(mean, exp(log_var)) with a gradient, n x dim.

    (Kingma & Welling 2014, arXiv:1312.6114, section 2.4; Rezende 2014, arXiv:1401.4082.)
    """
    return mean + (0.5 * log_var).exp() * normal_like(mean, 1.0, generator)


def gaussian_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, I)) in nats, n: half the sum of mean^2 + var - 1 - log var.

    (Kingma & Welling 2014, arXiv:1312.6114, appendix B.)
    """
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)


def sample_codes(codes: EncoderOutput, generator: torch.Generator) -> Tensor:
    """One latent per sample, B x dim, in float32 or higher precision: the code, or a draw from its Gaussian."""
    mean = to_float32(codes.mean)
    return mean if codes.log_var is None else reparameterize(mean, to_float32(codes.log_var), generator)
