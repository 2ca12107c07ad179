"""The row of the trick that makes G show the codes in z."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import softplus

from contracts.rows.base import Play, Row, weights
from contracts.rows.hybrids import expected_gradient, gradient, nearly_equal
from contracts.tiny import unequal
from poise.core.types import Side
from poise.networks.base import call_network

WEIGHT = 0.5
"""Neither 0 nor 1, so that a missing weight is detected."""


def check_infogan(play: Play) -> None:
    """The first logged values are half the squared errors of D's head on z, and G's gradient is that of the whole loss.

    The worlds have Gaussian latents, of which every coordinate is a number to be predicted.
    """
    fresh, run, without = play(True, 0), play(True, 1), play(False, 1)
    logged = run.metrics.reduce()
    d_move, g_move = run.of(Side.D)[0], run.of(Side.G)[0]
    with torch.no_grad():
        predicted = call_network(fresh.game.d.net, d_move.fake, d_move.move.fake_labels).codes
    errors = (predicted - d_move.latents).square().sum(1)
    assert logged["d/infogan"].mean == pytest.approx(float(errors.mean()) / 2, rel=1e-4)

    labels = g_move.move.labels
    output = call_network(run.game.d.net, call_network(fresh.game.g.net, g_move.latents, labels), labels)
    expected = (output.codes - g_move.latents).square().sum(1).mean() / 2
    assert logged["g/infogan"].mean == pytest.approx(float(expected.detach()), rel=1e-4)
    loss = softplus(-output.score).mean() + WEIGHT * expected
    assert nearly_equal(gradient(run, Side.G), expected_gradient(fresh, Side.G, loss))
    assert not nearly_equal(gradient(run, Side.G), gradient(without, Side.G))
    assert unequal(weights(run, Side.D), weights(without, Side.D)), "D has a head, and learns for it"
    assert not any("infogan" in name for name in without.metrics.reduce())


ROWS = {"infogan": Row(strong={"weight": WEIGHT}, zero={"weight": 0.0}, check=check_infogan)}
