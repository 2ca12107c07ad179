"""Interpolation between latents, compared to scipy's slerp and to Shoemake's formula."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.spatial import geometric_slerp
from torch import Tensor

from poise.interpolation import lerp, slerp
from poise.latents import gaussian


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


FRACTIONS = np.linspace(0, 1, 11)


def vectors(n: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, dtype=torch.float64, generator=seeded(seed))


@pytest.mark.parametrize("dim", [2, 3, 16, 100])
def test_slerp_of_unit_vectors_is_scipys(dim: int) -> None:
    a, b = (v / v.norm(dim=1, keepdim=True) for v in (vectors(50, dim, 1), vectors(50, dim, 2)))
    for start, end in zip(a, b, strict=True):
        expected = geometric_slerp(start.numpy(), end.numpy(), FRACTIONS)
        actual = torch.stack([slerp(start, end, t) for t in FRACTIONS])
        np.testing.assert_allclose(actual.numpy(), expected, atol=1e-7)
        assert torch.allclose(actual.norm(dim=1), torch.ones(len(FRACTIONS), dtype=torch.float64), atol=1e-12)


def test_slerp_is_accurate_at_small_and_wide_angles() -> None:
    """The acos of a dot product would lose half of the digits."""
    for angle in (1e-9, 1e-6, 1e-3, math.pi - 1e-3, math.pi - 1e-6):
        a = torch.tensor([1.0, 0.0], dtype=torch.float64)
        b = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        for t in (0.1, 0.5, 0.9):
            expected = torch.tensor([math.cos(t * angle), math.sin(t * angle)], dtype=torch.float64)
            assert torch.allclose(slerp(a, b, t), expected, rtol=0, atol=1e-9)


def test_slerp_of_vectors_of_any_length_is_shoemakes_formula() -> None:
    a, b = vectors(20, 8, 1) * 3, vectors(20, 8, 2)
    w = torch.arccos((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)))[:, None]
    for t in (0.2, 0.5, 0.7):
        expected = torch.sin((1 - t) * w) / torch.sin(w) * a + torch.sin(t * w) / torch.sin(w) * b
        assert torch.allclose(slerp(a, b, t), expected, atol=1e-9)


def test_t_may_differ_between_rows() -> None:
    a, b = vectors(4, 5, 1), vectors(4, 5, 2)
    t = torch.tensor([[0.0], [0.3], [0.8], [1.0]], dtype=torch.float64)
    for interpolate in (lerp, slerp):
        alone = torch.stack([interpolate(x, y, float(s)) for x, y, s in zip(a, b, t, strict=True)])
        assert torch.allclose(interpolate(a, b, t), alone, atol=1e-15)


@pytest.mark.parametrize("interpolate", [lerp, slerp])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_end_points_are_exact(interpolate: object, dtype: torch.dtype) -> None:
    a, b = vectors(50, 7, 1).to(dtype), (vectors(50, 7, 2) * 1e3).to(dtype)
    assert torch.equal(interpolate(a, b, 0.0), a)  # type: ignore[operator]
    assert torch.equal(interpolate(a, b, 1.0), b)  # type: ignore[operator]
    assert interpolate(a, b, 0.5).dtype == dtype  # type: ignore[operator]


@pytest.mark.parametrize("interpolate", [lerp, slerp])
def test_shapes_that_cannot_be_broadcast_are_refused(interpolate: Callable[..., Tensor]) -> None:
    a, b = vectors(3, 7, 1), vectors(3, 7, 2)
    for wrong in ((a[0], b[0], torch.linspace(0, 1, 5)), (a, b[:2], 0.5), (a, b[:, :4], 0.5)):
        with pytest.raises(ValueError, match=r"cannot be broadcast, found a: .* are t of shape \(n, 1\)"):
            interpolate(*wrong)
    assert interpolate(a[0], b[0], torch.linspace(0, 1, 5)[:, None]).shape == (5, 7)


def test_lerp_is_linear() -> None:
    a, b = vectors(5, 3, 1), vectors(5, 3, 2)
    for t in (*FRACTIONS, -0.5, 1.5):
        assert torch.allclose(lerp(a, b, float(t)), (1 - t) * a + t * b, atol=1e-14)


@pytest.mark.parametrize("t", [-0.5, 1.5])
def test_slerp_goes_on_along_the_great_circle(t: float) -> None:
    """By t times the angle between both vectors, here a sixth of a turn."""
    angle = math.pi / 3
    a, b = (torch.tensor([math.cos(at), math.sin(at)], dtype=torch.float64) for at in (0.0, angle))
    expected = torch.tensor([math.cos(t * angle), math.sin(t * angle)], dtype=torch.float64)
    assert torch.allclose(slerp(a, b, t), expected, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_slerp_in_16_bits_is_that_of_float32_rounded(dtype: torch.dtype) -> None:
    a, b = vectors(50, 100, 1).to(dtype), vectors(50, 100, 2).to(dtype)
    for t in (0.0, 0.3, 0.5, 1.0):
        assert torch.equal(slerp(a, b, t), slerp(a.float(), b.float(), t).to(dtype))
    assert torch.equal(slerp(a, b, 0.0), a)
    assert torch.equal(slerp(a, b, 1.0), b)
    middle = slerp(torch.tensor([1.0, 0.0], dtype=dtype), torch.tensor([0.5, 0.75**0.5], dtype=dtype), 0.5)
    assert float(middle.float().norm()) == pytest.approx(1, abs=0.01)


E1 = torch.tensor([1.0, 0.0, 0.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("a", "b"),
    [(E1, E1), (E1, 3 * E1), (E1, -E1), (E1, -2 * E1)],
    ids=["same", "parallel", "antipodal", "opposite"],
)
def test_slerp_is_linear_if_the_great_circle_is_not_unique(a: Tensor, b: Tensor, dtype: torch.dtype) -> None:
    a, b = a.to(dtype), b.to(dtype)
    for t in FRACTIONS:
        path = slerp(a, b, float(t))
        assert torch.isfinite(path).all()
        assert torch.allclose(path, lerp(a, b, float(t)), atol=1e-6)


@pytest.mark.parametrize(("a", "b"), [(0 * E1, 0 * E1), (0 * E1, E1), (E1, 0 * E1)])
def test_slerp_with_a_zero_vector_is_finite_with_exact_end_points(a: Tensor, b: Tensor) -> None:
    for t in FRACTIONS:
        assert torch.isfinite(slerp(a, b, float(t))).all()
    assert torch.equal(slerp(a, b, 0.0), a)
    assert torch.equal(slerp(a, b, 1.0), b)


@pytest.mark.parametrize(("a", "b"), [(0 * E1, E1), (E1, 0 * E1)])
def test_slerp_with_a_zero_vector_is_linear(a: Tensor, b: Tensor) -> None:
    for t in FRACTIONS:
        assert torch.allclose(slerp(a, b, float(t)), lerp(a, b, float(t)), atol=1e-6)


def test_slerp_keeps_the_length_of_latents_unlike_lerp() -> None:
    """White 2016: the midpoint of a linear interpolation between two Gaussian latents is far too short."""
    a, b = gaussian(200, 100, seeded(1)), gaussian(200, 100, seeded(2))
    assert abs(float(slerp(a, b, 0.5).norm(dim=1).mean()) - 10) < 0.3
    assert abs(float(lerp(a, b, 0.5).norm(dim=1).mean()) - 10 / math.sqrt(2)) < 0.3
