"""Toy distributions in the plane, on which a GAN trains within seconds and its failures are visible.

Ring and grid are the published ones (Metz et al. 2017, arXiv:1611.02163; Lin et al. 2018, arXiv:1712.04086):
eight modes on a circle of radius 1 with sigma 0.01, and 25 modes at distance 2 with sigma 0.05. Samples are pure
functions of (n, generator).
"""

from __future__ import annotations

import hashlib
import math
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from poise.core.random_streams import RandomStreams
from poise.core.types import Batch
from poise.data.config import ToyConfig
from poise.data.source import DataSplits, Source
from poise.retired import attribute_of


@cache
def ring_modes(modes: int = 8, radius: float = 1.0) -> Tensor:
    """Mode centres evenly spaced on a circle, modes x 2."""
    angle = torch.arange(modes, dtype=torch.float64) * (2 * math.pi / modes)
    return (radius * torch.stack((angle.cos(), angle.sin()), 1)).float()


@cache
def grid_modes(side: int = 5, step: float = 2.0) -> Tensor:
    """Mode centres on a square lattice around 0, side^2 x 2."""
    line = (torch.arange(side) - (side - 1) / 2) * step
    return torch.cartesian_prod(line, line)


def mixture(n: int, modes: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """n points, n x 2, from an equally weighted mixture of isotropic Gaussians."""
    component = torch.randint(len(modes), (n,), generator=generator)
    return torch.randn(n, 2, generator=generator).mul_(sigma).add_(modes[component])


def swiss_roll(n: int, sigma: float, generator: torch.Generator) -> Tensor:
    """The Swiss roll of WGAN-GP's toy data: t (cos t, sin t), t uniform in [1.5 pi, 4.5 pi], scaled to radius 2."""
    t = torch.rand(n, generator=generator).mul_(3 * math.pi).add_(1.5 * math.pi)
    roll = torch.stack((t.cos(), t.sin()), 1) * (t * (2 / (4.5 * math.pi)))[:, None]
    return roll + torch.randn(n, 2, generator=generator) * sigma


def two_moons(n: int, sigma: float, generator: torch.Generator) -> Tensor:
    """Two interleaved half circles of radius 1, centred on 0."""
    angle = torch.rand(n, generator=generator) * math.pi
    lower = torch.randint(2, (n,), generator=generator).bool()
    x = torch.where(lower, 1 - angle.cos(), angle.cos()) - 0.5
    y = torch.where(lower, 0.5 - angle.sin(), angle.sin()) - 0.25
    return torch.stack((x, y), 1) + torch.randn(n, 2, generator=generator) * sigma


def spiral(n: int, sigma: float, generator: torch.Generator, arms: int = 2) -> Tensor:
    """Arms of an Archimedean spiral, which run 1.5 turns from the centre to radius 2."""
    t = torch.rand(n, generator=generator).sqrt()
    arm = torch.randint(arms, (n,), generator=generator)
    angle = t * 3 * math.pi + arm * (2 * math.pi / arms)
    line = torch.stack((angle.cos(), angle.sin()), 1) * (2 * t)[:, None]
    return line + torch.randn(n, 2, generator=generator) * sigma


class ToySource(Source):
    """An endless source of fresh points.

    Args:
        config: the distribution.
    """

    def __init__(self, config: PlaneConfig) -> None:
        self.config, self.shape = config, config.shape

    def batch(self, index: int, size: int, streams: RandomStreams) -> Batch:
        """Batch `index`: a function of (seed, index), drawn on the host so that it does not depend on the device."""
        return Batch(self.draw(size, _host(streams)("data", index)))

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n points, n x 2, float32."""
        return self.config.points(n, generator)

    def preview(self, n: int) -> Tensor:
        """n points, which do not depend on the seed."""
        return self.draw(n, torch.Generator().manual_seed(20161204))

    @property
    def fingerprint(self) -> str:
        """A hash of the distribution's parameters."""
        return hashlib.sha256(self.config.model_dump_json().encode()).hexdigest()[:16]


def _host(streams: RandomStreams) -> RandomStreams:
    return streams if streams.device.type == "cpu" else RandomStreams(streams.seed)


class PlaneConfig(ToyConfig):
    """The base of the toy distributions."""

    sigma: float = Field(default=0.05, ge=0)

    def points(self, n: int, generator: torch.Generator) -> Tensor:
        """n points, n x 2, float32."""
        raise NotImplementedError

    def mode_centres(self) -> tuple[Tensor, float] | None:
        """The centres of the modes, K x 2, and their sigma; None for a distribution without modes."""
        return None

    def load(self, root: Path | None = None) -> DataSplits:
        """The distribution itself, for training and for evaluation: the held-out samples are fresh points."""
        return DataSplits(train=ToySource(self), held_out=ToySource(self))


class RingConfig(PlaneConfig):
    """A mixture of `modes` Gaussians on a circle."""

    kind: Literal["ring"] = "ring"
    modes: int = Field(default=8, ge=1, le=10_000)
    radius: float = Field(default=1.0, gt=0)
    sigma: float = Field(default=0.01, ge=0)

    def points(self, n: int, generator: torch.Generator) -> Tensor:
        """See `ring_modes` and `mixture`."""
        return mixture(n, ring_modes(self.modes, self.radius), self.sigma, generator)

    def mode_centres(self) -> tuple[Tensor, float]:
        """See `ring_modes`."""
        return ring_modes(self.modes, self.radius), self.sigma


class GridConfig(PlaneConfig):
    """A mixture of side x side Gaussians on a square lattice."""

    kind: Literal["grid"] = "grid"
    side: int = Field(default=5, ge=1, le=100)
    step: float = Field(default=2.0, gt=0)

    def points(self, n: int, generator: torch.Generator) -> Tensor:
        """See `grid_modes` and `mixture`."""
        return mixture(n, grid_modes(self.side, self.step), self.sigma, generator)

    def mode_centres(self) -> tuple[Tensor, float]:
        """See `grid_modes`."""
        return grid_modes(self.side, self.step), self.sigma


class SwissRollConfig(PlaneConfig):
    """A Swiss roll."""

    kind: Literal["swiss_roll"] = "swiss_roll"

    def points(self, n: int, generator: torch.Generator) -> Tensor:
        """See `swiss_roll`."""
        return swiss_roll(n, self.sigma, generator)


class TwoMoonsConfig(PlaneConfig):
    """Two interleaved half circles."""

    kind: Literal["two_moons"] = "two_moons"

    def points(self, n: int, generator: torch.Generator) -> Tensor:
        """See `two_moons`."""
        return two_moons(n, self.sigma, generator)


class SpiralConfig(PlaneConfig):
    """A spiral of `arms` arms."""

    kind: Literal["spiral"] = "spiral"
    arms: int = Field(default=2, ge=1, le=100)

    def points(self, n: int, generator: torch.Generator) -> Tensor:
        """See `spiral`."""
        return spiral(n, self.sigma, generator, self.arms)


__getattr__ = attribute_of(__name__)
