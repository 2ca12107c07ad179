"""Packing (PacGAN: Lin et al. 2018, arXiv:1712.04086; tip T16): D scores m samples jointly, all real or all generated.

D computes D(x_1, ..., x_m), with the samples concatenated as m times the channels, and returns one score. A G that
drops a mode is easier to distinguish from the data by m samples than by one, because their joint distributions are
further apart. G and the objective are unchanged; only D's first layer is wider. A batch of B samples makes B / m packs.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from poise.core.hooks import NetworkTransform
from poise.core.types import DiscriminatorOutput, Side
from poise.tricks.base import TrickConfig, TrickContext


def pack_samples(samples: Tensor, m: int) -> Tensor:
    """B x C x ... to B/m x mC x ...: neighbours in the batch are concatenated."""
    return samples.reshape(len(samples) // m, m * samples.shape[1], *samples.shape[2:])


class PackingConfig(TrickConfig):
    """`samples` is the paper's m; 1 turns the trick off."""

    kind: Literal["packing"] = "packing"
    tip: ClassVar[str] = "T16"
    source: ClassVar[str] = "Lin et al. 2018, arXiv:1712.04086"

    samples: Annotated[int, Field(ge=1, le=64)] = 2

    @property
    def pack(self) -> int:
        """The paper's m."""
        return self.samples

    def build(self, name: str, context: TrickContext) -> Packing:
        """See `Packing`."""
        return Packing(name, self.samples)


class PackedDiscriminator(nn.Module):
    """A discriminator whose network takes packs of m samples."""

    def __init__(self, net: nn.Module, m: int) -> None:
        super().__init__()
        self.net, self.m = net, m
        self.width = getattr(net, "width", None)

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """B samples to B/m scores."""
        return self.net(pack_samples(images, self.m))


class Packing(NetworkTransform):
    """Wraps D, whose network was built for m times the channels (`Recipe.pack`)."""

    sides: ClassVar[frozenset[Side]] = frozenset({Side.D})

    def __init__(self, name: str, m: int) -> None:
        super().__init__(name)
        self.m = m

    def transform_network(self, side: Side, net: nn.Module) -> nn.Module:
        """See `PackedDiscriminator`."""
        return PackedDiscriminator(net, self.m) if self.m > 1 else net
