"""Rows of the tricks about labels: D's targets, and the classes that it predicts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from contracts.rows.base import Play, Row, weights
from contracts.tiny import BATCH, Played, Session, source, unequal
from poise.core.types import MoveContext, Side
from poise.networks.base import call_network


def check_soft_labels(play: Play) -> None:
    """D's loss is the cross-entropy with target 0.9 for real samples, and is logged."""
    run = play(True, 1)
    move = run.of(Side.D)[0].move
    real, fake = move.score("real"), move.score("fake")
    expected = ((0.9 * softplus(-real) + 0.1 * softplus(real)).mean() + softplus(fake).mean()).detach()
    assert run.metrics.reduce()["d/adversarial"].mean == pytest.approx(float(expected) / 2, rel=1e-5)
    assert unequal(weights(run, Side.D), weights(play(False, 1), Side.D))


def check_classifier(play: Play) -> None:
    """The logged value is the cross-entropy of D's class head on real and generated samples; classes are learned."""
    fresh, first, without = play(True, 0), play(True, 1), play(False, 1)
    labels = first.of(Side.D)[0].move.labels
    assert labels is not None

    def cross_entropy(run: Session, played_move: Played, *origins: Tensor | None) -> float:
        total = 0.0
        for origin in origins:
            logits = call_network(run.game.d.net, origin, labels).classes.detach().double()
            total += float((logits.logsumexp(1) - logits[torch.arange(BATCH), labels]).mean())
        return total

    played_move, logged = first.of(Side.D)[0], first.metrics.reduce()
    assert logged["d/auxiliary_classifier"].mean == pytest.approx(
        cross_entropy(fresh, played_move, played_move.real, played_move.fake), rel=1e-5
    )
    logits = first.of(Side.G)[0].move.extra_output("fake", "classes").detach().double()
    expected = -logits.log_softmax(1)[torch.arange(BATCH), labels].mean()
    assert logged["g/auxiliary_classifier"].mean == pytest.approx(float(expected), rel=1e-5)
    head = fresh.game.d.net.head
    assert (head.in_features, head.out_features) == (fresh.game.d.net.width, len(source("labelled").classes))
    assert without.of(Side.D)[0].move.outputs["real"].classes is None
    assert not any(name.endswith("/class_accuracy") for name in without.metrics.reduce())

    run = play(True, 90)
    run.metrics.reduce()
    late = run.play(30).metrics.reduce()
    assert late["d/class_accuracy"].mean > 0.6
    assert late["g/class_accuracy"].mean > 0.6


def check_noisy_labels(play: Play) -> None:
    """Targets are flipped with probability p, independently for each sample of each side, and D's loss uses them.

    With probability 1 all are flipped. G's loss is not affected.
    """

    def targets_of(run: Session, steps: int) -> Tensor:
        """D's targets for real and for fake samples, 2 x moves x B."""
        recorded: list[Tensor] = []
        original = run.game.objective.d_losses

        def record(real: Tensor, fake: Tensor, targets: tuple[Tensor, Tensor], context: MoveContext) -> object:
            recorded.append(torch.stack(list(targets)))
            return original(real, fake, targets, context)

        run.game.objective.d_losses = record
        run.play(steps)
        return torch.stack(recorded, 1)

    p, often = 0.25, {"kind": "ratio", "d": 10, "g": 1}
    run = play(True, 0, tempo=often)
    real, fake = targets_of(run, 20)
    assert {*real.unique().tolist(), *fake.unique().tolist()} == {0.0, 1.0}, "hard targets stay hard"
    real_flipped, fake_flipped = real == 0, fake == 1
    for flipped, expected in (
        (real_flipped, p),
        (fake_flipped, p),
        (real_flipped & fake_flipped, p * p),
    ):  # independent draws
        tolerance = 5 * math.sqrt(expected * (1 - expected) / flipped.numel())
        assert abs(float(flipped.double().mean()) - expected) < tolerance
    assert int((real_flipped.sum(1) % BATCH > 0).sum()) > 0, "each sample is flipped independently, not each batch"
    rows = run.metrics.state_dict()
    for index, played_move in enumerate(run.of(Side.D)):
        of_real, of_fake = (played_move.move.score(origin).detach() for origin in ("real", "fake"))
        losses = torch.where(real_flipped[index], softplus(of_real), softplus(-of_real))
        losses = losses + torch.where(fake_flipped[index], softplus(-of_fake), softplus(of_fake))
        assert float(rows["d/adversarial"][index]) == pytest.approx(float(losses.mean()) / 2, rel=1e-5)
    for index, played_move in enumerate(run.of(Side.G)):
        expected = float(softplus(-played_move.move.score("fake").detach()).mean())
        assert float(rows["g/adversarial"][index]) == pytest.approx(expected, rel=1e-5)

    real, fake = targets_of(play(True, 0, tricks=[{"kind": "noisy_labels", "probability": 1.0}]), 5)
    assert not real.any()
    assert fake.all()


def check_generator_smoothing(play: Play) -> None:
    """G's loss is the cross-entropy with target 0.8; D's loss, and its first move, are unchanged."""
    run, without = play(True, 1), play(False, 1)
    score = run.of(Side.G)[0].move.score("fake").detach()
    logged = run.metrics.reduce()
    loss = logged["g/adversarial"].mean + 0.2 * logged["g/generator_smoothing"].mean
    assert loss == pytest.approx(float((0.8 * softplus(-score) + 0.2 * softplus(score)).mean()), rel=1e-5)
    assert "d/generator_smoothing" not in logged
    assert unequal(weights(run, Side.D), weights(without, Side.D)) == []
    assert unequal(weights(run, Side.G), weights(without, Side.G))


ROWS = {
    "auxiliary_classifier": Row(strong={"weight": 1.0}, zero={"weight": 0.0}, check=check_classifier),
    "generator_smoothing": Row(strong={"weight": 0.2}, zero={"weight": 0.0}, check=check_generator_smoothing),
    "noisy_labels": Row(strong={"probability": 0.25}, zero={"probability": 0.0}, check=check_noisy_labels),
    "soft_labels": Row(
        strong={"real": [0.9, 0.9], "fake": [0.0, 0.0]},
        zero={"real": [1.0, 1.0], "fake": [0.0, 0.0]},
        check=check_soft_labels,
    ),
}
