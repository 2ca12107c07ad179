"""A player: one side's network with its optimiser and its rate.

A gradient that is not finite moves nobody: the decision is made on the device, so that nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from poise.core.types import MoveContext, Side

OptimizerFactory = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
"""Builds an optimiser over parameter groups (`OptimizerEntry.build`)."""


class Player(nn.Module):
    """One side of the game.

    Args:
        side: which one.
        net: its network.
        optimizer: over the network's parameters; or what builds it over given parameter groups, when it is first asked
            for. A player that only samples never asks, and so never waits for torch.optim's compiler to be imported.
        group_options: what the optimiser's groups are set to before the step of a moment (`OptimizerEntry.settings`). A
            group with a `pace` of its own has its rate multiplied by that.
        encoder: of G, where there is one: it tells G's code of a sample, and learns in the same moves.
        encoder_lr_scale: what the encoder's rate is multiplied with, where the optimiser is built here.
    """

    def __init__(
        self,
        side: Side,
        net: nn.Module,
        optimizer: torch.optim.Optimizer | OptimizerFactory,
        group_options: Callable[[MoveContext], Mapping[str, Any]],
        encoder: nn.Module | None = None,
        encoder_lr_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.side, self.net, self.group_options = side, net, group_options
        self.encoder, self._optimizer, self._encoder_lr_scale = encoder, optimizer, encoder_lr_scale
        self.weights = [weight for _, weight in self.named_weights()]
        self.lr_scale = 1.0
        """What the rate is multiplied with: below 1 once a run had to go back."""
        self._found_inf: Tensor | None = None

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimiser; an encoder's weights are a second group of it."""
        if not isinstance(self._optimizer, torch.optim.Optimizer):
            groups: list[dict[str, Any]] = [{"params": list(self.net.parameters())}]
            if self.encoder is not None:
                groups.append({"params": list(self.encoder.parameters()), "pace": self._encoder_lr_scale})
            self._optimizer = self._optimizer(groups)
        return self._optimizer

    def named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The network's weights by name, then the encoder's."""
        yield from self.net.named_parameters()
        if self.encoder is not None:
            yield from self.encoder.named_parameters("encoder")

    @contextmanager
    def no_weight_grad(self) -> Iterator[None]:
        """While the rival moves: this player's weights want no gradient, so nobody computes one."""
        wanting = [weight for weight in self.weights if weight.requires_grad]
        for weight in wanting:
            weight.requires_grad_(False)
        try:
            yield
        finally:
            for weight in wanting:
                weight.requires_grad_(True)

    def clear_gradients(self) -> None:
        """Drop the gradients of the move before. By hand: the optimiser's own way costs a small step 3 %."""
        for weight in self.weights:
            weight.grad = None

    def gradients(self) -> list[Tensor]:
        """The gradients of the last backward pass, for all weights that have one."""
        return [weight.grad for weight in self.weights if weight.grad is not None]

    def set_found_inf(self, norms: Tensor) -> None:
        """Whether the next step may be made: not if the length of any gradient (one each) is not finite."""
        self._found_inf = (~torch.isfinite(norms.sum())).float()

    def apply_gradients(self, context: MoveContext) -> None:
        """One step of the optimiser at the moment's settings; none, and no memory of it, if a gradient is spoiled."""
        settings, optimizer = self.group_options(context), self.optimizer
        for group in optimizer.param_groups:
            group.update(settings)
            group["lr"] *= self.lr_scale * group.get("pace", 1.0)
        if optimizer.defaults.get("fused"):
            optimizer.found_inf = self._found_inf  # type: ignore[attr-defined]
        elif self._found_inf is not None:
            for weight in self.weights:
                if weight.grad is not None:
                    torch.where(self._found_inf > 0, torch.zeros_like(weight.grad), weight.grad, out=weight.grad)
        optimizer.step()
