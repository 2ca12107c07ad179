"""Fine-tuning: reads the weights that a recipe's table `[init]` names, and describes which of them a game takes.

G and its averages start from the averaged weights of the other run, if it has any, because these generate its samples.
(StyleGAN2-ADA's code resumes G from the non-averaged weights and only the average from the averaged ones.) D and G's
encoder start from their non-averaged weights. Buffers, such as the statistics of batch norms, are taken like weights;
the state of optimisers and of other tricks is not.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch

from poise.engine.game import Game
from poise.engine.initial_weights import (
    NETWORK_NAMES,
    InitialTensors,
    align_names,
    describe_left,
    match_tensors,
    shortened,
)
from poise.errors import RecipeError
from poise.recipe.init import InitConfig
from poise.runs.run import Run
from poise.utils.paths import expand_home


class InitialWeights(NamedTuple):
    """Weights to start from.

    Attributes:
        init: the table `[init]`, with their checksum.
        tensors: the tensors by network.
        origin: where they come from, for messages.
        averaged: whether G's are averaged weights.
    """

    init: InitConfig
    tensors: InitialTensors
    origin: str
    averaged: bool


def checksum(tensors: InitialTensors) -> str:
    """SHA-256 of the networks' tensors: their names, types, shapes and contents; 64 hex digits."""
    digest = hashlib.sha256()
    for network, state in sorted(tensors.items()):
        for name, tensor in sorted(state.items()):
            values = tensor.detach().cpu().contiguous()
            digest.update(f"{network}/{name} {values.dtype} {list(values.shape)}\n".encode())
            digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_initial_weights(init: InitConfig, *, trust_code: bool = False) -> InitialWeights:
    """Read the weights of the run that `[init]` names.

    Args:
        init: the table.
        trust_code: whether Python files that the other run's recipe names may be executed.

    Raises:
        CheckpointError: this is not a run folder, or it has no valid checkpoint.
        RecipeError: the weights do not have the checksum of the table.
    """
    run = Run(expand_home(init.run), trust_code=trust_code, best=init.weights == "best")
    game, networks = run.game, dict[str, torch.nn.Module]()
    if "g" in init.players:
        networks["g"] = run.generator()
        networks |= {} if game.g.encoder is None else {"e": game.g.encoder}
    if "d" in init.players and game.d is not None:
        networks["d"] = game.d.net
    tensors = {name: net.state_dict() for name, net in networks.items()}
    digest = checksum(tensors)
    origin = f"{init.run}, step {run.checkpoint.step:,}"
    if init.sha256 not in (None, digest):
        cure = "use the run that the recipe was made with, as it was then, or remove init.sha256"
        what = f"the weights of {origin}, are not those that the recipe names"
        raise RecipeError(what, where="init.sha256", found=f'"{digest}"', cure=cure)
    averaged = networks.get("g", game.g.net) is not game.g.net
    return InitialWeights(init.model_copy(update={"sha256": digest}), tensors, origin, averaged)


def describe_initial_weights(initial: InitialWeights, game: Game) -> list[str]:
    """Messages about which tensors a game takes and which keep their initial values, up to ten of these by name.

    Raises:
        RecipeError: nothing but single values and vectors, such as a bias, has the name and shape of one of the game's.
    """
    networks = {"g": game.g.net, "e": game.g.encoder, "d": None if game.d is None else game.d.net}
    lines, left, matrices = [f"initial weights: {initial.origin}"], list[str](), 0
    for name, net in networks.items():
        player = "g" if name == "e" else name  # the encoder belongs to G
        if net is None or player not in initial.init.players:
            continue
        source, label = initial.tensors.get(name), NETWORK_NAMES[name]
        if source is None:
            lines.append(f"{label}: all tensors keep their initial values, because that run has no {label}")
            continue
        source = align_names(net, source)
        state, matches = net.state_dict(), match_tensors(net, source)
        matrices += sum(state[key].dim() > 1 for key in matches.taken)
        size = sum(tensor.numel() for tensor in state.values())
        share = sum(state[key].numel() for key in matches.taken) / max(1, size)
        averaged = " from its averaged weights" if name == "g" and initial.averaged else ""
        lines.append(f"{label}: {len(matches.taken):,} of {len(state):,} tensors ({share:.0%} of the values){averaged}")
        left += describe_left(label, net, source, "that run")
    if not matrices:
        cure = "use the networks of that run: leave RECIPE out, or copy [network] from its recipe.toml"
        what = "no weight of a layer has the name and shape of one in this recipe's networks"
        raise RecipeError(what, where="init.from", found=initial.origin, cure=cure)
    return [*lines, *shortened(left)]
