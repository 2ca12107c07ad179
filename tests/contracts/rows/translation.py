"""Rows of the losses between images: what they add to the loss of a G that translates both ways."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from contracts import critic_of_tests
from contracts.critic_of_tests import CriticOfTests
from contracts.rows.base import Play, Row, weights
from contracts.rows.hybrids import expected_gradient, gradient, nearly_equal
from contracts.tiny import Session, unequal
from poise.core.types import Side
from poise.user_code.loading import trust_file

WEIGHT = 3.0
"""Neither 0 nor 1, so that a missing weight is detected."""

Compared = list[tuple[Tensor, Tensor]]
"""What is compared with what, in each direction."""

COMPARED: dict[str, Callable[[nn.Module, nn.Module, Tensor, Tensor], Compared]] = {
    "target_l1": lambda there, back, a, b: [(there(a), b), (back(b), a)],
    "cycle": lambda there, back, a, b: [(back(there(a)), a), (there(back(b)), b)],
    "identity_mapping": lambda there, back, a, b: [(there(b), b), (back(a), a)],
    "self_regularization": lambda there, back, a, b: [(there(a), a), (back(b), b)],
}
"""By trick, from G_AB, G_BA, a and b."""


def check_translation_loss(kind: str, play: Play) -> None:
    """The first logged value is the mean distance in both directions, and G's gradient is that of the whole loss."""
    fresh, run, without = play(True, 0), play(True, 1), play(False, 1)
    played_move = run.of(Side.G)[0]
    a, b = played_move.latents.chunk(2, 1)
    networks = fresh.game.g.net.networks
    compared = COMPARED[kind](networks["a_to_b"], networks["b_to_a"], a, b)
    distance = torch.stack([(image - target).abs().mean() for image, target in compared]).mean()
    logged = run.metrics.reduce()
    assert logged[f"g/{kind}"].mean == pytest.approx(float(distance.detach()), rel=1e-4)
    assert f"d/{kind}" not in logged
    assert f"g/{kind}" not in without.metrics.reduce()

    score = run.game.d.net(fresh.game.g.net(played_move.latents)).score
    loss = softplus(-score).mean() + WEIGHT * distance
    assert nearly_equal(gradient(run, Side.G), expected_gradient(fresh, Side.G, loss))
    assert not nearly_equal(gradient(run, Side.G), gradient(without, Side.G))
    assert unequal(weights(run, Side.D), weights(without, Side.D)) == []
    assert unequal(weights(run, Side.G), weights(without, Side.G))


def check_frozen_critic(play: Play) -> None:
    """The logged value is the cross-entropy to the critic's class of the source, in both directions, and G's gradient
    is that of the whole loss; the class that the critic sees stays as it was more often than without the term.
    """
    fresh, run, without = play(True, 0), play(True, 1), play(False, 1)
    played_move, networks, critic = run.of(Side.G)[0], fresh.game.g.net.networks, CriticOfTests((1, 8, 8))
    a, b = played_move.latents.chunk(2, 1)
    logits = critic(torch.cat((networks["b_to_a"](b), networks["a_to_b"](a))))
    classes = critic(torch.cat((b, a))).argmax(1)
    expected = -logits.log_softmax(1)[torch.arange(len(classes)), classes].mean()
    logged = run.metrics.reduce()
    assert logged["g/frozen_critic"].mean == pytest.approx(float(expected.detach()), rel=1e-4)
    assert logged["g/frozen_critic_met"].mean == pytest.approx(float((logits.argmax(1) == classes).float().mean()))
    assert not any("frozen_critic" in name for name in without.metrics.reduce())

    score = run.game.d.net(fresh.game.g.net(played_move.latents)).score
    loss = softplus(-score).mean() + WEIGHT * expected
    assert nearly_equal(gradient(run, Side.G), expected_gradient(fresh, Side.G, loss))
    assert unequal(weights(run, Side.D), weights(without, Side.D)) == []
    assert not any("critic" in name for name in run.game.state_dict()), "it is not part of the state"

    def kept(session: Session) -> float:
        moves = [played_move.move for played_move in session.of(Side.G)[-10:]]
        swapped = torch.cat([move.latents.flip(1) for move in moves])
        pairs = zip(torch.cat([move.fake.detach() for move in moves]).chunk(2, 1), swapped.chunk(2, 1), strict=True)
        same = [critic(after).argmax(1) == critic(before).argmax(1) for after, before in pairs]
        return float(torch.cat(same).float().mean())

    assert kept(play(True, 60)) > kept(play(False, 60)) + 0.2


CRITIC = {"kind": "python", "file": critic_of_tests.__file__, "name": "CriticOfTests"}
trust_file(Path(CRITIC["file"]), CRITIC["name"], trust_code=True)

ROWS = {
    "frozen_critic": Row(
        strong={"weight": WEIGHT, "network": CRITIC}, zero={"weight": 0.0, "network": CRITIC}, check=check_frozen_critic
    )
} | {
    kind: Row(strong={"weight": WEIGHT}, zero={"weight": 0.0}, check=partial(check_translation_loss, kind))
    for kind in COMPARED
}
