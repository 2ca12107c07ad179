"""The plane: modes where they should be, as wide as they should be, the same for the same generator."""

from __future__ import annotations

import pytest
import torch

from poise.core.random_streams import RandomStreams
from poise.data.toys import (
    GridConfig,
    PlaneConfig,
    RingConfig,
    SpiralConfig,
    SwissRollConfig,
    TwoMoonsConfig,
    grid_modes,
    ring_modes,
)

ENTRIES = [RingConfig(), GridConfig(), SwissRollConfig(), TwoMoonsConfig(), SpiralConfig()]
every_toy = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.kind)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("modes", "n", "apart"), [(ring_modes(), 8, 0.765), (grid_modes(), 25, 2.0)])
def test_modes_are_distinct(modes: torch.Tensor, n: int, apart: float) -> None:
    assert modes.shape == (n, 2)
    distance = torch.cdist(modes, modes) + torch.eye(n) * 99
    assert distance.min().item() == pytest.approx(apart, abs=1e-3)
    assert modes.mean(0).abs().max() < 1e-6


def test_the_ring_lies_on_its_circle() -> None:
    assert torch.allclose(ring_modes(12, 3.0).norm(dim=1), torch.full((12,), 3.0))


@pytest.mark.parametrize(("entry", "modes"), [(RingConfig(), ring_modes()), (GridConfig(), grid_modes())])
def test_sigma_and_even_shares(entry: PlaneConfig, modes: torch.Tensor) -> None:
    points = entry.points(50_000, seeded(1))
    nearest = torch.cdist(points, modes).argmin(1)
    spread = points - modes[nearest]
    assert spread.std(0) == pytest.approx([entry.sigma] * 2, rel=0.02)
    assert spread.mean(0).abs().max() < entry.sigma * 0.05
    shares = nearest.bincount(minlength=len(modes)) / len(points)
    assert shares.min() > 0.8 / len(modes)
    assert shares.max() < 1.2 / len(modes)


@every_toy
def test_shapes(entry: PlaneConfig) -> None:
    points = entry.points(77, seeded(0))
    assert points.shape == (77, 2)
    assert points.dtype == torch.float32
    assert points.isfinite().all()
    assert points.abs().max() < 8
    assert points.std(0).min() > 0.3


@every_toy
def test_the_generator_decides(entry: PlaneConfig) -> None:
    assert torch.equal(entry.points(50, seeded(3)), entry.points(50, seeded(3)))
    assert not torch.equal(entry.points(50, seeded(3)), entry.points(50, seeded(4)))


@every_toy
def test_sigma_0_is_the_bare_shape(entry: PlaneConfig) -> None:
    bare = entry.model_copy(update={"sigma": 0.0})
    points = bare.points(2000, seeded(5))
    radius = points.norm(dim=1)
    if entry.kind == "swiss_roll":
        angle = radius * (4.5 * torch.pi / 2)
        assert torch.allclose(points, torch.stack((angle.cos(), angle.sin()), 1) * radius[:, None], atol=1e-4)
    elif entry.kind == "two_moons":
        upper = points[:, 1] > 0.25 + 1e-6
        centre = torch.where(upper[:, None], torch.tensor([-0.5, -0.25]), torch.tensor([0.5, 0.25]))
        assert ((points - centre).norm(dim=1) - 1).abs()[upper].max() < 1e-5
    elif entry.kind == "spiral":
        assert radius.max() <= 2 + 1e-5
    else:
        assert len(points.mul(1000).round().unique(dim=0)) == len(entry.points(0, seeded(0))) + (
            8 if entry.kind == "ring" else 25
        )


@every_toy
def test_the_feed(entry: PlaneConfig) -> None:
    source = entry.load().train
    assert source.shape == (2,)
    assert torch.equal(source.batch(4, 9, RandomStreams(1)).images, source.batch(4, 9, RandomStreams(1)).images)
    assert not torch.equal(source.batch(4, 9, RandomStreams(1)).images, source.batch(5, 9, RandomStreams(1)).images)
    assert not torch.equal(source.batch(4, 9, RandomStreams(1)).images, source.batch(4, 9, RandomStreams(2)).images)
    assert source.batch(0, 9, RandomStreams(1)).labels is None
    assert torch.equal(source.preview(6), source.preview(6))


def test_fingerprints_tell_them_apart() -> None:
    prints = {entry.load().train.fingerprint for entry in [*ENTRIES, RingConfig(sigma=0.02), GridConfig(side=4)]}
    assert len(prints) == 7
