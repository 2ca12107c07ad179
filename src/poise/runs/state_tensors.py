"""What must be saved for a run to go on as if nothing had happened, as named tensors; and the way back.

    game/...       weights, batch statistics, and whatever the tricks keep
    optimizer/...  each player's moments, by the weight's name
    ledger/...     readings of a row that was not finished

Random numbers need no state (`core/random_streams.py`), nor does the data's order: both are functions of the step.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from poise.core.player import Player
from poise.engine.game import Game
from poise.engine.step_metrics import StepMetrics
from poise.errors import CheckpointError
from poise.runs.checkpoint import is_finite

UNTOUCHED = "untouched"
"""Marks, in a save, a weight that has had no gradient yet, of which the optimiser remembers nothing."""


def collect_tensors(game: Game, metrics: StepMetrics) -> dict[str, Tensor]:
    """All of it, by name."""
    tensors = {f"game/{name}": tensor for name, tensor in game.state_dict().items()}
    for side, player in game.players.items():
        for name, weight in player.named_weights():
            kept = _tensors(player.optimizer.state.get(weight, {}))
            for key, tensor in kept.items():
                tensors[f"optimizer/{side}/{name}/{key}"] = tensor
            if not kept and _remembers(player.optimizer):  # it has never had a gradient
                tensors[f"optimizer/{side}/{name}/{UNTOUCHED}"] = torch.ones(())
    return tensors | {f"ledger/{name}": tensor for name, tensor in metrics.state_dict().items()}


def non_finite_buffers(game: Game) -> frozenset[str]:
    """Which of the tensors of a game before its first step are not finite and need not be: buffers, such as a mask."""
    weights = {name for name, _ in game.named_parameters(remove_duplicate=False)}
    held = game.state_dict()
    return frozenset(f"game/{name}" for name in held.keys() - weights if not is_finite(held[name]))


def refuse_non_finite(tensors: Mapping[str, Tensor], constant: frozenset[str]) -> None:
    """Raises CheckpointError if a gathered state holds a number that is not finite, beside what need not be."""
    for name, tensor in tensors.items():
        if not name.startswith("ledger/") and name not in constant and not is_finite(tensor):
            raise CheckpointError(f"{name} is not finite")


@torch.no_grad()
def load_tensors(game: Game, metrics: StepMetrics, tensors: Mapping[str, Tensor]) -> None:
    """Put a gathered state back into a game from `build`; nothing is changed unless all of it fits.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape; names up to ten.
    """
    faults = _game_faults(game, tensors)
    for side, player in game.players.items():
        faults += _optimizer_faults(player, _below(tensors, f"optimizer/{side}/"))
    pending = _below(tensors, "ledger/")
    faults += [f"ledger/{name} is no series" for name, t in pending.items() if t.dim() != 1 or not _counts(t)]
    known = ("game/", "ledger/", *(f"optimizer/{side}/" for side in game.players))
    faults += [f"{name} is unknown" for name in tensors if not name.startswith(known)]
    _refuse(faults)
    load_game_tensors(game, tensors)
    for side, player in game.players.items():
        _restore_optimizer(player, _below(tensors, f"optimizer/{side}/"))
    device = next(iter(game.players.values())).weights[0].device
    metrics.load_state_dict({name: series.to(device) for name, series in pending.items()})


@torch.no_grad()
def load_game_tensors(game: Game, tensors: Mapping[str, Tensor]) -> None:
    """Put back what sampling needs: the game without its optimisers.

    Raises:
        CheckpointError: as above.
    """
    _refuse(_game_faults(game, tensors))
    theirs = _below(tensors, "game/")
    for name, tensor in game.state_dict().items():
        _once(tensor).copy_(_once(theirs[name], tensor))


def _once(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """The part of a tensor, or of one `like` it, in which each place in memory comes once (an expanded buffer)."""
    for dim, (size, stride) in enumerate(zip(tensor.shape, (tensor if like is None else like).stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


def _game_faults(game: Game, tensors: Mapping[str, Tensor]) -> list[str]:
    ours, theirs = game.state_dict(), _below(tensors, "game/")
    faults = [f"{name} is missing" for name in ours.keys() - theirs.keys()]
    faults += [f"{name} is unknown" for name in theirs.keys() - ours.keys()]
    return faults + [
        _differs(name, theirs[name], ours[name])
        for name in ours.keys() & theirs.keys()
        if _other(theirs[name], ours[name])
    ]


def _other(theirs: Tensor, ours: Tensor) -> bool:
    return theirs.shape != ours.shape or theirs.dtype != ours.dtype


def _differs(name: str, theirs: Tensor, ours: Tensor) -> str:
    seen, wanted = ((list(t.shape), str(t.dtype)[6:]) for t in (theirs, ours))
    return f"{name} is {seen[1]}{seen[0]} and should be {wanted[1]}{wanted[0]}"


def _optimizer_faults(player: Player, tensors: Mapping[str, Tensor]) -> list[str]:
    names = dict(player.named_weights())
    untouched = {name for name in names if f"{name}/{UNTOUCHED}" in tensors}
    known = {full for full in tensors if full.rpartition("/")[2] != UNTOUCHED}
    marks = {full for full in tensors if full not in known and full.rpartition("/")[0] not in names}
    wanted = {f"{name}/{key}" for name in names.keys() - untouched for key in _remembers(player.optimizer)}
    faults = [f"optimizer/{player.side}/{name} is missing" for name in wanted - known]
    faults += [f"optimizer/{player.side}/{name} is unknown" for name in (known - wanted) | marks]
    for full in known & wanted:
        weight, held = names[full.rpartition("/")[0]], tensors[full]
        if held.dim() and _other(held, weight):
            faults.append(_differs(f"optimizer/{player.side}/{full}", held, weight))
        elif not _counts(held):
            faults.append(f"optimizer/{player.side}/{full} is {str(held.dtype)[6:]}")
    return faults


def _counts(tensor: Tensor) -> bool:
    """Whether it holds numbers of the kind that an optimiser or a reading has."""
    return tensor.is_floating_point() or not (tensor.is_complex() or tensor.dtype == torch.bool)


def _restore_optimizer(player: Player, tensors: Mapping[str, Tensor]) -> None:
    names = dict(player.named_weights())
    player.optimizer.state.clear()
    for full, tensor in tensors.items():
        name, _, key = full.rpartition("/")
        if key == UNTOUCHED:
            continue
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
        raise CheckpointError(f"the save does not fit this recipe: {told}")
