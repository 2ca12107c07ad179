"""Procrustes' map and its refinement."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from alignment.vectors import cloud, rotation
from poise.alignment.neighbours import mean_cosine_criterion
from poise.alignment.refinement import Round, apply_map, num_pairs, procrustes, refine, share_of_pairs


def test_procrustes_is_the_best_orthogonal_map() -> None:
    source, target = cloud(40, 5, 0), cloud(40, 5, 1)
    weights = procrustes(source, target)
    assert torch.allclose(weights @ weights.T, torch.eye(5), atol=1e-5)
    expected, _ = scipy.linalg.orthogonal_procrustes(source.double().numpy(), target.double().numpy())
    assert np.allclose(weights, expected.T, atol=1e-6)  # scipy's matrix multiplies rows from the right

    def error(candidate: torch.Tensor) -> float:
        return float((source @ candidate.T - target).square().sum())

    assert all(error(weights) < error(rotation(5, seed)) for seed in range(20))


def test_procrustes_finds_a_rotation_and_a_reflection() -> None:
    for flip in (1.0, -1.0):
        truth = rotation(6, 3) @ torch.diag(torch.tensor([flip, 1, 1, 1, 1, 1]))
        source = cloud(30, 6, 0)
        assert torch.allclose(procrustes(source, source @ truth.T), truth, atol=1e-5)


def test_a_map_is_applied_to_rows() -> None:
    source = cloud(7, 3, 0)
    weights = 2 * rotation(3, 1)
    assert torch.allclose(apply_map(weights, source), torch.stack([weights @ row / 2 for row in source]), atol=1e-6)


def test_refinement_repairs_a_map_that_is_nearly_right() -> None:
    source, truth = cloud(300, 8, 0), rotation(8, 1)
    target = source[torch.randperm(300, generator=torch.Generator().manual_seed(2))] @ truth.T
    start = procrustes(torch.eye(8), truth.T + 0.3 * torch.randn(8, 8, generator=torch.Generator().manual_seed(3)))
    rounds: list[Round] = []
    refined = refine(start, source, target, rounds=5, notify=rounds.append)
    assert refined.rounds == tuple(rounds)
    assert len(rounds) == 4, "it ends when the pairs do not change any more"
    assert rounds[0].pairs == 0
    assert rounds[-1].pairs == 300
    assert rounds[0].criterion == pytest.approx(mean_cosine_criterion(apply_map(start, source), target))
    assert rounds[0].criterion < 0.99
    assert (start - truth).norm() > 0.3
    assert refined.best.criterion == pytest.approx(1, abs=1e-5)
    assert torch.allclose(refined.best.weights, truth, atol=1e-4)


def test_the_best_round_is_kept_and_pairs_are_those_of_frequent_vectors() -> None:
    source = cloud(60, 4, 0)
    noise = torch.cat((torch.zeros(20, 4), 2 * torch.randn(40, 4, generator=torch.Generator().manual_seed(1))))
    target = torch.nn.functional.normalize(source + noise, dim=1)
    refined = refine(torch.eye(4), source, target, rounds=3, most_frequent=20)
    assert all(0 < step.pairs <= 20 for step in refined.rounds[1:])
    assert refined.best.criterion == max(step.criterion for step in refined.rounds)


def test_the_share_of_pairs_is_that_of_the_vectors_of_which_pairs_are_made() -> None:
    many, few = torch.empty(40_000, 1), torch.empty(9_000, 1)
    assert share_of_pairs(12_000, many, many) == 0.8
    assert share_of_pairs(4_500, few, many) == share_of_pairs(4_500, many, few) == 0.5


def test_refinement_ends_if_no_pair_is_mutual() -> None:
    # among the first of both sets, none is the nearest of any
    source = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    target = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert len(refine(torch.eye(2), source, target, most_frequent=1).rounds) == 1


def test_the_map_before_the_first_round_has_pairs_too() -> None:
    source = torch.nn.functional.normalize(cloud(200, 8, 0), dim=1)
    start = Round(rotation(8, 1), 1.0, 0)
    assert num_pairs(start, source, source @ rotation(8, 1).T) == 200
    assert num_pairs(start._replace(pairs=7), source, source) == 7
