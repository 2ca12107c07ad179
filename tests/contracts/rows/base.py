"""The definition of a row, and helpers that the rows share to observe a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from contracts.tiny import Session
from poise.core.types import Side

Play = Callable[..., Session]
"""play(on, steps, **changes): a new session with the trick in its strong settings, or without it."""


@dataclass(frozen=True)
class Row:
    """What a trick states about itself.

    Attributes:
        strong: settings with an effect within three steps of a tiny run.
        zero: settings of strength zero, which must equal the absence of the trick bit for bit.
        check: asserts the effect of the trick.
        uses_global_rng: whether it may draw from PyTorch's global generator, as dropout must.
    """

    strong: dict[str, Any]
    zero: dict[str, Any]
    check: Callable[[Play], None]
    uses_global_rng: bool = False


def weights(run: Session, side: Side) -> dict[str, Tensor]:
    """The weights of a player by name, not copied."""
    return dict(run.game.players[side].net.named_parameters())


def without_norms(run: Session) -> dict[str, Any]:
    """The table `network` of a run's recipe, with a D without norm layers."""
    network: dict[str, Any] = run.recipe.canonical()["network"]
    network["d"]["norm"] = "none"
    return network


def flat(tensors: list[Tensor]) -> Tensor:
    """All values of some tensors, in float64."""
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


class Gradients:
    """Records for each move of a run: the weights, the gradients after backward, and the gradients that the step used.

    Attributes:
        at: by side, for each move, the weights before the step.
        left: the gradients after the backward pass.
        used: the gradients that the optimiser used.
    """

    def __init__(self, run: Session) -> None:
        self.weights_before: dict[Side, list[Tensor]] = {side: [] for side in Side}
        self.backward: dict[Side, list[Tensor]] = {side: [] for side in Side}
        self.used: dict[Side, list[Tensor]] = {side: [] for side in Side}
        for side in Side:
            self._watch(run, side)

    def _watch(self, run: Session, side: Side) -> None:
        player, fresh = run.game.players[side], dict[int, Tensor]()

        def backward(weight: Tensor) -> None:
            assert weight.grad is not None
            fresh[id(weight)] = weight.grad.clone()

        def used(*_: object) -> None:
            grads = [weight.grad for weight in player.weights if weight.grad is not None]
            assert len(grads) == len(fresh) == len(player.weights)
            self.weights_before[side].append(flat(list(player.weights)))
            self.backward[side].append(flat([fresh[id(weight)] for weight in player.weights]))
            self.used[side].append(flat(grads))
            fresh.clear()

        for weight in player.weights:
            weight.register_post_accumulate_grad_hook(backward)
        player.optimizer.register_step_pre_hook(used)
