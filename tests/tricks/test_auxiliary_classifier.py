"""The auxiliary classifier's loss, compared with cross-entropy in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from contracts.tiny import context
from poise.core.move import MoveData
from poise.core.schedules import Linear
from poise.core.types import DiscriminatorOutput, Side
from poise.engine.game import Discriminate, Game, discriminate_jointly, discriminate_separately
from poise.engine.step import make_move
from poise.engine.step_metrics import StepMetrics
from poise.tricks.auxiliary_classifier import AuxiliaryClassifier, AuxiliaryClassifierConfig
from tricks.small import FixedBatches, N, TanhDiscriminator, as_float64, game_of, gradients, logged_means, randn

Numbers = np.ndarray[Any, np.dtype[np.float64]]
CLASSES = 3
LABELS = torch.tensor([0, 1, 2, 2, 1, 0, 0, 2])


def cross_entropy(logits: Numbers, labels: Numbers) -> float:
    """-E log softmax(logits)_label, without overflow."""
    top = logits.max(1, keepdims=True)
    log_sum = top[:, 0] + np.log(np.exp(logits - top).sum(1))
    return float((log_sum - logits[np.arange(len(labels)), labels.astype(int)]).mean())


def accuracy(logits: Numbers, labels: Numbers) -> float:
    return float((logits.argmax(1) == labels).mean())


def move_of(side: Side, logits: dict[Any, Tensor], labels: Tensor = LABELS) -> MoveData:
    move = MoveData(context(side=side), torch.zeros(N, 2), torch.zeros(N, 2), torch.zeros(N, 2), labels, labels)
    move.outputs = {origin: DiscriminatorOutput(torch.zeros(N), classes=output) for origin, output in logits.items()}
    return move


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_d_loss_has_both_terms_and_g_loss_the_fake_one(scale: float, dtype: torch.dtype) -> None:
    trick = AuxiliaryClassifierConfig().build("ac", {})
    real, fake = (randn(N, CLASSES, seed=s, dtype=dtype) * scale for s in (1, 2))
    labels = as_float64(LABELS)
    on_real, on_fake = cross_entropy(as_float64(real), labels), cross_entropy(as_float64(fake), labels)
    assert on_real != pytest.approx(on_fake, rel=1e-2)
    d, g = move_of(Side.D, {"real": real, "fake": fake}), move_of(Side.G, {"real": real, "fake": fake})
    assert float(trick.loss(d)) == pytest.approx(on_real + on_fake, rel=1e-5)
    assert float(trick.loss(g)) == pytest.approx(on_fake, rel=1e-5)
    right = accuracy(as_float64(real), labels), accuracy(as_float64(fake), labels)
    assert right[0] != right[1]
    assert float(d.logged["class_accuracy"]) == pytest.approx(sum(right) / 2)
    assert float(g.logged["class_accuracy"]) == pytest.approx(right[1])


@pytest.mark.parametrize("side", Side)
def test_gradients(side: Side) -> None:
    """By finite differences, and softmax minus one-hot over the batch for the samples that count."""
    origins = [randn(N, CLASSES, seed=s, dtype=torch.float64).requires_grad_() for s in (1, 2)]

    def loss(real: Tensor, fake: Tensor) -> Tensor:
        return AuxiliaryClassifier("ac", 1.0).loss(move_of(side, {"real": real, "fake": fake}))

    assert torch.autograd.gradcheck(loss, origins)
    hot = torch.eye(CLASSES, dtype=torch.float64)[LABELS]
    for origin, grad in zip(origins, torch.autograd.grad(loss(*origins), origins, materialize_grads=True), strict=True):
        counts = side is Side.D or origin is origins[1]
        assert torch.allclose(grad, counts * (origin.detach().softmax(1) - hot) / N, atol=1e-12)


def classifier_game(weight: float, judge: Discriminate = discriminate_separately) -> Game:
    return game_of(AuxiliaryClassifier("ac", weight), d=TanhDiscriminator(classes=CLASSES), judge=judge, labelled=True)


@pytest.mark.parametrize("judge", [discriminate_separately, discriminate_jointly])
def test_loss_and_accuracy_are_logged(judge: Discriminate) -> None:
    """Fake sample i has the class of real sample i."""
    labels = as_float64(LABELS)
    for side in Side:
        game, metrics = classifier_game(1.0, judge), StepMetrics()
        move = make_move(game, FixedBatches(randn(N, 2), LABELS), context(side=side), metrics)
        origins = [move.fake] if move.real is None else [move.real, move.fake]
        assert len(origins) == (2 if side is Side.D else 1)
        with torch.no_grad():
            logits = [
                as_float64(output)
                for output in (game.d.net(origin).classes for origin in origins)
                if output is not None
            ]
        row = logged_means(metrics)
        assert row[f"{side}/ac"] == pytest.approx(sum(cross_entropy(output, labels) for output in logits), rel=1e-5)
        assert row[f"{side}/class_accuracy"] == pytest.approx(np.mean([accuracy(output, labels) for output in logits]))


@pytest.mark.parametrize("side", Side)
def test_weight_scales_the_gradient(side: Side) -> None:
    def gradient_with_weight(weight: float) -> list[Tensor]:
        game = classifier_game(weight)
        make_move(game, FixedBatches(randn(N, 2), LABELS), context(side=side), StepMetrics())
        return gradients(game.players[side].net)

    changed = []
    for w, w1, w3 in zip(gradient_with_weight(0.0), gradient_with_weight(1.0), gradient_with_weight(3.0), strict=True):
        assert torch.allclose(w3 - w, 3 * (w1 - w), atol=1e-5)
        changed.append(not torch.allclose(w1, w, atol=1e-3))
    assert any(changed)


def test_d_needs_a_class_head_unless_the_weight_is_always_0() -> None:
    assert AuxiliaryClassifierConfig().required_outputs == {"classes"}
    assert AuxiliaryClassifierConfig(weight=Linear(start=0.0, end=1.0)).required_outputs == {"classes"}
    assert AuxiliaryClassifierConfig(weight=0.0).required_outputs == frozenset()
