"""A trial step with the user's components, before anything is written: what do they return, and does a step succeed?

A component from a Python file that fails in the first step, or returns what a step can't use, is a mistake in that
file. Here it is reported as one; the rest of the step would fail in another place, or compute something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from poise.core.hooks import ReplacedFakes
from poise.core.types import MoveContext, Targets
from poise.engine.batches import RealBatches, bind_latent
from poise.engine.build import build_game
from poise.engine.game import Game
from poise.engine.step_metrics import StepMetrics
from poise.errors import PoiseError, RecipeError, is_out_of_memory
from poise.recipe.model import Recipe
from poise.runs.state_tensors import layout_of, refuse_changed_layout
from poise.training.state import STEP_FUNCTIONS, TrainState
from poise.user_code.components import UserObjective, UserTrick
from poise.user_code.loading import COMPARE, UserCode, describe_result, fault_of_user_code, short_error, user_components

SMALL_BATCH = 8
"""The number of scores of D in the trial. If the step fails, it is repeated with the batch of the recipe, which a
component may need."""


class Expectation(NamedTuple):
    """What a method must return.

    Attributes:
        what: the requirement, as a clause.
        holds: whether a result, followed by the arguments of the call, meets it.
        cure: what to do otherwise.
    """

    what: str
    holds: Callable[..., bool]
    cure: str = COMPARE


def are_losses(losses: object, *scores: Tensor | None) -> bool:
    """Whether these are losses as an objective returns them: a tuple of tensors, each B or of the scores' shape."""
    shapes = {shape for score in scores if score is not None for shape in (score.shape, score.shape[:1])}
    return isinstance(losses, tuple) and bool(losses) and all(getattr(one, "shape", None) in shapes for one in losses)


def _same_targets(result: object, targets: Targets, *_: object) -> bool:
    shapes = [target.shape for target in targets]
    return isinstance(result, Targets) and [getattr(one, "shape", None) for one in result] == shapes


PER_SAMPLE = "must return a tuple of losses of every sample, each of shape B or B x P like the scores"
NO_MEAN = "leave out the mean, which poise takes after it has selected samples: return (loss,), not loss.mean()"
LOSSES = {
    "d_losses": Expectation(PER_SAMPLE, lambda losses, real, fake, *_: are_losses(losses, real, fake), NO_MEAN),
    "g_losses": Expectation(PER_SAMPLE, lambda losses, fake, real, *_: are_losses(losses, fake, real), NO_MEAN),
}
"""What the methods of an objective must return."""

HOOKS = {
    "transform_input": Expectation(
        "must return a tensor of the shape of its input",
        lambda result, images, *_: getattr(result, "shape", None) == images.shape,
    ),
    "transform_targets": Expectation("must return Targets of the shapes of its input", _same_targets),
    "select_samples": Expectation(
        "must return the indices of samples, a tensor with one dimension, or None",
        lambda result, *_: result is None or getattr(result, "ndim", 0) == 1,
    ),
    "loss": Expectation(
        "must return a 0-dim tensor",
        lambda result, *_: isinstance(result, Tensor) and result.dim() == 0,
        "take the mean over the samples",
    ),
    "replace_fakes": Expectation(
        "must return ReplacedFakes with as many samples as its input",
        lambda result, fake, *_: (
            isinstance(result, ReplacedFakes) and sum(len(part.images) for part in result) == len(fake.images)
        ),
    ),
    "select_network": Expectation("must return a torch.nn.Module", lambda result, *_: isinstance(result, nn.Module)),
}
"""What the hooks of a trick must return; the results of other hooks are not used."""


def check_components(state: TrainState) -> None:
    """Make a step with the components that come from Python files, without any lasting effect.

    Does nothing if the recipe has none. The step is made with a small batch and new networks.

    Args:
        state: the state of the run, which is left as it is.

    Raises:
        RecipeError: the step fails, a component returns what the step can't use, or its state can't be saved.
    """
    recipe = state.recipe
    if not user_components(recipe):
        return
    small = min(recipe.batch, SMALL_BATCH * recipe.pack)
    device = state.compute.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            _try_step(state, recipe.model_copy(update={"batch": small}))
        except RecipeError:
            if small == recipe.batch:
                raise
            _try_step(state, recipe)


def _try_step(state: TrainState, recipe: Recipe) -> None:
    streams, source, compute = state.streams, state.source, replace(state.compute, accumulate=1)
    with _blamed_on(recipe):
        game = build_game(recipe, source.spec(), compute, streams, state.initial, state.critics.networks, state.rows)
        for component, part, methods in _expectations(recipe, game):
            for name, expectation in methods.items():
                if hasattr(part, name):
                    setattr(part, name, _checked(component, name, getattr(part, name), expectation))
        max_d_moves = max(1, game.tempo.max_moves.d)
        batches = RealBatches(source, compute.device, max_d_moves, mirror=recipe.mirrors_images)
        game.latent = bind_latent(recipe.latent, source, compute.device, mirror=recipe.mirrors_images)
        metrics = _CheckedMetrics(recipe)
        streams.seed_global("step", 0)
        step, layout = STEP_FUNCTIONS[game.tempo.step_kind], layout_of(game)
        step(game, batches, MoveContext(0, recipe.steps, recipe.batch, streams), metrics)
        refuse_changed_layout(game, layout, _files(recipe))
        metrics.reduce()


class _CheckedMetrics(StepMetrics):
    """Metrics that refuse what a row can't have."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe.objective.decision_threshold)
        self._where = _files(recipe)

    def add(self, name: str, value: object) -> None:
        """See `StepMetrics.add`."""
        if not isinstance(value, Tensor) or value.dim():
            cure = "log a 0-dim tensor: a mean, or torch.tensor(number)"
            raise RecipeError(f"'{name}' can't be logged", where=self._where, found=describe_result(value), cure=cure)
        super().add(name, value)


def _expectations(recipe: Recipe, game: Game) -> Iterator[tuple[UserCode, nn.Module, dict[str, Expectation]]]:
    """The user's objective and tricks: config, module, and what its methods must return."""
    if isinstance(recipe.objective, UserObjective) and recipe.has_discriminator:
        yield recipe.objective, game.objective, LOSSES
    for config, name in zip(recipe.tricks, recipe.trick_names(), strict=True):
        if isinstance(config, UserTrick):
            yield config, game.tricks[name], HOOKS


def _checked(
    component: UserCode, name: str, method: Callable[..., Any], expectation: Expectation
) -> Callable[..., Any]:
    """The method, with an error if it is missing or returns something else than it must."""

    def call(*arguments: Any) -> Any:
        try:
            result = method(*arguments)
        except NotImplementedError as error:
            if fault_of_user_code(error) is not None:
                raise
            what = f"'{component.name}' has no method '{name}'"
            raise RecipeError(what, where=component.file, cure=COMPARE) from error
        if not expectation.holds(result, *arguments):
            what = f"'{component.name}.{name}' {expectation.what}"
            raise RecipeError(what, where=component.file, found=describe_result(result), cure=expectation.cure)
        return result

    return call


@contextmanager
def _blamed_on(recipe: Recipe) -> Iterator[None]:
    """Let an exception in the block be an error of the user's files, wherever it is raised."""
    try:
        yield
    except PoiseError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        fault = fault_of_user_code(error)
        what = f"a step with this code and a batch of {recipe.batch} fails"
        cure = "see the traceback with --debug"
        raise fault or RecipeError(what, where=_files(recipe), found=short_error(error), cure=cure) from error


def _files(recipe: Recipe) -> str:
    """The Python files of a recipe."""
    return ", ".join(dict.fromkeys(component.file for component in user_components(recipe)))
