"""The Frechet distance against published programs, scipy's root of a matrix and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from poise.measure import fid as module
from poise.measure.fid import Gaussian, _nuclear_norm, fid, frechet


def piles(n: int, m: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two correlated piles, with means and covariances of their own."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for rows in (n, m):
        mix = torch.randn(d, d, dtype=torch.float64, generator=generator) / d**0.5
        mean = torch.randn(d, dtype=torch.float64, generator=generator) / 2
        found.append(torch.randn(rows, d, dtype=torch.float64, generator=generator) @ mix + mean)
    return found[0], found[1]


SHAPES = [(200, 300, 1), (200, 300, 7), (400, 150, 32)]


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_it_is_torch_fidelitys(n: int, m: int, d: int) -> None:
    fake, real = piles(n, m, d)
    if d == 1:  # of one column numpy's covariance is a number, which torch-fidelity does not take
        fake, real = (torch.cat([pile, torch.zeros_like(pile)], dim=1) for pile in (fake, real))
    theirs = fid_statistics_to_metric(fid_features_to_statistics(fake), fid_features_to_statistics(real), verbose=False)
    assert fid(fake, real) == pytest.approx(theirs[KEY_METRIC_FID], rel=1e-6)


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_it_is_what_scipys_root_of_the_product_gives(n: int, m: int, d: int) -> None:
    fake, real = piles(n, m, d, seed=1)
    a, b = (np.atleast_2d(np.cov(pile.numpy(), rowvar=False)) for pile in (fake, real))
    gap = fake.mean(0) - real.mean(0)
    root = np.asarray(sqrtm(a @ b)).real
    expected = float(gap @ gap) + float(np.trace(a) + np.trace(b) - 2 * np.trace(root))
    assert fid(fake, real) == pytest.approx(expected, rel=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("n", "m", "d"), SHAPES[1:])
def test_it_is_clean_fids(n: int, m: int, d: int) -> None:
    clean = pytest.importorskip("cleanfid.fid")
    fake, real = piles(n, m, d, seed=2)
    told = [part for pile in (fake, real) for part in (pile.numpy().mean(0), np.cov(pile.numpy(), rowvar=False))]
    assert fid(fake, real) == pytest.approx(float(clean.frechet_distance(*told)), rel=1e-6)


def test_of_diagonal_gaussians_it_is_the_closed_form() -> None:
    a, b = torch.tensor([1.0, 2.0, 0.5, 0.0]).double(), torch.tensor([3.0, 2.0, 0.1, 1.0]).double()
    mean, other = torch.tensor([0.0, 1.0, -2.0, 5.0]).double(), torch.tensor([1.0, 1.0, 2.0, 4.0]).double()
    expected = float((mean - other).square().sum() + (a - b).square().sum())
    assert frechet(Gaussian(mean, a.diag()), Gaussian(other, b.diag())) == pytest.approx(expected, rel=1e-12)


def test_a_shift_counts_squared_and_nothing_else() -> None:
    fake, _ = piles(50, 50, 6)
    assert fid(fake, fake + 2) == pytest.approx(6 * 4, rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(300, 8), (8, 20)], ids=["tall", "wide"])
def test_the_root_is_one_of_the_covariance(n: int, d: int) -> None:
    fake, _ = piles(n, 2, d)
    of = Gaussian.fit(fake.float())
    assert of.root.dtype == torch.float64
    assert len(of.root) == min(n, d)
    np.testing.assert_allclose((of.root.T @ of.root).numpy(), np.cov(fake.float().double().T.numpy()), atol=1e-12)
    np.testing.assert_allclose(of.mean.numpy(), fake.float().double().mean(0).numpy(), atol=1e-12)


def crooked(name: str) -> Tensor:
    x, _ = piles(300, 2, 32, seed=3)
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


CROOKED = ["plain", "dead columns", "scaled columns", "twin columns", "twin rows", "far away", "few rows"]


@pytest.mark.parametrize("name", CROOKED)
def test_a_pile_is_at_no_distance_from_itself(name: str) -> None:
    x = crooked(name)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    assert 0 <= fid(x, x) < 1e-6
    assert 0 <= fid(x, x[order]) < 1e-6


@pytest.mark.parametrize("name", CROOKED)
def test_it_is_symmetric(name: str) -> None:
    x, (y, _) = crooked(name), piles(40, 2, 32, seed=4)
    assert fid(x, y) > 1
    assert fid(x, y) == pytest.approx(fid(y, x), rel=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 50), (5, 9, 50), (3, 200, 50), (200, 3, 50)])
def test_with_fewer_samples_than_numbers_it_is_still_that_of_the_covariances(n: int, m: int, d: int) -> None:
    """The trace of the product's root, by its eigenvalues."""
    fake, real = piles(n, m, d, seed=5)
    a, b = (torch.cov(pile.T) for pile in (fake, real))
    values, vectors = torch.linalg.eigh(a)
    half = vectors * values.clamp_min(0).sqrt() @ vectors.T
    root = torch.linalg.eigvalsh(half @ b @ half).clamp_min(0).sqrt().sum()
    expected = (fake.mean(0) - real.mean(0)).square().sum() + a.trace() + b.trace() - 2 * root
    assert fid(fake, real) == pytest.approx(float(expected), rel=1e-5)


def test_piles_of_one_picture_over_and_over() -> None:
    real, _ = piles(100, 2, 6)
    same, other = torch.full((30, 6), 0.1), torch.full((40, 6), 0.6)
    expected = (real.mean(0) - same[0]).square().sum() + real.var(0).sum()
    assert fid(same, real) == pytest.approx(float(expected), rel=1e-9)
    assert fid(same, same) == pytest.approx(0, abs=1e-12)
    assert fid(same, other) == pytest.approx(6 * 0.25, rel=1e-6)


def test_it_never_comes_out_below_0() -> None:
    for seed in range(30):
        x, _ = piles(40, 2, 5, seed)
        assert fid(x, x * (1 + 1e-9)) >= 0


# ---------------------------------------------------------------- the sum of singular values

FLAT = torch.linspace(0.5, 2, 12, dtype=torch.float64)
STEEP = torch.logspace(0, -9, 12, dtype=torch.float64)


def of_singular(values: Tensor, rows: int, columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(size, len(values), dtype=torch.float64, generator=generator)).Q
        for size in (rows, columns)
    )
    return left * values @ right.T


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The matrices whose singular values were worked out."""
    exact, found = torch.linalg.svdvals, []

    def watched(matrix: Tensor) -> Tensor:
        found.append(matrix)
        return exact(matrix)

    monkeypatch.setattr(torch.linalg, "svdvals", watched)
    return found


@pytest.mark.parametrize("shape", [(12, 12), (12, 30), (30, 12)])
@pytest.mark.parametrize(("values", "slow"), [(FLAT, False), (STEEP, True)], ids=["flat", "steep"])
def test_the_slow_way_is_taken_where_the_fast_one_could_err(
    values: Tensor, slow: bool, shape: tuple[int, int], taken: list[Tensor]
) -> None:
    total = float(values.sum())
    assert _nuclear_norm(of_singular(values, *shape), 2 * total) == pytest.approx(total, rel=1e-12)
    assert bool(taken) is slow


@pytest.mark.parametrize("values", [FLAT, STEEP], ids=["flat", "steep"])
def test_both_ways_agree_as_far_as_they_are_trusted(values: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    cross, told = of_singular(values, 12, 20), []
    for trusted in (-1.0, 1e9):
        monkeypatch.setattr(module, "TOLERANCE", trusted)
        told.append(_nuclear_norm(cross, 1.0))
    assert told[0] == pytest.approx(float(values.sum()), rel=1e-12)
    assert told[1] == pytest.approx(told[0], rel=1e-6)


@pytest.mark.parametrize("values", [STEEP, FLAT[:3]], ids=["steep", "of low rank"])
def test_what_the_fast_way_may_lose_is_held_against_the_scale(values: Tensor, taken: list[Tensor]) -> None:
    """Beside a great spread even matrices that are nearly singular, or wholly, may go the fast way."""
    assert _nuclear_norm(of_singular(values, 12, 20), 1e6) == pytest.approx(float(values.sum()), abs=1e-6)
    assert not taken
    _nuclear_norm(of_singular(values, 12, 20), 1.0)
    assert taken


def test_nothing_has_a_sum_of_0_by_the_fast_way(taken: list[Tensor]) -> None:
    assert _nuclear_norm(torch.zeros(3, 4, dtype=torch.float64), 1.0) == 0
    assert not taken


# ---------------------------------------------------------------- what is no pile of features


@pytest.mark.parametrize(
    ("fake", "real", "words"),
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
        (torch.zeros(5, 3), torch.zeros(5, 4), "must be of one width, found 3 and 4"),
        (torch.full((5, 3), torch.nan), torch.zeros(5, 3), "fake features must be finite"),
        (torch.zeros(5, 3), torch.full((5, 3), torch.inf), "real features must be finite"),
    ],
)
def test_what_is_no_pile_is_refused(fake: Tensor, real: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fid(fake, real)
