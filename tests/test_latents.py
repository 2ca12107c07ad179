"""Laws of the latents against their moments and scipy's distributions; paths against scipy's great circle."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial import geometric_slerp
from scipy.stats import kstest, truncnorm
from torch import Tensor

from contracts.tiny import recipe
from poise.errors import RecipeError
from poise.latents import (
    Gaussian,
    Latent,
    Sphere,
    Truncated,
    Uniform,
    gaussian,
    lerp,
    slerp,
    sphere,
    truncated,
    uniform,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def standard_errors(values: Tensor, expected: float) -> float:
    """How many standard errors the mean of `values` is away."""
    values = values.double().flatten()
    return abs(float(values.mean() - expected)) / (float(values.std()) / math.sqrt(len(values)))


def uncorrelated(z: Tensor) -> bool:
    """No coordinate tells of another one."""
    off = torch.corrcoef(z.T) - torch.eye(z.shape[1])
    return bool(off.abs().max() < 5 / math.sqrt(len(z)))


def test_gaussian() -> None:
    z = gaussian(20_000, 4, seeded())
    for power, context in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert standard_errors(z**power, context) < 5
    assert kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    assert uncorrelated(z)


def test_uniform() -> None:
    z = uniform(20_000, 4, seeded())
    assert z.min() >= -1
    assert z.max() <= 1
    for power, context in ((1, 0), (2, 1 / 3), (4, 1 / 5)):
        assert standard_errors(z**power, context) < 5
    assert kstest(z.flatten().numpy(), "uniform", args=(-1, 2)).pvalue > 1e-3
    assert uncorrelated(z)


@pytest.mark.parametrize("dim", [1, 2, 3, 100])
def test_sphere_has_length_one_everywhere_alike(dim: int) -> None:
    z = sphere(20_000, dim, seeded())
    assert torch.allclose(z.norm(dim=1), torch.ones(len(z)), atol=1e-6)
    assert standard_errors(z, 0) < 5
    if dim > 1:
        assert standard_errors(z[:, 0] ** 2, 1 / dim) < 5
    if dim == 3:  # Archimedes: a coordinate of the sphere is uniform
        assert kstest(z[:, 1].numpy(), "uniform", args=(-1, 2)).pvalue > 1e-3
    if dim == 2:
        angle = torch.atan2(z[:, 1], z[:, 0])
        assert kstest(angle.numpy(), "uniform", args=(-math.pi, 2 * math.pi)).pvalue > 1e-3


@pytest.mark.parametrize("threshold", [0.1, 0.5, 1.0, 2.0, 4.0, 8.0])
def test_truncated_is_the_truncated_normal(threshold: float) -> None:
    z = truncated(20_000, 4, seeded(), threshold)
    assert torch.isfinite(z).all()
    assert z.abs().max() <= threshold
    law = truncnorm(-threshold, threshold)
    assert kstest(z.flatten().numpy(), law.cdf).pvalue > 1e-3
    assert standard_errors(z**2, law.var()) < 5
    assert uncorrelated(z)


def test_entries_draw_their_own_law() -> None:
    for entry, law in (
        (Gaussian(dim=5), gaussian),
        (Sphere(dim=5), sphere),
        (Uniform(dim=5), uniform),
        (Truncated(dim=5), truncated),
    ):
        assert torch.equal(entry.sample(7, seeded(3)), law(7, 5, seeded(3)))
    wide, like_normal = Sphere(dim=9, length=2.5), Sphere(dim=9, length="sqrt_dim")
    assert torch.equal(wide.sample(7, seeded(3)), sphere(7, 9, seeded(3)) * 2.5)
    assert torch.allclose(like_normal.sample(7, seeded(3)).norm(dim=1), torch.full((7,), 3.0))
    assert torch.allclose(wide.project(torch.randn(4, 9)).norm(dim=1), torch.full((4,), 2.5))
    tight = Truncated(dim=5, threshold=0.2)
    assert torch.equal(tight.sample(50, seeded(3)), truncated(50, 5, seeded(3), 0.2))


@pytest.mark.parametrize(
    "latent",
    [
        *(Gaussian(dim=6), Sphere(dim=6), Sphere(dim=6, length="sqrt_dim"), Sphere(dim=6, length=0.3), Uniform(dim=6)),
        *(Truncated(dim=6), Truncated(dim=6, threshold=0.1)),
    ],
    ids=str,
)
def test_the_deviation_of_a_coordinate_is_what_is_drawn(latent: Latent) -> None:
    assert float(latent.sample(40_000, seeded()).std()) == pytest.approx(latent.std, rel=0.01)


@pytest.mark.parametrize(
    "table",
    [
        {"kind": "sphere", "length": 0.0},
        {"kind": "sphere", "length": "long"},
        {"kind": "gaussian", "dim": 0},
        {"kind": "truncated", "threshold": 0.0},
        {"kind": "gaussian", "threshold": 1.0},
    ],
)
def test_what_is_no_law_is_refused(table: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="latent"):
        recipe("points", latent=table)


# ---------------------------------------------------------------- paths

SHARES = np.linspace(0, 1, 11)


def vectors(n: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, dtype=torch.float64, generator=seeded(seed))


@pytest.mark.parametrize("dim", [2, 3, 16, 100])
def test_slerp_of_unit_vectors_is_scipys(dim: int) -> None:
    a, b = (v / v.norm(dim=1, keepdim=True) for v in (vectors(50, dim, 1), vectors(50, dim, 2)))
    for start, end in zip(a, b, strict=True):
        theirs = geometric_slerp(start.numpy(), end.numpy(), SHARES)
        ours = torch.stack([slerp(start, end, share) for share in SHARES])
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-7)
        assert torch.allclose(ours.norm(dim=1), torch.ones(len(SHARES), dtype=torch.float64), atol=1e-12)


def test_slerp_keeps_its_digits_at_small_and_wide_angles() -> None:
    """acos of a dot product would lose half of them."""
    for angle in (1e-9, 1e-6, 1e-3, math.pi - 1e-3, math.pi - 1e-6):
        a = torch.tensor([1.0, 0.0], dtype=torch.float64)
        b = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        for share in (0.1, 0.5, 0.9):
            expected = torch.tensor([math.cos(share * angle), math.sin(share * angle)], dtype=torch.float64)
            assert torch.allclose(slerp(a, b, share), expected, rtol=0, atol=1e-9)


def test_slerp_of_any_lengths_is_shoemakes_formula() -> None:
    a, b = vectors(20, 8, 1) * 3, vectors(20, 8, 2)
    w = torch.arccos((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)))[:, None]
    for share in (0.2, 0.5, 0.7):
        expected = torch.sin((1 - share) * w) / torch.sin(w) * a + torch.sin(share * w) / torch.sin(w) * b
        assert torch.allclose(slerp(a, b, share), expected, atol=1e-9)


def test_a_path_per_pair_is_a_column_of_shares() -> None:
    a, b = vectors(4, 5, 1), vectors(4, 5, 2)
    shares = torch.tensor([[0.0], [0.3], [0.8], [1.0]], dtype=torch.float64)
    for path in (lerp, slerp):
        alone = torch.stack([path(x, y, float(t)) for x, y, t in zip(a, b, shares, strict=True)])
        assert torch.allclose(path(a, b, shares), alone, atol=1e-15)


@pytest.mark.parametrize("path", [lerp, slerp])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends_are_exact(path: object, dtype: torch.dtype) -> None:
    a, b = vectors(50, 7, 1).to(dtype), (vectors(50, 7, 2) * 1e3).to(dtype)
    assert torch.equal(path(a, b, 0.0), a)  # type: ignore[operator]
    assert torch.equal(path(a, b, 1.0), b)  # type: ignore[operator]
    assert path(a, b, 0.5).dtype == dtype  # type: ignore[operator]


def test_lerp_is_straight() -> None:
    a, b = vectors(5, 3, 1), vectors(5, 3, 2)
    for share in SHARES:
        assert torch.allclose(lerp(a, b, float(share)), (1 - share) * a + share * b, atol=1e-15)


E1 = torch.tensor([1.0, 0.0, 0.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("a", "b"),
    [(E1, E1), (E1, 3 * E1), (E1, -E1), (E1, -2 * E1)],
    ids=["same", "parallel", "antipodal", "opposite"],
)
def test_slerp_is_straight_where_no_great_circle_is_singled_out(a: Tensor, b: Tensor, dtype: torch.dtype) -> None:
    a, b = a.to(dtype), b.to(dtype)
    for share in SHARES:
        path = slerp(a, b, float(share))
        assert torch.isfinite(path).all()
        assert torch.allclose(path, lerp(a, b, float(share)), atol=1e-6)


@pytest.mark.parametrize(("a", "b"), [(0 * E1, 0 * E1), (0 * E1, E1), (E1, 0 * E1)])
def test_slerp_with_a_zero_vector_is_finite_and_ends_right(a: Tensor, b: Tensor) -> None:
    for share in SHARES:
        assert torch.isfinite(slerp(a, b, float(share))).all()
    assert torch.equal(slerp(a, b, 0.0), a)
    assert torch.equal(slerp(a, b, 1.0), b)


@pytest.mark.parametrize(("a", "b"), [(0 * E1, E1), (E1, 0 * E1)])
def test_slerp_with_a_zero_vector_is_straight(a: Tensor, b: Tensor) -> None:
    for share in SHARES:
        assert torch.allclose(slerp(a, b, float(share)), lerp(a, b, float(share)), atol=1e-6)


def test_slerp_of_latents_keeps_the_length_that_lerp_loses() -> None:
    """White 2016: half way between two Gaussian latents the straight path is far too short."""
    a, b = gaussian(200, 100, seeded(1)), gaussian(200, 100, seeded(2))
    assert abs(float(slerp(a, b, 0.5).norm(dim=1).mean()) - 10) < 0.3
    assert abs(float(lerp(a, b, 0.5).norm(dim=1).mean()) - 10 / math.sqrt(2)) < 0.3
