"""Where a run stands: the game and what goes with it, put together before the first step or taken up from a save."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poise.core.random_streams import RandomStreams
from poise.core.types import MoveContext
from poise.data.source import DataSplits
from poise.engine.batches import RealBatches
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.engine.reconstruction_step import reconstruction_step
from poise.engine.step import alternate, simultaneous
from poise.engine.step_metrics import StepMetrics
from poise.errors import CheckpointError, PoiseError, RecipeError
from poise.recipe.model import Recipe
from poise.runs import checkpoint, state_tensors
from poise.runs.resume import choose_checkpoint, core_hash
from poise.training.diagnostics import Diagnostics
from poise.user_code.loading import code_hash, short_error
from poise.watch.monitor import MonitorConfig

STEPS = {"alternate": alternate, "simultaneous": simultaneous, "alone": reconstruction_step}
"""What a step is, by the tempo's style."""


def check_single_sample_batch(recipe: Recipe, compute: ComputeSettings, loaded: DataSplits) -> None:
    """Where D judges one sample at a time, a step is tried that leaves nothing behind: not every part can do that.

    A norm, a statistic over the batch or the user's own code may want two; what is known of the package's own
    networks is refused by `fit` already.

    Raises:
        RecipeError: the step fails; says how.
    """
    if recipe.batch > recipe.pack:
        return
    try:
        TrainState(recipe, compute, loaded).step()
    except (PoiseError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        cure = f"set it to {2 * recipe.pack} or more, or look where with --debug"
        what = f"a step fails with one {'pack' if recipe.pack > 1 else 'sample'} in a batch"
        raise RecipeError(what, where="batch", found=short_error(error), cure=cure) from error


class TrainState:
    """A run at one of its steps.

    Args:
        recipe: what is trained.
        compute: where.
        data: on what.

    Attributes:
        steps_done: steps done.
        seconds: what they took.
        num_rollbacks: how often the run had to go back to a save.
        alarms: lines of `alarms.jsonl` at the save that was taken up; None where that does not say.
    """

    def __init__(self, recipe: Recipe, compute: ComputeSettings, data: DataSplits) -> None:
        self.recipe, self.compute, self.data = recipe, compute, data
        self.monitoring = recipe.monitor or MonitorConfig()
        self.source, self.streams = data.train, RandomStreams(recipe.seed, compute.device)
        self.fingerprint = self.source.fingerprint
        self.num_rollbacks = 0
        self.alarms: int | None = None
        self.initialize()

    def initialize(self) -> None:
        """Before the first step."""
        self.game = build_game(self.recipe, self.source.spec(), self.compute, self.streams)
        self.batches = RealBatches(self.source, self.compute.device, max(1, self.game.tempo.max_moves.d))
        self.step_metrics = StepMetrics(self.recipe.objective.decision_threshold)
        self.diagnostics = Diagnostics(self.recipe, self.data, self.game, self.compute.device)
        self.step_function = STEPS[self.game.tempo.step_kind]
        for player in self.game.players.values():
            _ = player.optimizer  # built before anything is written: what it refuses is an error of the start
        self.steps_done, self.seconds = 0, 0.0
        self.non_finite_buffers = state_tensors.non_finite_buffers(self.game)
        self._apply_lr_scale()

    def resume(self, saves: Path) -> list[str]:
        """At the newest save that is whole and of this run; notes on what was passed over, and on another machine.

        Raises:
            CheckpointError, RecipeError: see `pick`.
        """
        past, passed = choose_checkpoint(saves, self.recipe, self.fingerprint, self._restore)
        self.steps_done, self.seconds = past.step, float(past.state["seconds"])
        self.num_rollbacks = max(self.num_rollbacks, int(past.state.get("setbacks", 0)))
        self.alarms = past.state.get("alarms")
        self._apply_lr_scale()
        then, now = past.manifest, self.reproducibility_info()
        changed = [f"{key} {then.get(key)} -> {now[key]}" for key in now if then.get(key) != now[key]]
        notes = [f"passed over a damaged save: {sentence}" for sentence in passed]
        return notes + ([f"resumed, but not promised to be exact: {', '.join(changed)}"] if changed else [])

    def _restore(self, past: checkpoint.Checkpoint) -> None:
        state_tensors.refuse_non_finite(past.tensors, self.non_finite_buffers)
        state_tensors.load_tensors(self.game, self.step_metrics, past.tensors)

    def roll_back(self, saves: Path) -> None:
        """To the newest save or the beginning, with lower rates."""
        self.num_rollbacks += 1
        self.initialize()
        with suppress(CheckpointError):
            self.resume(saves)

    @property
    def lr_scale(self) -> float:
        """What both rates are multiplied with."""
        return self.monitoring.back_off**self.num_rollbacks

    def _apply_lr_scale(self) -> None:
        for player in self.game.players.values():
            player.lr_scale = self.lr_scale

    def step(self) -> None:
        """One step further."""
        context = MoveContext(self.steps_done, self.recipe.steps, self.recipe.batch, self.streams)
        self.streams.seed_global("step", self.steps_done)
        self.step_function(self.game, self.batches, context, self.step_metrics)
        self.steps_done += 1

    def checkpoint_contents(
        self, seconds: float, alarms: int
    ) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
        """What a save holds: tensors, what goes with them, what it stands on."""
        recipe = self.recipe
        facts = {
            "recipe": recipe.hash,
            "core": core_hash(recipe),
            "data": self.fingerprint,
            **self.reproducibility_info(),
        }
        words = {"seconds": seconds, "setbacks": self.num_rollbacks, "alarms": alarms, "recipe": recipe.core}
        return state_tensors.collect_tensors(self.game, self.step_metrics), words, facts

    def reproducibility_info(self) -> dict[str, Any]:
        """What exact repetition depends on, beside recipe and data."""
        code = code_hash(self.recipe)
        return self.compute.settings() | ({"code": code} if code else {})

    def first_non_finite_tensor(self, net: nn.Module) -> str:
        """The first tensor of a network of the game's that is not finite and should be, by name; empty if none is."""
        root = next((f"game/{name}." for name, module in self.game.named_modules() if module is net), "")
        return checkpoint.first_non_finite(
            {n: t for n, t in net.state_dict().items() if f"{root}{n}" not in self.non_finite_buffers}
        )

    def describe_non_finite(self) -> str:
        """Which gradient was the first that was not finite, in words; nothing if all were."""
        for side, player in self.game.players.items():
            if (found := self.step_metrics.first_non_finite(f"{side}/grad_norm")) is not None:
                names = [name for name, weight in player.named_weights() if weight.grad is not None]
                same = found.count == len(names)  # a later step may have had other gradients
                return f"{side.upper()}'s gradient" + (f" of {names[found.index]}" if same else "")
        return ""
