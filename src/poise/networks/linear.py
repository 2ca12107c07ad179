"""A linear map between vectors, x to W x, as in the alignment of word vectors without a dictionary.

Conneau, Lample et al. 2018, arXiv:1710.04087 (MUSE): W has no bias and starts as the identity.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import nn

from poise.core.types import Shape
from poise.networks.base import TranslatorConfig


class LinearMap(nn.Linear):
    """x, B x in, to W x, B x out, with W the identity, or its first rows or columns, at the start."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set W to the identity."""
        nn.init.eye_(self.weight)


class LinearMapConfig(TranslatorConfig):
    """A linear map without bias, whose initial weight is the identity."""

    allows_bf16: ClassVar[bool] = False

    kind: Literal["linear_map"] = "linear_map"

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """Images are refused."""
        if len(shape) == 1:
            return None
        return (
            "a linear map translates vectors, and the samples are images",
            "use network.g kind 'unet' or 'translator'",
        )

    def build_translator(self, in_shape: Shape, out_shape: Shape) -> nn.Module:
        """See `LinearMap`."""
        return LinearMap(in_shape[0], out_shape[0])
