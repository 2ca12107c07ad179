"""Rows of the tricks about labels: what D is asked to say, and the classes it names."""

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


def asks_for_less(play: Play) -> None:
    """D pays the cross-entropy of 0.9 for the reals; the first row is that number."""
    run = play(True, 1)
    move = run.of(Side.D)[0].move
    real, fake = move.score("real"), move.score("fake")
    wanted = ((0.9 * softplus(-real) + 0.1 * softplus(real)).mean() + softplus(fake).mean()).detach()
    assert run.metrics.reduce()["d/adversarial"].mean == pytest.approx(float(wanted) / 2, rel=1e-5)
    assert unequal(weights(run, Side.D), weights(play(False, 1), Side.D))


def names_classes(play: Play) -> None:
    """The first row is the cross entropy of both piles by a head that D has for it; then classes are learnt."""
    fresh, first, without = play(True, 0), play(True, 1), play(False, 1)
    labels = first.of(Side.D)[0].move.labels
    assert labels is not None

    def costs(run: Session, played_move: Played, *origins: Tensor | None) -> float:
        total = 0.0
        for origin in origins:
            logits = call_network(run.game.d.net, origin, labels).classes.detach().double()
            total += float((logits.logsumexp(1) - logits[torch.arange(BATCH), labels]).mean())
        return total

    played_move, told = first.of(Side.D)[0], first.metrics.reduce()
    assert told["d/auxiliary_classifier"].mean == pytest.approx(
        costs(fresh, played_move, played_move.real, played_move.fake), rel=1e-5
    )
    said = first.of(Side.G)[0].move.extra_output("fake", "classes").detach().double()
    wanted = -said.log_softmax(1)[torch.arange(BATCH), labels].mean()
    assert told["g/auxiliary_classifier"].mean == pytest.approx(float(wanted), rel=1e-5)
    head = fresh.game.d.net.head
    assert (head.in_features, head.out_features) == (fresh.game.d.net.width, len(source("labelled").classes))
    assert without.of(Side.D)[0].move.outputs["real"].classes is None
    assert not any(name.endswith("/class_accuracy") for name in without.metrics.reduce())

    run = play(True, 150)
    run.metrics.reduce()
    late = run.play(50).metrics.reduce()
    assert late["d/class_accuracy"].mean > 0.6
    assert late["g/class_accuracy"].mean > 0.6


def tells_lies(play: Play) -> None:
    """D is asked for the opposite now and then, by a coin for each sample of each side, and pays for what it is asked.

    With probability 1 it always is, and what G pays knows nothing of it.
    """

    def asked(run: Session, steps: int) -> Tensor:
        """How D was asked for reals and for fakes, 2 x moves x B."""
        found: list[Tensor] = []
        paid = run.game.objective.d_losses

        def d_costs(real: Tensor, fake: Tensor, targets: tuple[Tensor, Tensor], context: MoveContext) -> object:
            found.append(torch.stack(list(targets)))
            return paid(real, fake, targets, context)

        run.game.objective.d_losses = d_costs
        run.play(steps)
        return torch.stack(found, 1)

    p, often = 0.25, {"kind": "ratio", "d": 10, "g": 1}
    run = play(True, 0, tempo=often)
    real, fake = asked(run, 20)
    assert {*real.unique().tolist(), *fake.unique().tolist()} == {0.0, 1.0}, "hard targets stay hard"
    real_lies, fake_lies = real == 0, fake == 1
    for lies, wanted in ((real_lies, p), (fake_lies, p), (real_lies & fake_lies, p * p)):  # two coins, not one
        within = 5 * math.sqrt(wanted * (1 - wanted) / lies.numel())
        assert abs(float(lies.double().mean()) - wanted) < within
    assert int((real_lies.sum(1) % BATCH > 0).sum()) > 0, "a coin for each sample, not for each pile"
    rows = run.metrics.state_dict()
    for at, played_move in enumerate(run.of(Side.D)):
        of_real, of_fake = (played_move.move.score(origin).detach() for origin in ("real", "fake"))
        costs = torch.where(real_lies[at], softplus(of_real), softplus(-of_real))
        costs = costs + torch.where(fake_lies[at], softplus(-of_fake), softplus(of_fake))
        assert float(rows["d/adversarial"][at]) == pytest.approx(float(costs.mean()) / 2, rel=1e-5)
    for at, played_move in enumerate(run.of(Side.G)):
        wanted = float(softplus(-played_move.move.score("fake").detach()).mean())
        assert float(rows["g/adversarial"][at]) == pytest.approx(wanted, rel=1e-5)

    real, fake = asked(play(True, 0, tricks=[{"kind": "noisy_labels", "probability": 1.0}]), 5)
    assert not real.any()
    assert fake.all()


ROWS = {
    "auxiliary_classifier": Row(strong={"weight": 1.0}, zero={"weight": 0.0}, acts=names_classes),
    "noisy_labels": Row(strong={"probability": 0.25}, zero={"probability": 0.0}, acts=tells_lies),
    "soft_labels": Row(
        strong={"real": [0.9, 0.9], "fake": [0.0, 0.0]},
        zero={"real": [1.0, 1.0], "fake": [0.0, 0.0]},
        acts=asks_for_less,
    ),
}
