"""A linear map between vectors, x to W x, as in the alignment of word vectors without a dictionary.

Conneau, Lample et al. 2018, arXiv:1710.04087 (MUSE): W has no bias and starts as the identity. An adversarial game
finds the right map from some starts and not from others, and a random orthogonal matrix is another start for each seed.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import nn

from poise.core.types import Shape
from poise.networks.base import TranslatorConfig

MapStart = Literal["identity", "orthogonal"]


class LinearMap(nn.Linear):
    """x, B x in, to W x, B x out.

    At the start W is the identity, or its first rows or columns, or a random matrix with orthogonal rows or columns
    (Saxe et al. 2014, arXiv:1312.6120).
    """

    def __init__(self, in_features: int, out_features: int, start: MapStart = "identity") -> None:
        self.start = start
        super().__init__(in_features, out_features, bias=False)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set W to its start."""
        (nn.init.eye_ if self.start == "identity" else nn.init.orthogonal_)(self.weight)


class LinearMapConfig(TranslatorConfig):
    """A linear map without bias, which starts as the identity or as a random orthogonal matrix."""

    allows_bf16: ClassVar[bool] = False

    kind: Literal["linear_map"] = "linear_map"
    start: MapStart = "identity"

    def incompatibility(self, shape: Shape) -> tuple[str, str] | None:
        """Images are refused."""
        if len(shape) == 1:
            return None
        return (
            "a linear map translates vectors, and the samples are images",
            "use network.g kind 'unet' or 'translator'",
        )

    def build_translator_layers(self, in_shape: Shape, out_shape: Shape) -> nn.Module:
        """See `LinearMap`."""
        return LinearMap(in_shape[0], out_shape[0], self.start)
