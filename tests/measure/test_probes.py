"""The linear probe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from poise.measure import probes
from poise.measure.probes import linear_probe


def cloud(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def clusters(n: int, k: int, seed: int) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % k
    return cloud(n, 6, seed) / 4 + 5 * torch.eye(k, 6)[labels], labels


def test_linearly_separable_classes() -> None:
    train, train_labels = clusters(200, 4, 0)
    test, test_labels = clusters(100, 4, 1)
    assert linear_probe(train, train_labels, test, test_labels) == 1


def test_random_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    train_labels, test_labels = (torch.randint(4, (n,), generator=generator) for n in (400, 2000))
    found = linear_probe(cloud(400, 6, 1), train_labels, cloud(2000, 6, 2), test_labels)
    assert abs(found - 0.25) < 4 * (0.25 * 0.75 / 2000) ** 0.5


def test_accuracy_is_computed_on_the_test_samples() -> None:
    """Swapped test train_labels give an accuracy of 0, constant ones of a half."""
    train, train_labels = clusters(200, 2, 0)
    test, test_labels = clusters(100, 2, 1)
    assert linear_probe(train, train_labels, test, 1 - test_labels) == 0
    assert linear_probe(train, train_labels, test, torch.zeros_like(test_labels)) == 0.5


def test_classes_that_are_not_linearly_separable() -> None:
    train, test = cloud(600, 2, 0), cloud(600, 2, 1)
    inner = [(points.norm(dim=1) < 1.18).long() for points in (train, test)]
    assert 0.4 < linear_probe(train, inner[0], test, inner[1]) < 0.65


def test_features_are_standardised() -> None:
    train, test = cloud(300, 5, 0), cloud(300, 5, 1)
    train_labels, test_labels = ((features.sum(1) > 0).long() for features in (train, test))
    scales, shifts = torch.tensor([1e-5, 1.0, 1e4, 3.0, 1e-2]), torch.tensor([0.0, 5.0, -1e4, 7.0, 1.0])
    plain = linear_probe(train, train_labels, test, test_labels)
    assert plain > 0.95
    assert abs(linear_probe(train * scales + shifts, train_labels, test * scales + shifts, test_labels) - plain) < 0.01


def test_missing_convergence_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "MAX_ITERATIONS", 1)
    train, train_labels = clusters(200, 4, 0)
    assert linear_probe(train, train_labels, train, train_labels) > 0.5


def test_constant_columns() -> None:
    train, train_labels = clusters(200, 3, 0)
    dead = torch.cat([train, torch.zeros(200, 3)], dim=1)
    assert linear_probe(dead, train_labels, dead, train_labels) == 1
    assert np.isfinite(linear_probe(torch.zeros(20, 3), torch.arange(20) % 2, torch.ones(20, 3), torch.arange(20) % 2))
