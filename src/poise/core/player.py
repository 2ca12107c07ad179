"""A player: a network with its optimiser and its learning rate.

An update with a non-finite gradient is skipped. The decision is made on the device, so that nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from poise.core.types import MoveContext, Side

OptimizerFactory = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
"""Builds an optimiser over parameter groups (`OptimizerConfig.build`)."""


class Player(nn.Module):
    """One of the two players.

    Args:
        side: whether it is the discriminator or the generator.
        net: the network.
        optimizer: the optimiser of the network's parameters, or a function that builds it from parameter groups. It is
            built on first use, so that sampling does not wait for the import of torch.optim's compiler.
        group_options: returns the options of the parameter groups for a move (`OptimizerConfig.group_options`). The
            learning rate of a group with an `lr_scale` of its own is multiplied by it.
        encoder: G's encoder, if there is one; it is updated in the same moves.
        encoder_lr_scale: the factor of the encoder's learning rate, if the optimiser is built here.
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
        self.weights = [weight for _, weight in self.named_weights() if weight.requires_grad]
        """The trainable weights of the network, then of the encoder."""
        self.lr_scale = 1.0
        """The factor of the learning rate; below 1 after a roll-back."""
        self._found_inf: Tensor | None = None

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimiser; the encoder's weights are its second parameter group."""
        if not isinstance(self._optimizer, torch.optim.Optimizer):
            groups: list[dict[str, Any]] = [{"params": self._trainable(self.net)}]
            if self.encoder is not None:
                groups.append({"params": self._trainable(self.encoder), "lr_scale": self._encoder_lr_scale})
            self._optimizer = self._optimizer(groups)
        return self._optimizer

    def named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The names and weights of the network, then of the encoder, including frozen ones."""
        yield from self.net.named_parameters()
        if self.encoder is not None:
            yield from self.encoder.named_parameters("encoder")

    @property
    def trainable_weights(self) -> dict[str, nn.Parameter]:
        """The names of `weights`, and these."""
        trainable = {id(weight) for weight in self.weights}
        return {name: weight for name, weight in self.named_weights() if id(weight) in trainable}

    def _trainable(self, net: nn.Module) -> list[nn.Parameter]:
        """Those of `weights` that belong to `net`; `requires_grad` says less, as it changes during a move."""
        trainable = {id(weight) for weight in self.weights}
        return [weight for weight in net.parameters() if id(weight) in trainable]

    @contextmanager
    def no_weight_grad(self) -> Iterator[None]:
        """Freeze the weights, so that no gradient is computed for them while the other player moves."""
        trainable = [weight for weight in self.weights if weight.requires_grad]
        for weight in trainable:
            weight.requires_grad_(False)
        try:
            yield
        finally:
            for weight in trainable:
                weight.requires_grad_(True)

    def clear_gradients(self) -> None:
        """Set all gradients to None; `Optimizer.zero_grad` would take 3 % of a small step."""
        for weight in self.weights:
            weight.grad = None

    def gradients(self) -> list[Tensor]:
        """The gradients of the last backward pass, for all weights that have one."""
        return [weight.grad for weight in self.weights if weight.grad is not None]

    def set_found_inf(self, norms: Tensor) -> None:
        """Skip the next update if the norm of a gradient is not finite.

        Args:
            norms: the norm of each gradient, 1-dim.
        """
        total = norms.sum()
        # 1 if it is nan or infinite, with half as many kernels as `isfinite`; fused optimisers want float32
        self._found_inf = (total - total).ne_(0).float()

    def apply_gradients(self, context: MoveContext) -> None:
        """Update the weights; without any effect, on the optimiser's state too, if a gradient is not finite."""
        options, optimizer = self.group_options(context), self.optimizer
        for group in optimizer.param_groups:
            group.update(options)
            group["lr"] *= self.lr_scale * group.get("lr_scale", 1.0)
        if optimizer.defaults.get("fused"):
            optimizer.found_inf = self._found_inf  # type: ignore[attr-defined]
            optimizer.step()
        elif self._found_inf is None:
            optimizer.step()
        else:
            self._step_unless(self._found_inf > 0)

    @torch.no_grad()
    def _step_unless(self, is_skipped: Tensor) -> None:
        """Update the weights with an optimiser that can't skip an update itself; nothing waits for the device.

        A counter of updates that is on the host while the weights are on a device goes on, as only the device knows
        whether the update is skipped.
        """
        weights = [weight for weight in self.weights if weight.grad is not None]
        for weight in weights:
            assert weight.grad is not None
            torch.where(is_skipped, torch.zeros_like(weight.grad), weight.grad, out=weight.grad)
        states = [self.optimizer.state[weight] for weight in weights if weight in self.optimizer.state]
        known = [value for state in states for value in state.values() if isinstance(value, Tensor)]
        tensors = [tensor for tensor in (*weights, *known) if tensor.device == is_skipped.device]
        before = [(tensor, tensor.clone()) for tensor in tensors]
        self.optimizer.step()
        for tensor, old in before:
            tensor.copy_(torch.where(is_skipped, old, tensor))
