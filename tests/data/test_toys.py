"""Toy distributions: positions and widths of the modes, and reproducible samples."""

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

TOYS = [RingConfig(), GridConfig(), SwissRollConfig(), TwoMoonsConfig(), SpiralConfig()]
every_toy = pytest.mark.parametrize("config", TOYS, ids=lambda config: config.kind)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("modes", "n", "min_distance"), [(ring_modes(), 8, 0.765), (grid_modes(), 25, 2.0)])
def test_modes_are_distinct(modes: torch.Tensor, n: int, min_distance: float) -> None:
    assert modes.shape == (n, 2)
    distance = torch.cdist(modes, modes) + torch.eye(n) * 99
    assert distance.min().item() == pytest.approx(min_distance, abs=1e-3)
    assert modes.mean(0).abs().max() < 1e-6


def test_ring_modes_lie_on_the_circle() -> None:
    assert torch.allclose(ring_modes(12, 3.0).norm(dim=1), torch.full((12,), 3.0))


@pytest.mark.parametrize(("config", "modes"), [(RingConfig(), ring_modes()), (GridConfig(), grid_modes())])
def test_sigma_and_equal_weights(config: PlaneConfig, modes: torch.Tensor) -> None:
    points = config.points(50_000, seeded(1))
    nearest = torch.cdist(points, modes).argmin(1)
    offset = points - modes[nearest]
    assert offset.std(0) == pytest.approx([config.sigma] * 2, rel=0.02)
    assert offset.mean(0).abs().max() < config.sigma * 0.05
    fractions = nearest.bincount(minlength=len(modes)) / len(points)
    assert fractions.min() > 0.8 / len(modes)
    assert fractions.max() < 1.2 / len(modes)


@every_toy
def test_points_are_finite_float32(config: PlaneConfig) -> None:
    points = config.points(77, seeded(0))
    assert points.shape == (77, 2)
    assert points.dtype == torch.float32
    assert points.isfinite().all()
    assert points.abs().max() < 8
    assert points.std(0).min() > 0.3


@every_toy
def test_points_depend_on_the_generator_only(config: PlaneConfig) -> None:
    assert torch.equal(config.points(50, seeded(3)), config.points(50, seeded(3)))
    assert not torch.equal(config.points(50, seeded(3)), config.points(50, seeded(4)))


@every_toy
def test_points_with_sigma_0_lie_on_the_shape(config: PlaneConfig) -> None:
    noiseless = config.model_copy(update={"sigma": 0.0})
    points = noiseless.points(2000, seeded(5))
    radius = points.norm(dim=1)
    if config.kind == "swiss_roll":
        angle = radius * (4.5 * torch.pi / 2)
        assert torch.allclose(points, torch.stack((angle.cos(), angle.sin()), 1) * radius[:, None], atol=1e-4)
    elif config.kind == "two_moons":
        upper = points[:, 1] > 0.25 + 1e-6
        centre = torch.where(upper[:, None], torch.tensor([-0.5, -0.25]), torch.tensor([0.5, 0.25]))
        assert ((points - centre).norm(dim=1) - 1).abs()[upper].max() < 1e-5
    elif config.kind == "spiral":
        assert radius.max() <= 2 + 1e-5
    else:
        assert len(points.mul(1000).round().unique(dim=0)) == len(config.points(0, seeded(0))) + (
            8 if config.kind == "ring" else 25
        )


@every_toy
def test_batches_are_a_function_of_seed_and_index(config: PlaneConfig) -> None:
    source = config.load().train
    assert source.shape == (2,)
    assert torch.equal(source.batch(4, 9, RandomStreams(1)).images, source.batch(4, 9, RandomStreams(1)).images)
    assert not torch.equal(source.batch(4, 9, RandomStreams(1)).images, source.batch(5, 9, RandomStreams(1)).images)
    assert not torch.equal(source.batch(4, 9, RandomStreams(1)).images, source.batch(4, 9, RandomStreams(2)).images)
    assert source.batch(0, 9, RandomStreams(1)).labels is None
    assert torch.equal(source.preview(6), source.preview(6))


def test_fingerprints_differ() -> None:
    fingerprints = {config.load().train.fingerprint for config in [*TOYS, RingConfig(sigma=0.02), GridConfig(side=4)]}
    assert len(fingerprints) == 7
