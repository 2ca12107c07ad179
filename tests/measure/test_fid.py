"""The Frechet distance, compared with published programs, scipy's matrix square root and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from poise.measure import fid as fid_module
from poise.measure.fid import Gaussian, _nuclear_norm, fid, frechet


def two_sets(n: int, m: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two sets of correlated features with different means and covariances."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for rows in (n, m):
        mix = torch.randn(d, d, dtype=torch.float64, generator=generator) / d**0.5
        mean = torch.randn(d, dtype=torch.float64, generator=generator) / 2
        found.append(torch.randn(rows, d, dtype=torch.float64, generator=generator) @ mix + mean)
    return found[0], found[1]


SHAPES = [(200, 300, 1), (200, 300, 7), (400, 150, 32)]


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_fid_matches_torch_fidelity(n: int, m: int, d: int) -> None:
    fake, real = two_sets(n, m, d)
    if d == 1:  # torch-fidelity does not accept the scalar covariance of a single column
        fake, real = (torch.cat([features, torch.zeros_like(features)], dim=1) for features in (fake, real))
    expected = fid_statistics_to_metric(
        fid_features_to_statistics(fake), fid_features_to_statistics(real), verbose=False
    )
    assert fid(fake, real) == pytest.approx(expected[KEY_METRIC_FID], rel=1e-6)


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_fid_matches_scipy_sqrtm(n: int, m: int, d: int) -> None:
    fake, real = two_sets(n, m, d, seed=1)
    a, b = (np.atleast_2d(np.cov(features.numpy(), rowvar=False)) for features in (fake, real))
    difference = fake.mean(0) - real.mean(0)
    root = np.asarray(sqrtm(a @ b)).real
    expected = float(difference @ difference) + float(np.trace(a) + np.trace(b) - 2 * np.trace(root))
    assert fid(fake, real) == pytest.approx(expected, rel=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("n", "m", "d"), SHAPES[1:])
def test_fid_matches_clean_fid(n: int, m: int, d: int) -> None:
    clean = pytest.importorskip("cleanfid.fid")
    fake, real = two_sets(n, m, d, seed=2)
    statistics = [
        part for features in (fake, real) for part in (features.numpy().mean(0), np.cov(features.numpy(), rowvar=False))
    ]
    assert fid(fake, real) == pytest.approx(float(clean.frechet_distance(*statistics)), rel=1e-6)


def test_distance_of_diagonal_gaussians() -> None:
    a, b = torch.tensor([1.0, 2.0, 0.5, 0.0]).double(), torch.tensor([3.0, 2.0, 0.1, 1.0]).double()
    mean, other = torch.tensor([0.0, 1.0, -2.0, 5.0]).double(), torch.tensor([1.0, 1.0, 2.0, 4.0]).double()
    expected = float((mean - other).square().sum() + (a - b).square().sum())
    assert frechet(Gaussian(mean, a.diag()), Gaussian(other, b.diag())) == pytest.approx(expected, rel=1e-12)


def test_distance_of_shifted_features() -> None:
    fake, _ = two_sets(50, 50, 6)
    assert fid(fake, fake + 2) == pytest.approx(6 * 4, rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(300, 8), (8, 20)], ids=["tall", "wide"])
def test_root_is_a_square_root_of_the_covariance(n: int, d: int) -> None:
    fake, _ = two_sets(n, 2, d)
    gaussian = Gaussian.fit(fake.float())
    assert gaussian.root.dtype == torch.float64
    assert len(gaussian.root) == min(n, d)
    np.testing.assert_allclose(
        (gaussian.root.T @ gaussian.root).numpy(), np.cov(fake.float().double().T.numpy()), atol=1e-12
    )
    np.testing.assert_allclose(gaussian.mean.numpy(), fake.float().double().mean(0).numpy(), atol=1e-12)


def ill_conditioned(name: str) -> Tensor:
    x, _ = two_sets(300, 2, 32, seed=3)
    if name == "dead columns":
        x[:, :8] = 0
    elif name == "scaled columns":
        x[:, :4] *= 1e4
        x[:, 4:8] *= 1e-4
    elif name == "twin columns":
        x[:, 16:] = x[:, :16]
    elif name == "twin rows":
        x = x[:20].repeat(15, 1)
    elif name == "far away":
        x += 1e5
    elif name == "few rows":
        x = x[:10]
    return x


CASES = ["plain", "dead columns", "scaled columns", "twin columns", "twin rows", "far away", "few rows"]


@pytest.mark.parametrize("name", CASES)
def test_distance_to_itself_is_0(name: str) -> None:
    x = ill_conditioned(name)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    assert 0 <= fid(x, x) < 1e-6
    assert 0 <= fid(x, x[order]) < 1e-6


@pytest.mark.parametrize("name", CASES)
def test_distance_is_symmetric(name: str) -> None:
    x, (y, _) = ill_conditioned(name), two_sets(40, 2, 32, seed=4)
    assert fid(x, y) > 1
    assert fid(x, y) == pytest.approx(fid(y, x), rel=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 50), (5, 9, 50), (3, 200, 50), (200, 3, 50)])
def test_distance_with_fewer_samples_than_dimensions(n: int, m: int, d: int) -> None:
    """The expected trace of the root of the product comes from its eigenvalues."""
    fake, real = two_sets(n, m, d, seed=5)
    a, b = (torch.cov(features.T) for features in (fake, real))
    values, vectors = torch.linalg.eigh(a)
    half = vectors * values.clamp_min(0).sqrt() @ vectors.T
    root = torch.linalg.eigvalsh(half @ b @ half).clamp_min(0).sqrt().sum()
    expected = (fake.mean(0) - real.mean(0)).square().sum() + a.trace() + b.trace() - 2 * root
    assert fid(fake, real) == pytest.approx(float(expected), rel=1e-5)


def test_distance_of_constant_features() -> None:
    real, _ = two_sets(100, 2, 6)
    same, other = torch.full((30, 6), 0.1), torch.full((40, 6), 0.6)
    expected = (real.mean(0) - same[0]).square().sum() + real.var(0).sum()
    assert fid(same, real) == pytest.approx(float(expected), rel=1e-9)
    assert fid(same, same) == pytest.approx(0, abs=1e-12)
    assert fid(same, other) == pytest.approx(6 * 0.25, rel=1e-6)


def test_distance_is_never_negative() -> None:
    for seed in range(30):
        x, _ = two_sets(40, 2, 5, seed)
        assert fid(x, x * (1 + 1e-9)) >= 0


# ---------------------------------------------------------------- the nuclear norm

FLAT = torch.linspace(0.5, 2, 12, dtype=torch.float64)
STEEP = torch.logspace(0, -9, 12, dtype=torch.float64)


def with_singular_values(values: Tensor, rows: int, columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(size, len(values), dtype=torch.float64, generator=generator)).Q
        for size in (rows, columns)
    )
    return left * values @ right.T


@pytest.fixture
def svd_calls(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The matrices whose singular values were computed."""
    exact, found = torch.linalg.svdvals, []

    def recording_svdvals(matrix: Tensor) -> Tensor:
        found.append(matrix)
        return exact(matrix)

    monkeypatch.setattr(torch.linalg, "svdvals", recording_svdvals)
    return found


@pytest.mark.parametrize("shape", [(12, 12), (12, 30), (30, 12)])
@pytest.mark.parametrize(("values", "uses_svd"), [(FLAT, False), (STEEP, True)], ids=["flat", "steep"])
def test_singular_values_are_computed_where_eigenvalues_are_inaccurate(
    values: Tensor, uses_svd: bool, shape: tuple[int, int], svd_calls: list[Tensor]
) -> None:
    total = float(values.sum())
    assert _nuclear_norm(with_singular_values(values, *shape), 2 * total) == pytest.approx(total, rel=1e-12)
    assert bool(svd_calls) is uses_svd


@pytest.mark.parametrize("values", [FLAT, STEEP], ids=["flat", "steep"])
def test_both_methods_agree_within_the_tolerance(values: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    cross, norms = with_singular_values(values, 12, 20), []
    for tolerance in (-1.0, 1e9):
        monkeypatch.setattr(fid_module, "TOLERANCE", tolerance)
        norms.append(_nuclear_norm(cross, 1.0))
    assert norms[0] == pytest.approx(float(values.sum()), rel=1e-12)
    assert norms[1] == pytest.approx(norms[0], rel=1e-6)


@pytest.mark.parametrize("values", [STEEP, FLAT[:3]], ids=["steep", "of low rank"])
def test_tolerance_is_relative_to_the_scale(values: Tensor, svd_calls: list[Tensor]) -> None:
    """At a large scale, eigenvalues suffice even for singular and nearly singular matrices."""
    assert _nuclear_norm(with_singular_values(values, 12, 20), 1e6) == pytest.approx(float(values.sum()), abs=1e-6)
    assert not svd_calls
    _nuclear_norm(with_singular_values(values, 12, 20), 1.0)
    assert svd_calls


def test_nuclear_norm_of_zeros(svd_calls: list[Tensor]) -> None:
    assert _nuclear_norm(torch.zeros(3, 4, dtype=torch.float64), 1.0) == 0
    assert not svd_calls


# ---------------------------------------------------------------- validation


@pytest.mark.parametrize(
    ("fake", "real", "message"),
    [
        (
            torch.zeros(1, 3),
            torch.zeros(5, 3),
            r"fake features must be a matrix of at least 2 rows, found shape \[1, 3\]",
        ),
        (
            torch.zeros(5, 3),
            torch.zeros(1, 3),
            r"real features must be a matrix of at least 2 rows, found shape \[1, 3\]",
        ),
        (torch.zeros(5), torch.zeros(5, 3), r"fake features must be a matrix"),
        (torch.zeros(5, 3), torch.zeros(5, 3, 1), r"real features must be a matrix"),
        (torch.zeros(5, 3), torch.zeros(5, 4), "must have the same width, found 3 and 4"),
        (torch.full((5, 3), torch.nan), torch.zeros(5, 3), "fake features must be finite"),
        (torch.zeros(5, 3), torch.full((5, 3), torch.inf), "real features must be finite"),
        (1e200 * torch.eye(5, 3, dtype=torch.float64), torch.zeros(5, 3), "too large for a Frechet distance"),
        (1e80 * torch.eye(5, 3, dtype=torch.float64), torch.zeros(5, 3), "too large for a Frechet distance"),
    ],
)
def test_invalid_features_are_rejected(fake: Tensor, real: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fid(fake, real)
