"""What must be saved for a run to go on as if nothing had happened, as named tensors; and the way back.

    game/...       weights, batch statistics, and whatever the tricks keep
    optimizer/...  each player's moments, by the weight's name
    ledger/...     readings of a row that was not finished

Random numbers need no state (`randomness.py`), nor does the data's order: both are functions of the step.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from poise.errors import SaveError
from poise.players import Player
from poise.training.game import Game
from poise.training.ledger import Ledger

UNTOUCHED = "untouched"
"""Marks, in a save, a weight that has had no gradient yet, of which the optimiser remembers nothing."""


def gather(game: Game, ledger: Ledger) -> dict[str, Tensor]:
    """All of it, by name."""
    tensors = {f"game/{name}": tensor for name, tensor in game.state_dict().items()}
    for side, player in game.players.items():
        for name, weight in player.named_weights():
            kept = _tensors(player.optimizer.state.get(weight, {}))
            for key, tensor in kept.items():
                tensors[f"optimizer/{side}/{name}/{key}"] = tensor
            if not kept and _remembers(player.optimizer):  # it has never had a gradient
                tensors[f"optimizer/{side}/{name}/{UNTOUCHED}"] = torch.ones(())
    return tensors | {f"ledger/{name}": tensor for name, tensor in ledger.state().items()}


@torch.no_grad()
def restore(game: Game, ledger: Ledger, tensors: Mapping[str, Tensor]) -> None:
    """Put a gathered state back into a game fresh from `build`.

    Raises:
        SaveError: a tensor is missing, left over or of another shape; names up to ten.
    """
    restore_game(game, tensors)
    for side, player in game.players.items():
        _restore_optimizer(player, _below(tensors, f"optimizer/{side}/"))
    device = next(iter(game.players.values())).weights[0].device
    ledger.restore({name: series.to(device) for name, series in _below(tensors, "ledger/").items()})


@torch.no_grad()
def restore_game(game: Game, tensors: Mapping[str, Tensor]) -> None:
    """Put back what sampling needs: the game without its optimisers."""
    ours, theirs = game.state_dict(), _below(tensors, "game/")
    faults = [f"{name} is missing" for name in ours.keys() - theirs.keys()]
    faults += [f"{name} is unknown" for name in theirs.keys() - ours.keys()]
    for name in ours.keys() & theirs.keys():
        if ours[name].shape != theirs[name].shape or ours[name].dtype != theirs[name].dtype:
            seen, wanted = ((list(t.shape), str(t.dtype)[6:]) for t in (theirs[name], ours[name]))
            faults.append(f"{name} is {seen[1]}{seen[0]} and should be {wanted[1]}{wanted[0]}")
    _refuse(faults)
    for name, tensor in ours.items():
        tensor.copy_(theirs[name])


def _restore_optimizer(player: Player, tensors: Mapping[str, Tensor]) -> None:
    names = dict(player.named_weights())
    untouched = {name for name in names if f"{name}/{UNTOUCHED}" in tensors}
    tensors = {full: tensor for full, tensor in tensors.items() if full.rpartition("/")[2] != UNTOUCHED}
    wanted = {f"{name}/{key}" for name in names.keys() - untouched for key in _remembers(player.optimizer)}
    faults = [f"optimizer/{player.side}/{name} is missing" for name in wanted - tensors.keys()]
    faults += [f"optimizer/{player.side}/{name} is unknown" for name in tensors.keys() - wanted]
    _refuse(faults)
    for full, tensor in tensors.items():
        name, _, key = full.rpartition("/")
        weight = names[name]
        # a moment lies in memory as its weight does, or the fused step would round in another order
        like = weight if tensor.shape == weight.shape else tensor
        player.optimizer.state[weight][key] = torch.empty_like(like, dtype=tensor.dtype, device=weight.device).copy_(
            tensor
        )


def _remembers(optimizer: torch.optim.Optimizer) -> set[str]:
    """What this optimiser keeps for each weight, found by letting a twin of it take one step."""
    weight = torch.zeros(1, requires_grad=True)
    weight.grad = torch.zeros(1)
    asked = inspect.signature(type(optimizer)).parameters
    twin = type(optimizer)([weight], **{key: told for key, told in optimizer.defaults.items() if key in asked})
    twin.step()
    return set(_tensors(twin.state[weight]))


def _tensors(kept: Mapping[str, Any]) -> dict[str, Tensor]:
    """What of an optimiser's memory is tensors: some put None where they keep nothing."""
    return {key: held for key, held in kept.items() if isinstance(held, Tensor)}


def _below(tensors: Mapping[str, Tensor], root: str) -> dict[str, Tensor]:
    return {name[len(root) :]: tensor for name, tensor in tensors.items() if name.startswith(root)}


def _refuse(faults: list[str]) -> None:
    if faults:
        told = "; ".join(sorted(faults)[:10]) + (f" (and {len(faults) - 10} more)" if len(faults) > 10 else "")
        raise SaveError(f"the save does not fit this recipe: {told}")
