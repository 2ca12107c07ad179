"""Fine-tuning: reads the weights that a recipe's table `[init]` names, and describes which of them a game takes.

G and its averages start from the averaged weights of the other run, if it has any, because these generate its samples.
(StyleGAN2-ADA's code resumes G from the non-averaged weights and only the average from the averaged ones.) D and G's
encoder start from their non-averaged weights. Buffers, such as the statistics of batch norms, are taken like weights;
the state of optimisers and of other tricks is not. What belongs to a class, such as its embedding, is taken for the
class of the same name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch

from poise.data.listing import display_name
from poise.engine.game import Game
from poise.engine.initial_weights import (
    MAX_LISTED,
    NETWORK_NAMES,
    ClassRows,
    InitialTensors,
    align_names,
    class_rows,
    class_tensors,
    describe_left,
    fit_classes,
    match_tensors,
    shortened,
)
from poise.errors import RecipeError
from poise.recipe.init import InitConfig
from poise.runs.run import Run
from poise.utils.paths import expand_home
from poise.utils.printing import agree, count_noun, shorten_list


class InitialWeights(NamedTuple):
    """Weights to start from.

    Attributes:
        init: the table `[init]`, with their checksum.
        tensors: the tensors by network.
        origin: where they come from, for messages.
        averaged: whether G's are averaged weights.
        classes: the names of the classes that they were trained on.
    """

    init: InitConfig
    tensors: InitialTensors
    origin: str
    averaged: bool
    classes: tuple[str, ...] = ()


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
    return InitialWeights(init.model_copy(update={"sha256": digest}), tensors, origin, averaged, run.classes)


def describe_initial_weights(initial: InitialWeights, game: Game, classes: Sequence[str] = ()) -> list[str]:
    """Messages about which tensors a game takes and which keep their initial values, up to ten of these by name.

    Args:
        initial: the weights.
        game: the game, which has taken them.
        classes: the names of the classes of its data.

    Raises:
        RecipeError: nothing but single values and vectors, such as a bias, has the name and shape of one of the game's.
    """
    networks = {"g": game.g.net, "e": game.g.encoder, "d": None if game.d is None else game.d.net}
    lines, left, matrices = [f"initial weights: {initial.origin}"], list[str](), 0
    random, found = list[str](), False
    rows, by_class = class_rows(initial.classes, classes), False
    shared = 1.0 if rows is None else sum(row is not None for row in rows) / len(rows)
    for name, net in networks.items():
        player = "g" if name == "e" else name  # the encoder belongs to G
        if player not in initial.init.players:
            continue
        source, label = initial.tensors.get(name), NETWORK_NAMES[name]
        if net is None or source is None:
            if net is not None:
                lines.append(f"{label}: all tensors keep their initial values, because that run has no {label}")
            continue
        found = True
        source = fit_classes(net, align_names(net, source), rows)
        state, matches = net.state_dict(), match_tensors(net, source)
        parts = {key: shared if key in class_tensors(net) else 1.0 for key in matches.taken}
        taken = [key for key, part in parts.items() if part]
        by_class = by_class or not class_tensors(net).isdisjoint(parts)
        matrices += sum(state[key].dim() > 1 for key in taken)
        size = sum(tensor.numel() for tensor in state.values())
        share = sum(parts[key] * state[key].numel() for key in taken) / max(1, size)
        averaged = " from its averaged weights" if name == "g" and initial.averaged else ""
        lines.append(f"{label}: {len(taken):,} of {len(state):,} tensors ({share:.0%} of the values){averaged}")
        left += describe_left(label, net, source, "that run")
        frozen = [key for key, value in net.named_parameters() if not value.requires_grad and key not in taken]
        if frozen:
            random.append(f"warning: {label}'s frozen layers keep random weights: {shorten_list(frozen)}")
    if not found:
        player = initial.init.players[-1]
        label, lacking = player.upper(), "that run" if networks[player] is not None else "this recipe"
        what, cure = f"there is nothing to start from: {lacking} has no {label}", "leave --init-players out"
        raise RecipeError(what, where="init.players", found=initial.origin, cure=cure)
    if not matrices:
        cure = "use the networks of that run: leave RECIPE out, or copy [network] from its recipe.toml"
        what = "no weight of a layer has the name and shape of one in this recipe's networks"
        raise RecipeError(what, where="init.from", found=initial.origin, cure=cure)
    if rows is not None and by_class:
        lines.append(_describe_classes(rows, classes))
    return [*lines, *random, *shortened(left)]


def _describe_classes(rows: ClassRows, classes: Sequence[str]) -> str:
    """A message about the classes that start from the weights of the other run's classes of the same names."""
    new = [display_name(name) for name, row in zip(classes, rows, strict=True) if row is None]
    if not new:
        return "classes: each starts from the weights of the class of the same name"
    if len(new) == len(rows):
        return "classes: the weights of all classes keep their initial values, as that run has none of these names"
    names = ", ".join([*new[:MAX_LISTED], *(["..."] if len(new) > MAX_LISTED else [])])
    start = count_noun(len(rows) - len(new), "class starts", "classes start")
    keep = agree(len(new), "is new and keeps its", "are new and keep their")
    return f"classes: {start} from the weights of the class of the same name; {names} {keep} initial values"
