"""The migration table: names that were documented before version 0.2, and what they are called now.

A retired name still works and warns with a `DeprecationWarning`. `docs/migration.md` shows the same table to people.
Nothing else in the package mentions these names.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

NAMES = {
    "poise.Nobody": "poise.training.listener.NullListener",
    "poise.core.Batch": "poise.core.types.Batch",
    "poise.core.Exchange": "poise.core.move.MoveData",
    "poise.core.Moment": "poise.core.types.MoveContext",
    "poise.core.Side": "poise.core.types.Side",
    "poise.core.Targets": "poise.core.types.Targets",
    "poise.core.Verdict": "poise.core.types.DiscriminatorOutput",
    "poise.data.toys.RingEntry": "poise.data.toys.RingConfig",
    "poise.functional.balls": "poise.functional.prdc",
    "poise.functional.bins": "poise.functional.ndb",
    "poise.objectives.base.Rule": "poise.objectives.base.ObjectiveModule",
    "poise.players.Player": "poise.core.player.Player",
    "poise.randomness.Dice": "poise.core.random_streams.RandomStreams",
    "poise.recipe.shipped.table": "poise.recipe.shipped.load_table",
    "poise.seams.After": "poise.core.hooks.PostUpdate",
    "poise.seams.Aim": "poise.core.hooks.TargetTransform",
    "poise.seams.Grads": "poise.core.hooks.GradientTransform",
    "poise.seams.Offer": "poise.core.hooks.FakeReplacement",
    "poise.seams.Opponent": "poise.core.hooks.OpponentSwap",
    "poise.seams.Pick": "poise.core.hooks.SampleSelection",
    "poise.seams.Surgery": "poise.core.hooks.NetworkTransform",
    "poise.seams.Tempo": "poise.core.hooks.Tempo",
    "poise.seams.Term": "poise.core.hooks.LossTerm",
    "poise.seams.Trick": "poise.core.hooks.Trick",
    "poise.seams.View": "poise.core.hooks.InputTransform",
    "poise.training.feed.Feed": "poise.engine.batches.RealBatches",
    "poise.training.game.Game": "poise.engine.game.Game",
    "poise.training.ledger.Ledger": "poise.engine.step_metrics.StepMetrics",
    "poise.training.step.alternate": "poise.engine.step.alternate",
}
"""Classes and functions by their dotted names."""

TRICK_MEMBERS = {
    "adds_to_score": "modifies_score",
    "adjust": "transform_gradients",
    "aim": "transform_targets",
    "bounds_slope": "bounds_lipschitz",
    "cost": "loss",
    "needs_own_scores": "needs_independent_scores",
    "offer": "replace_fakes",
    "operate": "transform_network",
    "pick": "select_samples",
    "piles": "needs_output",
    "reads": "required_outputs",
    "reads_sign": "needs_score_sign",
    "remember": "after_update",
    "shown": "sampling_network",
    "slopes": "needs_input_gradient",
    "stand_in": "select_network",
    "view": "transform_input",
}
"""What a trick of the user's may define under its old name."""

OBJECTIVE_MEMBERS = {
    "by_sample": "has_per_sample_g_loss",
    "compares": "is_relativistic",
    "d_costs": "d_losses",
    "g_costs": "g_losses",
    "needs_slope_bound": "needs_lipschitz_bound",
    "readings": "extra_metrics",
    "reads": "output_kinds",
    "takes_targets": "accepts_targets",
    "undecided": "decision_threshold",
}
"""What an objective of the user's may define under its old name."""

DISCRIMINATOR_MEMBERS = {"says": "output_kind"}
"""What a discriminator of the user's may define under its old name."""

LISTENER_MEMBERS = {
    "alarm": "on_alarm",
    "end": "on_end",
    "progress": "on_progress",
    "row": "on_row",
    "say": "on_message",
    "start": "on_start",
    "tick": "on_step",
}
"""What a listener of the user's may define under its old name."""


def _warn(old: str, new: str, stacklevel: int) -> None:
    warnings.warn(f"{old} is now called {new} (docs/migration.md)", DeprecationWarning, stacklevel=stacklevel + 1)


def adopt(cls: type, members: Mapping[str, str]) -> None:
    """Give a class the new names of what it defines under retired ones, with a warning for each."""
    for old, new in members.items():
        if old in vars(cls) and new not in vars(cls):
            _warn(f"{cls.__name__}.{old}", f"{cls.__name__}.{new}", stacklevel=3)
            setattr(cls, new, vars(cls)[old])


def renamed_argument(old: str, new: str, retired: dict[str, Any], value: Any) -> Any:
    """The value of a keyword argument that may still be given by its old name.

    Args:
        old: the old name.
        new: what it is called now.
        retired: keyword arguments that the function doesn't know by their names.
        value: what was given under the new name.

    Raises:
        TypeError: `retired` holds something else.
    """
    if unknown := sorted(retired.keys() - {old}):
        raise TypeError(f"unexpected keyword argument '{unknown[0]}'")
    if old in retired:
        _warn(f"the argument {old}", new, stacklevel=3)
        return retired[old]
    return value


def attribute_of(module: str) -> Callable[[str], Any]:
    """A `__getattr__` for a module that still exists: it finds the retired names that once were in it.

    Args:
        module: the module's dotted name.
    """

    def attribute(name: str) -> Any:
        new = NAMES.get(f"{module}.{name}")
        if new is None:
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        _warn(f"{module}.{name}", new, stacklevel=2)
        home, _, found = new.rpartition(".")
        return getattr(import_module(home), found)

    return attribute


class RetiredModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules that are gone, so that `from poise.seams import View` still works."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> Any:
        """See `importlib.abc.MetaPathFinder`."""
        known = fullname.startswith("poise.") and any(name.rpartition(".")[0] == fullname for name in NAMES)
        return importlib.machinery.ModuleSpec(fullname, self) if known else None

    def exec_module(self, module: ModuleType) -> None:
        """See `importlib.abc.Loader`."""
        module.__dict__["__getattr__"] = attribute_of(module.__name__)


def install() -> None:
    """Let retired modules be found; they come last, after all that exist."""
    if not any(isinstance(finder, RetiredModules) for finder in sys.meta_path):
        sys.meta_path.append(RetiredModules())
