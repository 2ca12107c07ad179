"""The Vendi score, compared with numpy's eigenvalues, and the mean pairwise distance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from poise.measure.base import BLOCK_SIZE
from poise.measure.diversity import MAX_SAMPLES, class_diversity, diversity, vendi


def cloud(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- the Vendi score


@pytest.mark.parametrize(("n", "d"), [(1, 1), (7, 7), (7, 20)])
def test_vendi_of_orthogonal_rows_is_their_number(n: int, d: int) -> None:
    lengths = torch.arange(1, n + 1)[:, None]
    assert vendi(torch.eye(n, d) * lengths) == pytest.approx(n, rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(5, 30), (30, 5), (9, 9)])
def test_vendi_of_equal_rows_is_1(n: int, d: int) -> None:
    assert vendi(cloud(1, d, 0).repeat(n, 1)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("n", "d"), [(10, 40), (40, 10), (25, 25), (60, 2)])
def test_vendi_is_exp_of_the_entropy_of_eigenvalues(n: int, d: int) -> None:
    features = (cloud(n, d, 1) + 0.5).numpy()
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    shares = np.linalg.eigvalsh(unit @ unit.T / n)
    shares = shares[shares > 1e-12]
    expected = math.exp(-(shares * np.log(shares)).sum())
    assert vendi(torch.from_numpy(features)) == pytest.approx(expected, rel=1e-9)
    assert 1 < expected < min(n, d)


def test_vendi_of_groups_depends_on_their_shares() -> None:
    rows = torch.eye(3).repeat_interleave(torch.tensor([5, 3, 2]), 0)
    entropy = -sum(p * math.log(p) for p in (0.5, 0.3, 0.2))
    assert vendi(rows) == pytest.approx(math.exp(entropy), rel=1e-6)


def test_vendi_of_square_roots_of_class_probabilities() -> None:
    p = cloud(30, 6, 2).softmax(1)
    kernel = np.array([[sum(math.sqrt(float(a * b)) for a, b in zip(s, t, strict=True)) for t in p] for s in p])
    shares = np.linalg.eigvalsh(kernel / 30)
    shares = shares[shares > 1e-12]
    assert vendi(p.sqrt()) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(4, 30), (30, 4)])
def test_vendi_uses_the_smaller_matrix(n: int, d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    exact, sizes = torch.linalg.eigvalsh, []

    def recording_eigvalsh(matrix: Tensor) -> Tensor:
        sizes.append(tuple(matrix.shape))
        return exact(matrix)

    monkeypatch.setattr(torch.linalg, "eigvalsh", recording_eigvalsh)
    vendi(cloud(n, d, 0))
    assert sizes == [(4, 4)]


def test_vendi_of_zero_rows_is_finite() -> None:
    assert vendi(torch.zeros(4, 3)) == 1
    assert math.isfinite(vendi(torch.cat([torch.zeros(2, 3), torch.eye(3)])))


# ---------------------------------------------------------------- mean pairwise distance


def test_diversity_of_equal_distributions_is_1() -> None:
    found = [diversity(cloud(100, 8, 2 * seed), cloud(100, 8, 2 * seed + 1)) for seed in range(30)]
    assert np.mean(found) == pytest.approx(1, abs=3 * np.std(found) / 30**0.5)
    assert np.std(found) < 0.1


@pytest.mark.parametrize("n", [2, 30, MAX_SAMPLES])
def test_diversity_is_a_ratio_of_mean_pairwise_distances(n: int) -> None:
    fake, real = cloud(n, 3, 1).numpy(), cloud(40, 3, 2).numpy()
    means = []
    for features in (fake, real):
        distances = np.linalg.norm(features[:, None] - features, axis=2)
        means.append(distances[~np.eye(len(features), dtype=bool)].mean())
    assert diversity(torch.from_numpy(fake), torch.from_numpy(real)) == pytest.approx(means[0] / means[1], rel=1e-9)


@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_diversity_scales_and_ignores_shifts(scale: float) -> None:
    real = cloud(80, 5, 3)
    assert diversity(scale * real + 7, real) == pytest.approx(scale, rel=1e-9)


def test_diversity_of_collapsed_samples() -> None:
    same, real = torch.full((20, 5), 0.3), cloud(20, 5, 1)
    assert diversity(same, real) == 0
    assert math.isnan(diversity(real, same))


def test_only_the_first_samples_are_compared() -> None:
    real = cloud(MAX_SAMPLES + 1, 2, 1)
    changed = real.clone()
    changed[MAX_SAMPLES] += 1e6
    assert diversity(changed, real) == diversity(real, changed) == 1
    changed[MAX_SAMPLES - 1] += 1e6
    assert diversity(changed, real) > 10
    assert diversity(real, changed) < 0.1
    assert diversity(real * 2, real, max_samples=BLOCK_SIZE + 1) == pytest.approx(2, rel=1e-12)


def test_diversity_does_not_depend_on_blocks() -> None:
    fake, real = cloud(BLOCK_SIZE + 3, 2, 1), cloud(50, 2, 2)
    means = [float(torch.pdist(features).mean()) for features in (fake, real)]
    assert diversity(fake, real, max_samples=2 * BLOCK_SIZE) == pytest.approx(means[0] / means[1], rel=1e-9)


def test_invalid_features_are_rejected() -> None:
    with pytest.raises(ValueError, match="fake features must be a matrix of at least 2 rows"):
        diversity(torch.zeros(1, 3), torch.zeros(5, 3))


# ---------------------------------------------------------------- within classes


def test_class_diversity_is_the_mean_over_the_classes() -> None:
    """The distance between classes does not count, nor how many samples a class has."""
    labels = torch.tensor([0] * 20 + [1] * 20)
    real = cloud(40, 4, 1) + 100 * labels[:, None]
    fake = torch.cat([0.5 * real[:20] + 7, real[20:]])
    assert diversity(fake, real) > 0.9
    assert class_diversity(fake, real, labels, labels, 2) == pytest.approx(0.75, rel=1e-9)
    few = torch.cat([torch.arange(20), torch.arange(20, 40).repeat(3)])
    expected = (0.5 + class_diversity(fake[few[20:]], real[20:], labels[few[20:]], labels[20:], 2)) / 2
    assert class_diversity(fake[few], real, labels[few], labels, 2) == pytest.approx(expected, rel=1e-9)


def test_class_diversity_of_one_image_per_class_is_0() -> None:
    labels = torch.arange(30) % 3
    real = cloud(30, 4, 1) + 10 * labels[:, None]
    fake = real[labels]
    assert class_diversity(fake, real, labels, labels, 3) == 0
    assert diversity(fake, real) > 0.8


def test_a_class_of_equal_real_samples_does_not_count() -> None:
    labels, real = torch.tensor([0, 0, 0, 1, 1]), torch.cat((cloud(3, 2, 1), torch.ones(2, 2)))
    assert class_diversity(2 * real, real, labels, labels, 2) == pytest.approx(2, rel=1e-9)


def test_class_diversity_without_enough_samples() -> None:
    """A class with one sample has no distances, so that only the other classes count; NaN without any."""
    labels, real = torch.tensor([0, 0, 0, 1]), cloud(4, 2, 1)
    assert class_diversity(2 * real, real, labels, labels, 5) == pytest.approx(2, rel=1e-9)
    assert math.isnan(class_diversity(real, real, torch.arange(4), labels, 5))
