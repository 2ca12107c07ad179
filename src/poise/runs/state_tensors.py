"""Collects the state of a run as named tensors, from which it resumes to the bit, and loads it again.

    game/...       weights, batch statistics, and the state of the tricks
    optimizer/...  each player's optimiser state, by the name of the parameter
    ledger/...     values logged since the last row

Random numbers need no state (`core/random_streams.py`), nor does the order of the data: both are functions of the step.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from poise.core.player import Player
from poise.engine.game import Game
from poise.engine.initial_weights import copy_tensor_, count_wrappers, wrapped_name
from poise.engine.step_metrics import StepMetrics
from poise.errors import CheckpointError, RecipeError
from poise.runs.checkpoint import is_finite

UNTOUCHED = "untouched"
"""Marks, in a checkpoint, a parameter that has had no gradient yet, for which the optimiser has no state."""


def collect_tensors(game: Game, metrics: StepMetrics) -> dict[str, Tensor]:
    """The complete state, by name."""
    tensors = {f"game/{name}": tensor for name, tensor in game.state_dict().items()}
    for side, player in game.players.items():
        for name, weight in player.trainable_weights.items():
            state = _tensors(player.optimizer.state.get(weight, {}))
            for key, tensor in state.items():
                tensors[f"optimizer/{side}/{name}/{key}"] = tensor
            if not state and _state_keys(player.optimizer):  # the parameter has had no gradient yet
                tensors[f"optimizer/{side}/{name}/{UNTOUCHED}"] = torch.ones(())
    return tensors | {f"ledger/{name}": tensor for name, tensor in metrics.state_dict().items()}


def non_finite_buffers(game: Game) -> frozenset[str]:
    """The buffers that are not finite before the first step, such as a mask, and therefore need not be later."""
    weights = {name for name, _ in game.named_parameters(remove_duplicate=False)}
    state = game.state_dict()
    return frozenset(f"game/{name}" for name in state.keys() - weights if not is_finite(state[name]))


Layout = Mapping[str, tuple[torch.Size, torch.dtype]]
"""The shape and the type of each weight and buffer of a game, by name."""


def layout_of(game: Game) -> Layout:
    """The layout of a game, which must be that of the game that is built to load a checkpoint."""
    return {name: (tensor.shape, tensor.dtype) for name, tensor in game.state_dict().items()}


def refuse_changed_layout(game: Game, built: Layout, where: str = "") -> None:
    """Refuse to go on if the game's layout is no longer the one with which it was built.

    A checkpoint of it could never be loaded again: a game that is built anew has no place for its tensors.

    Args:
        game: the game after some steps.
        built: its layout before the first one.
        where: the place for the message; the name of the tensor if it is empty.

    Raises:
        RecipeError: a weight or buffer has appeared, has vanished, or has another shape or type.
    """
    now = layout_of(game)
    for name in sorted(now.keys() | built.keys()):
        if (was := built.get(name)) != (has := now.get(name)):
            before, after = (f"{str(one[1])[6:]}{list(one[0])}" if one else "nothing" for one in (was, has))
            what = f"training changes the form of the tensor '{name}', so that no checkpoint could be loaded"
            cure = "register buffers in __init__ with their final shape and type, and change the values in place"
            raise RecipeError(what, where=where or name, found=f"{before} at first, {after} now", cure=cure)


def refuse_non_finite(tensors: Mapping[str, Tensor], allowed: frozenset[str]) -> None:
    """Raise CheckpointError if a tensor of a collected state is not finite, except for `allowed` names."""
    for name, tensor in tensors.items():
        if not name.startswith("ledger/") and name not in allowed and not is_finite(tensor):
            raise CheckpointError(f"{name} is not finite")


@torch.no_grad()
def load_tensors(game: Game, metrics: StepMetrics, tensors: Mapping[str, Tensor]) -> None:
    """Load a collected state into a game from `build_game`. Nothing is changed unless all of it fits.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape or type; names up to ten.
    """
    errors = _game_errors(game, tensors)
    for side, player in game.players.items():
        errors += _optimizer_errors(player, _below(tensors, f"optimizer/{side}/"))
    pending = _below(tensors, "ledger/")
    errors += [f"ledger/{name} is not a series" for name, t in pending.items() if t.dim() != 1 or not _is_real(t)]
    known = ("game/", "ledger/", *(f"optimizer/{side}/" for side in game.players))
    errors += [f"{name} is unknown" for name in tensors if not name.startswith(known)]
    _raise_errors(errors)
    load_game_tensors(game, tensors)
    for side, player in game.players.items():
        _restore_optimizer(player, _below(tensors, f"optimizer/{side}/"))
    device = next(iter(game.players.values())).weights[0].device
    metrics.load_state_dict({name: series.to(device) for name, series in pending.items()})


def network_tensors(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The weights and buffers of G, D and G's encoder in a collected state, as `build_game` takes them."""
    roots = {"g": "game/g.net.", "d": "game/d.net.", "e": "game/g.encoder."}
    return {name: _below(tensors, root) for name, root in roots.items()}


def align_wrappers(game: Game, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A collected state of another game with the names that its networks' tensors have in this one.

    A network that is wrapped in this game and not in the other, or the other way round, has another prefix.
    """
    aligned = dict(tensors)
    for side, player in game.players.items():
        root = f"game/{side}.net."
        source = _below(tensors, root)
        count = count_wrappers(player.net, source)
        for name, tensor in tensors.items():
            weight = name.removeprefix(f"optimizer/{side}/").rpartition("/")[0]
            if name.startswith(root):
                del aligned[name]
                aligned[root + wrapped_name(name.removeprefix(root), count)] = tensor
            elif name.startswith(f"optimizer/{side}/") and weight in source:
                del aligned[name]
                aligned[f"optimizer/{side}/{wrapped_name(weight, count)}/{name.rpartition('/')[2]}"] = tensor
    return aligned


@torch.no_grad()
def load_matching_tensors(game: Game, metrics: StepMetrics, tensors: Mapping[str, Tensor]) -> list[str]:
    """Load what fits of a collected state, of a game with another recipe, into one that `build_game` has built.

    It was built with the `network_tensors` of that state, so that tricks that are new start from these. What fits are
    tensors of the same name, shape and type, and the optimiser's state for weights that fit.

    Returns:
        The names of the tricks that start anew, as a part of their state was not there.
    """
    state, saved = game.state_dict(), _below(tensors, "game/")
    fits = {name for name in state.keys() & saved.keys() if not _differs(saved[name], state[name])}
    for name in fits:
        copy_tensor_(state[name], saved[name])
    for side, player in game.players.items():
        known = _below(tensors, f"optimizer/{side}/")
        _restore_optimizer(player, _matching_state(player, known))
    device = next(iter(game.players.values())).weights[0].device
    pending = _below(tensors, "ledger/")
    metrics.load_state_dict({name: series.to(device) for name, series in pending.items()})
    roots = {name: f"tricks.{name}." for name in game.tricks}
    return [name for name, root in roots.items() if any(key.startswith(root) for key in state.keys() - fits)]


def _matching_state(player: Player, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The optimiser's state for those weights for which all of it is there."""
    keys, found = _state_keys(player.optimizer), dict[str, Tensor]()
    for name, weight in player.trainable_weights.items():
        state = {key: tensors[f"{name}/{key}"] for key in keys if f"{name}/{key}" in tensors}
        shaped = all(not tensor.dim() or not _differs(tensor, weight) for tensor in state.values())
        if len(state) == len(keys) and shaped:
            found |= {f"{name}/{key}": tensor for key, tensor in state.items()}
    return found


@torch.no_grad()
def load_game_tensors(game: Game, tensors: Mapping[str, Tensor]) -> None:
    """Load what sampling needs: the game without its optimisers.

    Raises:
        CheckpointError: see `load_tensors`.
    """
    _raise_errors(_game_errors(game, tensors))
    saved = _below(tensors, "game/")
    for name, tensor in game.state_dict().items():
        copy_tensor_(tensor, saved[name])


def _game_errors(game: Game, tensors: Mapping[str, Tensor]) -> list[str]:
    state, saved = game.state_dict(), _below(tensors, "game/")
    errors = [f"{name} is missing" for name in state.keys() - saved.keys()]
    errors += [f"{name} is unknown" for name in saved.keys() - state.keys()]
    return errors + [
        _difference(name, saved[name], state[name])
        for name in state.keys() & saved.keys()
        if _differs(saved[name], state[name])
    ]


def _differs(saved: Tensor, expected: Tensor) -> bool:
    return saved.shape != expected.shape or saved.dtype != expected.dtype


def _difference(name: str, saved: Tensor, expected: Tensor) -> str:
    found, wanted = (f"{str(t.dtype)[6:]}{list(t.shape)}" for t in (saved, expected))
    return f"{name} is {found} and should be {wanted}"


def _optimizer_errors(player: Player, tensors: Mapping[str, Tensor]) -> list[str]:
    weights = player.trainable_weights
    untouched = {name for name in weights if f"{name}/{UNTOUCHED}" in tensors}
    saved = {path for path in tensors if path.rpartition("/")[2] != UNTOUCHED}
    unknown_marks = {path for path in tensors if path not in saved and path.rpartition("/")[0] not in weights}
    expected = {f"{name}/{key}" for name in weights.keys() - untouched for key in _state_keys(player.optimizer)}
    errors = [f"optimizer/{player.side}/{path} is missing" for path in expected - saved]
    errors += [f"optimizer/{player.side}/{path} is unknown" for path in (saved - expected) | unknown_marks]
    for path in saved & expected:
        weight, state = weights[path.rpartition("/")[0]], tensors[path]
        if state.dim() and _differs(state, weight):
            errors.append(_difference(f"optimizer/{player.side}/{path}", state, weight))
        elif not _is_real(state):
            errors.append(f"optimizer/{player.side}/{path} is {str(state.dtype)[6:]}")
    return errors


def _is_real(tensor: Tensor) -> bool:
    """Whether its elements are real numbers, as those of optimiser states and logged values are."""
    return tensor.is_floating_point() or not (tensor.is_complex() or tensor.dtype == torch.bool)


def _restore_optimizer(player: Player, tensors: Mapping[str, Tensor]) -> None:
    weights = player.trainable_weights
    player.optimizer.state.clear()
    for path, tensor in tensors.items():
        name, _, key = path.rpartition("/")
        if key == UNTOUCHED:
            continue
        weight = weights[name]
        # the memory layout must be that of the weight, or the fused update would round in another order
        like = weight if tensor.shape == weight.shape else tensor
        state = torch.empty_like(like, dtype=tensor.dtype, device=weight.device).copy_(tensor)
        player.optimizer.state[weight][key] = state


def _state_keys(optimizer: torch.optim.Optimizer) -> set[str]:
    """The keys of this optimiser's state for a parameter, found by one step of an optimiser with the same settings."""
    weight = torch.zeros(1, requires_grad=True)
    weight.grad = torch.zeros(1)
    accepted = inspect.signature(type(optimizer)).parameters
    settings = {key: value for key, value in optimizer.defaults.items() if key in accepted}
    other = type(optimizer)([weight], **settings)
    other.step()
    return set(_tensors(other.state[weight]))


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of an optimiser's state for a parameter; some optimisers store None for an unused buffer."""
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def _below(tensors: Mapping[str, Tensor], root: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `root`, which is removed."""
    return {name[len(root) :]: tensor for name, tensor in tensors.items() if name.startswith(root)}


def _raise_errors(errors: list[str]) -> None:
    if errors:
        listed = "; ".join(sorted(errors)[:10]) + (f" (and {len(errors) - 10} more)" if len(errors) > 10 else "")
        raise CheckpointError(f"the checkpoint does not fit this recipe: {listed}")
