"""Orthogonalisation: the formula, its effect on singular values, and which weights it moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from contracts.tiny import context
from poise.core.move import MoveData
from poise.core.player import Player
from poise.core.types import Side
from poise.tricks.orthogonal_map import OrthogonalMap, OrthogonalMapConfig, orthogonalise
from tricks.small import randn


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)])
@pytest.mark.parametrize("beta", [0.001, 0.5])
def test_the_formula(shape: tuple[int, int], beta: float) -> None:
    w = np.random.default_rng(0).normal(size=shape)
    expected = (1 + beta) * w - beta * w @ w.T @ w
    np.testing.assert_allclose(orthogonalise(torch.from_numpy(w), beta), expected, atol=1e-12)


def test_singular_values_move_to_1_and_singular_vectors_stay() -> None:
    u, v = (torch.linalg.qr(randn(6, 6, seed=seed).double())[0] for seed in range(2))
    values = torch.tensor([0.05, 0.5, 0.9, 1.0, 1.2, 3.0], dtype=torch.float64)
    w = orthogonalise(u @ values.diag() @ v.T, 0.01)
    assert torch.allclose(u.T @ w @ v, (values + 0.01 * values * (1 - values**2)).diag(), atol=1e-12)
    for _ in range(1000):
        w = orthogonalise(w, 0.01)
    assert torch.allclose(w, u @ v.T, atol=1e-6), "the nearest orthogonal matrix"


def test_matrices_are_moved_and_biases_embeddings_and_frozen_weights_are_not() -> None:
    net = nn.ModuleDict(
        {"a": nn.Linear(3, 4), "b": nn.Embedding(5, 3), "c": nn.ConvTranspose2d(2, 3, 2), "d": nn.Linear(2, 2)}
    )
    net["d"].requires_grad_(False)
    player = Player(Side.G, net, torch.optim.SGD(net.parameters(), lr=1.0), lambda _: {"lr": 0.0})
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    trick = OrthogonalMapConfig(beta=0.1).build("o", {})
    assert isinstance(trick, OrthogonalMap)
    assert trick.sides == {Side.G}
    trick.after_update(player, MoveData(context(side=Side.G), torch.empty(0), torch.empty(0)))
    changed = {name for name, weight in net.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {"a.weight", "c.weight"}
    assert torch.allclose(net["a"].weight, orthogonalise(before["a.weight"], 0.1))
    rows = before["c.weight"].transpose(
        0, 1
    )  # the output channels of a transposed convolution are its second dimension
    expected = orthogonalise(rows.flatten(1), 0.1).view(rows.shape).transpose(0, 1)
    assert torch.allclose(net["c"].weight, expected)
