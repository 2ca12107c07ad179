"""A linear classifier on features."""

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


def test_classes_that_a_plane_parts_are_told_apart() -> None:
    train, labels = clusters(200, 4, 0)
    test, wanted = clusters(100, 4, 1)
    assert linear_probe(train, labels, test, wanted) == 1


def test_random_labels_are_guessed() -> None:
    generator = torch.Generator().manual_seed(0)
    labels, wanted = (torch.randint(4, (n,), generator=generator) for n in (400, 2000))
    found = linear_probe(cloud(400, 6, 1), labels, cloud(2000, 6, 2), wanted)
    assert abs(found - 0.25) < 4 * (0.25 * 0.75 / 2000) ** 0.5


def test_it_is_asked_about_the_test_samples() -> None:
    """Labels turned round are wrong throughout; of three wanted labels one may be right."""
    train, labels = clusters(200, 2, 0)
    test, wanted = clusters(100, 2, 1)
    assert linear_probe(train, labels, test, 1 - wanted) == 0
    assert linear_probe(train, labels, test, torch.zeros_like(wanted)) == 0.5


def test_a_column_in_the_middle_of_another_is_beyond_a_plane() -> None:
    train, test = cloud(600, 2, 0), cloud(600, 2, 1)
    inner = [(pile.norm(dim=1) < 1.18).long() for pile in (train, test)]
    assert 0.4 < linear_probe(train, inner[0], test, inner[1]) < 0.65


def test_the_scale_and_place_of_each_column_do_not_matter() -> None:
    train, test = cloud(300, 5, 0), cloud(300, 5, 1)
    labels, wanted = ((pile.sum(1) > 0).long() for pile in (train, test))
    scales, places = torch.tensor([1e-5, 1.0, 1e4, 3.0, 1e-2]), torch.tensor([0.0, 5.0, -1e4, 7.0, 1.0])
    plain = linear_probe(train, labels, test, wanted)
    assert plain > 0.95
    assert abs(linear_probe(train * scales + places, labels, test * scales + places, wanted) - plain) < 0.01


def test_what_does_not_converge_is_answered_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "ROUNDS", 1)
    train, labels = clusters(200, 4, 0)
    assert linear_probe(train, labels, train, labels) > 0.5


def test_dead_columns_do_not_matter() -> None:
    train, labels = clusters(200, 3, 0)
    dead = torch.cat([train, torch.zeros(200, 3)], dim=1)
    assert linear_probe(dead, labels, dead, labels) == 1
    assert np.isfinite(linear_probe(torch.zeros(20, 3), torch.arange(20) % 2, torch.ones(20, 3), torch.arange(20) % 2))
