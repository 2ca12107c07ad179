"""Plays games on PyTorch's device `meta`, whose tensors have a shape and no values, in the place of a GPU.

On it, reading a value is impossible, and so is most arithmetic with tensors of another device; `OneDevice` refuses the
rest. What cannot be seen this way are kernels and memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from poise.core.random_streams import RandomStreams
from poise.core.types import MoveContext
from poise.data.source import DataSplits, Source
from poise.engine.batches import RealBatches, bind_latent
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.engine.game import Game
from poise.engine.step_metrics import StepMetrics
from poise.recipe.model import Recipe
from poise.training.critics import make_critics
from poise.training.state import STEP_FUNCTIONS
from poise.tricks import averaged_weights

META = torch.device("meta")
COPIES = ("_to_copy", "copy_", "set_")
"""Parts of the names of operations that move tensors between devices."""


class MetaGenerator(torch.Generator):
    """A generator that pretends to be on the device."""

    device = META


class OneDevice(TorchDispatchMode):
    """Refuses every operation on tensors of several devices, except for copies. Scalars of the host are allowed."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.dim()}
        if len(devices) > 1 and not any(name in str(func) for name in COPIES):
            raise AssertionError(f"{func} was called with tensors on {' and '.join(sorted(devices))}")
        return func(*args, **(kwargs or {}))


@contextmanager
def meta_device() -> Iterator[None]:
    """Let poise compute on META, which has no generators and no autocast: what asks for them is replaced."""
    stream, autocast = RandomStreams.__call__, torch.autocast

    def generator(streams: RandomStreams, name: str, *index: int) -> torch.Generator:
        return MetaGenerator() if streams.device == META else stream(streams, name, *index)

    @contextmanager
    def unseeded(streams: RandomStreams, name: str, *index: int) -> Iterator[None]:
        yield

    with ExitStack() as stack:
        for name, value in (("__call__", generator), ("seeded_global", unseeded), ("seed_global", lambda *_: None)):
            stack.enter_context(patch.object(RandomStreams, name, value))
        stack.enter_context(patch.object(torch, "is_autocast_enabled", lambda _: False))
        stack.enter_context(patch.object(torch, "autocast", lambda _, **given: autocast("cpu", **given)))
        stack.enter_context(patch.object(averaged_weights, "non_finite_buffers", lambda _: frozenset()))
        yield


def play_on_meta_device(recipe: Recipe, source: Source, steps: int = 2) -> Game:
    """Make some steps on META.

    Raises:
        AssertionError, RuntimeError: an operation mixed devices, or a value was read.
    """
    critics, spec = make_critics(recipe, DataSplits(source), torch.device("cpu")).networks, source.spec()
    with meta_device():
        streams = RandomStreams(recipe.seed, META)
        with META:  # `Module.to` can't move modules to META without replacing their weights
            moved = {name: critic.to(META) for name, critic in critics.items()}
            game = build_game(recipe, spec, ComputeSettings(META, "fp32"), streams, critics=moved)
        game.latent = bind_latent(recipe.latent, source, META, mirror=recipe.mirrors_images)
        for player in game.players.values():
            for options in (player.optimizer.defaults, *player.optimizer.param_groups):
                options["fused"] = None
        assert {tensor.device for tensor in (*game.parameters(), *game.buffers())} == {META}
        batches = RealBatches(source, META, max(1, game.tempo.max_moves.d), mirror=recipe.mirrors_images)
        metrics, step = StepMetrics(recipe.objective.decision_threshold), STEP_FUNCTIONS[game.tempo.step_kind]
        with OneDevice():
            for done in range(steps):
                step(game, batches, MoveContext(done, steps, recipe.batch, streams), metrics)
        assert {tensor.device for tensor in metrics.state_dict().values()} == {META}
        return game
