"""poise itself as one of the systems of `time_to_quality.py`: a run as `poise train` makes it, with its files."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from _peers import Draw, count_parameters
from poise.core.random_streams import RandomStreams
from poise.data.source import DataSplits
from poise.engine.compute import choose_compute
from poise.errors import Stopped
from poise.recipe.decode import decode
from poise.recipe.model import Recipe
from poise.runs.evaluate import MeasuredSamples
from poise.training.default_recipe import steps_within, train_for_steps
from poise.training.state import TrainState
from poise.training.step_time import time_steps
from poise.training.train import open_trainer


def recipe_for(recipe: Recipe, splits: DataSplits, seconds: float, precision: str) -> Recipe:
    """The recipe with the steps that `poise train --time` would give it on a free core: timed in CPU seconds."""
    state = TrainState(recipe, choose_compute("cpu", precision, recipe), splits)
    return train_for_steps(recipe, steps_within(seconds, time_steps(state, time.process_time)))


class Poise:
    """A run of a recipe; see `System`.

    What a run does beside its steps, its rows, alarms, sample grids and checkpoints, counts as training. It is not
    measured by itself. It draws real images itself, from the same training images as the others.

    Args:
        recipe: the recipe, with its seed and its number of steps.
        precision: "auto" or "fp32".
    """

    def __init__(self, recipe: Recipe, precision: str) -> None:
        table = recipe.canonical()
        table.pop("measure", None)
        self.recipe = decode(table)
        with ExitStack() as opened:
            folder = Path(opened.enter_context(TemporaryDirectory())) / "run"
            self.trainer = opened.enter_context(open_trainer(self.recipe, folder, device="cpu", precision=precision))
            opened.enter_context(self.trainer.session())
            self._opened = opened.pop_all()
        state = self.trainer.state
        self.measured = MeasuredSamples(self.recipe, self.trainer.data, RandomStreams(0))
        self.settings = f"{recipe.name}, {recipe.steps:,} steps of {recipe.batch}, {state.compute.precision}"
        self.images_per_step = recipe.batch
        assert state.game.d is not None
        self.parameters = count_parameters(state.game.g.net, state.game.d.net)

    @property
    def ended(self) -> bool:
        """See `System`."""
        return self.trainer.done >= self.recipe.steps

    def step(self, draw: Draw) -> None:
        """See `System.step`."""
        self.trainer.step()

    def sample(self, n: int) -> Tensor:
        """See `System.sample`; always the same latents, with the averaged weights if the recipe has them."""
        return self.measured.samples(self.trainer.state.game.sampling_network(), n)

    def close(self) -> None:
        """End the run and delete its files."""
        with suppress(Stopped), self._opened:
            if not self.ended:
                self.trainer.stop("the benchmark")
