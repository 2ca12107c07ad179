"""What a row is, and what the rows share: ways to look at a run from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from contracts.tiny import Session
from poise.core.types import Side

Play = Callable[..., Session]
"""play(on, steps, **changes): a fresh session with the trick in its strong settings, or without it."""


@dataclass(frozen=True)
class Row:
    """What a trick says about itself.

    Attributes:
        strong: settings under which three steps of a tiny run feel it.
        zero: settings that mean strength zero, which must equal absence bit for bit.
        acts: asserts what is different with it.
        global_dice: whether it may draw from PyTorch's global generator (dropout can't do otherwise).
    """

    strong: dict[str, Any]
    zero: dict[str, Any]
    acts: Callable[[Play], None]
    global_dice: bool = False


def weights(run: Session, side: Side) -> dict[str, Tensor]:
    """A player's weights by name, live."""
    return dict(run.game.players[side].net.named_parameters())


def without_norms(run: Session) -> dict[str, Any]:
    """The table `network` of a run's recipe, with a D that has no norms."""
    network: dict[str, Any] = run.recipe.canonical()["network"]
    network["d"]["norm"] = "none"
    return network


def flat(tensors: list[Tensor]) -> Tensor:
    """All numbers of some tensors, in float64."""
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


class Gradients:
    """Watches a run from now on: of each move all weights, what backward left of gradients, and what the step used.

    Attributes:
        at: by side, move by move, the weights before the step.
        left: the gradients as they came from the backward pass.
        used: the gradients that the optimiser was handed.
    """

    def __init__(self, run: Session) -> None:
        self.at: dict[Side, list[Tensor]] = {side: [] for side in Side}
        self.left: dict[Side, list[Tensor]] = {side: [] for side in Side}
        self.used: dict[Side, list[Tensor]] = {side: [] for side in Side}
        for side in Side:
            self._watch(run, side)

    def _watch(self, run: Session, side: Side) -> None:
        player, fresh = run.game.players[side], dict[int, Tensor]()

        def left(weight: Tensor) -> None:
            assert weight.grad is not None
            fresh[id(weight)] = weight.grad.clone()

        def used(*_: object) -> None:
            grads = [weight.grad for weight in player.weights if weight.grad is not None]
            assert len(grads) == len(fresh) == len(player.weights)
            self.at[side].append(flat(list(player.weights)))
            self.left[side].append(flat([fresh[id(weight)] for weight in player.weights]))
            self.used[side].append(flat(grads))
            fresh.clear()

        for weight in player.weights:
            weight.register_post_accumulate_grad_hook(left)
        player.optimizer.register_step_pre_hook(used)
