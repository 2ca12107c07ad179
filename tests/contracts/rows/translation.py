"""Rows of the losses between images: what they add to the loss of a G that translates both ways."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from contracts.rows.base import Play, Row, weights
from contracts.rows.hybrids import expected_gradient, gradient, nearly_equal
from contracts.tiny import unequal
from poise.core.types import Side

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


ROWS = {
    kind: Row(strong={"weight": WEIGHT}, zero={"weight": 0.0}, check=partial(check_translation_loss, kind))
    for kind in COMPARED
}
