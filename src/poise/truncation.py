"""Truncation of latents for sampling (Brock, Donahue & Simonyan 2019, arXiv:1809.11096, section 3.1).

A trained G makes samples of higher fidelity and less variety from latents nearer to the mode of their distribution.
Training is not affected. `Latent.truncate` says how the latents of a distribution are truncated, if it has a mode. A
network with intermediate latents, such as StyleGAN2's, truncates these instead (Karras et al. 2019, arXiv:1812.04948,
appendix B).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from poise.core.types import check_floating_point, to_float64
from poise.errors import RecipeError


def truncate_gaussian(latents: Tensor, truncation: float, threshold: float = 2.0) -> Tensor:
    """Latents whose coordinates are N(0, 1), mapped to F times a Gaussian truncated to [-t, t]; the same shape.

    z' = F sqrt(2) erfinv(erf(z / sqrt 2) erf(t / sqrt 2)), the monotonic map of one distribution to the other, so that
    every latent keeps its direction roughly and the result is a function of z. This is the truncation trick of BigGAN
    with the convention of its published modules: F times a draw from the Gaussian truncated at t = 2. At F = 1 nothing
    is truncated and z is returned. The map does not tend to the identity as F tends to 1, since the tails beyond t are
    missing for every F below 1.

    Args:
        latents: Gaussian latents.
        truncation: F, above 0 and at most 1. Smaller values give samples of higher fidelity and less variety.
        threshold: t, above 0.

    Raises:
        ValueError: F is out of range, the latents are integers, or the threshold is not above 0.
    """
    if not 0 < truncation <= 1:
        raise ValueError(f"the truncation must be above 0 and at most 1, found {truncation:g}")
    check_threshold(threshold)
    check_floating_point(latents)
    if truncation == 1:
        return latents
    inside = torch.erf(to_float64(latents) / math.sqrt(2)) * math.erf(threshold / math.sqrt(2))
    inside = (math.sqrt(2) * torch.erfinv(inside)).clamp(-threshold, threshold)
    return (truncation * inside).to(latents.dtype)


def check_threshold(threshold: float) -> None:
    """Raise a ValueError unless the threshold of a truncated Gaussian is above 0."""
    if not threshold > 0:
        raise ValueError(f"the threshold must be above 0, found {threshold:g}")


def check_truncation(truncation: float, where: str = "truncation") -> None:
    """Raise a `RecipeError`, which names `where`, unless 0 < F <= 1."""
    if not 0 < truncation <= 1:
        cure = "use a number such as 0.5, or 1 for no truncation"
        raise RecipeError("must be above 0 and at most 1", where=where, found=f"{truncation:g}", cure=cure)


def truncating_layers(net: nn.Module) -> list[Any]:
    """The layers of a network, inside any wrappers, that truncate intermediate latents.

    Such a layer declares `takes_truncation = True` and reads the strength from its attribute `truncation`.
    """
    return [module for module in net.modules() if getattr(module, "takes_truncation", False)]


@contextmanager
def truncated_layers(net: nn.Module, truncation: float | Tensor) -> Iterator[bool]:
    """Let the layers of a network truncate while the context lasts, as w_mean + truncation (w - w_mean) in StyleGAN2.

    It acts in evaluation mode. 1 changes nothing, and 0 gives the mean to all samples.

    Args:
        net: the generator.
        truncation: the factor; a 0-dim tensor in a graph that is exported.

    Yields:
        Whether the network has such layers; if not, nothing is truncated.
    """
    layers = truncating_layers(net)
    previous = [layer.truncation for layer in layers]
    for layer in layers:
        layer.truncation = truncation
    try:
        yield bool(layers)
    finally:
        for layer, value in zip(layers, previous, strict=True):
            layer.truncation = value
