"""Nearest neighbours, CSLS and the criterion equal a slow computation, in blocks of every size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alignment.vectors import cloud, slow_csls
from poise.alignment import neighbours
from poise.alignment.neighbours import (
    mean_cosine_criterion,
    mean_similarities,
    mutual_csls_pairs,
    mutual_pairs,
    nearest_by_cosine,
    nearest_by_csls,
    unit_rows,
)

SOURCE, TARGET = cloud(23, 4, 0), cloud(31, 4, 1)


@pytest.fixture(params=[1, 70, 1 << 23])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_ENTRIES", request.param)


def test_unit_rows() -> None:
    rows = unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-15, 0.0]]))
    assert torch.allclose(rows, torch.tensor([[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]]))


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("k", [1, 5, 40])
def test_csls_is_the_formula(k: int) -> None:
    means = mean_similarities(SOURCE, TARGET, k)
    found = nearest_by_csls(SOURCE, TARGET, means.source, means.target, 40)
    expected = slow_csls(SOURCE, TARGET, k)
    assert found.indices.shape == (23, 31)
    assert np.allclose(found.similarity, -np.sort(-expected, 1), atol=1e-5)
    assert np.allclose(np.take_along_axis(expected, found.indices.numpy(), 1), found.similarity, atol=1e-5)


@pytest.mark.usefixtures("block")
def test_cosine_neighbours() -> None:
    cosines = (SOURCE.double() @ TARGET.double().T).numpy()
    found = nearest_by_cosine(SOURCE, TARGET, 3)
    assert np.array_equal(found.indices, np.argsort(-cosines, 1)[:, :3])
    assert np.allclose(found.similarity, -np.sort(-cosines, 1)[:, :3], atol=1e-6)


def test_csls_avoids_a_hub() -> None:
    # every source is nearest to the first target by cosine; beside it, each has a partner of its own
    axes = torch.eye(6)
    sources = unit_rows(torch.cat((torch.ones(6, 1), axes), 1))
    targets = unit_rows(torch.cat((torch.eye(7)[:1], torch.cat((-0.05 * torch.ones(6, 1), axes), 1))))
    assert nearest_by_cosine(sources, targets).indices.flatten().tolist() == [0] * 6
    means = mean_similarities(sources, targets, 3)
    found = nearest_by_csls(sources, targets, means.source, means.target)
    assert found.indices.flatten().tolist() == [1, 2, 3, 4, 5, 6]


def test_mutual_pairs() -> None:
    forward, backward = torch.tensor([2, 0, 2, 5]), torch.tensor([1, 0, 0])
    assert mutual_pairs(forward, backward).tolist() == [[0, 2], [1, 0]]
    assert mutual_pairs(torch.tensor([4]), backward).shape == (0, 2)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("most_frequent", [None, 12])
def test_mutual_neighbours_by_csls(most_frequent: int | None) -> None:
    csls = slow_csls(SOURCE, TARGET, 10)
    n = most_frequent or 1000
    expected = [
        [i, j]
        for i in range(min(23, n))
        for j in range(min(31, n))
        if csls[i].argmax() == j and csls[:, j].argmax() == i
    ]
    assert len(expected) >= 2
    assert mutual_csls_pairs(SOURCE, TARGET, most_frequent).tolist() == expected


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("n", [7, 10_000])
def test_the_criterion_is_the_mean_cosine_of_translations(n: int) -> None:
    translations = slow_csls(SOURCE, TARGET, 10).argmax(1)
    cosines = (SOURCE.double() @ TARGET.double().T).numpy()[np.arange(23), translations]
    assert mean_cosine_criterion(SOURCE, TARGET, n) == pytest.approx(cosines[:n].mean(), abs=1e-6)
    assert mean_cosine_criterion(torch.eye(6), torch.eye(6), n) == pytest.approx(1, abs=1e-6)
