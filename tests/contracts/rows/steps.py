"""Rows of the tricks about the step itself: whose costs count, how long a gradient and how large a weight may be."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch.nn.functional import softplus

from contracts.rows.base import Gradients, Play, Row, weights, without_norms
from contracts.tiny import BATCH, unequal
from poise.core.move import MoveData
from poise.core.types import Side
from poise.engine import step
from poise.engine.game import Game
from poise.networks.base import call_network

LIMIT = 0.05
MOST = 0.01


def clips(play: Play) -> None:
    """After each step all of D's weights are within the limit, some of them at it, and G is left as it steps."""
    run, free = play(True, 0), play(False, 1)
    before = [w.detach().clone() for w in run.game.g.weights]
    for at in range(5):
        run.play(1)
        largest = max(float(w.detach().abs().max()) for w in run.game.d.weights)
        assert largest == pytest.approx(LIMIT, rel=1e-6)
        if at == 0:  # Adam's first step is as long as its rate, wherever the weight is
            moved = [(w.detach() - old).abs().max() for w, old in zip(run.game.g.weights, before, strict=True)]
            assert max(moved) < 1.01e-2
    assert max(float(w.detach().abs().max()) for w in run.game.g.weights) > LIMIT
    assert max(float(w.detach().abs().max()) for w in free.game.d.weights) > LIMIT


def cuts(play: Play) -> None:
    """Each gradient that a step uses points where backward's does, and is as long as allowed; the rows tell both."""
    run = play(True, 0)
    seen = Gradients(run)
    run.play(5)
    rows = run.metrics.state_dict()
    for side in Side:
        for at, (left, used) in enumerate(zip(seen.left[side], seen.used[side], strict=True)):
            length = float(left.norm())
            assert length > MOST
            # PyTorch divides by the length and 1e-6
            assert float(used.norm()) == pytest.approx(MOST, rel=1e-6 + 1e-6 / length)
            assert torch.allclose(used, left * (MOST / length), rtol=1e-4, atol=1e-9)
            assert float(rows[f"{side}/grad_norm"][at]) == pytest.approx(length, rel=1e-5)
        assert rows[f"{side}/gradient_clipping"].tolist() == [1.0] * 5
    middle = float(torch.stack([left.norm() for left in seen.left[Side.D]]).median())
    run = play(True, 0, tricks=[{"kind": "gradient_clipping", "max_norm": middle}])
    seen = Gradients(run)
    run.play(20)
    told = run.metrics.state_dict()["d/gradient_clipping"].tolist()
    cut = [float(left.norm() > middle) for left in seen.left[Side.D]]
    assert told == cut
    assert {*cut} == {0.0, 1.0}, "some are short enough"
    for was, left, used in zip(cut, seen.left[Side.D], seen.used[Side.D], strict=True):
        assert was or torch.equal(left, used)


def learns_from_the_best(play: Play) -> None:
    """G's gradient is that of the mean cost of the four fakes that D likes best; the others get none. D moves as ever.

    D has no norms here, or the others would matter to what it says of the best.
    """
    network = without_norms(play(False, 0))
    fresh, run, without = (play(on, 0, network=network) for on in (True, True, False))
    facing, faced = step.discriminate, list[MoveData]()

    def face(game: Game, move: MoveData) -> None:
        if move.context.side is Side.G:
            move.fake.retain_grad()
            faced.append(move)
        facing(game, move)

    seen = Gradients(run)
    with patch.object(step, "discriminate", face):
        run.play(1)
    without.play(1)
    assert unequal(weights(run, Side.D), weights(without, Side.D)) == []
    assert unequal(weights(run, Side.G), weights(without, Side.G))

    played_move = run.of(Side.G)[0]
    fake = call_network(fresh.game.g.net, played_move.latents, played_move.move.labels)
    costs = softplus(-call_network(run.game.d.net, fake, played_move.move.labels).score)
    best = sorted(range(BATCH), key=lambda place: float(costs[place].detach()))[: BATCH // 2]
    cost = sum(costs[place] for place in best) / len(best)
    assert run.metrics.reduce()["g/adversarial"].mean == pytest.approx(float(cost.detach()), rel=1e-5)
    grads = torch.cat([grad.flatten() for grad in torch.autograd.grad(cost, list(fresh.game.g.weights))])
    assert torch.allclose(seen.used[Side.G][0].float(), grads, rtol=1e-4, atol=1e-7)
    (move,) = faced
    assert move.fake.grad is not None
    reached = move.fake.grad.flatten(1).abs().sum(1)
    assert [place for place in range(BATCH) if reached[place] > 0] == sorted(best)
    assert all(reached[place] == 0 for place in range(BATCH) if place not in best)


ROWS = {
    "gradient_clipping": Row(strong={"max_norm": MOST}, zero={"max_norm": 1e9}, acts=cuts),
    "top_k": Row(strong={"fraction": 0.5}, zero={"fraction": 1.0}, acts=learns_from_the_best),
    "weight_clipping": Row(strong={"limit": LIMIT}, zero={"limit": 1e6}, acts=clips),
}
