"""Rows of the tricks that act on the step: selected samples, limits for gradients and weights, and orthogonality."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from contracts.rows.base import Gradients, Play, Row, weights, without_norms
from contracts.tiny import BATCH, Session, unequal
from poise.core.move import MoveData
from poise.core.types import Side
from poise.engine import step
from poise.engine.game import Game
from poise.networks.base import call_network

LIMIT = 0.05
MAX_NORM = 0.01
ORTHOGONAL = 10.0


def check_weight_clipping(play: Play) -> None:
    """After each step all of D's weights are within the limit, some of them at it; G is not clipped."""
    run, free = play(True, 0), play(False, 1)
    before = [w.detach().clone() for w in run.game.g.weights]
    for at in range(5):
        run.play(1)
        largest = max(float(w.detach().abs().max()) for w in run.game.d.weights)
        assert largest == pytest.approx(LIMIT, rel=1e-6)
        if at == 0:  # Adam's first step is as large as its learning rate
            moved = [(w.detach() - old).abs().max() for w, old in zip(run.game.g.weights, before, strict=True)]
            assert max(moved) < 1.01e-2
    assert max(float(w.detach().abs().max()) for w in run.game.g.weights) > LIMIT
    assert max(float(w.detach().abs().max()) for w in free.game.d.weights) > LIMIT


def check_gradient_clipping(play: Play) -> None:
    """Each gradient has its direction from the backward pass and the maximum norm; norm and clipping are logged."""
    run = play(True, 0)
    seen = Gradients(run)
    run.play(5)
    history = run.metrics.state_dict()
    for side in Side:
        for index, (backward, used) in enumerate(zip(seen.backward[side], seen.used[side], strict=True)):
            norm = float(backward.norm())
            assert norm > MAX_NORM
            # PyTorch divides by the length and 1e-6
            assert float(used.norm()) == pytest.approx(MAX_NORM, rel=1e-6 + 1e-6 / norm)
            assert torch.allclose(used, backward * (MAX_NORM / norm), rtol=1e-4, atol=1e-9)
            assert float(history[f"{side}/grad_norm"][index]) == pytest.approx(norm, rel=1e-5)
        assert history[f"{side}/gradient_clipping"].tolist() == [1.0] * 5
    median = float(torch.stack([backward.norm() for backward in seen.backward[Side.D]]).median())
    run = play(True, 0, tricks=[{"kind": "gradient_clipping", "max_norm": median}])
    seen = Gradients(run)
    run.play(20)
    logged = run.metrics.state_dict()["d/gradient_clipping"].tolist()
    clipped = [float(backward.norm() > median) for backward in seen.backward[Side.D]]
    assert logged == clipped
    assert {*clipped} == {0.0, 1.0}, "some are below the limit"
    for was_clipped, backward, used in zip(clipped, seen.backward[Side.D], seen.used[Side.D], strict=True):
        assert was_clipped or torch.equal(backward, used)


def check_top_k(play: Play) -> None:
    """G's gradient is that of the mean loss of the four fakes with the highest scores. D's move is unchanged.

    D has no norms here, because these would make the scores depend on the other samples.
    """
    network = without_norms(play(False, 0))
    fresh, run, without = (play(on, 0, network=network) for on in (True, True, False))
    original, moves = step.discriminate, list[MoveData]()

    def record(game: Game, move: MoveData) -> None:
        if move.context.side is Side.G:
            move.fake.retain_grad()
            moves.append(move)
        original(game, move)

    seen = Gradients(run)
    with patch.object(step, "discriminate", record):
        run.play(1)
    without.play(1)
    assert unequal(weights(run, Side.D), weights(without, Side.D)) == []
    assert unequal(weights(run, Side.G), weights(without, Side.G))

    played_move = run.of(Side.G)[0]
    fake = call_network(fresh.game.g.net, played_move.latents, played_move.move.labels)
    losses = softplus(-call_network(run.game.d.net, fake, played_move.move.labels).score)
    best = sorted(range(BATCH), key=lambda index: float(losses[index].detach()))[: BATCH // 2]
    loss = sum(losses[index] for index in best) / len(best)
    assert run.metrics.reduce()["g/adversarial"].mean == pytest.approx(float(loss.detach()), rel=1e-5)
    grads = torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, list(fresh.game.g.weights))])
    assert torch.allclose(seen.used[Side.G][0].float(), grads, rtol=1e-4, atol=1e-7)
    (move,) = moves
    assert move.fake.grad is not None
    reached = move.fake.grad.flatten(1).abs().sum(1)
    assert [index for index in range(BATCH) if reached[index] > 0] == sorted(best)
    assert all(reached[index] == 0 for index in range(BATCH) if index not in best)


def non_orthogonality(run: Session) -> Tensor:
    """Equation 3 of Brock 2019, over all matrices of G whose rows are output channels, except for embeddings."""
    total = torch.zeros(())
    for module in run.game.g.net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            rows = module.weight.transpose(0, int(isinstance(module, nn.ConvTranspose2d))).flatten(1)
            total = total + (rows @ rows.T * (1 - torch.eye(len(rows)))).square().sum()
    return total


def check_orthogonal(play: Play) -> None:
    """G's gradient is that of its loss plus weight times the penalty; D's is unchanged; filters become orthogonal."""
    fresh, run, plain = play(True, 0), play(True, 0), play(False, 0)
    seen = Gradients(run)
    run.play(1)
    penalty = non_orthogonality(fresh)
    grads = torch.autograd.grad(penalty, list(fresh.game.g.weights), allow_unused=True)
    expected = torch.cat(
        [
            (torch.zeros_like(w) if grad is None else grad).flatten().double()
            for w, grad in zip(fresh.game.g.weights, grads, strict=True)
        ]
    )
    change = seen.used[Side.G][0] - seen.backward[Side.G][0]
    assert torch.allclose(change, ORTHOGONAL * expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(seen.used[Side.D][0], seen.backward[Side.D][0])
    logged = run.metrics.reduce()
    assert logged["g/orthogonal"].mean == pytest.approx(float(penalty.detach()), rel=1e-4)
    assert "d/orthogonal" not in logged
    assert float(non_orthogonality(run.play(30)).detach()) < 0.5 * float(non_orthogonality(plain.play(31)).detach())


def matrices(run: Session) -> dict[str, Tensor]:
    """G's weight matrices by module, detached, whose rows are output channels; embeddings are left out."""
    return {
        name: module.weight.detach().transpose(0, int(isinstance(module, nn.ConvTranspose2d))).flatten(1)
        for name, module in run.game.g.net.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
    }


def check_orthogonal_map(play: Play) -> None:
    """After each of G's updates its matrices are moved by the formula; their singular values approach 1."""
    run, plain = play(True, 1), play(False, 1)
    assert unequal(weights(run, Side.D), weights(plain, Side.D)) == []
    updated = matrices(plain)
    for name, matrix in matrices(run).items():
        w = updated[name].double()
        assert torch.allclose(matrix.double(), 1.5 * w - 0.5 * w @ w.T @ w, rtol=1e-4, atol=1e-6)
    moved = {name.removesuffix(".weight") for name in unequal(weights(run, Side.G), weights(plain, Side.G))}
    assert moved == {*updated}, "biases and embeddings stay"

    def spread(session: Session) -> float:
        return max(float((torch.linalg.svdvals(matrix) - 1).abs().max()) for matrix in matrices(session).values())

    assert spread(run.play(30)) < 0.5 * spread(plain.play(30))


ROWS = {
    "gradient_clipping": Row(strong={"max_norm": MAX_NORM}, zero={"max_norm": 1e9}, check=check_gradient_clipping),
    "orthogonal": Row(strong={"weight": ORTHOGONAL}, zero={"weight": 0.0}, check=check_orthogonal),
    "orthogonal_map": Row(strong={"beta": 0.5}, zero={"beta": 0.0}, check=check_orthogonal_map),
    "top_k": Row(strong={"fraction": 0.5}, zero={"fraction": 1.0}, check=check_top_k),
    "weight_clipping": Row(strong={"limit": LIMIT}, zero={"limit": 1e6}, check=check_weight_clipping),
}
