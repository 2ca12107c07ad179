"""The auxiliary classifier's cost against cross-entropy in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from contracts.tiny import moment
from poise.core import Exchange, Side, Verdict
from poise.dials import Linear
from poise.training.game import Game, Judge, apart, together
from poise.training.ledger import Ledger
from poise.training.step import move
from poise.tricks.auxiliary_classifier import AuxiliaryClassifier, AuxiliaryClassifierEntry
from tricks.small import Bent, Given, N, as_float64, cloud, game_of, gradients, shown

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


def exchange_of(side: Side, logits: dict[Any, Tensor], labels: Tensor = LABELS) -> Exchange:
    exchange = Exchange(moment(side=side), torch.zeros(N, 2), torch.zeros(N, 2), torch.zeros(N, 2), labels, labels)
    exchange.verdicts = {pile: Verdict(torch.zeros(N), classes=said) for pile, said in logits.items()}
    return exchange


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_d_pays_for_both_piles_and_g_for_its_own(scale: float, dtype: torch.dtype) -> None:
    trick = AuxiliaryClassifierEntry().build("ac", {})
    real, fake = (cloud(N, CLASSES, seed=s, dtype=dtype) * scale for s in (1, 2))
    labels = as_float64(LABELS)
    on_real, on_fake = cross_entropy(as_float64(real), labels), cross_entropy(as_float64(fake), labels)
    assert on_real != pytest.approx(on_fake, rel=1e-2)
    d, g = exchange_of(Side.D, {"real": real, "fake": fake}), exchange_of(Side.G, {"real": real, "fake": fake})
    assert float(trick.cost(d)) == pytest.approx(on_real + on_fake, rel=1e-5)
    assert float(trick.cost(g)) == pytest.approx(on_fake, rel=1e-5)
    right = accuracy(as_float64(real), labels), accuracy(as_float64(fake), labels)
    assert right[0] != right[1]
    assert float(d.readings["class_accuracy"]) == pytest.approx(sum(right) / 2)
    assert float(g.readings["class_accuracy"]) == pytest.approx(right[1])


@pytest.mark.parametrize("side", Side)
def test_gradients(side: Side) -> None:
    """By differences, and softmax less one-hot over the batch for each pile that counts."""
    piles = [cloud(N, CLASSES, seed=s, dtype=torch.float64).requires_grad_() for s in (1, 2)]

    def cost(real: Tensor, fake: Tensor) -> Tensor:
        return AuxiliaryClassifier("ac", 1.0).cost(exchange_of(side, {"real": real, "fake": fake}))

    assert torch.autograd.gradcheck(cost, piles)
    hot = torch.eye(CLASSES, dtype=torch.float64)[LABELS]
    for pile, grad in zip(piles, torch.autograd.grad(cost(*piles), piles, materialize_grads=True), strict=True):
        counts = side is Side.D or pile is piles[1]
        assert torch.allclose(grad, counts * (pile.detach().softmax(1) - hot) / N, atol=1e-12)


def classifying(weight: float, judge: Judge = apart) -> Game:
    return game_of(AuxiliaryClassifier("ac", weight), d=Bent(classes=CLASSES), judge=judge, labelled=True)


@pytest.mark.parametrize("judge", [apart, together])
def test_in_a_game_the_rows_show_cost_and_accuracy(judge: Judge) -> None:
    """Fake i is held to real i's class."""
    labels = as_float64(LABELS)
    for side in Side:
        game, ledger = classifying(1.0, judge), Ledger()
        exchange = move(game, Given(cloud(N, 2), LABELS), moment(side=side), ledger)
        piles = [exchange.fake] if exchange.real is None else [exchange.real, exchange.fake]
        assert len(piles) == (2 if side is Side.D else 1)
        with torch.no_grad():
            logits = [as_float64(said) for said in (game.d.net(pile).classes for pile in piles) if said is not None]
        row = shown(ledger)
        assert row[f"{side}/ac"] == pytest.approx(sum(cross_entropy(said, labels) for said in logits), rel=1e-5)
        assert row[f"{side}/class_accuracy"] == pytest.approx(np.mean([accuracy(said, labels) for said in logits]))


@pytest.mark.parametrize("side", Side)
def test_the_weight_multiplies_its_pull(side: Side) -> None:
    def pulled(weight: float) -> list[Tensor]:
        game = classifying(weight)
        move(game, Given(cloud(N, 2), LABELS), moment(side=side), Ledger())
        return gradients(game.players[side].net)

    moved = []
    for w, w1, w3 in zip(pulled(0.0), pulled(1.0), pulled(3.0), strict=True):
        assert torch.allclose(w3 - w, 3 * (w1 - w), atol=1e-5)
        moved.append(not torch.allclose(w1, w, atol=1e-3))
    assert any(moved)


def test_d_needs_a_head_only_if_it_ever_weighs_anything() -> None:
    assert AuxiliaryClassifierEntry().reads == {"classes"}
    assert AuxiliaryClassifierEntry(weight=Linear(start=0.0, end=1.0)).reads == {"classes"}
    assert AuxiliaryClassifierEntry(weight=0.0).reads == frozenset()
