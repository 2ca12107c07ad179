"""A player: one side's network with its optimiser and its rate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from poise.core import Moment, Side
from poise.dials import Dial, value


class Player(nn.Module):
    """One side of the game.

    Args:
        side: which one.
        net: its network.
        optimizer: over the network's parameters; its rate is set from `lr` before each step.
        lr: the rate, a dial.
    """

    def __init__(self, side: Side, net: nn.Module, optimizer: torch.optim.Optimizer, lr: Dial) -> None:
        super().__init__()
        self.side, self.net, self.optimizer, self.lr = side, net, optimizer, lr
        self.weights = list(net.parameters())

    @contextmanager
    def still(self) -> Iterator[None]:
        """While the rival moves: this player's weights want no gradient, so nobody computes one."""
        wanting = [weight for weight in self.weights if weight.requires_grad]
        for weight in wanting:
            weight.requires_grad_(False)
        try:
            yield
        finally:
            for weight in wanting:
                weight.requires_grad_(True)

    def forget(self) -> None:
        """Drop the gradients of the move before. By hand: the optimiser's own way costs a small step 3 %."""
        for weight in self.weights:
            weight.grad = None

    def advance(self, moment: Moment) -> None:
        """One step of the optimiser at the moment's rate."""
        rate = value(self.lr, moment)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
