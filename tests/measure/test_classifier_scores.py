"""Inception score, class confidence, class balance and accuracy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

from poise.measure import classifier_scores
from poise.measure.classifier_scores import accuracy, class_balance, class_confidence, inception_score


def logits(n: int, k: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [2, 10])
def test_inception_score_of_confident_balanced_predictions(k: int) -> None:
    score = inception_score(50 * torch.eye(k).repeat(400, 1), splits=1)
    assert (score.value, score.stderr) == (pytest.approx(k, abs=1e-6), None)
    score = inception_score(50 * torch.eye(k).repeat(400, 1))
    assert score.value == pytest.approx(k, rel=0.05)


@pytest.mark.parametrize("row", [[0.0, 0.0, 0.0], [9.0, -3.0, 1.0], [60.0, 0.0, 0.0]])
def test_inception_score_of_constant_predictions_is_1(row: list[float]) -> None:
    assert inception_score(torch.tensor([row]).repeat(60, 1)) == pytest.approx((1, 0), abs=1e-9)


@pytest.mark.parametrize("gap", [200.0, 2000.0])
def test_inception_score_of_saturated_predictions_is_finite(gap: float) -> None:
    """Some probabilities underflow to 0 in float64."""
    assert inception_score(gap * torch.eye(3)[[0] * 60]) == pytest.approx((1, 0), abs=1e-9)
    assert inception_score(gap * torch.eye(3)[[0, 1] * 50], splits=1).value == pytest.approx(2, rel=1e-9)


@pytest.mark.parametrize(("n", "splits"), [(503, 10), (200, 4), (60, 1)])
def test_inception_score_matches_torch_fidelity(n: int, splits: int) -> None:
    predictions = logits(n, 7)
    expected = isc_features_to_metric(predictions, splits)
    score = inception_score(predictions, splits)
    assert score.value == pytest.approx(expected[KEY_METRIC_ISC_MEAN], rel=1e-9)
    if splits == 1:
        assert score.stderr is None
    else:
        unbiased = expected[KEY_METRIC_ISC_STD] * math.sqrt(splits / (splits - 1))
        assert score.stderr == pytest.approx(unbiased / math.sqrt(splits), rel=1e-9)


def test_inception_score_of_one_split_matches_the_formula() -> None:
    p = logits(80, 5).double().softmax(1).numpy()
    expected = math.exp((p * np.log(p / p.mean(0))).sum(1).mean())
    assert inception_score(logits(80, 5), splits=1).value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("n", "k", "splits"), [(3, 5, 1), (99, 5, 1), (100, 5, 2), (1000, 10, 10), (499, 30, 1), (500, 30, 2)]
)
def test_default_number_of_splits(monkeypatch: pytest.MonkeyPatch, n: int, k: int, splits: int) -> None:
    monkeypatch.setattr(classifier_scores, "ENOUGH_PER_PART", 250)
    predictions = logits(n, k)
    found = inception_score(predictions)
    assert found == inception_score(predictions, splits)
    assert (found.stderr is None) == (splits == 1)
    assert found != inception_score(predictions, splits + 1)


@pytest.mark.parametrize("n", [20, 50, 100, 300])
def test_inception_score_of_few_perfect_samples_says_that_classes_are_varied(n: int) -> None:
    """With ten parts, whatever n is, it would be at most n / 10."""
    classes = torch.randint(10, (n,), generator=torch.Generator().manual_seed(0))
    assert inception_score(50 * torch.eye(10)[classes]).value > 6.5


def test_class_confidence() -> None:
    confident, even, uniform = [math.log(8), 0.0, 0.0], [math.log(2), 0.0, 0.0], [0.0, 0.0, 0.0]
    assert class_confidence(torch.tensor([confident, even, uniform])) == pytest.approx(
        (0.8 + 0.5 + 1 / 3) / 3, rel=1e-6
    )
    assert class_confidence(torch.zeros(4, 10)) == pytest.approx(0.1, rel=1e-12)
    assert class_confidence(1000 * torch.eye(4)) == 1


def test_class_balance() -> None:
    real_labels = torch.arange(10).repeat(30)
    assert class_balance(real_labels.flip(0), real_labels, 10) == 1
    assert class_balance(torch.arange(10).repeat(7), real_labels, 10) == pytest.approx(1, abs=1e-12)
    assert class_balance(torch.arange(9).repeat(20), real_labels, 10) == pytest.approx(0.9, abs=1e-12)
    assert class_balance(torch.full((50,), 4), real_labels, 10) == pytest.approx(0.1, abs=1e-12)
    assert class_balance(torch.full((50,), 4), torch.full((9,), 2), 10) == 0
    assert class_balance(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1]), 3) == pytest.approx(0.75, abs=1e-12)


def test_accuracy() -> None:
    predictions = torch.tensor([[3.0, 1.0], [0.0, 1.0], [-5.0, -6.0], [2.0, 2.5]])
    assert accuracy(predictions, torch.tensor([0, 1, 1, 1])) == 0.75
    assert accuracy(predictions, torch.tensor([1, 0, 1, 0])) == 0
