"""The training state: the game, its batches and its metrics, new or restored from a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from poise.core.random_streams import RandomStreams
from poise.core.ranks import ALONE, Ranks
from poise.core.types import MoveContext, Side
from poise.data.source import DataSplits
from poise.engine.batches import RealBatches, bind_latent, sampling_latent
from poise.engine.build import build_game
from poise.engine.compute import ComputeSettings
from poise.engine.initial_weights import (
    NETWORK_NAMES,
    ClassRows,
    InitialTensors,
    align_names,
    class_rows,
    describe_left,
    fit_classes,
    shortened,
)
from poise.engine.reconstruction_step import reconstruction_step
from poise.engine.step import alternate, make_move, simultaneous
from poise.engine.step_metrics import StepMetrics
from poise.errors import CheckpointError, PoiseError, RecipeError
from poise.recipe.model import Recipe
from poise.runs import checkpoint, state_tensors
from poise.runs.changes import Changes, changes_from_json, changes_to_json
from poise.runs.resume import changed_recipe, choose_checkpoint, core_hash, cores_of_stages, hash_of_core
from poise.training.critics import make_critics
from poise.training.diagnostics import Diagnostics
from poise.user_code.loading import code_hash, short_error
from poise.watch.monitor import MonitorConfig

STEP_FUNCTIONS = {"alternate": alternate, "simultaneous": simultaneous, "alone": reconstruction_step}
"""The step functions by `Tempo.step_kind`."""

ONE_BY_DEFAULT = {"ranks": 1, "accumulate": 1}
"""The entries of `TrainState.reproducibility_info` that are left out if they are 1."""


def running_statistics(game: nn.Module) -> list[Tensor]:
    """The buffers that follow the batches: running means and variances of batch norm, the mean w of StyleGAN2."""
    norms = [module for module in game.modules() if isinstance(module, _BatchNorm)]
    buffers = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
    named = [(module, name) for module in game.modules() for name in getattr(module, "running_statistics", ())]
    return buffers + [getattr(module, name) for module, name in named]


def check_single_sample_batch(recipe: Recipe, compute: ComputeSettings, data: DataSplits) -> None:
    """Try a step, without any lasting effect, if D sees a single sample (or pack) at a time.

    A norm, a batch statistic or user code may need two. `check_compatibility` refuses only what is known of the
    networks of the package.

    Raises:
        RecipeError: the step fails; the message gives the reason.
    """
    if recipe.batch > recipe.pack:
        return
    try:
        TrainState(recipe, replace(compute, accumulate=1), data).step()
    except (PoiseError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        cure = f"set it to {2 * recipe.pack} or more, or see the traceback with --debug"
        what = f"a step fails with one {'pack' if recipe.pack > 1 else 'sample'} in a batch"
        raise RecipeError(what, where="batch", found=short_error(error), cure=cure) from error


class TrainState:
    """The state of a run after some number of steps.

    Args:
        recipe: the recipe.
        compute: device and precision.
        data: the data splits.
        initial: tensors that the networks start from, instead of their initial values.
        copies: the folder of the copies of frozen critics, if the run is resumed.
        ranks: the processes that train the run together.
        original: the recipe that the run was started with, if it has been changed since (the policy `advise`).
        initial_classes: the names of the classes of the data that `initial` was trained on.

    Attributes:
        rows: where the classes are in `initial`, see `class_rows`.
        changes: the changes since then.
        critics: the frozen critics.
        steps_done: the number of steps done.
        seconds: the time that they took.
        num_rollbacks: how often the run has been rolled back.
        returns: the steps to which it was rolled back, in increasing order, without those of discarded steps.
        alarms: the number of lines of `alarms.jsonl` at the checkpoint that was restored; None if it is unknown.
    """

    def __init__(
        self,
        recipe: Recipe,
        compute: ComputeSettings,
        data: DataSplits,
        initial: InitialTensors | None = None,
        copies: Path | None = None,
        ranks: Ranks = ALONE,
        original: Recipe | None = None,
        initial_classes: Sequence[str] = (),
    ) -> None:
        self.original, self.changes = original or recipe, Changes()
        self.recipe, self.compute, self.data, self.initial, self.ranks = recipe, compute, data, initial, ranks
        self.monitoring = recipe.monitor or MonitorConfig()
        self.source, self.streams = data.train, RandomStreams(recipe.seed, compute.device)
        self.rows = class_rows(initial_classes, self.source.classes)
        self.fingerprint = self.source.fingerprint
        # the files may be edited, and executed anew by another run, before this one ends
        self._code = code_hash(recipe)
        self.num_rollbacks, self.returns = 0, tuple[int, ...]()
        self.alarms: int | None = None
        self._restored_with: dict[str, Any] | None = None
        self.critics = make_critics(recipe, data, compute.device, copies)
        self.initialize()

    def initialize(self, initial: InitialTensors | None = None) -> None:
        """Set the state before the first step, with the networks' tensors of the run's start or with `initial`."""
        spec, critics = self.source.spec(), self.critics.networks
        initial, rows = (self.initial, self.rows) if initial is None else (initial, None)
        self.game = build_game(self.recipe, spec, self.compute, self.streams, initial, critics, rows)
        max_d_moves = max(1, self.game.tempo.max_moves.d)
        self.batches = RealBatches(self.source, self.compute.device, max_d_moves, mirror=self.recipe.mirrors_images)
        mirror = self.recipe.mirrors_images
        self.game.latent = bind_latent(self.recipe.latent, self.source, self.compute.device, mirror=mirror)
        self.sampling_latent = sampling_latent(self.recipe.latent, self.data, self.compute.device)
        self.step_metrics = StepMetrics(self.recipe.objective.decision_threshold)
        self.diagnostics = Diagnostics(self.recipe, self.data, self.game, self.compute.device)
        self.step_function = STEP_FUNCTIONS[self.game.tempo.step_kind]
        for player in self.game.players.values():
            _ = player.optimizer  # built now, so that an invalid option is an error before anything is written
        self.steps_done, self.seconds = 0, 0.0
        self.non_finite_buffers = state_tensors.non_finite_buffers(self.game)
        self._layout = state_tensors.layout_of(self.game)
        self._running_statistics = running_statistics(self.game)
        self._apply_lr_scale()

    def resume(self, saves: Path) -> list[str]:
        """Restore the newest valid checkpoint of this run.

        Returns:
            Notes about checkpoints that were skipped, and about differences that make the run not exactly reproducible.

        Raises:
            CheckpointError, RecipeError: see `choose_checkpoint`.
        """
        restored, skipped = choose_checkpoint(saves, self.recipe, self.fingerprint, self._restore, self.critics.digests)
        self.changes = changes_from_json(restored.state.get("changes", []))
        self._set_progress(restored)
        then, now = (ONE_BY_DEFAULT | info for info in (restored.manifest, self.reproducibility_info()))
        self._restored_with = {key: value for key, value in restored.manifest.items() if key in now and key != "code"}
        changed = [f"{key} {then.get(key)} -> {now[key]}" for key in now if then.get(key) != now[key]]
        notes = [f"skipped a damaged checkpoint: {reason}" for reason in skipped]
        return notes + ([f"the resumed run may not be exactly reproducible: {', '.join(changed)}"] if changed else [])

    def _set_progress(self, restored: checkpoint.Checkpoint) -> None:
        self.steps_done, self.seconds = restored.step, float(restored.state["seconds"])
        self.num_rollbacks = max(self.num_rollbacks, int(restored.state.get("setbacks", 0)))
        self.alarms = restored.state.get("alarms")
        self.returns = checkpoint.returns_in(restored.state)
        self._apply_lr_scale()

    def _restore(self, saved: checkpoint.Checkpoint) -> None:
        state_tensors.refuse_non_finite(saved.tensors, self.non_finite_buffers)
        state_tensors.load_tensors(self.game, self.step_metrics, saved.tensors)

    def change(self, changes: Changes) -> None:
        """Take the recipe with these changes, and set the state before its first step.

        Raises:
            RecipeError: this is no recipe, or its game can't be built; nothing is changed then but the game.
        """
        before = self.recipe, self.changes
        self.recipe, self.changes = changed_recipe(self.original, changes), changes
        try:
            self.initialize()
        except RecipeError:
            self.recipe, self.changes = before
            raise

    def roll_back(self, saves: Path) -> list[str]:
        """Return to the newest checkpoint, or to the beginning, with the recipe as it is now.

        If the checkpoint was written with another recipe of this run, what fits is taken from it. The learning rates
        are lower than before, unless this roll-back tries a change.

        Returns:
            Messages about what was not taken.

        Raises:
            CheckpointError: there is no valid checkpoint, and the beginning is unknown: a resumed run has not read the
                weights that `[init]` names.
        """
        self.num_rollbacks, self.returns = self.num_rollbacks + 1, ()
        self.initialize()
        left: list[str] = []

        def restore(saved: checkpoint.Checkpoint) -> None:
            if saved.manifest.get("core") in (None, core_hash(self.recipe)):
                self._restore(saved)
            else:
                left.extend(self._take(saved))

        stages = {hash_of_core(core) for core in cores_of_stages(self.original, self.changes)}
        try:
            restored, _ = choose_checkpoint(saves, self.recipe, self.fingerprint, restore, self.critics.digests, stages)
            self._set_progress(restored)
        except CheckpointError:
            if not self.knows_beginning:
                raise
            if self.changes and self.initial is not None:
                left.extend(self._not_taken(self.initial, "the initial weights", rows=self.rows))
        self.returns = (*(step for step in self.returns if step < self.steps_done), self.steps_done)
        return left

    def _take(self, saved: checkpoint.Checkpoint) -> list[str]:
        """Take from a checkpoint of another recipe what fits; returns what does not, in one message."""
        state_tensors.refuse_non_finite(saved.tensors, self.non_finite_buffers)
        tensors = state_tensors.align_wrappers(self.game, saved.tensors)
        networks = state_tensors.network_tensors(tensors)
        self.initialize(networks)
        anew = state_tensors.load_matching_tensors(self.game, self.step_metrics, tensors)
        return self._not_taken(networks, "the checkpoint", *(f"{name} starts anew" for name in anew))

    def _not_taken(
        self, networks: InitialTensors, place: str, *others: str, rows: ClassRows | None = None
    ) -> list[str]:
        """What the networks do not take of these tensors, and other messages, in one message; none if there is none."""
        nets = {"g": self.game.g.net, "e": self.game.g.encoder, "d": None if self.game.d is None else self.game.d.net}
        left = [
            message
            for name, net in nets.items()
            if net is not None and name in networks
            for message in describe_left(
                NETWORK_NAMES[name], net, fit_classes(net, align_names(net, networks[name]), rows), place
            )
        ]
        left = [*shortened(left), *others]
        return [f"not taken from {place}: {'; '.join(left)}"] if left else []

    @property
    def knows_beginning(self) -> bool:
        """Whether the state before the first step is known; a resumed run has not read the weights of `[init]`."""
        return self.recipe.init is None or self.initial is not None

    @property
    def lr_scale(self) -> float:
        """The factor of both players' learning rates; a roll-back that tries a change does not lower it."""
        return self.monitoring.back_off ** (self.num_rollbacks - sum(bool(one.options) for one in self.changes))

    def _apply_lr_scale(self) -> None:
        for player in self.game.players.values():
            player.lr_scale = self.lr_scale

    def share(self) -> None:
        """Take the tensors of rank 0, from which those of another machine may differ by rounding.

        Raises:
            CheckpointError: another rank has restored another checkpoint.
        """
        if self.ranks.size > 1:
            most, least = self.ranks.highest(self.steps_done), -self.ranks.highest(-self.steps_done)
            if most != least:
                found = f"step {self.steps_done:,} on rank {self.ranks.rank}, others from {least:,} to {most:,}"
                cure = "all machines must see the same run folder"
                raise CheckpointError("the ranks have read different checkpoints", found=found, cure=cure)
            tensors = state_tensors.collect_tensors(self.game, self.step_metrics)
            self.ranks.copy_from_leader([tensors[name] for name in sorted(tensors) if not name.startswith("ledger/")])

    def average_metrics(self) -> None:
        """Replace the pending metrics, which are of this rank's part of each batch, by their means over the ranks."""
        self.step_metrics.average(self.ranks)

    def step(self) -> None:
        """Make one training step."""
        self.step_function(self.game, self.batches, self._begin_step(), self.step_metrics)
        self.ranks.average(self._running_statistics)
        self.steps_done += 1

    def step_of(self, mover: Side) -> None:
        """Make a step that consists of a single move of one player."""
        make_move(self.game, self.batches, self._begin_step().for_move(mover, 0), self.step_metrics)
        self.steps_done += 1

    def _begin_step(self) -> MoveContext:
        recipe, ranks, self._restored_with = self.recipe, self.ranks, None
        self.streams.seed_global("step", self.steps_done, *([ranks.rank] if ranks.rank else []))
        return MoveContext(
            self.steps_done,
            recipe.steps,
            recipe.batch,
            self.streams,
            ranks=ranks,
            rank=ranks.rank,
            accumulate=self.compute.accumulate,
        )

    def checkpoint_contents(
        self, seconds: float, alarms: int
    ) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
        """The contents of a checkpoint: its tensors, the contents of `state.json` and entries of `MANIFEST.json`.

        Args:
            seconds: the training time so far.
            alarms: the number of lines of `alarms.jsonl`.

        Raises:
            RecipeError: a component has changed the number, the shapes or the types of its tensors.
        """
        recipe = self.recipe
        state_tensors.refuse_changed_layout(self.game, self._layout)
        manifest = {
            "recipe": recipe.hash,
            "core": core_hash(recipe),
            "data": self.fingerprint,
            **self.critic_info(),
            **self.trained_with(),
        }
        state: dict[str, Any] = {
            "seconds": seconds,
            "setbacks": self.num_rollbacks,
            "alarms": alarms,
            "recipe": recipe.core,
        }
        if self.num_rollbacks:
            state["returned_to"] = list(self.returns)
        if self.changes:
            state |= {"original": self.original.core, "changes": changes_to_json(self.changes)}
        return state_tensors.collect_tensors(self.game, self.step_metrics), state, manifest

    def critic_info(self) -> dict[str, Any]:
        """The hashes of the critics, for a checkpoint and for `run.json`; empty if there are none."""
        return {"critics": self.critics.digests} if self.critics.networks else {}

    def reproducibility_info(self) -> dict[str, Any]:
        """What exact reproducibility depends on, apart from the recipe and the data."""
        code, ranks = self._code, self.ranks.size
        return self.compute.settings() | ({"code": code} if code else {}) | ({"ranks": ranks} if ranks > 1 else {})

    def trained_with(self) -> dict[str, Any]:
        """What the last step was made with; `reproducibility_info` says it of the next one.

        They differ if the run has been resumed in another way and no step has been made since. The user's code is
        always that of the next step, as its copies in the run folder are.
        """
        own = self.reproducibility_info()
        if self._restored_with is None:
            return own
        return {key: value for key, value in own.items() if key not in ONE_BY_DEFAULT} | self._restored_with

    def first_non_finite_tensor(self, net: nn.Module) -> str:
        """The name of the first tensor of a network that is unexpectedly not finite; empty if there is none."""
        root = next((f"game/{name}." for name, module in self.game.named_modules() if module is net), "")
        return checkpoint.first_non_finite(
            {n: t for n, t in net.state_dict().items() if f"{root}{n}" not in self.non_finite_buffers}
        )

    def describe_non_finite(self) -> str:
        """The first gradient since the last row that was not finite, as a phrase; empty if all were finite."""
        for side, player in self.game.players.items():
            if (found := self.step_metrics.first_non_finite(f"{side}/grad_norm")) is not None:
                names = [name for name, weight in player.named_weights() if weight.grad is not None]
                same = found.count == len(names)  # other steps may have had gradients of other weights
                return f"{side.upper()}'s gradient" + (f" of {names[found.index]}" if same else "")
        return ""
